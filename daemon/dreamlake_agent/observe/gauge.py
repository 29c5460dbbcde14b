"""The gauge: what the disks have left.

Looking is a thread's: on a network file system whose server is away it may never come back. Then what was found last
stands, and the rest of the agent goes on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from dreamlake_agent.core.events import Disk

_PATHS_MAX = 4  # of one disk that are looked at: sessions may just have been moved away


class Gauge:
    """``state`` is the agent's own folder; that and ``spool``, where there is one, are always looked at."""

    def __init__(self, state: str, spool: str | None = None) -> None:
        self._state, self._spool = state, spool
        self._looking: threading.Thread | None = None
        self._disks: tuple[Disk, ...] = ()
        self.state_device: int | None = None

    @property
    def disks(self) -> tuple[Disk, ...]:
        """As they were when they were last looked at."""
        return self._disks

    def look(self, sessions: Iterable[tuple[int, str]]) -> None:
        """Begin to look again, at (device, path) of these, unless a look has not come back yet."""
        if self._looking is None or not self._looking.is_alive():
            self._looking = threading.Thread(
                target=self._look, args=(sorted(set(sessions)),), name="gauge", daemon=True
            )
            self._looking.start()

    def _look(self, sessions: list[tuple[int, str]]) -> None:
        paths: dict[int, list[str]] = {}
        for device, path in sessions:
            paths.setdefault(device, []).append(path)
        own = {folder: _device(folder) for folder in (self._state, self._spool) if folder is not None}
        for folder, its in own.items():
            if its is not None:
                paths.setdefault(its, []).append(folder)
        self.state_device = own[self._state]
        found = (disk_of(device, candidates) for device, candidates in paths.items())
        self._disks = tuple(disk for disk in found if disk is not None)


def disk_of(device: int, paths: list[str]) -> Disk | None:
    """The file system, by the first of the paths that still leads to it."""
    for path in paths[:_PATHS_MAX]:
        try:
            if os.stat(path).st_dev != device:
                continue
            found = os.statvfs(path)
        except OSError:
            continue
        size = found.f_frsize
        return Disk(device, path, found.f_bavail * size, found.f_blocks * size, found.f_favail, found.f_files)
    return None


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None
