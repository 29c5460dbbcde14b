"""Source: what a session directory may send.

That is what its last checkpoint covers: those bytes are on stable storage, and no recovery changes them. The checkpoint
knows the mark at the end of every log, so a directory that is wholly sent is known to be so without reading its logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from dreamlake.errors import DreamlakeError
from dreamlake.reader.base import BaseDamaged, read_base
from dreamlake.reader.commits import read_checkpoint
from dreamlake.reader.superseded import Superseded, bytes_of, superseded
from dreamlake.wire import jsons
from dreamlake.wire.codec import Damaged
from dreamlake.wire.marks import Mark
from dreamlake.wire.names import file_place, is_sha256
from dreamlake.wire.state import FILES_LOG, HISTORIES, SESSION_LOG, State, fold_read
from dreamlake.world.disk import READ, Disk

_CHUNK_BYTES = 1 << 20


class NotSendable(DreamlakeError):
    """A directory that has nothing that may be sent; the message says why and what to try."""


class OtherBytes(DreamlakeError):
    """A log is not what its checkpoint says: the directory is damaged, or was recovered meanwhile."""


@dataclass(frozen=True)
class Version:
    """One upload of a file: where its bytes may be."""

    id: str
    place: str  # below the directory
    incoming: str | None


@dataclass(frozen=True)
class Bytes:
    """The bytes of a file that the histories speak of. ``stands``: it is the last version, and not deleted."""

    sha256: str
    size: int
    name: str  # for people: where the last of its versions belongs
    stands: bool
    versions: tuple[Version, ...]


class Source:
    """One session directory, opened for reading. Raises :class:`NotSendable` and :class:`OSError`."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.path, self._disk = path, disk
        self._at = disk.root(path)
        self._files: list[Bytes] | None = None
        self._kept: list[Superseded] | None = None
        try:
            try:
                checkpoint = read_checkpoint(disk, self._at)
            except Damaged as error:
                raise NotSendable(f"{path}: {error}; see `dreamlake verify {path}`") from None
            if checkpoint is None:
                raise NotSendable(f"{path} has no checkpoint yet: run `dreamlake verify --repair {path}` first")
            self.origin, self._seq = checkpoint.origin, checkpoint.seq
            self.ends = {log: Mark(mark.size, mark.crc) for log, mark in checkpoint.logs.items() if mark.size}
            try:
                base = read_base(disk, self._at, self.origin)
            except BaseDamaged as error:
                raise NotSendable(f"{path}: {error}") from None
            # What these logs begin with is another origin's.
            self.bases = {log: begin for log, begin in base.logs.items() if log in self.ends and begin[0]}
            self.base_times = base.times()
            self.base_origins = frozenset(base.origins)
            self._rows = sum(mark.tail.rows for mark in checkpoint.logs.values())
            self._records: int | None = None
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
            row = jsons.object_of(line)
            if row is not None and fold_read(state, SESSION_LOG, row) and state.session:
                break
        session = state.session or {}
        if not isinstance(session.get("workspace"), str) or not isinstance(session.get("name"), str):
            raise NotSendable(f"{self.path} does not say which session it is; see `dreamlake verify {self.path}`")
        return session["workspace"], session["name"]

    def records(self) -> int:
        """How many records all logs have together."""
        if self._records is None:  # a checkpoint counts the rows of all logs but the histories
            self._records = self._rows + sum(1 for log in HISTORIES for _line in self.lines(log))
        return self._records

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

    def lines(self, log: str, start: int = 0) -> Iterator[bytes]:
        """Every line from byte ``start`` on, without its newline."""
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

    def goes_on(self, log: str, mark: Mark) -> bool:
        """Whether this log is what it was at an earlier checkpoint, and perhaps more: only that is read."""
        end = self.ends.get(log)
        if end is None or end.size < mark.size:
            return False
        checksum, position = mark.checksum, mark.size
        while position < end.size:
            data = self.read(log, position, _CHUNK_BYTES)
            checksum, position = crc32(data, checksum), position + len(data)
        return checksum == end.checksum

    def is_current(self) -> bool:
        """Whether no newer checkpoint has been written since."""
        try:
            found = read_checkpoint(self._disk, self._at)
        except (Damaged, OSError):
            return False
        return found is not None and (found.origin, found.seq) == (self.origin, self._seq)

    def remotes(self) -> dict[str, str | None]:
        """Where the session was opened to go: URL → user."""
        state = State(self.origin)
        for line in self.lines(SESSION_LOG):
            row = jsons.object_of(line)
            if row is not None:
                fold_read(state, SESSION_LOG, row)
        return state.remotes

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def files(self) -> list[Bytes]:
        """What has a checksum in the history, also where it was replaced since; each content once."""
        if self._files is None:
            self._files = list(self._contents())
        return self._files

    def _contents(self) -> Iterator[Bytes]:
        state = State(self.origin)
        versions: dict[str, tuple[dict[str, object], Version]] = {}
        for line in self.lines(FILES_LOG):
            row = jsons.object_of(line)
            if row is None or not fold_read(state, FILES_LOG, row):
                continue
            if isinstance(record := row.get("record"), dict):
                place = f"files/{file_place(record['path'], record['filename'])}"
                incoming = str(row["incoming"]) if row.get("incoming") else None
                versions[record["id"]] = ({**record}, Version(record["id"], place, incoming))
            elif row["op"] == "hashed" and row["id"] in versions:  # of a version that was replaced by then, too
                versions[str(row["id"])][0]["checksum"] = row["checksum"]
        found: dict[str, Bytes] = {}
        for file_id, (record, version) in versions.items():
            sha256, size = record.get("checksum"), record.get("sizeBytes")
            last = state.files.get(file_id)
            if not is_sha256(sha256) or not isinstance(size, int):
                continue
            if last is not None and last.get("deletedAt") is not None:
                continue
            same = found.get(sha256)
            found[sha256] = Bytes(
                sha256,
                size,
                version.place,
                last is not None or (same is not None and same.stands),
                (version, *(same.versions if same else ())),
            )
        yield from found.values()

    def places(self, file: Bytes, *, look_again: bool = False) -> list[str]:
        """The files that may hold these bytes: they have the right size."""
        if self._kept is None or look_again:
            self._kept = superseded(self._disk, self._at)
        found: dict[str, None] = {}
        for version in file.versions:
            folder, _, name = version.place.rpartition("/")
            kept = bytes_of(version.id, version.place, self._kept)
            for path in (
                f".dreamlake/incoming/{version.incoming}" if version.incoming else None,
                kept,
                f"{folder}/{version.id}/{name}",  # 0.2.x
                version.place,
            ):
                if path is not None and self.size(path) == file.size:
                    found[path] = None
        return list(found)

    def size(self, path: str) -> int | None:
        """How many bytes a file has; None where there is none."""
        try:
            found = self._disk.stat(path, self._at)
        except OSError:
            return None
        return found.size if found.is_file else None

    def identity(self, path: str) -> tuple[int, int, int, int]:
        """Device, inode, size in bytes and time of the last change in ns. Raises :class:`OSError`."""
        found = self._disk.stat(path, self._at)
        return found.dev, found.ino, found.size, found.mtime_ns

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
