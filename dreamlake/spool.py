"""Spool: where one journal is while it is not in its session directory, and the marker in there that says so."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

from dreamlake.reader.segments import JOURNALS, UNNAMED, begun_path, read_segment, segment_path
from dreamlake.reader.spools import SPOOL, Marker, encode_marker, marker_path, sync_spool
from dreamlake.world.disk import CREATE, READ, WRITE, Disk, begin_locked, sync_folder


class Spool:
    """A folder on node-local disk for one client's journal. ``root`` is that folder, open."""

    def __init__(self, disk: Disk, at: int, path: str, client: bytes, by: dict[str, Any]) -> None:
        """``at`` is the session directory, ``path`` the folder (:func:`dreamlake.config.spool_folder`). Raises
        :class:`OSError`."""
        self._disk, self._at, self.path, self._client = disk, at, path, client
        self._host, self._by = by["host"], by
        self._marker = -1
        self._synced = False
        self.root = disk.private(path)
        try:
            disk.mkdirs(".dreamlake", self.root)
            disk.close(disk.open(SPOOL, WRITE | CREATE, self.root))
            disk.mkdirs(JOURNALS, self.root)
            self._clear_away()
        except BaseException:
            disk.close(self.root)
            raise

    def _clear_away(self) -> None:
        """Drop what others have begun here and did not live to mark: nobody looks for it, and no call is in it."""
        for name in self._disk.listdir(JOURNALS, self.root):
            with contextlib.suppress(OSError):
                segment = read_segment(self._disk, self.root, name)
                if name.endswith(UNNAMED) or (segment is not None and segment.number == 0 and segment.size == 0):
                    self._drop_if_free(name)

    def _drop_if_free(self, name: str) -> None:
        fd = self._disk.open(f"{JOURNALS}/{name}", READ, self.root)
        try:
            if self._disk.lock(fd):
                segment = read_segment(self._disk, self.root, name)
                if segment is None or segment.size == 0:
                    self._disk.unlink(f"{JOURNALS}/{name}", self.root)
        finally:
            self._disk.close(fd)

    def mark(self) -> None:
        """Say in the directory where the journal is. Only once its first segment stands: a marker without one is the
        end of a journal, not the beginning. It is locked, so that who cannot see the journal sees that it is written.
        """
        disk, path = self._disk, marker_path(self._client)
        try:
            data = encode_marker(Marker(self._host, self.path, disk.fstat(self.root).ino))
        except UnicodeEncodeError:
            raise OSError(errno.EILSEQ, "its path is not UTF-8", self.path) from None
        self._marker = begin_locked(disk, path, begun_path(path, self._by), data, self._at)

    def is_gone(self) -> bool:
        """Whether somebody removed the marker (with the directory, as users do)."""
        return self._marker >= 0 and self._disk.fstat(self._marker).nlink == 0

    def sync(self) -> None:
        """Make marker and folders survive power loss; the session's own folder is the writer's affair."""
        if not self._synced:
            self._disk.fsync(self._marker)
            for folder in (JOURNALS, ".dreamlake", "."):
                sync_folder(self._disk, folder, self._at)
            sync_spool(self._disk, self.root, os.path.dirname(self.path))
            self._synced = True

    def unmark(self) -> None:
        """From here on the journal is where the directory says."""
        try:
            self._disk.unlink(marker_path(self._client), self._at)
        except FileNotFoundError:
            pass

    def drop_begun(self) -> None:
        """The journal could not be begun here: nothing of it stays."""
        with contextlib.suppress(OSError):
            self._disk.unlink(begun_path(segment_path(self._client, 0), self._by), self.root)

    def close(self) -> None:
        for fd in (self.root, self._marker):
            if fd >= 0:
                self._disk.close(fd)
        self.root = self._marker = -1
