"""Sockets: ZeroMQ, as the link and the agent see it. The only file that names it.

A client holds a :class:`Line`, the agent a :class:`Hub`; both carry messages of a few frames. Nothing here is durable:
what a message carried is in a journal until it is acked.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import struct
from typing import Protocol

import zmq

# A batch is one record (8 MiB) at most, or credit (1 MiB), and a little more.
MESSAGE_BYTES_MAX = 9 << 20
_PEER = struct.Struct("iII")  # ucred(7): pid, uid, gid
_HUB_QUEUE = 8  # messages per client that wait in ZeroMQ: of who keeps to no credit, so many of the largest
_BACKLOG = 4096  # 360 ranks may connect in one second


class Line(Protocol):
    """A client's end. ``send`` is False when nothing can be sent now; ``receive`` is None when nothing has come."""

    def send(self, frames: list[bytes]) -> bool: ...
    def receive(self) -> list[bytes] | None: ...
    def close(self) -> None: ...


class Hub(Protocol):
    """The agent's end. A message to a peer that has gone, or does not read, is dropped: the peer will ask."""

    def receive(self) -> tuple[bytes, list[bytes]] | None: ...
    def send(self, peer: bytes, frames: list[bytes]) -> None: ...
    def close(self) -> None: ...


class _Waker:
    """A pipe by which another thread, or a signal handler, ends a poll."""

    def __init__(self) -> None:
        self.fd, self._out = os.pipe()
        for fd in (self.fd, self._out):
            os.set_blocking(fd, False)

    def wake(self) -> None:
        try:
            os.write(self._out, b"w")
        except OSError:
            pass  # full: it will wake all the same

    def drain(self) -> None:
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._out)


class ZmqLines:
    """Every line of this process: one context, one poll, and a pipe by which other threads can end the wait."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._waker = _Waker()
        self._poller.register(self._waker.fd, zmq.POLLIN)
        self._doze = select.poll()
        self._doze.register(self._waker.fd, select.POLLIN)

    def connect(self, endpoint: str) -> ZmqLine:
        dealer = self._context.socket(zmq.DEALER)
        # LINGER 0: what is not acked is in the journal; a process that ends must not wait for a socket.
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.SNDHWM, 64)
        dealer.set(zmq.RECONNECT_IVL, 50)
        dealer.set(zmq.RECONNECT_IVL_MAX, 1000)
        dealer.set(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        dealer.connect(endpoint)
        self._poller.register(dealer, zmq.POLLIN)
        return ZmqLine(dealer, self._poller)

    def wait(self, seconds: float) -> bool:
        """Until something has come on a line, ``wake`` was called (both: True), or the time is over."""
        found = self._poller.poll(max(0, int(seconds * 1000)))
        for ready, _event in found:
            if ready == self._waker.fd:
                self._waker.drain()
        return bool(found)

    def doze(self, seconds: float) -> None:
        """Until ``wake`` was called or the time is over, whatever comes on the lines."""
        if self._doze.poll(max(0, int(seconds * 1000))):
            self._waker.drain()

    def wake(self) -> None:
        """From any thread."""
        self._waker.wake()

    def close(self) -> None:
        self._waker.close()
        self._context.destroy(linger=0)


class ZmqLine:
    def __init__(self, dealer: zmq.Socket[bytes], poller: zmq.Poller) -> None:
        self._dealer, self._poller = dealer, poller

    def send(self, frames: list[bytes]) -> bool:
        try:
            self._dealer.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        try:
            return self._dealer.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def close(self) -> None:
        self._poller.unregister(self._dealer)
        self._dealer.close(linger=0)


class ZmqHub:
    """The agent's ROUTER on a listening socket that we made ourselves.

    libzmq unlinks whatever stands at an ``ipc://`` path before it binds, a live agent's socket too. So the socket is
    made here, under the agent's lock, under another name, and renamed into place; libzmq is given the descriptor
    (``ZMQ_USE_FD``). Or systemd has made it and goes on holding it: then its name is not ours to remove.
    """

    def __init__(self, path: str, held: socket.socket | None = None) -> None:
        self.path = path
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.set(zmq.LINGER, 200)
        self._router.set(zmq.RCVHWM, _HUB_QUEUE)
        self._router.set(zmq.SNDHWM, 1000)
        self._router.set(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._waker = _Waker()
        self._poller.register(self._waker.fd, zmq.POLLIN)
        self._identity: tuple[int, int] | None = None
        self.is_held = False  # whether the name of our socket is systemd's
        self.listen(held)

    def listen(self, held: socket.socket | None = None) -> None:
        listener = held or listening_socket(self.path)
        listener.setblocking(False)
        self.is_held = held is not None
        self._identity = None
        if answers(self.path):  # one that is held may have lost its name: the next look finds that
            found = os.stat(self.path)
            self._identity = (found.st_dev, found.st_ino)
        self._router.set(zmq.USE_FD, listener.detach())
        self._router.bind(f"ipc://{self.path}")

    def move(self, path: str) -> None:
        """Listen at another place; who is connected stays so."""
        self.path = path
        self.listen()

    def is_listening(self) -> bool:
        """Whether the path still leads to us: somebody may have cleaned the folder up."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        try:
            peer, *frames = self._router.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None
        return peer, frames

    def send(self, peer: bytes, frames: list[bytes]) -> None:
        try:
            self._router.send_multipart([peer, *frames], zmq.NOBLOCK)
        except zmq.ZMQError:
            pass  # full or gone: acks are cumulative, the peer asks again

    def wait(self, seconds: float) -> None:
        for ready, _event in self._poller.poll(max(0, int(seconds * 1000))):
            if ready == self._waker.fd:
                self._waker.drain()

    def wake(self) -> None:
        """From any thread or signal handler."""
        self._waker.wake()

    def close(self) -> None:
        if self.is_listening() and not self.is_held:
            os.unlink(self.path)
        self._router.close()
        self._waker.close()
        self._context.destroy(linger=200)


def listening_socket(path: str) -> socket.socket:
    """A Unix socket listening at ``path``, 0600, put there in one step."""
    temp = os.path.join(os.path.dirname(path), f".{os.getpid()}")  # no longer than the name itself: a path has a limit
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temp)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(temp)
        os.chmod(temp, stat.S_IRUSR | stat.S_IWUSR)
        listener.listen(_BACKLOG)
        os.rename(temp, path)
    except BaseException:
        listener.close()
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise
    return listener


def answers(path: str) -> bool:
    """Whether one of ours listens at ``path``: a socket file that a dead agent left refuses, and one that somebody else
    put there, when the folder was not private yet, is nobody's."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(path)
        return _listener(probe) in (None, os.getuid(), 0)  # root may have made it for us, and may do as it likes anyway
    except OSError:
        return False
    finally:
        probe.close()


def _listener(connected: socket.socket) -> int | None:
    """The user who made the socket at the other end; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    _pid, uid, _gid = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)
