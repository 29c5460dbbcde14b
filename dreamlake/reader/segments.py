"""Journals: the segments in ``.dreamlake/journals``, read by offset whether their writer lives or not.

A segment is a file of records (:mod:`dreamlake.wire.codec`)::

    journals/<client: 32 hex>.<n>
    ┌ header: one record, seeded with the client id ┐┌ operation ┐┌ operation ┐ …
    │ {v, client, n, base, running, made, by}        ││ base …    ││           │

``base`` is the offset of its first operation in the client's stream (bytes of operation records, headers not counted)
and ``running`` the stream's running checksum there. ``made`` is the time the client began (nanoseconds); ``by`` is the
process.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dreamlake.reader.commits import NUMBER_MAX
from dreamlake.wire import codec
from dreamlake.world import processes
from dreamlake.world.disk import READ, Disk, Stat

JOURNALS = ".dreamlake/journals"
VERSION = 1
HEADER_BYTES_MAX = 4096
# A segment that is being begun: it has its name once it is locked and its header whole.
UNNAMED = ".new"
SYNCING = ".sync"
_BEGUN = re.compile(r"(.+?)(?:\.([0-9a-f]{8}))?\.new\Z")
# As we write it and not otherwise: a segment is opened by the name that its client and number make.
_NAME = re.compile(r"([0-9a-f]{32})\.(0|[1-9][0-9]{0,11})\Z")


@dataclass(frozen=True)
class Segment:
    """One file of a client's stream."""

    client: bytes
    number: int
    base: int
    running: int
    made: int
    by: dict[str, Any]
    start: int  # bytes of header before the first operation
    size: int  # bytes of operations, as far as the file goes
    mtime_ns: int = 0  # by the clock of whoever keeps the disk: that it changes is a sign of life

    @property
    def path(self) -> str:
        return segment_path(self.client, self.number)

    @property
    def end(self) -> int:
        return self.base + self.size


def segment_path(client: bytes, number: int) -> str:
    return f"{JOURNALS}/{client.hex()}.{number}"


def syncing_path(client: bytes) -> str:
    """The mark that stands while a client fsyncs its journal, and stays when that failed: what the owner is told by an
    fsync of its own then means nothing."""
    return f"{JOURNALS}/{client.hex()}{SYNCING}"


def begun_path(path: str, by: dict[str, Any]) -> str:
    """What a file is called that is to have that name once it is whole. It says of which node its process is, because
    another node may see the name before the bytes, and take it for what the dead have left."""
    return f"{path}.{processes.node(by)}{UNNAMED}"


def begun_of(name: str) -> tuple[str, str | None] | None:
    """The name that a begun file is to have, and the node that makes it, if it says so; None for any other file."""
    found = _BEGUN.match(name)
    return (found[1], found[2]) if found else None


def parse_name(name: str) -> tuple[bytes, int] | None:
    """The client and the number that a file name in ``journals/`` says; None for a file that is no segment."""
    found = _NAME.match(name)
    return (bytes.fromhex(found[1]), int(found[2])) if found else None


def encode_header(client: bytes, number: int, base: int, running: int, made: int, by: dict[str, Any]) -> bytes:
    fields = {"v": VERSION, "client": client, "n": number, "base": base, "running": running, "made": made, "by": by}
    return codec.frame(codec.packer().pack(fields), codec.seed(client))[0]


def read_segment(disk: Disk, at: int, name: str) -> Segment | None:
    """The segment in a file; None when its header is not whole, or it is of another kind or version.

    Raises :class:`OSError` when the disk does not say: a segment that cannot be read now is not one that is not there.
    """
    parsed = parse_name(name)
    if parsed is None:
        return None
    client, number = parsed
    try:
        fd = disk.open(f"{JOURNALS}/{name}", READ, at)
    except FileNotFoundError:
        return None
    try:
        head = _read_fully(disk, fd, HEADER_BYTES_MAX, 0)
        found = disk.fstat(fd)
    finally:
        disk.close(fd)
    try:
        for start, _running, payload in codec.records(head, codec.seed(client), HEADER_BYTES_MAX):
            fields = codec.unpack(payload)
            if fields["v"] != VERSION or fields["client"] != client or fields["n"] != number:
                return None
            base, running, made = fields["base"], fields["running"], fields["made"]
            if not all(type(value) is int for value in (base, running, made)) or not 0 <= base <= NUMBER_MAX:
                return None
            by, size = dict(fields["by"]), max(0, found.size - start)
            return Segment(client, number, base, running, made, by, start, size, found.mtime_ns)
    except (codec.Damaged, KeyError, TypeError, ValueError):
        pass
    return None


def journals(
    disk: Disk,
    at: int,
    known: dict[str, Segment] | None = None,
    *,
    only: bytes | None = None,
    fresh: Callable[[dict[str, Any]], bool] = lambda by: False,
) -> dict[bytes, list[Segment]]:
    """Every client's segments (or only one's), in order; clients in the order in which they began.

    ``known`` are segments read before, by file name: a header never changes, so only their size is asked for again. Of
    those whose process ``fresh`` says it, by opening them: a network file system asks its server for the size of a file
    of another node then, and at no other time.
    """
    found: dict[bytes, list[Segment]] = {}
    for name in disk.listdir(JOURNALS, at):
        if only is not None and not name.startswith(only.hex()):
            continue
        before = known.get(name) if known else None
        segment = read_segment(disk, at, name) if before is None else _grown(disk, at, before, fresh(before.by))
        if segment is not None:
            found.setdefault(segment.client, []).append(segment)
    for segments in found.values():
        segments.sort(key=lambda each: each.number)
    return dict(sorted(found.items(), key=lambda item: (item[1][0].made, item[0])))


def is_torn(disk: Disk, at: int, name: str) -> bool:
    """Whether a file in ``journals/`` is the beginning of a segment that never became one."""
    begun = begun_of(name)
    if begun is not None:
        return parse_name(begun[0]) is not None
    parsed = parse_name(name)
    if parsed is None:
        return False
    try:
        fd = disk.open(f"{JOURNALS}/{name}", READ, at)
    except FileNotFoundError:
        return False
    try:
        head = _read_fully(disk, fd, HEADER_BYTES_MAX, 0)
    finally:
        disk.close(fd)
    try:
        return next(codec.records(head, codec.seed(parsed[0]), HEADER_BYTES_MAX), None) is None
    except codec.Damaged:
        return True


def _grown(disk: Disk, at: int, segment: Segment, fresh: bool) -> Segment | None:
    try:
        found = _opened(disk, at, segment.path) if fresh else disk.stat(segment.path, at)
    except FileNotFoundError:
        return None
    return dataclasses.replace(segment, size=max(0, found.size - segment.start), mtime_ns=found.mtime_ns)


def _opened(disk: Disk, at: int, path: str) -> Stat:
    fd = disk.open(path, READ, at)
    try:
        return disk.fstat(fd)
    finally:
        disk.close(fd)


def read_stream(disk: Disk, at: int, segments: list[Segment], position: int, limit: int) -> bytes:
    """Up to ``limit`` bytes of a client's stream from ``position``, out of one segment.

    What follows the place where the next segment begins is the torn end of a write that failed, and is not part of the
    stream. Empty when nothing more is there.
    """
    for index, segment in enumerate(segments):
        following = segments[index + 1].base if index + 1 < len(segments) else None
        if position < segment.base or (following is not None and position >= following):
            continue
        if following is not None:
            limit = min(limit, following - position)
        try:
            fd = disk.open(segment.path, READ, at)
        except FileNotFoundError:
            return b""
        try:
            return _read_fully(disk, fd, limit, segment.start + position - segment.base)
        finally:
            disk.close(fd)
    return b""


def _read_fully(disk: Disk, fd: int, size: int, offset: int) -> bytes:
    chunks: list[bytes] = []
    while size > 0:
        chunk = disk.pread(fd, min(size, 1 << 20), offset)
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def whole_run(
    disk: Disk, at: int, segments: list[Segment], position: int, running: int, limit: int
) -> tuple[bytes, int, bool]:
    """The valid records from ``position`` on, about ``limit`` bytes of them: (bytes, running checksum after, damaged).

    Always gives at least one record when a whole valid one is there, however long.
    """
    data = read_stream(disk, at, segments, position, limit)
    end, after, damaged = codec.whole_records(data, running)
    if end == 0 and not damaged and len(data) == limit:
        data = read_stream(disk, at, segments, position, codec.OP_BYTES_MAX + codec.FRAME_BYTES)
        end, after, damaged = codec.whole_records(data, running)
    return data[:end], after, damaged


def runs(
    disk: Disk, at: int, segments: list[Segment], position: int, running: int, limit: int
) -> Iterator[tuple[bytes, int, int]]:
    """The rest of a stream in runs of about ``limit`` bytes: (bytes, position after, running checksum after)."""
    while True:
        data, running, _damaged = whole_run(disk, at, segments, position, running, limit)
        if not data:
            return
        position += len(data)
        yield data, position, running
