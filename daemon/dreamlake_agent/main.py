"""``python -m dreamlake_agent.main [--detach [--after PID]]``: the agent's process.

With ``--detach`` it leaves the terminal, the session and the parent behind, and the first process ends when the agent
is ready: 0 when one is ready (this one or one that was there before), 1 with the reason on standard error when none
can be. With ``--after`` it waits for that one to end, and says so on standard output when it has all of its
code and begins to wait.
"""

from __future__ import annotations

import os
import sys
import time

from dreamlake import config
from dreamlake.world import processes
from dreamlake_agent.lifecycle import AlreadyRunning, CannotStart, lock, run, usable_folder, wait_until_it_answers
from dreamlake_agent.systemd import Service, WrongSocket

IS_RUNNING = 4  # exit codes of an agent in the foreground: another one has the folder,
WRONG_SOCKET = 5  # and systemd has handed over another socket than this agent's. The unit names both
WAITING = b"waiting\n"
_READY = b"ready"
_LOOK_SECONDS = 0.005


def main(arguments: list[str]) -> int:
    service = Service.taken()
    try:
        folder = usable_folder()
    except CannotStart as reason:
        print(f"dreamlake agent cannot start: {reason}", file=sys.stderr)
        return 1
    if "--detach" not in arguments:
        return _foreground(folder, service)
    return _detached(folder, int(arguments[arguments.index("--after") + 1]) if "--after" in arguments else None)


def _foreground(folder: str, service: Service) -> int:
    try:
        run(folder, _lock_in_turn(folder, service), lambda: None, service)
    except AlreadyRunning as who:
        service.turn_away()
        print(f"dreamlake agent is running already: {who}", file=sys.stderr)
        return IS_RUNNING
    except WrongSocket as reason:
        service.turn_away()
        print(f"dreamlake agent cannot start: {reason}", file=sys.stderr)
        return WRONG_SOCKET
    except (CannotStart, OSError) as reason:
        print(f"dreamlake agent cannot start: {reason}", file=sys.stderr)
        return 1
    return 0


def _lock_in_turn(folder: str, service: Service) -> int:
    """The agent that is to have systemd's socket waits for the one before it, which ends when it sees that socket."""
    deadline = time.monotonic() + (config.HANDOVER_SECONDS if service.is_activated else 0.0)
    while True:
        try:
            return lock(folder)
        except AlreadyRunning as who:
            if time.monotonic() >= deadline:
                raise
            service.waiting(str(who))
            time.sleep(config.TICK_SECONDS)


def _detached(folder: str, before: int | None) -> int:
    """Fork before anything has a thread or a socket; the child becomes the agent, the parent waits for its word."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        _become_daemon(folder, writer, before)
    os.close(writer)
    told = b""
    while chunk := os.read(reader, 4096):
        told += chunk
        if told.startswith(WAITING):
            os.write(1, WAITING)
            told = told.removeprefix(WAITING)
        if told.startswith(_READY):
            return 0
    print(told.decode(errors="replace").strip() or "dreamlake agent ended while starting", file=sys.stderr)
    return 1


def _become_daemon(folder: str, writer: int, before: int | None) -> None:
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    code = 1
    try:
        if before is not None:
            os.write(writer, WAITING)
            _wait_for_the_end(before)
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


def _wait_for_the_end(pid: int) -> None:
    parent = os.getppid()
    while processes.start_time(pid) is not None:
        if os.getppid() != parent:
            raise CannotStart("whoever wanted it has given up")
        time.sleep(_LOOK_SECONDS)


def _tell(writer: int, word: bytes) -> None:
    os.write(writer, word)
    os.close(writer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
