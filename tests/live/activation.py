"""What systemd does for a service with a socket, without systemd: it holds the socket, starts the service when somebody
has come, and hears what the service says."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import POLL_SECONDS, wait_for

# The pid is known in the process only, and the first descriptor that is handed over is 3.
STARTED = """
import os, sys
given = [int(fd) for fd in sys.argv[1].split(",") if fd]
for at, fd in enumerate(given):
    os.dup2(fd, 3 + at, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES="agent.sock")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[2:]])
"""
AGENT = "import sys; from dreamlake.cli import main; sys.argv[1:] = ['agent', 'run']; main()"


def start(*sockets: socket.socket, program: str = AGENT, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """An agent in the foreground that is handed these sockets."""
    fds = [each.fileno() for each in sockets]
    return subprocess.Popen(
        [sys.executable, "-c", STARTED, ",".join(map(str, fds)), program],
        env={**os.environ, **(env or {})},
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def listening(path: Path) -> socket.socket:
    """As systemd makes one: bound to the very name."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(path))
    path.chmod(0o600)
    made.listen(4096)
    return made


class Held:
    """A socket that is held while agents come and go: one is started when somebody has come and there is none."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self.path = path
        self.program = AGENT
        path.unlink(missing_ok=True)
        self.listener = listening(path)
        self.started: list[subprocess.Popen[str]] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            if self.started and self.started[-1].poll() is None:
                self._ends.wait(POLL_SECONDS)
            elif select.select([self.listener], [], [], POLL_SECONDS)[0]:
                self.started.append(start(self.listener, program=self.program))

    def end(self) -> None:
        self._ends.set()
        self._thread.join()
        self.listener.close()
        self.path.unlink(missing_ok=True)
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.communicate(timeout=30)


@contextlib.contextmanager
def held(path: Path) -> Iterator[Held]:
    holder = Held(path)
    try:
        yield holder
    finally:
        holder.end()


class Heard:
    """A notify socket, and every line that came to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.setblocking(False)
        self.lines: list[str] = []

    def wait_for(self, line: str, times: int = 1) -> None:
        wait_for(lambda: self.all().count(line) >= times)

    def all(self) -> list[str]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self._socket.recv(4096).decode().splitlines()
        return self.lines

    def close(self) -> None:
        self._socket.close()
