"""Rows: the logs of a directory, appended.

Each log is as long as its rows say, whatever the file says: a file that is longer holds what an earlier owner wrote
and did not commit. What replay or a journal then brings is compared with it, and where the bytes agree nothing is
written; at the first byte that differs, and at ``settle``, the rest is cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

from dreamlake.reader.baseline import track_names
from dreamlake.reader.commits import LogMark
from dreamlake.wire.state import HISTORIES, LOGS_LOG, Tail, data_log
from dreamlake.world.disk import CREATE, READ_APPEND, Disk, let_go, write_all
from dreamlake_agent.store.cut import CutFolder
from dreamlake_agent.store.opened import Opened
from dreamlake_agent.store.owner import Owner


@dataclass
class _Log:
    size: int
    crc: int
    # where the file ends, as long as that is beyond ``size``
    unverified: int = 0
    checked: bool = False
    # somebody moved its lines, so that whole ones beyond ``size`` may be rows all the same
    edited: bool = False


class Rows:
    """The logs of one directory; only its owner has one."""

    def __init__(
        self, owner: Owner, marks: dict[str, LogMark], cuts: CutFolder, opened: Opened, *, distrust: bool
    ) -> None:
        self._owner, self._disk, self._at, self._cuts = owner, owner.disk, owner.at, cuts
        self._unproven = False  # a log was opened by its name, which may be another owner's file by now
        # After a failed fsync the page cache may show bytes that the disk never got: write them again.
        self._distrust = distrust
        self._logs = {log: _Log(mark.size, mark.crc) for log, mark in marks.items()}
        self._fds: dict[str, int] = {}
        self._opened = opened
        self._unclosed: OSError | None = None  # a log that made room for another one did not close well
        self.dirty: set[str] = set()
        self._unnamed: set[str] = set()  # opened by their names, which may not last yet
        self._grown: set[str] = set(marks)
        self.warnings: list[str] = []

    def end_line(self, log: str) -> None:
        """A first owner's: the last line of an old log is whole but for its newline."""
        self._descriptor(log, self._logs[log])
        self.warnings.clear()  # nobody edited it

    def extend(self, rows: dict[str, bytes]) -> None:
        """Add whole lines to logs: as many as may be open are opened before they are written, so that all of these are
        proven at once."""
        logs = list(rows)
        for first in range(0, len(logs), self._opened.most):
            some = logs[first : first + self._opened.most]
            if not self._opened.has_room(len(some)):
                self._opened.used(self._let_go, (log for log in some if log in self._fds))
            opened = [self._open(log) for log in some]
            self._prove()
            self.dirty.update(some)
            self._grown.update(some)
            for log, (fd, found) in zip(some, opened, strict=True):
                self._add(log, fd, found, rows[log])

    def _check_closed(self) -> None:
        if self._unclosed is not None:
            raise self._unclosed

    def _prove(self) -> None:
        self._check_closed()
        if self._unproven:
            self._owner.prove()
            self._unproven = False

    def append(self, log: str, data: bytes) -> None:
        """Add whole lines to a log. After an :class:`OSError` the directory must be recovered."""
        self.extend({log: data})

    def _open(self, log: str) -> tuple[int, _Log]:
        found, fd = self._logs.get(log), self._fds.get(log)
        if found is None:
            found = self._logs[log] = _Log(0, 0)
        return self._descriptor(log, found) if fd is None else fd, found

    def _add(self, log: str, fd: int, found: _Log, data: bytes) -> None:
        if found.unverified and not self._agrees(fd, found, data):
            self._cut(log, fd, found)
        if not found.unverified:
            write_all(self._disk, fd, data)
        found.size += len(data)
        found.crc = zlib.crc32(data, found.crc)
        if found.unverified and found.unverified <= found.size:
            found.unverified = 0

    def _agrees(self, fd: int, found: _Log, data: bytes) -> bool:
        if self._distrust or found.size + len(data) > found.unverified:
            return False
        return self._disk.pread(fd, len(data), found.size) == data

    def _cut(self, log: str, fd: int, found: _Log) -> None:
        self._prove()
        self._cuts.cut(log, fd, found.size, found.unverified)
        found.unverified = 0

    def _descriptor(self, log: str, found: _Log) -> int:
        fd = self._fds.get(log)
        if fd is not None:
            return fd
        try:
            fd = self._disk.open(log, READ_APPEND | CREATE, self._at)
        except FileNotFoundError:
            self._disk.mkdirs(log.rpartition("/")[0], self._at)
            fd = self._disk.open(log, READ_APPEND | CREATE, self._at)
        self._unproven = True
        try:
            self._compare(log, fd, found)
        except BaseException:
            let_go(self._disk, fd)
            raise
        self._fds[log] = fd
        self._unnamed.add(log)
        self._opened.add(self._let_go, log)
        return fd

    def _let_go(self, log: str) -> None:
        """Another log needs the room, perhaps another directory's: what goes wrong is told when this one's is next
        used."""
        try:
            self._disk.close(self._fds.pop(log))
        except OSError as error:
            self._unclosed = self._unclosed or error

    def _compare(self, log: str, fd: int, found: _Log) -> None:
        """Hold what we know of a log against the file: it may be longer (see above), or a person may have cut it."""
        size = self._disk.fstat(fd).size
        if size >= found.size > 0 and self._disk.pread(fd, 1, found.size - 1) != b"\n":
            size = self._end_line(log, fd, found, size)
        if size < found.size:
            self.warnings.append(f"{log} is {found.size - size} bytes shorter than it was; its numbers go on")
            self._go_on_after_the_last_line(fd, found, size)
        elif size > found.size:
            found.unverified = size

    def _go_on_after_the_last_line(self, fd: int, found: _Log, size: int) -> None:
        found.size, found.crc = size, checksum(self._disk, fd, size)[0]
        if size and self._disk.pread(fd, 1, size - 1) != b"\n":
            # The next row must not be glued to half a line.
            last = self._disk.pread(fd, min(size, 1 << 20), max(0, size - (1 << 20))).rfind(b"\n") + 1
            found.size = max(0, size - (1 << 20)) + last
            found.crc, found.unverified = checksum(self._disk, fd, found.size)[0], size

    def _end_line(self, log: str, fd: int, found: _Log, size: int) -> int:
        """What we know of ends in the middle of a line: a person has edited the log. The line stays whole, or the next
        row would be glued to its half, and neither would be a row."""
        rest, offset = b"", found.size
        while offset < size and (chunk := self._disk.pread(fd, min(1 << 20, size - offset), offset)):
            end = chunk.find(b"\n") + 1
            rest, offset = chunk[:end] if end else chunk, offset + (end or len(chunk))
            found.crc = zlib.crc32(rest, found.crc)
            if end:
                break
        found.size = offset
        if not rest.endswith(b"\n"):
            self._prove()
            write_all(self._disk, fd, b"\n")
            found.size, found.crc = offset + 1, zlib.crc32(b"\n", found.crc)
            size = found.size
            self.dirty.add(log)
        found.edited = True
        self.warnings.append(f"{log} was edited by somebody else; it goes on after the line that stands there")
        return size

    def settle(self) -> None:
        """Every journal has been heard: what is still beyond a log's rows was never anybody's returned call."""
        # A log that the checkpoint does not know, and to which nothing was added since: none of it is a row.
        strange = {*HISTORIES, LOGS_LOG, *map(data_log, track_names(self._disk, self._at))} - set(self._logs)
        for log in (*self._logs, *sorted(strange)):
            found = self._logs.get(log) or _Log(0, 0)
            if not found.checked:
                found.checked = True
                try:
                    size = self._disk.stat(log, self._at).size
                except FileNotFoundError:
                    size = 0
                if size != found.size:
                    self._logs[log] = found
                    fd = self._descriptor(log, found)
                    if found.unverified and found.edited:
                        found.unverified = 0
                        self._go_on_after_the_last_line(fd, found, size)
                    if found.unverified:
                        self._cut(log, fd, found)

    def take_dirty(self) -> tuple[list[str], list[str]]:
        """The logs that were written since this was last asked, and those of them whose names may not last yet."""
        dirty, self.dirty = sorted(self.dirty), set()
        unnamed = [log for log in dirty if log in self._unnamed]
        self._unnamed.difference_update(unnamed)
        return dirty, unnamed

    def take_grown(self) -> dict[str, int]:
        """How many bytes each log has that grew since this was last asked (the first time: each log). Raises
        :class:`OSError` when what was written to one may not have come to the disk."""
        self._check_closed()
        grown, self._grown = self._grown, set()
        return {log: self._logs[log].size for log in sorted(grown)}

    def marks(self, tails: dict[str, Tail]) -> dict[str, LogMark]:
        """Size, checksum and tail of every log now, for a checkpoint."""
        none = Tail()
        return {log: LogMark(found.size, found.crc, _copy(tails.get(log, none))) for log, found in self._logs.items()}

    def close(self) -> None:
        for log, fd in self._fds.items():
            self._opened.remove(self._let_go, log)
            let_go(self._disk, fd)
        self._fds.clear()


def checksum(disk: Disk, fd: int, size: int, told: Callable[[int], None] = lambda _bytes: None) -> tuple[int, int]:
    """The CRC-32 of the first ``size`` bytes of a file, or of those that there are, and how many that are. ``told``
    hears of the bytes piece by piece."""
    crc = offset = 0
    while offset < size and (chunk := disk.pread(fd, min(1 << 20, size - offset), offset)):
        crc, offset = zlib.crc32(chunk, crc), offset + len(chunk)
        told(len(chunk))
    return crc, offset


def _copy(tail: Tail) -> Tail:
    return Tail(tail.rows, tail.next, tail.time)
