"""The server as a peer in a simulated world: the shipped routes over stores in memory, in two processes that may die.

There is no event loop and no thread: a request is a coroutine that is carried on by hand. It stands still before and
after every call of a store, and whoever else has a turn there has it.
"""

from __future__ import annotations

import copy
import logging
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any
from weakref import WeakValueDictionary

import httpx
import msgspec

import dreamlake_agent.remote.blobs
import dreamlake_server.blobs
import dreamlake_server.decode
import dreamlake_server.push
import dreamlake_server.stores.chunks
from dreamlake.wire import zstd
from dreamlake_server.api import ROUTES
from dreamlake_server.app import Server, Shell
from dreamlake_server.auth import ANONYMOUS, ByWord
from dreamlake_server.metrics import Metrics
from dreamlake_server.records import lines_of
from dreamlake_server.stores.memory import MemoryMeta, MemoryTokens
from dreamlake_server.stores.memory_blobs import MemoryBlobs
from dreamlake_server.table import Table
from tests.sim.profiles import changed

_RETRY_AFTER = {429: "4", 503: "2"}  # seconds, of a server that is busy
URL = "http://lake.sim"
PROCESSES = 2
_TABLE, _METRICS = Table(ROUTES), Metrics()
_DOWN_REQUESTS = (0, 1, 4, 12)  # refused by a process that has died, until there is another one


# ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@types.coroutine
def _stand_still() -> Generator[None, None, None]:
    yield


class _Lock:
    """As :class:`asyncio.Lock`, of a process whose requests are carried on by hand."""

    def __init__(self) -> None:
        self._held = False

    async def __aenter__(self) -> None:
        while self._held:
            await _stand_still()
        self._held = True

    async def __aexit__(self, *_error: object) -> None:
        self._held = False


async def _sleep(_seconds: float) -> None:
    await _stand_still()


async def _in_thread(work: Callable[..., Any], *given: Any, **named: Any) -> Any:
    return work(*given, **named)


def _one_after_the_other(work: Callable[..., None], things: Any, stop: Callable[[], bool]) -> None:
    for thing in things:
        if not stop():
            work(thing, stop)


_ASYNCIO = types.SimpleNamespace(Lock=_Lock, sleep=_sleep, to_thread=_in_thread)


@contextmanager
def by_hand() -> Iterator[None]:
    """Within it nothing of the server waits for an event loop, and nothing of a sender for a thread."""
    places: list[tuple[Any, str, Any]] = [
        (dreamlake_server.push, "asyncio", _ASYNCIO),
        (dreamlake_server.push, "_turns", None),
        (dreamlake_server.decode, "asyncio", _ASYNCIO),
        (dreamlake_server.blobs, "asyncio", _ASYNCIO),
        (dreamlake_server.stores.chunks, "in_thread", _in_thread),
        (dreamlake_agent.remote.blobs, "_at_once", _one_after_the_other),
        (logging.getLogger("dreamlake.server"), "disabled", True),  # it tells of requests that end with their process
    ]
    with changed(places):
        yield


class _InSteps:
    """A store of which every call stands still before it is done and after it."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "read" or not callable(found):
            return found

        async def call(*given: Any, **named: Any) -> Any:
            await _stand_still()
            answer = await found(*given, **named)
            await _stand_still()
            return answer

        return call


# ── what a server has, and a process of it ──────────────────────────────────────────────────────────────────────────


@dataclass
class Stores:
    meta: MemoryMeta = field(default_factory=MemoryMeta)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)

    def copy(self) -> Stores:
        return copy.deepcopy(self)

    def log(self, origin: str, log: str) -> bytes:
        """The bytes of one log of an origin, as they are stored in whatever session: each record once."""
        found = [each.logs[origin, log] for each in self.meta._kept.values() if (origin, log) in each.logs]
        assert len(found) <= 1, f"{log} of {origin} is in {len(found)} sessions"
        lines: list[bytes] = []
        for segment in found[0].segments if found else ():
            assert segment.first == len(lines), f"{log}: a segment begins at {segment.first}, behind {len(lines)}"
            lines += lines_of(segment)
        assert not found or found[0].head.count == len(lines), f"{log}: {found[0].head} of {len(lines)} records"
        return b"".join(line + b"\n" for line in lines)

    def origins(self) -> set[tuple[str, str]]:
        """(origin, log) of all that is stored."""
        return {key for each in self.meta._kept.values() for key in each.logs}

    def has_blob(self, sha256: str) -> bool:
        return (ANONYMOUS, sha256) in self.meta._blobs


class Process:
    """One process of a server."""

    def __init__(self, stores: Stores, clock: Callable[[], int]) -> None:
        tokens = MemoryTokens()
        meta, blobs = _InSteps(stores.meta), _InSteps(stores.blobs)
        self.shell = Shell(Server(meta, blobs, tokens, ByWord(), clock=clock, metrics=_METRICS), _TABLE)
        self.turns: WeakValueDictionary[Any, Any] = WeakValueDictionary()
        self.dead = False


@dataclass(frozen=True)
class Letter:
    """One request."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of(cls, request: httpx.Request) -> Letter:
        kept = ("content-type", "content-encoding", "content-length", "accept")
        headers = tuple((name, value) for name, value in request.headers.items() if name in kept)
        return cls(request.method, str(request.url).removeprefix(URL), headers, request.read())

    @cached_property
    def push(self) -> dict[str, Any] | None:
        """What it pushes."""
        if self.target != "/v1/push":
            return None
        packed = ("content-encoding", "zstd") in self.headers
        found = msgspec.msgpack.decode(zstd.unpack(self.body, 1 << 30) if packed else self.body)
        assert isinstance(found, dict)
        return found


class Flight:
    """One request at a process, and as much of its answer as there is."""

    def __init__(self, process: Process, letter: Letter, *, cut: bool = False) -> None:
        self.process, self.letter = process, letter
        self.status, self.body, self.headers = 0, b"", dict[str, str]()
        self.done = False
        self._parts: list[dict[str, Any]] = [{"type": "http.request", "body": letter.body, "more_body": False}]
        if cut:
            half = letter.body[: len(letter.body) // 2]
            self._parts = [{"type": "http.request", "body": half, "more_body": True}, {"type": "http.disconnect"}]
        path, _, query = letter.target.partition("?")
        scope = {
            "type": "http",
            "method": letter.method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"host", b"127.0.0.1"), *((a.encode(), b.encode()) for a, b in letter.headers)],
            "scheme": "http",
            "client": ("127.0.0.1", 1),
        }
        self._steps: Coroutine[Any, Any, None] = process.shell(scope, self._receive, self._send)

    async def _receive(self) -> MutableMapping[str, Any]:
        return self._parts.pop(0) if self._parts else {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        self.body += message.get("body", b"")

    def step(self) -> None:
        """Carry it on until it stands still."""
        dreamlake_server.push._turns = self.process.turns
        try:
            self._steps.send(None)
        except StopIteration:
            self.done = True

    def drop(self) -> None:
        self._steps.close()


class Lakes:
    """A server that runs as two processes over the same stores; what was backed up of it, and what still travels."""

    def __init__(self, chance: Random, clock: Callable[[], int], answered: Callable[[Flight], None]) -> None:
        self._chance, self._clock, self._answered = chance, clock, answered
        self.stores = Stores()
        self.processes = [Process(self.stores, clock) for _ in range(PROCESSES)]
        self.flights: list[Flight] = []
        self.late: list[Letter] = []
        self.backups: list[Stores] = []
        self.restored = 0  # times
        self._down = [0] * PROCESSES

    def reach(self) -> Process | None:
        """Some process, if it can be reached."""
        which = self._chance.randrange(PROCESSES)
        if self._down[which]:
            self._down[which] -= 1
            return None
        return self.processes[which]

    def begin(self, process: Process, letter: Letter, *, cut: bool = False) -> Flight:
        flight = Flight(process, letter, cut=cut)
        self.flights.append(flight)
        return flight

    def step(self, flight: Flight) -> None:
        flight.step()
        if flight.done:
            self.flights.remove(flight)
            self._answered(flight)

    def carry(self, flight: Flight, meanwhile: Callable[[], None]) -> None:
        """Until it is done, or its process is dead; others go on in between."""
        while not flight.done and not flight.process.dead:
            self.step(flight if self._chance.random() < 0.6 else self._chance.choice(self.flights))
            meanwhile()

    def repeat(self, letter: Letter) -> None:
        """The same once more: later, or by another way at once."""
        process = self.reach()
        if process is None or self._chance.random() < 0.3:
            self.late.append(letter)
        else:
            self.begin(process, letter)

    def deliver_late(self) -> None:
        """A letter that was held up somewhere arrives, and goes some steps."""
        process = self.reach()
        if self.late and process is not None:
            flight = self.begin(process, self.late.pop(self._chance.randrange(len(self.late))))
            for _ in range(self._chance.choice((1, 3, 5, 20))):
                if not flight.done:
                    self.step(flight)

    def die(self, which: int) -> None:
        process = self.processes[which]
        process.dead = True
        self.drop(process)
        self.processes[which] = Process(self.stores, self._clock)
        self._down[which] = self._chance.choice(_DOWN_REQUESTS)

    def drop(self, *processes: Process) -> None:
        """What these are doing ends where it stands."""
        for flight in [each for each in self.flights if each.process in processes]:
            flight.drop()
            self.flights.remove(flight)

    def back_up(self) -> None:
        self.backups.append(self.stores.copy())

    def restore(self) -> None:
        """All stands still; the stores are as they were at some backup."""
        if self.backups:
            self.stores = self._chance.choice(self.backups).copy()
            self.restored += 1
            for which in range(PROCESSES):
                self.die(which)

    def calm(self) -> None:
        """Everything that still travels arrives, and all is up."""
        self._down = [0] * PROCESSES
        while self.late or self.flights:
            if self.late:
                self.deliver_late()
            for flight in list(self.flights):
                if not flight.done:
                    self.step(flight)


@dataclass(frozen=True)
class Weather:
    """How often, per request, something happens to it."""

    lost: float = 0.0
    cut: float = 0.0
    late: float = 0.0  # lost for its sender, and there later
    twice: float = 0.0  # and there once more later
    unanswered: float = 0.0
    busy: float = 0.0

    @classmethod
    def drawn(cls, chance: Random) -> Weather:
        return cls(*(rate * chance.choice((0.0, 0.3, 1.0)) for rate in (0.1, 0.05, 0.1, 0.25, 0.1, 0.05)))


class Wire(httpx.BaseTransport):
    """What carries one sender's requests. ``leaves`` is told of each, and ``meanwhile`` is called wherever others may
    have a turn; it raises when the sender is dead."""

    def __init__(
        self,
        lakes: Lakes,
        weather: Callable[[], Weather],
        leaves: Callable[[Letter], None],
        meanwhile: Callable[[], None],
        chance: Random,
        lets_in: Callable[[httpx.Request], bool] = lambda _request: True,
    ) -> None:
        self._lets_in = lets_in
        self._lakes, self._weather, self._leaves, self._meanwhile = lakes, weather, leaves, meanwhile
        self._chance = chance

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        letter = Letter.of(request)
        self._leaves(letter)
        self._meanwhile()
        weather, happens = self._weather(), lambda rate: rate > 0 and self._chance.random() < rate
        if happens(weather.lost):
            raise httpx.ConnectError("lost")
        if happens(weather.late):
            self._lakes.late.append(letter)
            raise httpx.ReadTimeout("late")
        if happens(weather.twice):
            self._lakes.repeat(letter)
        if happens(weather.busy):
            status = self._chance.choice((429, 500, 503))
            headers = {"Retry-After": _RETRY_AFTER[status]} if status in _RETRY_AFTER else {}
            return httpx.Response(status, headers=headers, content=b"busy")
        process = self._lakes.reach()
        if process is None:
            raise httpx.ConnectError("nobody listens")
        if not self._lets_in(request):
            return httpx.Response(401, json={"message": "there is no such token"})
        flight = self._lakes.begin(process, letter, cut=happens(weather.cut))
        self._lakes.carry(flight, self._meanwhile)
        self._meanwhile()
        if not flight.done or not flight.status or happens(weather.unanswered):
            raise httpx.ReadError("no answer")
        return httpx.Response(flight.status, headers=flight.headers, content=flight.body)
