"""Series: a track's points of several origins as one, in pages.

The order is the server's (docs/push.md): within an origin its own; across origins by (latest time so far, origin,
index). One walk holds no more than a piece of each origin.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dreamlake.reader.lines import Lines
from dreamlake.remote.follow import Head, Piece
from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.projection import Stamp, time_of

Row = dict[str, Any]
# The records of a log from an index on, before which the mark stands; None: it is not known.
Pieces = Callable[[int, "Mark | None"], Iterator[Piece]]


@dataclass(frozen=True)
class Spot:
    """Where to go on in a log: before record ``index``, when ``time`` was the latest so far. Of a file its ``offset``
    there; of a server's log what is at hand from there on, and the mark behind that."""

    index: int = 0
    time: str = ""
    offset: int = 0
    rest: tuple[bytes, ...] = ()
    mark: Mark | None = None

    @property
    def size(self) -> int:
        return sum(map(len, self.rest)) + 100

    def may_be_of(self, head: Head) -> bool:
        """False where a server has another history: it was restored from a backup."""
        end = self.index + len(self.rest)
        return end < head.count or (end == head.count and self.mark in (None, head.mark))


@dataclass(frozen=True)
class Place:
    """Where a page has ended: every origin's next record. None: all of it was the directory's own, and nobody else had
    any."""

    spots: dict[str, Spot] | None = None

    @property
    def size(self) -> int:
        return sum(spot.size for spot in (self.spots or {}).values()) + 500


class Stream(ABC):
    """A log of one origin; ``row`` is its next record, None at the end, and ``key`` where that stands in the order."""

    def __init__(self, origin: str, spot: Spot) -> None:
        self.origin, self.index, self.time = origin, spot.index - 1, spot.time
        self.row: Row | None = None
        self._lines: Iterator[bytes] = iter(())

    @property
    def key(self) -> Stamp:
        return (self.time, self.origin, self.index)

    def advance(self) -> bool:
        """To the next record; False at the end. What is no record, or was refused, is passed over."""
        for line in self._lines:
            self.index += 1
            self.row = jsons.object_of(line)
            if self.row is not None:
                self.time = max(self.time, time_of(self.row) or "")
                return True
        self.index += 1
        self.row = None
        return False

    @abstractmethod
    def spot(self) -> Spot:
        """Where ``row`` is."""


class Here(Stream):
    """The directory's own."""

    def __init__(self, origin: str, lines: Lines, spot: Spot) -> None:
        super().__init__(origin, spot)
        self._offset = self._next = spot.offset
        self._lines = self._walk(lines)

    def _walk(self, lines: Lines) -> Iterator[bytes]:
        for offset, line in lines.placed(self._offset):
            self._offset, self._next = offset, offset + len(line) + 1
            yield line
        self._offset = self._next

    def spot(self) -> Spot:
        return Spot(self.index, self.time, self._offset)


class There(Stream):
    """Another origin's, at the server."""

    def __init__(self, origin: str, pieces: Pieces, spot: Spot) -> None:
        super().__init__(origin, spot)
        self._piece = Piece(spot.index, list(spot.rest), spot.mark or Mark())
        self._is_known = spot.mark is not None
        self._lines = self._walk(pieces)

    def _walk(self, pieces: Pieces) -> Iterator[bytes]:
        yield from self._piece.lines
        known = self._piece.next if self._is_known else None
        for piece in pieces(self._piece.first + self._piece.count, known):
            self._piece, self._is_known = piece, True
            self.time = max(self.time, piece.time)
            yield from piece.lines

    def spot(self) -> Spot:
        rest = tuple(self._piece.lines[self.index - self._piece.first :])
        return Spot(self.index, self.time, rest=rest, mark=self._piece.next if self._is_known else None)


class Walk:
    """Every record of some streams, in order."""

    def __init__(self, streams: list[Stream]) -> None:
        self._streams = streams
        self._heap = [(stream.key, stream) for stream in streams if stream.advance()]
        heapq.heapify(self._heap)

    def find(self, rank: int | None) -> Stamp | None:
        """Go to the next record (of that rank), and say where it stands; None at the end."""
        while self._heap:
            key, stream = self._heap[0]
            if rank is None or (stream.row or {}).get("rank") == rank:
                return key
            self._advance()
        return None

    def take(self) -> Row:
        """The record that was found, under the index that it has in its origin."""
        key, stream = self._heap[0]
        row = {**(stream.row or {}), "index": key[2]}
        self._advance()
        return row

    def skip(self, count: int, rank: int | None) -> None:
        """Go behind so many records (of that rank)."""
        while count > 0 and self.find(rank) is not None:
            self._advance()
            count -= 1

    def _advance(self) -> None:
        stream = self._heap[0][1]
        if stream.advance():
            heapq.heapreplace(self._heap, (stream.key, stream))
        else:
            heapq.heappop(self._heap)

    def spots(self) -> dict[str, Spot]:
        return {stream.origin: stream.spot() for stream in self._streams}
