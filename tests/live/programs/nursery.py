"""Forks scribes and agents that need not import anything first: fifty power losses would be mostly imports.

Reads one request a line on stdin, ``["agent"]``, ``["scribe", …]`` or ``["visitor", …]``, and answers with a pid.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import zmq  # noqa: F401  so that the children have it

sys.path.insert(0, str(Path(__file__).parents[3]))

from dreamlake import Session
from dreamlake.link import LinkThread  # noqa: F401
from dreamlake.writer import Writer  # noqa: F401
from dreamlake_agent.main import main as be_agent
from tests.live.programs.scribe import main as be_scribe


def visit(root: str, name: str) -> None:
    """Open and close the session: when that is done, everything that stood in journals is in the logs and views."""
    Session(name, "project", local_path=root).open().close()


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        what, words, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with open(words, "ab", buffering=0) as out:
                os.dup2(out.fileno(), 1)
            code = 1
            try:
                if what == "agent":
                    code = be_agent([])
                else:
                    {"scribe": be_scribe, "visitor": visit}[what](*arguments)
                    code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)


main()
