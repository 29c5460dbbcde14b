"""``python -m dreamlake_agent.remote.main``: the uploader. The agent starts it when there is something to send.

It is told of jobs on standard input and answers on standard output, a line of JSON each::

    → {"job": 7, "path": "/data/project/run", "url": "https://…", "user": null, "lane": "logs", "unless": null}
    ← {"job": 7, "behind": [120, 9211]}
    ← {"job": 7, "ended": "sent", "problems": [], "token": "5d0c…", "chance": 0.31}

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
    for line in sys.stdin.buffer:
        jobs.start(jsons.loads(line))
    os._exit(0)  # threads may wait for a server for minutes


if __name__ == "__main__":
    sys.exit(main())
