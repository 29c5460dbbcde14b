"""Held: the segments of journals, open from the moment their owner first sees them, so that it hears of a failed fsync.

When an fsync fails, the kernel forgets which bytes it could not write, and tells each file description of it once, if
that was open by then. So an owner that opened a client's journal only to fsync it would be told that all is well, after
the client's own fsync of the same bytes had failed. A description that is held since before is told, too; and where a
failure may have come first, the client's mark says so (:func:`dreamlake.reader.segments.syncing_path`): it stands from
before a client's fsync until after it has succeeded.
"""

from __future__ import annotations

from dreamlake.reader.segments import JOURNALS, SYNCING, parse_name, segment_path, syncing_path
from dreamlake.reader.spools import Spooled
from dreamlake.world.disk import READ

# a segment: its client, its number, whether it is in a spool (one that has come home is another file)
Segmented = tuple[bytes, int, bool]


class Held:
    """Descriptors of the segments in one directory; only its owner has one."""

    def __init__(self, disk: Spooled, at: int) -> None:
        self._disk, self._at = disk, at
        self._fds: dict[Segmented, int] = {}
        # of segments that are gone; a worker may still be using them
        self._old: list[int] = []

    def look(self) -> set[bytes]:
        """Open the segments that are new; returns the clients of those that cannot be trusted yet: an fsync of theirs
        is under way, or has failed."""
        names = self._disk.listdir(JOURNALS, self._at)
        standing = {(*parsed, self._disk.has(parsed[0])) for name in names if (parsed := parse_name(name)) is not None}
        for segment in [each for each in self._fds if each not in standing]:
            self._old.append(self._fds.pop(segment))
        self._clear_marks(names, {client.hex() for client, *_ in standing})
        doubtful = set[bytes]()
        for client, number, spooled in sorted(standing - set(self._fds)):
            try:
                fd = self._disk.open(segment_path(client, number), READ, self._at)
            except FileNotFoundError:
                continue  # covered meanwhile, and unlinked by its client
            self._fds[client, number, spooled] = fd
            if self._is_syncing(client):  # asked after the opening: a failure that came first has its mark by now
                self._old.append(self._fds.pop((client, number, spooled)))
                doubtful.add(client)
        return doubtful

    def _clear_marks(self, names: list[str], clients: set[str]) -> None:
        """A mark without a journal stands for nothing any more."""
        for name in names:
            if name.endswith(SYNCING) and name.removesuffix(SYNCING) not in clients:
                try:
                    self._disk.unlink(f"{JOURNALS}/{name}", self._at)
                except FileNotFoundError:
                    pass

    def _is_syncing(self, client: bytes) -> bool:
        try:
            self._disk.stat(syncing_path(client), self._at)
        except FileNotFoundError:
            return False
        return True

    def of(self, client: bytes) -> list[int]:
        return [self._fds[each] for each in sorted(self._fds) if each[0] == client]

    def segments(self, clients: set[bytes]) -> set[Segmented]:
        return {each for each in self._fds if each[0] in clients}

    def close_old(self) -> None:
        """No worker is at work."""
        while self._old:
            self._disk.close(self._old.pop())

    def close(self) -> None:
        self._old += self._fds.values()
        self._fds.clear()
        self.close_old()

    def __len__(self) -> int:
        return len(self._fds) + len(self._old)
