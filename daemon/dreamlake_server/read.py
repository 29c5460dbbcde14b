"""Read: a log of all origins as one, in pages.

Within an origin its own order; across origins by (latest time so far, origin, index), so that a later page never holds
what belongs before an earlier one. Of a log with one origin any page costs the same; one with several is paged by
cursor, and a page that is asked for by number is walked to, whole segments at a time where they do not overlap.
"""

from __future__ import annotations

import base64
import binascii
import heapq
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from dreamlake.wire import jsons
from dreamlake.wire.projection import time_of
from dreamlake_server import records
from dreamlake_server.stores.meta import Head, Meta, Segment

Key = tuple[str, str, int]
Positions = dict[str, int]  # origin → index of the next record

_SEGMENTS_AT_ONCE = 4
_CURSOR_BYTES_MAX = 64 << 10


@dataclass(frozen=True)
class Record:
    """One row, and where it stands."""

    origin: str
    index: int
    row: dict[str, Any]


class Stream:
    """One log of one origin, from some record on."""

    def __init__(
        self, meta: Meta, session_id: str, origin: str, log: str, first: int, head: Head, *, alone: bool
    ) -> None:
        self._alone = alone  # then nobody asks when its records were made
        self._meta, self._session_id, self._log = meta, session_id, log
        self.origin, self.index, self._end = origin, max(first, head.base), head.count
        self._segments: list[Segment] = []
        self._lines: list[bytes] | None = None
        self._row: tuple[dict[str, Any], str] | None = None  # the one at index, and the latest time so far
        self._time = ""
        self._ahead = 1

    async def _segment(self) -> Segment | None:
        """The segment that holds ``index``."""
        while self._segments and self.index >= self._segments[0].first + self._segments[0].count:
            self._segments.pop(0)
            self._lines = None
        if not self._segments and self.index < self._end:
            # One first: most pages end in it.
            count, self._ahead = self._ahead, _SEGMENTS_AT_ONCE
            self._segments = await self._meta.segments(self._session_id, self.origin, self._log, self.index, count)
            self._lines = None
        return self._segments[0] if self._segments else None

    async def key(self) -> Key | None:
        """Of the next record, in the joined order; None at the end. Tombstones are passed over."""
        while self._row is None:
            segment = await self._segment()
            if segment is None or self.index >= self._end:
                return None
            if self._lines is None:
                self._lines = records.lines_of(segment)
                self._time = segment.time_before or ""
                for line in () if self._alone else self._lines[: self.index - segment.first]:
                    self._time = max(self._time, time_of(records.parsed(line)) or "" if line else "")
            line = self._lines[self.index - segment.first]
            if not line:
                self.index += 1
                continue
            row = records.parsed(line)
            self._time = max(self._time, time_of(row) or "")
            self._row = (row, self._time)
        return (self._row[1], self.origin, self.index)

    def take(self) -> Record:
        """The record whose key was asked for."""
        assert self._row is not None
        found = Record(self.origin, self.index, self._row[0])
        self._row = None
        self.index += 1
        return found

    def in_hand(self) -> Iterator[Record]:
        """The record whose key was asked for, and those behind it that need no more reading."""
        yield self.take()
        while self._segments and self._lines is not None and self.index < self._end:
            at = self.index - self._segments[0].first
            if at >= len(self._lines):
                return
            self.index += 1
            if line := self._lines[at]:  # else a tombstone
                yield Record(self.origin, self.index - 1, records.parsed(line))

    async def rest_of_segment(self) -> tuple[Key, int]:
        """The last key of the segment that the next record is in, and how many records it is to its end."""
        segment = await self._segment()
        assert segment is not None
        last = segment.first + segment.count - 1
        return (segment.time_max or "", self.origin, last), last + 1 - self.index

    async def skip_segment(self) -> None:
        _key, count = await self.rest_of_segment()
        self.index += count
        self._row = None


class Reader:
    """A log of a session, over all its origins, from a cursor or from the start."""

    def __init__(self, streams: list[Stream]) -> None:
        self._streams = streams
        self._heap: list[tuple[Key, Stream]] | None = None  # each stream at its next record
        self._has_moved = False  # the first of them, since

    @classmethod
    async def open(cls, meta: Meta, session_id: str, log: str, cursor: Positions | None = None) -> Reader:
        heads = await meta.heads(session_id, logs=[log])
        at = cursor or {}
        return cls(
            [
                Stream(meta, session_id, origin, log, at.get(origin, 0), head, alone=len(heads) == 1)
                for (origin, _), head in heads.items()
            ]
        )

    @property
    def origins(self) -> int:
        return len(self._streams)

    async def skip(self, count: int) -> None:
        """Pass over so many records."""
        if len(self._streams) == 1:
            self._streams[0].index += count
            return
        while count > 0:
            stream, other = await self._next()
            if stream is None:
                return
            last, remaining = await stream.rest_of_segment()
            if remaining <= count and (other is None or last < other):
                await stream.skip_segment()
                count -= remaining
            else:
                stream.take()
                count -= 1
            self._has_moved = True

    async def _next(self) -> tuple[Stream | None, Key | None]:
        """Whose the next record is, and the key of the first one that is another stream's."""
        if self._heap is None:
            self._heap = [(key, stream) for stream in self._streams if (key := await stream.key()) is not None]
            heapq.heapify(self._heap)
        elif self._has_moved:
            stream = self._heap[0][1]
            key = await stream.key()
            if key is None:
                heapq.heappop(self._heap)
            else:
                heapq.heapreplace(self._heap, (key, stream))
        self._has_moved = False
        if not self._heap:
            return None, None
        return self._heap[0][1], min((key for key, _stream in self._heap[1:3]), default=None)

    async def records(self) -> AsyncIterator[Record]:
        """Every record from here on."""
        if len(self._streams) == 1:
            while await self._streams[0].key() is not None:
                for record in self._streams[0].in_hand():
                    yield record
            return
        while True:
            stream, _other = await self._next()
            if stream is None:
                return
            self._has_moved = True
            yield stream.take()

    @property
    def positions(self) -> Positions:
        """Where the next record is, for a cursor."""
        return {stream.origin: stream.index for stream in self._streams}

    async def has_more(self) -> bool:
        if len(self._streams) == 1:
            return await self._streams[0].key() is not None
        return (await self._next())[0] is not None


def cursor_of(positions: Positions) -> str:
    """
    >>> at_cursor(cursor_of({"a": 3}))
    {'a': 3}
    """
    return base64.urlsafe_b64encode(jsons.dumps(positions)).decode().rstrip("=")


def at_cursor(text: str) -> Positions:
    """Raises :class:`ValueError` for what is no cursor of ours."""
    try:
        if len(text) > _CURSOR_BYTES_MAX:
            raise ValueError
        found = jsons.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        if not isinstance(found, dict) or not all(
            isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 for value in found.values()
        ):
            raise ValueError
    except (ValueError, binascii.Error):
        raise ValueError("that cursor is none: take the one that the page before gave, whole") from None
    return found
