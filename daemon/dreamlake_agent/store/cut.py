"""Cut: what recovery takes out of a log, and what a person put where we write, is kept aside.

Nothing is ever deleted that a journal does not bring again. A cut is copied to ``.dreamlake/cut`` first; once every
line in it has been written again from the journals, the copy goes.
"""

from __future__ import annotations

from dreamlake.reader.lines import Lines, unnumbered
from dreamlake.world.disk import APPEND, NEW, Disk, sync_folder, write_all

CUT = ".dreamlake/cut"
_COPY_BYTES = 1 << 20


class CutFolder:
    """The cuts made since the directory was opened."""

    def __init__(self, disk: Disk, at: int) -> None:
        self._disk, self._at = disk, at
        # (file in cut/, log, byte from which the log was written anew)
        self._pending: list[tuple[str, str, int]] = []

    def _fresh(self, name: str) -> tuple[str, int]:
        self._disk.mkdirs(CUT, self._at)
        flat = name.replace("/", "__")[-200:]
        number = 0
        while True:
            path = f"{CUT}/{flat}.{number}"
            try:
                return path, self._disk.open(path, APPEND | NEW, self._at)
            except FileExistsError:
                number += 1

    def keep(self, name: str, data: bytes) -> str:
        """Keep ``data`` aside under a name like ``name``; returns the path."""
        path, fd = self._fresh(name)
        try:
            write_all(self._disk, fd, data)
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)
        sync_folder(self._disk, CUT, self._at)
        return path

    def cut(self, log: str, fd: int, start: int, end: int) -> None:
        """Copy the bytes of an open log from ``start`` aside, then cut them off."""
        path, copy = self._fresh(log)
        try:
            offset = start
            while offset < end:
                chunk = self._disk.pread(fd, min(_COPY_BYTES, end - offset), offset)
                if not chunk:
                    break
                write_all(self._disk, copy, chunk)
                offset += len(chunk)
            self._disk.fsync(copy)
        finally:
            self._disk.close(copy)
        sync_folder(self._disk, CUT, self._at)
        self._disk.truncate(fd, start)
        self._pending.append((path, log, start))

    def review(self) -> list[str]:
        """Drop the cuts whose every line came again; returns those that hold something no journal brought."""
        kept: list[str] = []
        for path, log, start in self._pending:
            if self._came_again(path, log, start):
                self._disk.unlink(path, self._at)
            else:
                kept.append(path)
        self._pending.clear()
        return kept

    def _came_again(self, path: str, log: str, start: int) -> bool:
        again: dict[bytes, int] = {}
        for _offset, line in Lines(self._disk, self._at, log).raw(start):
            key = unnumbered(line)
            again[key] = again.get(key, 0) + 1
        offset = 0
        for offset, line in Lines(self._disk, self._at, path).raw(0):
            offset += len(line) + 1
            if not line.strip(b"\0 \t\r"):
                continue
            key = unnumbered(line)
            if not again.get(key):
                return False
            again[key] -= 1
        rest = self._tail(path, offset)
        return not rest or any(key.startswith(unnumbered(rest)) for key, left in again.items() if left)

    def _tail(self, path: str, offset: int) -> bytes:
        fd = self._disk.open(path, 0, self._at)
        try:
            return self._disk.pread(fd, _COPY_BYTES, offset).strip(b"\0 \t\r\n")
        finally:
            self._disk.close(fd)
