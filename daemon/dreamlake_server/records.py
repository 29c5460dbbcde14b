"""Records: lines of a log as an origin has them, and what is to be done with a batch of them. PURE.

Batches are judged by marks (``dreamlake/wire/marks.py``): nothing that is stored has to be read again for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.projection import TIME_CHARACTERS_MAX, time_of
from dreamlake.wire.rows import row_of
from dreamlake.wire.zstd import pack, unpack
from dreamlake_server.limits import APPEND_BYTES, APPEND_LOGS, RECORD_BYTES, SEGMENT_BYTES, SEGMENT_ROWS, TAIL_BYTES
from dreamlake_server.stores.meta import Append, Head, Segment

GAP, FORK, TAKE = "gap", "fork", "take"


def mark_before(segment: Segment) -> Mark:
    return Mark(segment.size_before, segment.checksum_before)


def mark_at_end(head: Head) -> Mark:
    return Mark(head.size, head.checksum)


@dataclass(frozen=True)
class Batch:
    """What an origin says that its log holds from record ``first`` on: lines without their newlines; or one tombstone,
    for a record that a server would not take; or, at the beginning of a log, a ``base``: so many records that are
    another origin's, the latest of them made at ``time``. The bytes of these two are left out: then ``behind`` is the
    mark after them."""

    first: int
    prev: Mark
    lines: Sequence[bytes] = ()
    refused: str | None = None
    behind: Mark | None = None
    base: int = 0
    time: str | None = None

    @property
    def end(self) -> int:
        return self.first + (1 if self.refused is not None else self.base or len(self.lines))

    def mark_at(self, index: int) -> Mark:
        """``first`` ≤ index ≤ ``end``; of a base, one of these two."""
        if self.behind is not None and index > self.first:
            return self.behind
        return self.prev.after(joined(self.lines[: index - self.first]))


def joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n" if lines else b""


def judge(head: Head, batch: Batch, stored: Mark | None) -> str:
    """What to do with a batch: ``stored`` is the log's mark at ``min(batch.end, head.count)``, None where that is
    before its base. Of what is taken, the records before ``head.count`` are there already.

    >>> judge(Head(), Batch(1, Mark()), Mark())
    'gap'
    >>> judge(Head(), Batch(0, Mark(), [b"{}"]), Mark())
    'take'
    """
    if batch.first > head.count:
        return GAP
    if stored is None or (batch.base and 0 < head.count < batch.base):
        return FORK
    return TAKE if batch.mark_at(min(batch.end, head.count)) == stored else FORK


@dataclass(frozen=True)
class Wrong:
    """A record that cannot be taken."""

    index: int
    why: str


def parsed(line: bytes) -> dict[str, Any]:
    """A record, such as can be answered (``wire/rows.py``). Raises :class:`ValueError` that says why it is none."""
    if len(line) > RECORD_BYTES:
        raise ValueError(f"it is larger than {RECORD_BYTES} bytes (RECORD_BYTES)")
    if b"\n" in line:
        raise ValueError("it holds a newline")
    return row_of(line)


class _Times(msgspec.Struct, gc=False):
    """Where a record says when it was made."""

    createdAt: object = None
    timestamp: object = None
    time: object = None


_times_in = msgspec.json.Decoder(_Times).decode
# A line below this cannot be nested deeper than what jsons.loads takes.
_SHALLOW_BYTES = 2 * jsons.ROW_DEPTH_MAX


def _check(lines: list[bytes], data: bytes) -> list[str]:
    """The times of records, "" for those without; ten times as fast as :func:`parsed` on each of them. Raises
    :class:`ValueError` when one may be wrong; then :func:`parsed` has the last word."""
    if max(map(len, lines)) >= _SHALLOW_BYTES:
        return [time_of(parsed(line)) or "" for line in lines]
    if data.count(b"\n") >= len(lines):  # it would be two lines; between tokens JSON has newlines
        raise ValueError
    data.decode()  # msgspec passes over what it does not need, and over what is no UTF-8 in it
    found = [_times_in(line) for line in lines]
    times = [each.createdAt or each.timestamp or each.time or "" for each in found]
    if not all(isinstance(time, str) and len(time) <= TIME_CHARACTERS_MAX for time in times):
        return [time_of(parsed(line)) or "" for line in lines]
    return times  # type: ignore[return-value]


def _checked(lines: list[bytes], first: int) -> tuple[list[str], Wrong | None]:
    """The times of the records up to the first wrong one, and that."""
    if not lines:
        return [], None
    try:
        return _check(lines, b"\n".join(lines)), None
    except (ValueError, RecursionError):
        pass
    times: list[str] = []
    for line in lines:
        try:
            times.append(time_of(parsed(line)) or "")
        except ValueError as error:
            return times, Wrong(first + len(times), str(error))
    return times, None


def continued(log: str, head: Head, batch: Batch, last: Segment | None) -> tuple[Append | None, Wrong | None]:
    """The append that adds what is new of a batch to a log, and the first record that cannot be taken: what stands
    before it is taken all the same. ``last`` is the log's last segment, if it is to grow."""
    if batch.end <= head.count:
        return None, None
    if batch.base:
        assert batch.behind is not None
        behind = batch.behind
        return Append(
            log, head, Head(batch.base, behind.size, behind.checksum, None, batch.time, base=batch.base), ()
        ), None
    if batch.refused is not None:
        assert batch.behind is not None
        return _tombstone(log, head, batch.refused, batch.behind), None
    lines = list(batch.lines[head.count - batch.first :])
    times, wrong = _checked(lines, head.count)
    if not times:
        return None, wrong
    lines = lines[: len(times)]
    segments = tuple(_segments(head, lines, times, last))
    after = mark_at_end(head).after(joined(lines))
    time_first = head.time_first or next((time for time in times if time), None)
    count = head.count + len(lines)
    new = replace(
        head,
        count=count,
        size=after.size,
        checksum=after.checksum,
        time_first=time_first,
        time_max=segments[-1].time_max,
    )
    return Append(log, head, new, segments), wrong


def _tombstone(log: str, head: Head, refused: str, behind: Mark) -> Append:
    before = mark_at_end(head)
    size = max(0, behind.size - before.size)
    segment = Segment(
        head.count, 1, size, before.size, before.checksum, head.time_max, head.time_max, b"", refused or "refused"
    )
    after = replace(head, count=head.count + 1, size=behind.size, checksum=behind.checksum)
    return Append(log, head, after, (segment,))


def _segments(head: Head, lines: list[bytes], times: list[str], last: Segment | None) -> Iterator[Segment]:
    first, mark, time_before = head.count, mark_at_end(head), head.time_max
    if last is not None:  # it grows: its lines come first
        grown = lines_of(last)
        lines, times = [*grown, *lines], [last.time_max or ""] * len(grown) + times
        first, mark, time_before = last.first, mark_before(last), last.time_before
    start = 0
    while start < len(lines):
        end, size = start, 0
        while end < len(lines) and end - start < SEGMENT_ROWS:
            size += len(lines[end]) + 1
            if size > SEGMENT_BYTES and end > start:
                break
            end += 1
        data = joined(lines[start:end])
        time_max = max(time_before or "", *times[start:end]) or None
        yield Segment(
            first + start, end - start, len(data), mark.size, mark.checksum, time_before, time_max, pack(data)
        )
        mark, time_before = mark.after(data), time_max
        start = end


def in_turns(appends: Sequence[Append]) -> Iterator[list[Append]]:
    """Appends in groups that one transaction can hold; one that is too large by itself becomes several, each of which
    continues the one before."""
    group: list[Append] = []
    size = 0
    for each in (piece for append in appends for piece in _pieces(append)):
        length = sum(len(segment.data) for segment in each.segments)
        if group and (size + length > APPEND_BYTES or len(group) == APPEND_LOGS or group[-1].log == each.log):
            yield group
            group, size = [], 0
        group.append(each)
        size += length
    if group:
        yield group


def _pieces(append: Append) -> Iterator[Append]:
    before, start, size = append.before, 0, 0
    for end, segment in enumerate(append.segments):
        size += len(segment.data)
        if size > APPEND_BYTES and end > start:
            after = replace(
                append.after,
                count=segment.first,
                size=segment.size_before,
                checksum=segment.checksum_before,
                time_max=segment.time_before,
            )
            yield Append(append.log, before, after, append.segments[start:end])
            before, start, size = after, end, len(segment.data)
    yield Append(append.log, before, append.after, append.segments[start:])


def grows(head: Head, batch: Batch) -> bool:
    """Whether a batch is so small that the last segment should be fetched to grow by it."""
    return (
        head.count > max(head.sealed, head.base)
        and batch.refused is None
        and len(batch.lines) < SEGMENT_ROWS
        and sum(map(len, batch.lines)) < TAIL_BYTES
    )


def may_grow(segment: Segment) -> bool:
    return segment.refused is None and segment.size < TAIL_BYTES and segment.count < SEGMENT_ROWS


def bytes_of(segment: Segment) -> bytes:
    """What its records are in the log; of a tombstone that is not known."""
    return unpack(segment.data, segment.size) if segment.refused is None else b""


def lines_of(segment: Segment) -> list[bytes]:
    """The lines of a segment; a tombstone has one empty line."""
    return bytes_of(segment).split(b"\n")[:-1] if segment.refused is None else [b""]


def mark_at(segment: Segment, index: int) -> Mark:
    """The log's mark before record ``index``, which the segment holds."""
    if index == segment.first:
        return mark_before(segment)
    return mark_before(segment).after(joined(lines_of(segment)[: index - segment.first]))
