"""Source: what a session directory may send.

That is what its last checkpoint covers: those bytes are on stable storage, and no recovery changes them. The checkpoint
knows the mark at the end of every log, so a directory that is wholly sent is known to be so without reading its logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from dreamlake.errors import DreamlakeError
from dreamlake.reader.commits import read_checkpoint
from dreamlake.reader.superseded import places_of, superseded
from dreamlake.wire import jsons
from dreamlake.wire.codec import Damaged
from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG, HISTORIES, SESSION_LOG, State, fold_read
from dreamlake.world.disk import READ, Disk

_CHUNK_BYTES = 1 << 20


class NotSendable(DreamlakeError):
    """A directory that has nothing that may be sent; the message says why and what to try."""


class OtherBytes(DreamlakeError):
    """A log is not what its checkpoint says: the directory is damaged, or was recovered meanwhile."""


@dataclass(frozen=True)
class Bytes:
    """The bytes of a file that the histories speak of."""

    sha256: str
    size: int
    path: str  # in the directory


class Source:
    """One session directory, opened for reading. Raises :class:`NotSendable` and :class:`OSError`."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.path, self._disk = path, disk
        self._at = disk.root(path)
        try:
            try:
                checkpoint = read_checkpoint(disk, self._at)
            except Damaged as error:
                raise NotSendable(f"{path}: {error}; see `dreamlake verify {path}`") from None
            if checkpoint is None:
                raise NotSendable(f"{path} has no checkpoint yet: run `dreamlake verify --repair {path}` first")
            self.origin = checkpoint.origin
            self.ends = {log: Mark(mark.size, mark.crc) for log, mark in checkpoint.logs.items() if mark.size}
            self.workspace, self.name = self._named()
        except BaseException:
            disk.close(self._at)
            raise

    def close(self) -> None:
        self._disk.close(self._at)

    def _named(self) -> tuple[str, str]:
        """As the session's own history says: a directory may have been moved."""
        state = State(self.origin)
        for line in self.lines(SESSION_LOG):
            row = _row(line)
            if row is not None and fold_read(state, SESSION_LOG, row) and state.session:
                break
        session = state.session or {}
        if not isinstance(session.get("workspace"), str) or not isinstance(session.get("name"), str):
            raise NotSendable(f"{self.path} does not say which session it is; see `dreamlake verify {self.path}`")
        return session["workspace"], session["name"]

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, log: str, start: int, size: int) -> bytes:
        """At most ``size`` bytes of a log from ``start`` on, not beyond its end."""
        end = self.ends.get(log, Mark()).size
        fd = self._disk.open(log, READ, self._at)
        try:
            found = bytearray()
            while len(found) < (want := min(size, end - start)):
                chunk = self._disk.pread(fd, min(_CHUNK_BYTES, want - len(found)), start + len(found))
                if not chunk:
                    raise OtherBytes(f"{self.path}/{log} is shorter than its checkpoint says")
                found += chunk
            return bytes(found)
        finally:
            self._disk.close(fd)

    def piece(self, log: str, start: int, size: int) -> bytes:
        """Whole lines from ``start`` on: as many as ``size`` bytes hold, but one at least, unless it is the end."""
        data = self.read(log, start, size)
        while data and b"\n" not in data:
            more = self.read(log, start + len(data), size)
            if not more:
                raise OtherBytes(f"{self.path}/{log} ends in half a line")
            data += more
        return data[: data.rindex(b"\n") + 1] if data else b""

    def lines(self, log: str) -> Iterator[bytes]:
        """Every line, without its newline."""
        start = 0
        while start < self.ends.get(log, Mark()).size:
            data = self.piece(log, start, _CHUNK_BYTES)
            yield from data.split(b"\n")[:-1]
            start += len(data)

    def has(self, log: str, mark: Mark, known: Mark | None = None) -> bool:
        """Whether this log has the history that a mark stands for. ``known`` is a mark that it has, before that one:
        what comes before it is not read again."""
        end = self.ends.get(log, Mark())
        if mark in (Mark(), end):
            return True
        if mark.size > end.size:
            return False
        start = known if known is not None and known.size <= mark.size else Mark()
        checksum, position, last = start.checksum, start.size, b"\n"
        while position < mark.size:
            data = self.read(log, position, min(_CHUNK_BYTES, mark.size - position))
            checksum, position, last = crc32(data, checksum), position + len(data), data
        return checksum == mark.checksum and last.endswith(b"\n")

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def files(self) -> list[Bytes]:
        """What stands in the session's files, and whose checksum is known; each content once."""
        state = State(self.origin)
        for line in self.lines(FILES_LOG):
            row = _row(line)
            if row is not None:
                fold_read(state, FILES_LOG, row)
        kept = superseded(self._disk, self._at)
        found: dict[str, Bytes] = {}
        for record in state.files.values():
            sha256, size = record.get("checksum"), record.get("sizeBytes")
            if not isinstance(sha256, str) or not isinstance(size, int) or record.get("deletedAt") is not None:
                continue
            for path in places_of(record, state.incoming, kept):
                if sha256 not in found and self._size(path) == size:
                    found[sha256] = Bytes(sha256, size, path)
        return list(found.values())

    def _size(self, path: str) -> int | None:
        try:
            found = self._disk.stat(path, self._at)
        except OSError:
            return None
        return found.size if found.is_file else None

    def chunks(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes [start, end) of a file. Raises :class:`OSError`; ends early where the file does."""
        fd = self._disk.open(path, READ, self._at)
        try:
            while start < end and (chunk := self._disk.pread(fd, min(_CHUNK_BYTES, end - start), start)):
                yield chunk
                start += len(chunk)
        finally:
            self._disk.close(fd)


def in_order(logs: set[str]) -> list[str]:
    """Histories first: who reads meanwhile knows what a point belongs to."""
    return [log for log in HISTORIES if log in logs] + sorted(logs - set(HISTORIES))


def _row(line: bytes) -> dict[str, object] | None:
    try:
        row = jsons.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
