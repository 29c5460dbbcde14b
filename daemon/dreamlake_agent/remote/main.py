"""``python -m dreamlake_agent.remote.main``: the uploader. The agent starts it when there is something to send.

It is told of jobs on standard input and answers on standard output, a line of JSON each::

    → {"job": 7, "path": "/data/project/run", "url": "https://…", "user": null, "lane": "logs", "unless": null}
    ← {"job": 7, "behind": [120, 9211]}
    ← {"job": 7, "ended": "sent", "problems": [], "token": "5d0c…", "chance": 0.31}

These lines are :data:`~dreamlake_agent.remote.protocol.PROTOCOL`. The agent says as an argument which it speaks, since
another release may have been installed over the one that it runs from; a job of another protocol is answered ``busy``,
and what to do.

It holds no token but in memory: it reads them from the store of :mod:`dreamlake.remote.credentials`. When its standard
input ends it ends, in the middle of whatever it does: what was not acked is sent again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from dreamlake.wire import jsons
from dreamlake_agent.remote.jobs import Jobs
from dreamlake_agent.remote.protocol import OTHER, PROTOCOL

_NICENESS = 10  # training comes first


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is the agent's
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    # Whoever prints does not print among the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    said = threading.Lock()

    def say(answer: dict[str, Any]) -> None:
        with said:
            try:
                answers.write(jsons.encode(answer) + b"\n")
            except BrokenPipeError:
                os._exit(0)

    jobs = Jobs(say)
    # The agent of 0.3, which says nothing, speaks the first.
    is_spoken = sys.argv[1:] in ([], [str(PROTOCOL)])
    for line in sys.stdin.buffer:
        job = jsons.loads(line)
        if is_spoken:
            jobs.start(job)
        else:
            say({"job": job["job"], "ended": "busy", "text": OTHER, "chance": 1.0})
    os._exit(0)  # threads may wait for a server for minutes


if __name__ == "__main__":
    sys.exit(main())
