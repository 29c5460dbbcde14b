"""Captures: files that this process has captured, and whose bytes it answers for until a checkpoint does."""

from __future__ import annotations

from dreamlake.reader.superseded import bytes_of, superseded
from dreamlake.world.disk import READ, Disk, folders_above, sync_folder

_MOVES_MAX = 5  # of one file while it is fsynced

Capture = tuple[int, str, str]  # end of its operation in the journal; in incoming/; in its place


class Captures:
    """Those that were not fsynced yet and that no checkpoint covers. Whoever calls holds the journal's lock, but for
    ``sync``."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._captures: list[Capture] = []

    def add(self, capture: Capture, covered: int) -> None:
        """One more; those whose operations end before ``covered`` are a checkpoint's."""
        self._captures = [each for each in self._captures if each[0] > covered]
        self._captures.append(capture)

    def take(self) -> list[Capture]:
        taken, self._captures = self._captures, []
        return taken

    def give_back(self, captures: list[Capture]) -> None:
        """They were taken, and could not be made to last."""
        self._captures += captures

    def sync(self, capture: Capture, at: int) -> None:
        """Make the bytes last, wherever the agent has put them meanwhile; when they move while we look, look again."""
        _end, incoming, place = capture
        version = incoming.rpartition("/")[2].partition("-")[2]
        for _ in range(_MOVES_MAX):
            kept = bytes_of(version, place, superseded(self._disk, at))
            for path in (incoming, kept or place):
                if self._fsync(path, at):
                    break
            if path == incoming or kept == bytes_of(version, place, superseded(self._disk, at)):
                return

    def _fsync(self, path: str, at: int) -> bool:
        """A file and its name, whose folders the agent may just have made; False when it is not there."""
        try:
            fd = self._disk.open(path, READ, at)
        except FileNotFoundError:
            return False
        try:
            self._disk.fsync(fd)
        finally:
            self._disk.close(fd)
        for folder in folders_above(path):
            sync_folder(self._disk, folder, at)
        return True
