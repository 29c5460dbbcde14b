"""systemd, as an agent in the foreground meets it: the socket it was given, and the watchdog that it feeds.

systemd goes on holding the socket while agents come and go. So it is not ours to remove, and what connects meanwhile
waits in it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from dreamlake.systemd import Notifier

SOCKET_AGAIN = "systemctl --user restart dreamlake-agent.socket"
_FIRST_FD = 3
_AGAIN = "see `dreamlake agent install`"
_VARIABLES = ("WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_BEATS = 2  # in the time after which systemd counts us as stuck


class WrongSocket(Exception):
    """What systemd has handed over is not this agent's socket; the message says why and what to try."""


class Service:
    """One agent, as a service. Without systemd it has no socket, and what it says goes nowhere."""

    def __init__(self, notifier: Notifier, watchdog_seconds: float | None = None, fds: int = 0) -> None:
        self._notifier = notifier
        self._every = watchdog_seconds / _BEATS if watchdog_seconds else None
        self._fds = fds
        self._beaten = -1e9
        self._status = ""

    @classmethod
    def taken(cls) -> Service:
        """What this process was given, once: children must take nothing of it for theirs."""
        given = {name: os.environ.pop(name, "") for name in _VARIABLES}
        notifier = Notifier.taken()
        ours = str(os.getpid())
        seconds = None
        if given["WATCHDOG_PID"] in ("", ours) and given["WATCHDOG_USEC"].isdecimal():
            seconds = int(given["WATCHDOG_USEC"]) / 1e6
        fds = int(given["LISTEN_FDS"]) if given["LISTEN_PID"] == ours and given["LISTEN_FDS"].isdecimal() else 0
        for fd in range(_FIRST_FD, _FIRST_FD + fds):
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
        return cls(notifier, seconds, fds)

    @classmethod
    def none(cls) -> Service:
        return cls(Notifier(None))

    @property
    def is_activated(self) -> bool:
        """Whether systemd listens for us."""
        return self._fds > 0

    def listener(self, path: str) -> socket.socket | None:
        """The socket that systemd holds at ``path``; None when it holds none. :class:`WrongSocket` for any other."""
        if not self._fds:
            return None
        if self._fds > 1:
            raise WrongSocket(f"systemd hands over {self._fds} sockets, and an agent has one: {_AGAIN}")
        try:
            given = socket.socket(fileno=_FIRST_FD)
        except OSError as error:
            raise WrongSocket(f"what systemd hands over is no socket: {error.strerror}; {_AGAIN}") from None
        try:
            _check(given, path)
        except WrongSocket:
            given.detach()
            raise
        return given

    def turn_away(self) -> None:
        """Hang up on whoever waits in the socket, or systemd would start us again at once, for the same failure."""
        for fd in range(_FIRST_FD, _FIRST_FD + self._fds):
            with contextlib.suppress(OSError), socket.socket(fileno=fd) as given:
                given.setblocking(False)
                while True:
                    given.accept()[0].close()

    def waiting(self, whom: str) -> None:
        self._show(f"waits for another agent to end: {whom}")

    def ready(self) -> None:
        self._notifier.say("READY=1")

    def beat(self, now: float, sessions: int) -> None:
        """Called from the loop's own turn: one that is stuck is not heard of, and systemd ends it."""
        if (
            self._every is not None
            and now - self._beaten >= self._every
            and self._notifier.say("WATCHDOG=1", seconds=0)
        ):
            self._beaten = now
        self._show("keeps 1 session" if sessions == 1 else f"keeps {sessions} sessions")

    def stopping(self) -> None:
        self._notifier.say("STOPPING=1", "STATUS=makes the last of it durable")

    def _show(self, status: str) -> None:
        if status != self._status and self._notifier.say(f"STATUS={status}", seconds=0):
            self._status = status


def _check(given: socket.socket, path: str) -> None:
    if (given.family, given.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise WrongSocket(f"systemd hands over a socket that is no stream on this machine: {_AGAIN}")
    if not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise WrongSocket(f"systemd hands over a socket that does not listen (Accept=no is meant): {_AGAIN}")
    if given.getsockname() != path:
        raise WrongSocket(f"systemd listens at {given.getsockname()!r}, and scripts look at {path!r}: {_AGAIN}")
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(path, follow_symlinks=False)
        if found.st_uid != os.getuid() or not stat.S_ISSOCK(found.st_mode):
            raise WrongSocket(f"{path} is not a socket of yours: {_AGAIN}")
