"""Run a command, wait for all that it started, and say what all used. Prints what the command prints, then JSON.

reaped.py SECONDS COMMAND… -- LAST…   LAST runs when COMMAND has ended, to end what that left running; what is still
there SECONDS later is killed
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, linux/prctl.h: orphans below us become our children


def main(seconds: float, command: list[str], last: list[str]) -> int:
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
    status = subprocess.run(command, check=False).returncode
    subprocess.run(last, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
    deadline = time.monotonic() + seconds
    killed = 0
    while True:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            if time.monotonic() > deadline:
                for child in psutil.Process().children(recursive=True):
                    killed += 1
                    child.send_signal(signal.SIGKILL)
            time.sleep(0.01)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print("\n" + json.dumps({"cpu": used.ru_utime + used.ru_stime, "killed": killed}), flush=True)
    return status


if __name__ == "__main__":
    middle = sys.argv.index("--", 2)
    sys.exit(main(float(sys.argv[1]), sys.argv[2:middle], sys.argv[middle + 1 :]))
