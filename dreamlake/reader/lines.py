"""Lines: a JSONL log read by somebody who does not own it.

The writer may be in the middle of a line, the file system may show zeros where bytes will be, and a directory of 0.2.x
may hold half a line glued to the next one. A line counts when it ends in a newline; one that is not JSON is passed
over and counted in ``skipped``. A row is JSON, which has no zeros in it, so a hole takes the rows that it touches and
no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake.reader.late import Patience, is_stale
from dreamlake.wire import jsons
from dreamlake.wire.applied import LINE_BYTES_MAX
from dreamlake.world.disk import READ, Disk

_CHUNK_BYTES = 1 << 20
# Below this a scan from the start is quicker than a search, and does not need the indexes to ascend.
_SEARCH_ABOVE_BYTES = 256 << 10
_PROBE_BYTES = 4 << 10
_ROW_BYTES = 128  # what a row has, more or less
_TAIL_BYTES = 64 << 10
# Of one line that has zeros in it, so many bytes are read; behind more of them nothing is.
_HOLE_BYTES_MAX = 64 << 20
_SHORTER = "is shorter than the %d bytes that its checkpoint says"
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
    """The rows of one log: the file up to ``size``, then ``extra``, rows that are in journals only. ``patience``: it is
    written on another node, and what ``size`` says or the lines behind it promise may be seen later."""

    disk: Disk
    at: int
    log: str
    size: int | None = None
    extra: list[bytes] = field(default_factory=list)
    skipped: int = 0
    patience: Patience | None = None

    def raw(self, start: int = 0, *, unended: bool = False, step: int = _CHUNK_BYTES) -> Iterator[tuple[int, bytes]]:
        """(offset, line without its newline) of every whole line from ``start``, which is the start of a line;
        ``unended``: and of what follows the last newline, if anything does. ``step``: so many bytes are read at
        once."""
        for offset, line, _ended in self._scan(start, unended, step):
            yield offset, line

    def _scan(self, start: int, unended: bool, step: int = _CHUNK_BYTES) -> Iterator[tuple[int, bytes, bool]]:
        for offset, block, gap, ended in self.blocks(start, unended=unended, step=step):
            for line in block[:-1].split(b"\n") if ended else [block]:
                yield offset, line, ended
                offset += len(line) + 1 + gap
                gap = 0

    def blocks(
        self, start: int = 0, *, unended: bool = False, step: int = _CHUNK_BYTES
    ) -> Iterator[tuple[int, bytes, int, bool]]:
        """(offset, whole lines with their newlines, how many bytes the first of them is longer in the file than here,
        True) from ``start``, which is the start of a line; ``unended``: and last, with False, what follows the last
        newline, if anything does."""
        offset, rest, gap = start, b"", 0  # of the line that is being read: where it begins, and what it is so far
        fd = self._open()
        try:
            while fd >= 0:
                at = offset + gap + len(rest)
                want = step if self.size is None else min(step, self.size - at)
                try:
                    chunk = self.disk.pread(fd, want, at) if want > 0 else b""
                except OSError as error:
                    if not is_stale(error) or not self._again("was replaced while it was read"):
                        raise
                    late = True
                else:
                    late = self.patience is not None and self._is_late(rest, chunk, want)
                if late:
                    rest, gap = b"", 0
                    self.disk.close(fd)
                    fd = -1
                    fd = self._open()
                    continue
                if not chunk:
                    if rest and unended:
                        yield offset, rest, gap, False
                    return
                end = chunk.rfind(b"\n") + 1
                if end:
                    block, rest = rest + chunk[:end], chunk[end:]
                    yield offset, block, gap, True
                    offset, gap = offset + len(block) + gap, 0
                else:
                    rest += chunk
                if len(rest) > _CHUNK_BYTES:
                    rest, left_out = _without_hole(rest)
                    gap += left_out
                    if len(rest) > LINE_BYTES_MAX or gap > _HOLE_BYTES_MAX:
                        return
        finally:
            if fd >= 0:
                self.disk.close(fd)

    def _open(self) -> int:
        """A descriptor; -1 when the log is not there."""
        try:
            return self.disk.open(self.log, READ, self.at)
        except (FileNotFoundError, NotADirectoryError):
            if self.size and self._again("is not there"):
                return self._open()
            return -1

    def _is_late(self, rest: bytes, chunk: bytes, want: int) -> bool:
        """Whether something is missing that is known to be there, and may be seen when the log is opened again."""
        if self.size is not None:
            if want > 0 and not chunk:
                return self._again(_SHORTER % self.size)
            return b"\0" in chunk and self._again("has zeros where lines must be")
        # Zeros at the end are not written yet.
        hole = chunk.rstrip(b"\0")
        return (b"\0" in hole or (hole != b"" and rest.endswith(b"\0"))) and self._again("has zeros between its lines")

    def _again(self, what: str) -> bool:
        return self.patience is not None and self.patience.again(self.log, what)

    def placed(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """(offset, line) of every whole line from byte ``start``; those that are in journals only stand where they will
        be in the file."""
        yield from self.raw(start)
        offset = self.size or 0
        for line in self.extra:
            if offset >= start:
                yield offset, line
            offset += len(line) + 1

    def blocks_from(self, key: str, first: int) -> Iterator[tuple[bytes, bool]]:
        """(whole lines, True), and last what follows the last newline, with False: all in which a row may be whose
        ``key`` is at least ``first``."""
        for _offset, block, _gap, ended in self.blocks(self._search(key, first), unended=self.size is None):
            yield block, ended
        if self.extra:
            yield b"".join(line + b"\n" for line in self.extra), True

    def rows(self, start: int = 0, *, step: int = _CHUNK_BYTES) -> Iterator[dict[str, Any]]:
        """Every row from byte ``start``, then the extra ones. ``step``: so many bytes are read at once."""
        # A row that lacks only its newline is one: no beginning of a JSON object is a JSON object.
        for _offset, block, _gap, ended in self.blocks(start, unended=self.size is None, step=step):
            yield from self._rows_of_all(block[:-1].split(b"\n")) if ended else self.rows_of(block, ended)
        yield from self._rows_of_all(self.extra)

    def _rows_of_all(self, lines: list[bytes]) -> Iterator[dict[str, Any]]:
        plain = jsons.objects_of(lines)
        if plain is not None:
            yield from plain
        else:
            for line in lines:
                yield from self.rows_of(line)

    def of_rank(self, rank: int, start: int = 0) -> Iterator[dict[str, Any]]:
        """The rows of ``rows`` that this rank wrote."""
        said = b'"rank":%d' % rank
        for line, ended in self._texts(start):
            if said in line:
                yield from (row for row in self.rows_of(line, ended) if row.get("rank") == rank)

    def _texts(self, start: int) -> Iterator[tuple[bytes, bool]]:
        """Each line, and whether it ends in a newline."""
        for _offset, line, ended in self._scan(start, self.size is None):
            yield line, ended
        for line in self.extra:
            yield line, True

    def rows_of(self, line: bytes, ended: bool = True) -> list[dict[str, Any]]:
        """The row that a line is. Of a line with a hole, what stands before it and what stands behind it may each be
        one: neither a beginning of a row nor an end of one is a JSON object. A piece out of its middle may well be."""
        text = line.strip(b" \t\r\n\0")
        if not text:
            return []
        row = jsons.object_of(line)
        if row is not None:
            return [row]
        pieces = line.split(b"\0")
        whole = [pieces[0], pieces[-1] if ended else b""] if len(pieces) > 1 else []
        rows = [row for piece in whole if piece and (row := jsons.object_of(piece)) is not None]
        if not rows:
            self.skipped += 1
        return rows

    def page(self, key: str, first: int, limit: int, rank: int | None = None) -> list[dict[str, Any]]:
        """Up to ``limit`` rows whose ``key`` (``index`` or ``sequenceNumber``) is at least ``first``, in file order; of
        one rank, when given."""
        found: list[dict[str, Any]] = []
        if limit <= 0:
            return found
        start = self._search(key, first)
        step = min(_CHUNK_BYTES, _PROBE_BYTES + limit * _ROW_BYTES)
        for row in self.rows(start, step=step) if rank is None else self.of_rank(rank, start):
            number = row.get(key)
            if isinstance(number, int) and number >= first:
                found.append(row)
                if len(found) == limit:
                    break
        return found

    def _search(self, key: str, first: int) -> int:
        """A byte offset at the start of a line, before every row from ``first`` on, found by bisection."""
        if first <= 0:
            return 0
        try:
            size = self.disk.stat(self.log, self.at).size
        except OSError:
            return 0
        low, high = 0, size if self.size is None else min(self.size, size)
        if high <= _SEARCH_ABOVE_BYTES:
            return 0
        while high - low > _PROBE_BYTES:
            middle = (low + high) // 2
            lines = self.raw(middle, step=_PROBE_BYTES)
            next(lines, None)  # the rest of the line that the middle fell into
            offset, line = next(lines, (high, b""))
            row = next(iter(self.rows_of(line)), None)
            number = row.get(key) if row else None
            if offset >= high or not isinstance(number, int) or number >= first:
                high = middle
            else:
                low = offset
        return low

    def first(self) -> dict[str, Any] | None:
        return next(self.rows(step=_PROBE_BYTES), None)

    def last(self, count: int = 1) -> list[dict[str, Any]]:
        """The last ``count`` rows, oldest first, without reading the rest."""
        rows = [row for line in self.extra[-count:] for row in self.rows_of(line)]
        if len(rows) < count:
            rows = self._tail(count - len(rows)) + rows
        return rows

    def _tail(self, count: int) -> list[dict[str, Any]]:
        fd = self._open()
        if fd < 0:
            return []
        try:
            return self._read_tail(fd, count)
        except OSError as error:
            if not is_stale(error) or not self._again("was replaced while it was read"):
                raise
        except _Late:
            pass
        finally:
            self.disk.close(fd)
        return self._tail(count)

    def _read_tail(self, fd: int, count: int) -> list[dict[str, Any]]:
        """The last ``count`` rows of the file. Raises :class:`_Late`."""
        size = self.disk.fstat(fd).size
        start = size if self.size is None else min(size, self.size)
        if self.size is not None and size < self.size and self._again(_SHORTER % self.size):
            raise _Late
        found: list[dict[str, Any]] = []  # the last one first
        rest, at_end = b"", True  # of the line whose beginning is not read yet; whether it has no newline
        step, read, zeros = _TAIL_BYTES, 0, 0
        while start > 0 and read < LINE_BYTES_MAX + (count << 16) and zeros < _HOLE_BYTES_MAX:
            step = min(step, start)
            chunk = self.disk.pread(fd, step, start - step)
            holes = chunk.count(b"\0")
            if holes and self.patience is not None and self._is_late(b"", chunk + (b"x" if read else b""), step):
                raise _Late
            start, read, zeros, step = start - step, read + step - holes, zeros + holes, min(2 * step, _CHUNK_BYTES)
            *_, rest = lines = [*reversed((chunk + rest).split(b"\n"))]
            for line in lines if start == 0 else lines[:-1]:
                if not at_end or self.size is None:
                    found += reversed(self.rows_of(line, not at_end))
                at_end = False
                if len(found) >= count:
                    return found[count - 1 :: -1]
            if len(rest) > _CHUNK_BYTES:
                rest, _left_out = _without_hole(rest)
        return found[::-1]


class _Late(Exception):
    """What is being read is to be opened again."""


def _without_hole(line: bytes) -> tuple[bytes, int]:
    """A line with one zero in place of its first one to its last, and how many bytes that leaves out."""
    first = line.find(b"\0")
    if first < 0:
        return line, 0
    last = line.rfind(b"\0")
    return line[:first] + line[last:], last - first
