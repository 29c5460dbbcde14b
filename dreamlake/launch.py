"""Launch: start an agent, or find the one that somebody else has just started."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time

from dreamlake import config
from dreamlake.world.endpoints import find_agent

_START_LOCK = "start.lock"
# Between two looks whether the other one is done: first, and at most. They grow, or 360 who look leave it no processor.
_LOOK_SECONDS = (0.02, 0.5)
# No -m: it would put the user's working directory, with whatever files are in it, before ours.
_PROGRAM = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    "from dreamlake_agent.main import main; sys.exit(main(['--detach']))"
)

# Another thread's fork waits while a process is being started: its child would inherit the pipes on which we wait for
# that process, and we would wait for as long as the child lives.
_spawning = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_spawning.acquire, after_in_parent=_spawning.release, after_in_child=_spawning.release)


class CannotStart(Exception):
    """No agent could be started; the message says why."""


def start_agent(seconds: float = config.OPEN_SECONDS) -> str:
    """Start an agent unless somebody else just has; returns its endpoint once it is ready. :class:`CannotStart`.

    Of many processes that come at once, one starts it: the others wait for the lock and then find it.
    """
    deadline = time.monotonic() + seconds
    wait, most = _LOOK_SECONDS
    fd = _open_lock()
    try:
        while True:
            found = find_agent()
            if found is not None:
                return found
            try:
                # Not flock: a child that this process forks meanwhile would keep it, and no agent be started while it
                # lives. This one is the process's own.
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() >= deadline:
                    raise CannotStart("another process is starting it and has not finished") from None
                time.sleep(wait)
                wait = min(most, wait * 1.5)
        found = find_agent()
        if found is not None:
            return found
        _spawn(deadline - time.monotonic())
        found = find_agent()
        if found is None:
            raise CannotStart("it started and does not answer; see `dreamlake agent logs`")
        return found
    finally:
        os.close(fd)


def _open_lock() -> int:
    """In the last place that there is, which a login shell and a batch job both have, whatever else they see: in the
    first, each would take its own lock and start an agent of its own."""
    reasons: list[str] = []
    for folder in reversed(config.runtime_folders()):
        try:
            config.own_folder(folder)
        except OSError as error:
            reasons.append(str(error))
            continue
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(os.path.join(folder, _START_LOCK), flags, 0o600)
        except OSError as error:
            reasons.append(f"cannot write to {folder}: {error.strerror}")
    raise CannotStart("; ".join(reasons) or "no place for its socket: set DREAMLAKE_HOME")


def _spawn(seconds: float) -> None:
    import subprocess  # 3 ms, which an open() that finds an agent need not pay

    try:
        with _spawning:
            process = subprocess.Popen(
                [sys.executable or "python3", "-c", _PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
    except OSError as error:
        raise CannotStart(f"{sys.executable}: {error.strerror}") from None
    with process:
        try:
            _, told = process.communicate(timeout=max(1.0, seconds))
        except subprocess.TimeoutExpired:
            process.kill()
            raise CannotStart(f"it was not ready within {seconds:.0f} s") from None
    if process.returncode != 0:
        lines = told.decode(errors="replace").strip().splitlines()
        raise CannotStart(lines[-1] if lines else f"it ended with {process.returncode}")
