"""A network that hurts: a TCP proxy before a server, whose fault is changed while it carries.

==========  ==========================================================================================================
``clear``   bytes pass
``reset``   after some bytes, of requests or of answers, both ends hear that the connection was reset
``cut``     after some bytes both ends hear that it ended
``stall``   connections are taken, and nothing passes; afterwards half of what waited arrives, late, and half never
``slow``    ``SLOW_BYTES`` a second pass, each way of each connection
``refuse``  nobody listens; what was open is reset
==========  ==========================================================================================================

A connection meets each fault that comes while it lives. It knows no HTTP, but counts what looks like requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from random import Random

from tests.services import ports
from tests.services.gateway import accept, end_the_others

CLEAR, RESET, CUT, STALL, SLOW, REFUSE = "clear", "reset", "cut", "stall", "slow", "refuse"
FAULTS = (RESET, CUT, STALL, SLOW, REFUSE)

SLOW_BYTES = 4 << 10
REQUEST_BITS, ANSWER_BITS = 20, 10  # as many bytes pass, at most, before a reset or a cut: often only a few
_SLICE_SECONDS = 0.1
_CHUNK_BYTES = 64 << 10
_CALL_SECONDS = 20
_REQUEST = b" HTTP/1.1\r\n"

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Broken(Exception):
    """The connection is to end, and how."""


class Faults:
    """What stands at ``port`` before the server at ``target``. ``met`` counts connections by the faults that they met,
    each way and each time anew; what was refused nobody can count, but what was open then."""

    def __init__(self, port: int, target: int, chance: Random) -> None:
        self.url = f"http://{ports.LOOPBACK}:{port}"
        self.fault = CLEAR
        self.met: Counter[str] = Counter()
        self.requests = 0
        self._port, self._target, self._chance = port, target, chance
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"faults-{port}")
        self._over = asyncio.Event()  # of the present fault
        self._listening: socket.socket | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Faults]:
        self._thread.start()
        try:
            self.become(CLEAR)
            yield self
        finally:
            self._call(self._end())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def become(self, fault: str) -> None:
        self._call(self._become(fault))

    def _call(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _become(self, fault: str) -> None:
        over, self._over = self._over, asyncio.Event()
        self.fault = fault
        over.set()
        if fault == REFUSE:
            self._close()
            for writer in self._writers:
                self.met[REFUSE] += 1
                _reset(writer)
        elif self._listening is None:
            self._listening = socket.create_server((ports.LOOPBACK, self._port), backlog=100)
            self._listening.setblocking(False)
            self._loop.add_reader(self._listening, accept, self._listening, self._loop, self._tasks, self._meet)

    def _close(self) -> None:
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def _end(self) -> None:
        self._close()
        await end_the_others()

    async def _meet(self, accepted: socket.socket) -> None:
        writers: list[asyncio.StreamWriter] = []
        try:
            reader, writer = await asyncio.open_connection(sock=accepted)
            writers.append(writer)
            self._writers.add(writer)
            there, there_writer = await asyncio.open_connection(ports.LOOPBACK, self._target)
            writers.append(there_writer)
            self._writers.add(there_writer)
            await self._join((reader, writer), (there, there_writer))
        except _Broken as broken:
            if str(broken) == CUT:
                await self._flush(writers)
            else:
                for each in writers:
                    _reset(each)
        except OSError:  # nobody is behind it, or one of the two is gone
            for each in writers:
                _reset(each)
        finally:
            self._writers -= {*writers}
            for each in writers:
                each.transport.abort()
            accepted.close()

    async def _flush(self, writers: list[asyncio.StreamWriter]) -> None:
        for each in writers:
            each.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(each.wait_closed(), _CALL_SECONDS)

    async def _join(self, here: Ends, there: Ends) -> None:
        """Carry both ways until one of them ends."""
        ways = [
            asyncio.ensure_future(self._carry(here[0], there[1], REQUEST_BITS)),
            asyncio.ensure_future(self._carry(there[0], here[1], ANSWER_BITS)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                if way.done():
                    way.result()
            await self._flush([here[1], there[1]])
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, bits: int) -> None:
        over, left = None, 0
        while data := await source.read(_CHUNK_BYTES):
            if bits == REQUEST_BITS:
                self.requests += data.count(_REQUEST)
            while data:
                if over is not self._over:  # another fault than the last piece met
                    over, left = self._over, int(2 ** self._chance.uniform(0, bits))
                    if self.fault in (STALL, SLOW):
                        self.met[self.fault] += 1
                piece = data
                if self.fault == STALL:
                    await over.wait()
                    if self._chance.random() < 0.5:
                        raise _Broken(RESET)
                    continue
                if self.fault == SLOW:
                    piece = data[: int(SLOW_BYTES * _SLICE_SECONDS)]
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(over.wait(), _SLICE_SECONDS)
                elif self.fault in (RESET, CUT):
                    piece = data[:left]
                    left -= len(piece)
                sink.write(piece)
                await sink.drain()
                data = data[len(piece) :]
                if over is self._over and self.fault in (RESET, CUT) and not left:
                    self.met[self.fault] += 1
                    raise _Broken(self.fault)


def _reset(writer: asyncio.StreamWriter) -> None:
    """So that the other end hears of it as of a crash: RST, and whatever is on its way is dropped."""
    found = writer.get_extra_info("socket")
    if found is not None and not writer.transport.is_closing():
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.contextmanager
def faults(target: int, chance: Random) -> Iterator[Faults]:
    """A proxy before the server at the port ``target``, clear at first."""
    with ports.block() as free, Faults(free[0], target, chance).opened() as proxy:
        yield proxy
