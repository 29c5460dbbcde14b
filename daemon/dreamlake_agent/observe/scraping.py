"""Scraping: the socket at which metrics and health are read, on a Unix path or on 127.0.0.1.

A little of HTTP/1.1, in one thread that waits for no one: each connection is one request and its answer, within
``METRICS_REQUEST_SECONDS``, of ``METRICS_HEAD_BYTES`` at most. The loop gives it what it answers with; so whoever
connects, and whatever they send, the agent's work does not notice.

A web page in a browser on this machine can send requests to a port of it, and with a name that was made to lead here
it could read the answers. So a ``Host`` that is not this machine's is refused, and so is what says that it comes from a
page.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from dreamlake import config
from dreamlake.world.sockets import answers, listening_socket

Answer = Callable[[str], "tuple[int, str, bytes] | None"]

LOOPBACK = "127.0.0.1"
_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_REQUEST = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,2000}) HTTP/1\.[01]")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_CHUNK_BYTES = 64 << 10
_PLAIN = "text/plain; charset=utf-8"


class CannotListen(Exception):
    """Nothing can be scraped at that place now; the message says why."""


@dataclass
class _Connection:
    socket: socket.socket
    deadline: float
    heard: bytearray = field(default_factory=bytearray)
    answer: memoryview | None = None  # what is left of it; None before the request is whole
    is_said: bool = False  # and only what the other side still sends is to be thrown away


class Scraping:
    """Listens from now on. ``answer`` gives status, content type and body of a path, or None where there is nothing; it
    is called in the thread of this one."""

    def __init__(self, place: str | int, answer: Answer) -> None:
        self._answer = answer
        self._listener = _listen(place)
        self._is_tcp = isinstance(place, int)
        self._path = place if isinstance(place, str) else None
        self._made = _identity(self._path)
        self.address = self._path or f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"
        self._connections: dict[int, _Connection] = {}  # by descriptor, oldest first
        self._reader, self._ender = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._reader, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="scraping", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it listens, and where it was asked to: somebody may have removed its socket."""
        return self._thread.is_alive() and _identity(self._path) == self._made

    def close(self) -> None:
        os.write(self._ender, b"e")
        self._thread.join()
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._selector.close()
        self._listener.close()
        os.close(self._reader)
        os.close(self._ender)
        if self._path is not None and _identity(self._path) == self._made:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    # ── the thread ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._seconds_left()):
                if key.fd == self._reader:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                    continue
                connection = self._connections.get(key.fd)
                if connection is not None:
                    try:
                        self._turn(connection)
                    except OSError:  # whoever it was has gone
                        self._drop(connection)
            now = time.monotonic()
            for connection in [each for each in self._connections.values() if each.deadline <= now]:
                self._drop(connection)

    def _seconds_left(self) -> float | None:
        if not self._connections:
            return None
        return max(0.0, min(each.deadline for each in self._connections.values()) - time.monotonic())

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            # Gone again; or no descriptor is left, and then the others are more important than who asks.
            time.sleep(config.TICK_SECONDS)
            return
        accepted.setblocking(False)
        if len(self._connections) >= config.METRICS_CONNECTIONS:
            self._drop(next(iter(self._connections.values())))
        connection = _Connection(accepted, time.monotonic() + config.METRICS_REQUEST_SECONDS)
        self._connections[accepted.fileno()] = connection
        self._selector.register(accepted, selectors.EVENT_READ)

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection.socket.fileno(), None)
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _turn(self, connection: _Connection) -> None:
        if connection.answer is None or connection.is_said:
            try:
                heard = connection.socket.recv(_CHUNK_BYTES)
            except BlockingIOError:
                return
            if not heard:
                self._drop(connection)
                return
            if connection.is_said:
                return
            connection.heard += heard
            said = self._said(bytes(connection.heard))
            if said is None:
                return
            connection.answer = memoryview(said)
            self._selector.modify(connection.socket, selectors.EVENT_WRITE)
        with contextlib.suppress(BlockingIOError):
            connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        if not connection.answer:
            # Closed with something unread, the other side might lose what it has not read of the answer.
            connection.is_said = True
            connection.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(connection.socket, selectors.EVENT_READ)

    # ── the protocol ────────────────────────────────────────────────────────────────────────────────────────────────

    def _said(self, heard: bytes) -> bytes | None:
        """The answer to what was heard; None while the request is not whole."""
        head, end, _ = heard.partition(b"\r\n\r\n")
        if len(head) > config.METRICS_HEAD_BYTES:
            return _response(431, f"a request is {config.METRICS_HEAD_BYTES} bytes at most")
        if not end:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        request = _REQUEST.fullmatch(first)
        headers = [_HEADER.fullmatch(line) for line in lines]
        if request is None or None in headers:
            return _response(400, "this is no request of HTTP/1.1")
        method, path = request[1], request[2].partition("?")[0]
        refusal = self._refusal([(each[1].lower(), each[2].strip()) for each in headers if each])
        if refusal is not None:
            return refusal
        if method not in ("GET", "HEAD"):
            return _response(405, "this can be read, and nothing else", more="Allow: GET, HEAD\r\n")
        found = self._answer(path)
        if found is None:
            return _response(404, "there are /metrics and /health", is_head=method == "HEAD")
        status, kind, body = found
        return _response(status, body, kind, is_head=method == "HEAD")

    def _refusal(self, headers: list[tuple[str, str]]) -> bytes | None:
        if self._is_tcp:
            hosts = [value for name, value in headers if name == "host"]
            if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
                return _response(421, "this is shown to this machine alone: ask for it at 127.0.0.1")
        if any(name == "origin" or (name == "sec-fetch-site" and value.lower() != "none") for name, value in headers):
            return _response(403, "this is not shown to pages of other sites")
        return None


def _response(status: int, body: str | bytes, kind: str = _PLAIN, more: str = "", *, is_head: bool = False) -> bytes:
    content = f"{body}\n".encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        f"{more}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if is_head else content)


# ── the place ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _listen(place: str | int) -> socket.socket:
    if isinstance(place, int):
        try:
            return socket.create_server((LOOPBACK, place), backlog=socket.SOMAXCONN)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise CannotListen(f"port {place} of {LOOPBACK} cannot be had for metrics: {why}") from None
    try:
        _look_at_folder(os.path.dirname(place))
        found = None
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(place, follow_symlinks=False)
        if found is not None and not stat.S_ISSOCK(found.st_mode):
            raise CannotListen(f"{place} is there, and no socket: nothing of it is overwritten; choose another path")
        if found is not None and answers(place):
            raise CannotListen(f"somebody else listens at {place}")
        return listening_socket(place)
    except OSError as error:
        raise CannotListen(f"there can be no socket for metrics at {place}: {error.strerror or error}") from None


def _look_at_folder(folder: str) -> None:
    """Ours, and nobody else may put something into it; made when it is missing."""
    if not os.path.isdir(folder):
        config.own_folder(folder)
    found = os.stat(folder)
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise CannotListen(
            f"{folder} is not yours alone to write in: choose a path in a folder that is, for the socket for metrics"
        )


def _identity(path: str | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino
