"""Lines: a JSONL log read by somebody who does not own it.

The writer may be in the middle of a line, the file system may show zeros where bytes will be, and a directory of 0.2.x
may hold half a line glued to the next one. A line counts when it ends in a newline; one that is not JSON is passed
over and counted in ``skipped``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire import jsons
from dreamlake.wire.apply import LINE_BYTES_MAX
from dreamlake.world.disk import READ, Disk

_CHUNK_BYTES = 1 << 20
# Below this a scan from the start is quicker than a search, and does not need the indexes to ascend.
_SEARCH_ABOVE_BYTES = 256 << 10
_NUMBERED = re.compile(rb'^\{"(?:index|sequenceNumber)":\d+,')
_RANK_AT_END = re.compile(rb',"rank":-?\d+\}\Z')
_RANK_OF_CLIENT = re.compile(rb'\A(\{(?:"op":"[a-z]+",)?"time":"[^"]*","client":"[0-9a-f]{32}"),"rank":-?\d+')
_RANK_OF_FILE = re.compile(rb'("deletedAt":null),"rank":-?\d+(?=\},"incoming":"[^"]*"\}\Z)')


def unnumbered(line: bytes) -> bytes:
    """A row without the number it was given, for the same call may get another one the second time; and without the
    rank that wrote it, which agents before 0.4 did not say.

    >>> unnumbered(b'{"index":7,"data":{"rank":3},"createdAt":"2026-01-01T00:00:00.000000Z","rank":1}')
    b'"data":{"rank":3},"createdAt":"2026-01-01T00:00:00.000000Z"}'
    """
    if line.startswith((b'{"op":', b'{"time":')):
        return _RANK_OF_FILE.sub(rb"\1", _RANK_OF_CLIENT.sub(rb"\1", line, count=1), count=1)
    return _RANK_AT_END.sub(b"}", _NUMBERED.sub(b"", line))


@dataclass
class Lines:
    """The rows of one log: the file up to ``size``, then ``extra``, rows that are in journals only."""

    disk: Disk
    at: int
    log: str
    size: int | None = None
    extra: list[bytes] = field(default_factory=list)
    skipped: int = 0

    def raw(self, start: int = 0, *, unended: bool = False) -> Iterator[tuple[int, bytes]]:
        """(offset, line without its newline) of every whole line from ``start``, which is the start of a line;
        ``unended``: and of what follows the last newline, if anything does."""
        try:
            fd = self.disk.open(self.log, READ, self.at)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            offset, rest = start, b""
            while True:
                want = _CHUNK_BYTES if self.size is None else min(_CHUNK_BYTES, self.size - offset - len(rest))
                chunk = self.disk.pread(fd, want, offset + len(rest)) if want > 0 else b""
                if not chunk:
                    if rest and unended:
                        yield offset, rest
                    return
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield offset, line
                    offset += len(line) + 1
                if len(rest) > LINE_BYTES_MAX:
                    return
        finally:
            self.disk.close(fd)

    def placed(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """(offset, line) of every whole line from byte ``start``; those that are in journals only stand where they will
        be in the file."""
        yield from self.raw(start)
        offset = self.size or 0
        for line in self.extra:
            if offset >= start:
                yield offset, line
            offset += len(line) + 1

    def rows(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Every row from byte ``start``, then the extra ones."""
        for line in self._texts(start):
            row = self._row(line)
            if row is not None:
                yield row

    def of_rank(self, rank: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """The rows of ``rows`` that this rank wrote."""
        said = b'"rank":%d' % rank
        for line in self._texts(start):
            if said in line and (row := self._row(line)) is not None and row.get("rank") == rank:
                yield row

    def _texts(self, start: int) -> Iterator[bytes]:
        # A row that lacks only its newline is one: no beginning of a JSON object is a JSON object.
        for _offset, line in self.raw(start, unended=self.size is None):
            yield line
        yield from self.extra

    def _row(self, line: bytes) -> dict[str, Any] | None:
        if not line.strip(b" \t\r\n\0"):
            return None
        row = jsons.object_of(line)
        if row is None:
            self.skipped += 1
        return row

    def page(self, key: str, first: int, limit: int, rank: int | None = None) -> list[dict[str, Any]]:
        """Up to ``limit`` rows whose ``key`` (``index`` or ``sequenceNumber``) is at least ``first``, in file order; of
        one rank, when given."""
        found: list[dict[str, Any]] = []
        if limit <= 0:
            return found
        start = self._search(key, first) if first > 0 else 0
        for row in self.rows(start) if rank is None else self.of_rank(rank, start):
            number = row.get(key)
            if isinstance(number, int) and number >= first:
                found.append(row)
                if len(found) == limit:
                    break
        return found

    def _search(self, key: str, first: int) -> int:
        """A byte offset at the start of a line, before every row from ``first`` on, found by bisection."""
        try:
            size = self.disk.stat(self.log, self.at).size
        except OSError:
            return 0
        low, high = 0, size if self.size is None else min(self.size, size)
        while high - low > _SEARCH_ABOVE_BYTES:
            middle = (low + high) // 2
            lines = self.raw(middle)
            next(lines, None)  # the rest of the line that the middle fell into
            offset, line = next(lines, (high, b""))
            row = self._row(line)
            number = row.get(key) if row else None
            if offset >= high or not isinstance(number, int) or number >= first:
                high = middle
            else:
                low = offset
        return low

    def first(self) -> dict[str, Any] | None:
        return next(self.rows(), None)

    def last(self, count: int = 1) -> list[dict[str, Any]]:
        """The last ``count`` rows, oldest first, without reading the rest."""
        rows = [row for line in self.extra[-count:] if (row := self._row(line)) is not None]
        if len(rows) < count:
            rows = self._tail(count - len(rows)) + rows
        return rows

    def _tail(self, count: int) -> list[dict[str, Any]]:
        try:
            fd = self.disk.open(self.log, READ, self.at)
        except OSError:
            return []
        try:
            size = self.disk.fstat(fd).size
            end = size if self.size is None else min(size, self.size)
            start, data = end, b""
            while start > 0 and data.count(b"\n") <= count + 1 and len(data) < LINE_BYTES_MAX + (count << 16):
                step = min(64 << 10, start)
                start -= step
                data = self.disk.pread(fd, step, start) + data
        finally:
            self.disk.close(fd)
        *whole, rest = data.split(b"\n")
        if rest and self.size is None and end == size:
            whole.append(rest)  # a row that lacks only its newline; anything else is passed over below
        if start > 0:
            whole = whole[1:]
        return [row for line in whole if (row := self._row(line)) is not None][-count:]
