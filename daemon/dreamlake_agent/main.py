"""``python -m dreamlake_agent.main [--detach]``: the agent's process.

With ``--detach`` it leaves the terminal, the session and the parent behind, and the first process ends when the agent
is ready: 0 when one is ready (this one or one that was there before), 1 with the reason on standard error when none
can be.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from dreamlake_agent.lifecycle import AlreadyRunning, CannotStart, lock, run, usable_folder, wait_until_it_answers

_READY = b"ready"


def main(arguments: list[str]) -> int:
    try:
        folder = usable_folder()
    except CannotStart as reason:
        print(f"dreamlake agent cannot start: {reason}", file=sys.stderr)
        return 1
    return _detached(folder) if "--detach" in arguments else _foreground(folder, lambda: None)


def _foreground(folder: str, ready: Callable[[], object]) -> int:
    try:
        run(folder, lock(folder), ready)
    except AlreadyRunning as who:
        print(f"dreamlake agent is running already: {who}", file=sys.stderr)
        return 1
    except (CannotStart, OSError) as reason:
        print(f"dreamlake agent cannot start: {reason}", file=sys.stderr)
        return 1
    return 0


def _detached(folder: str) -> int:
    """Fork before anything has a thread or a socket; the child becomes the agent, the parent waits for its word."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _become_daemon(folder, writer)
    os.close(writer)
    told = b""
    while chunk := os.read(reader, 4096):
        told += chunk
        if told.startswith(_READY):
            return 0
    print(told.decode(errors="replace").strip() or "dreamlake agent ended while starting", file=sys.stderr)
    return 1


def _become_daemon(folder: str, writer: int) -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    code = 1
    try:
        run(folder, lock(folder), lambda: _tell(writer, _READY))
        code = 0
    except AlreadyRunning as who:
        ready = wait_until_it_answers(folder)
        os.write(writer, _READY if ready else f"an agent ({who}) holds the lock and does not answer".encode())
        code = 0 if ready else 1
    except BaseException as reason:
        try:
            os.write(writer, f"dreamlake agent cannot start: {reason}".encode())
        except OSError:
            pass
    finally:
        os._exit(code)


def _tell(writer: int, word: bytes) -> None:
    os.write(writer, word)
    os.close(writer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
