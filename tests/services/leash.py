"""Become a command that the kernel kills when the process that asked for it is gone, whatever ended that one.

Run as ``python leash.py PID COMMAND...``, where PID is the caller's. A program of its own, since in ``preexec_fn`` it
would run Python between fork and exec of a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    asked_by, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != asked_by:
        sys.exit(1)  # gone before the kernel was told to look after it
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
