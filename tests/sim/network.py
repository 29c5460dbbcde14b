"""A pretend network, in memory: lines (a client's end) and hubs (an agent's end) that pass lists of frames.

It behaves as ZeroMQ's DEALER and ROUTER do, faults included. Nothing moves but in :meth:`SimNetwork.turn`.

- A line to an endpoint where nobody listens queues up to ``QUEUE_MESSAGES_MAX`` messages, then would block.
  The queue outlives every connection; what had left it when a connection broke arrived, or is lost.
- Each connection has a peer id of its own, so a line that connects again is a new peer to the hub. What a hub
  sends to a peer that is gone, or for which as many messages are under way, is dropped without a word.
- When a connection breaks (a reset, or either end closed), a prefix of what was under way still arrives.
- A second hub on an endpoint takes the connections to come and leaves the first one those it has, which is
  what libzmq does when a live ``ipc://`` path is bound again.

Within one direction of one connection messages stay in order, and a second copy follows its first at once,
unless ``chaos`` is on. Between peers there is no order. All chance comes from the one ``Random``, and lines
take their turns in the order of their making: same seed and same calls, same trace.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

QUEUE_MESSAGES_MAX = 1000  # ZeroMQ's default high-water mark; of each queue on the way
TRACE_LINES = 4096  # kept to be read; the digest covers all

Frames = list[bytes]


@dataclass
class NetworkFaults:
    """How often, per message unless said otherwise, a thing goes wrong. May be changed at any time."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_turns_max: int = 20
    reset: float = 0.0  # per connection and turn
    connect_late: float = 0.0  # per line and turn: a connection that could be made is not made yet
    chaos: bool = False  # no order at all


class _Connection:
    """One life of a line at a hub. Under way are messages, each with the turn in which it is due."""

    def __init__(self, peer: bytes, line: Line, hub: Hub) -> None:
        self.peer, self.line, self.hub = peer, line, hub
        self.up: list[tuple[int, Frames]] = []
        self.down: list[tuple[int, Frames]] = []


class Line:
    """A client's end. Made by :meth:`SimNetwork.connect`."""

    def __init__(self, network: SimNetwork, endpoint: str) -> None:
        self.endpoint, self.closed = endpoint, False
        self.queued: deque[Frames] = deque()
        self.arrived: deque[Frames] = deque()
        self.connection: _Connection | None = None
        self._network = network

    def send(self, frames: Sequence[bytes]) -> bool:
        """Queue a message; False when the queue is full and the message was not taken."""
        assert not self.closed, "a closed line sends"
        if len(self.queued) >= QUEUE_MESSAGES_MAX:
            return False
        self.queued.append(list(frames))
        return True

    def receive(self) -> Frames | None:
        """The next message that arrived, or None."""
        assert not self.closed, "a closed line receives"
        return self.arrived.popleft() if self.arrived else None

    def close(self) -> None:
        """As when the process dies: what is still queued here is lost. Idempotent."""
        if not self.closed:
            self._network.close_line(self)


class Hub:
    """An agent's end. Made by :meth:`SimNetwork.listen`."""

    def __init__(self, network: SimNetwork, endpoint: str) -> None:
        self.endpoint, self.closed = endpoint, False
        self.connections: dict[bytes, _Connection] = {}
        self.arrived: dict[bytes, deque[Frames]] = {}  # peers of whom something is to be read, gone or not
        self._network = network

    def receive(self) -> tuple[bytes, Frames] | None:
        """The next message of any peer, with that peer's id; or None."""
        assert not self.closed, "a closed hub receives"
        if not self.arrived:
            return None
        peer = self._network.random.choice(list(self.arrived))
        frames = self.arrived[peer].popleft()
        if not self.arrived[peer]:
            del self.arrived[peer]
        return peer, frames

    def send(self, peer: bytes, frames: Sequence[bytes]) -> None:
        """Send to a peer; dropped when it is gone or takes nothing."""
        assert not self.closed, "a closed hub sends"
        connection = self.connections.get(peer)
        if connection is not None and len(connection.down) < QUEUE_MESSAGES_MAX:
            self._network.launch(connection, connection.down, list(frames))

    def close(self) -> None:
        """As when the process dies: what it had not read is lost. Idempotent."""
        if not self.closed:
            self._network.close_hub(self)


class SimNetwork:
    """The network: its time, its faults, and who listens where."""

    def __init__(self, random: Random, faults: NetworkFaults | None = None) -> None:
        self.random, self.faults = random, faults or NetworkFaults()
        self.now = 0  # turns
        self.recent: deque[str] = deque(maxlen=TRACE_LINES)
        self._digest = blake2b(digest_size=16)
        self._lines: list[Line] = []
        self._listening: dict[str, Hub] = {}
        self._last_peer = 0

    @property
    def trace(self) -> str:
        """One word for everything that happened so far."""
        return self._digest.hexdigest()

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way; what is queued for an endpoint where nobody listens is not."""
        return not any(
            (line.queued and (line.connection or line.endpoint in self._listening))
            or (line.connection and (line.connection.up or line.connection.down))
            for line in self._lines
        )

    def connect(self, endpoint: str) -> Line:
        """A line to an endpoint, whether or not somebody listens there."""
        line = Line(self, endpoint)
        self._lines.append(line)
        return line

    def listen(self, endpoint: str) -> Hub:
        """A hub at an endpoint, to which lines connect from now on."""
        self._listening[endpoint] = hub = Hub(self, endpoint)
        self._note(f"listen at {endpoint}")
        return hub

    def turn(self) -> None:
        """Move time: break and make connections, send what is queued, let arrive what is due."""
        self.now += 1
        for line in self._lines:
            hub = self._listening.get(line.endpoint)
            if line.connection and self._chance(self.faults.reset):
                self.reset(line)
            elif not line.connection and hub and not self._chance(self.faults.connect_late):
                self._connect(line, hub)
            if line.connection:
                while line.queued and len(line.connection.up) < QUEUE_MESSAGES_MAX:
                    self.launch(line.connection, line.connection.up, line.queued.popleft())
                self._deliver(line.connection, line.connection.up)
                self._deliver(line.connection, line.connection.down)

    def reset(self, line: Line) -> None:
        """Break a line's connection, if it has one. In its next turn it makes another, as a new peer."""
        connection, line.connection = line.connection, None
        if connection is not None:
            del connection.hub.connections[connection.peer]
            self._note(f"{connection.peer.hex()} breaks")
            for way in (connection.up, connection.down):
                for _, frames in way[: self.random.randint(0, len(way))]:
                    self._arrive(connection, way, frames)

    # For lines and hubs

    def launch(self, connection: _Connection, way: list[tuple[int, Frames]], frames: Frames) -> None:
        if self._chance(self.faults.drop):
            self._note(f"{connection.peer.hex()} loses {_brief(frames)}")
            return
        for _ in range(2 if self._chance(self.faults.duplicate) else 1):
            due = self.now
            if self._chance(self.faults.delay):
                due += self.random.randint(1, self.faults.delay_turns_max)
            if way and not self.faults.chaos:
                due = max(due, way[-1][0])
            way.append((due, frames))

    def close_line(self, line: Line) -> None:
        self.reset(line)
        line.closed = True
        self._lines.remove(line)

    def close_hub(self, hub: Hub) -> None:
        for connection in list(hub.connections.values()):
            self.reset(connection.line)
        hub.closed = True
        if self._listening.get(hub.endpoint) is hub:
            del self._listening[hub.endpoint]
        self._note(f"close at {hub.endpoint}")

    # Inside

    def _connect(self, line: Line, hub: Hub) -> None:
        self._last_peer += 1
        peer = b"\0" + self._last_peer.to_bytes(4, "big")
        line.connection = hub.connections[peer] = _Connection(peer, line, hub)
        self._note(f"{peer.hex()} connects to {line.endpoint}")

    def _deliver(self, connection: _Connection, way: list[tuple[int, Frames]]) -> None:
        if self.faults.chaos:
            self.random.shuffle(way)
        unread = connection.hub.arrived.get(connection.peer, ()) if way is connection.up else connection.line.arrived
        room = QUEUE_MESSAGES_MAX - len(unread)
        staying = []
        for due, frames in way:
            if due <= self.now and room > 0:
                room -= 1
                self._arrive(connection, way, frames)
            else:
                staying.append((due, frames))
        way[:] = staying

    def _arrive(self, connection: _Connection, way: list[tuple[int, Frames]], frames: Frames) -> None:
        if way is connection.up:
            connection.hub.arrived.setdefault(connection.peer, deque()).append(list(frames))
        else:
            connection.line.arrived.append(list(frames))
        self._note(f"{connection.peer.hex()} {'to hub' if way is connection.up else 'to line'} {_brief(frames)}")

    def _chance(self, rate: float) -> bool:
        return rate > 0 and self.random.random() < rate

    def _note(self, line: str) -> None:
        self._digest.update(line.encode())
        self.recent.append(f"{self.now} {line}")


def _brief(frames: Frames) -> str:
    return " ".join([f"{len(frame)}:{zlib.crc32(frame):08x}" for frame in frames])
