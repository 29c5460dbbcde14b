"""What stands between a user and a server elsewhere, on loopback: TLS before a server, and a proxy on the way to it.

::

    https://your-server.com ─▶ Gateway (HTTPS_PROXY) ─CONNECT─▶ terminator ─▶ a server that speaks plain HTTP
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path

from tests.services.authority import Authority
from tests.services.ports import LOOPBACK

YOUR_SERVER = "your-server.com"
_CALL_SECONDS = 20

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def accept(
    heard: socket.socket,
    loop: asyncio.AbstractEventLoop,
    tasks: set[asyncio.Task[None]],
    met: Callable[[socket.socket], Coroutine[object, object, None]],
) -> None:
    """What a loop does when somebody comes to ``heard``: take the connection; ``met`` deals with it and closes it.

    In place of an asyncio.Server: one that is closed while it accepts leaves that connection open.
    """
    with contextlib.suppress(OSError):  # it is gone again
        accepted, _ = heard.accept()
        accepted.setblocking(False)
        task = loop.create_task(met(accepted))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def end_the_others() -> None:
    """Every other task of this loop, and the connections that they leave."""
    await asyncio.sleep(0)  # a task that is cancelled before it began cleans nothing up
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    await asyncio.sleep(0)  # the transports that were aborted close their sockets


@contextlib.contextmanager
def listening(meet: Connection, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port whose connections ``meet`` deals with, in a thread of its own until the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    tasks: set[asyncio.Task[None]] = set()

    async def met(accepted: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=context)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await meet(reader, writer)
            finally:
                transport.abort()

    async def end(heard: socket.socket) -> None:
        loop.remove_reader(heard)
        await end_the_others()

    thread.start()
    try:
        with socket.create_server((LOOPBACK, 0), backlog=100) as heard:
            heard.setblocking(False)
            loop.call_soon_threadsafe(loop.add_reader, heard, accept, heard, loop, tasks, met)
            try:
                yield heard.getsockname()[1]
            finally:
                asyncio.run_coroutine_threadsafe(end(heard), loop).result(_CALL_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Carry bytes both ways until one side has enough."""
    there_reader, there_writer = await asyncio.open_connection(LOOPBACK, port)

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(64 << 10):
            sink.write(data)
            await sink.drain()

    ways = [asyncio.ensure_future(carry(reader, there_writer)), asyncio.ensure_future(carry(there_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait_for(writer.drain(), _CALL_SECONDS)
    finally:
        there_writer.transport.abort()  # before the wait below, which may be cancelled
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


@contextlib.contextmanager
def terminator(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """TLS before the server at ``port``; the port to come to."""
    with listening(lambda reader, writer: _joined(reader, writer, port), context) as found:
        yield found


class Gateway:
    """A proxy that knows ``places``: ``"host:443"`` → a port of this machine. ``asked`` has what was wanted of it.

    ``user`` is what it lets in (``"alice:secret"``), when it is not everybody.
    """

    def __init__(self, places: Mapping[str, int], user: str | None = None) -> None:
        self._places, self._port = places, 0
        self._authorization = None if user is None else f"Basic {base64.b64encode(user.encode()).decode()}"
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    @contextlib.contextmanager
    def opened(self) -> Iterator[Gateway]:
        with listening(self._meet) as self._port:
            yield self

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        self.asked.append(target if method == "CONNECT" else f"{method} {target}")
        if self._authorization not in (None, headers.get("proxy-authorization")):
            status = "407 Proxy Authentication Required"
        elif method != "CONNECT" or target not in self._places:
            status = "403 Forbidden"
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await _joined(reader, writer, self._places[target])
            return
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@contextlib.contextmanager
def your_server(port: int, folder: Path) -> Iterator[dict[str, str]]:
    """The server at ``port`` as ``https://your-server.com``, for whoever has the environment that this gives. Start it
    with ``--allow-host your-server.com``."""
    authority = Authority(folder)
    with (
        terminator(port, authority.context(YOUR_SERVER)) as tls,
        Gateway({f"{YOUR_SERVER}:443": tls}).opened() as gateway,
    ):
        yield {
            "HTTPS_PROXY": gateway.url,
            "https_proxy": gateway.url,
            "NO_PROXY": "",
            "no_proxy": "",
            "SSL_CERT_FILE": str(authority.pem),
        }
