"""Files: captured by the client into ``incoming/``, put in their place by the owner.

Commit first, rename after: a rename that a death prevented is done again at the next recovery, because the committed
history still says where the file belongs.
"""

from __future__ import annotations

from dreamlake.reader.superseded import INCOMING, SUPERSEDED, Superseded, bytes_of, place_digest, superseded
from dreamlake.wire.names import file_place
from dreamlake.wire.state import State
from dreamlake.world.disk import CREATE, WRITE, Disk
from dreamlake_agent.store.owner import Owner


def place_of(record: dict[str, object]) -> str:
    """Where a file stands, below the session directory."""
    return f"files/{file_place(str(record['path']), str(record['filename']))}"


class Files:
    """The files of one directory; only its owner has one."""

    def __init__(self, owner: Owner) -> None:
        self._owner, self._disk, self._at = owner, owner.disk, owner.at
        self._kept = superseded(self._disk, self._at)
        self._number = max((each.number for each in self._kept), default=0)

    def place(self, state: State) -> tuple[list[str], list[str]]:
        """Put every captured file whose operation is committed in its place; returns the ids of those that are there
        now, and the places of those whose bytes are nowhere.

        What stood there is kept until a checkpoint covers this: should power loss take the operation, what it replaced
        must be there again. On its way each file is on the owner's desk. Raises :class:`OSError` when a file is there
        to be moved and cannot be.
        """
        placed: list[str] = []
        missing: list[str] = []
        for file_id, incoming in list(state.incoming.items()):
            place = place_of(state.files[file_id])
            if self._is_file(f"{INCOMING}/{incoming}"):
                self._disk.rename(f"{INCOMING}/{incoming}", self._owner.path(incoming), self._at)
                self._make_room(file_id, place)
                self._disk.rename(self._owner.path(incoming), place, self._at)
                placed.append(file_id)
            elif self._is_file(place) or bytes_of(file_id, place, self._kept):
                placed.append(file_id)  # since before a recovery
            else:
                missing.append(place)
            del state.incoming[file_id]
        return placed, missing

    def _make_room(self, newcomer: str, place: str) -> None:
        digest = place_digest(place)
        mine = [each for each in self._kept if each.place == digest]
        is_there = self._is_file(place)
        if not is_there:
            self._disk.mkdirs(place.rpartition("/")[0], self._at)
            if not mine or mine[-1].newcomer == newcomer:
                return
        self._number += 1
        entry = Superseded(self._number, newcomer, digest, empty=not is_there)
        self._disk.mkdirs(SUPERSEDED, self._at)
        on_its_way = self._owner.path(entry.path.rpartition("/")[2])
        if is_there:
            self._disk.rename(place, on_its_way, self._at)
        else:
            self._disk.close(self._disk.open(on_its_way, WRITE | CREATE, self._at))
        self._disk.rename(on_its_way, entry.path, self._at)
        self._kept.append(entry)

    def settle(self, state: State) -> None:
        """After recovery: a version that is the last one after all gets its bytes back."""
        if self._kept:
            for path, file_id in state.places.items():
                place = f"files/{path}"
                kept = bytes_of(file_id, place, self._kept)
                if kept is not None:
                    self._disk.mkdirs(place.rpartition("/")[0], self._at)
                    on_its_way = self._owner.path(kept.rpartition("/")[2])
                    self._disk.rename(kept, on_its_way, self._at)
                    self._disk.rename(on_its_way, place, self._at)
                    self._kept = [each for each in self._kept if each.path != kept]

    def superseded(self, newest: int | None = None) -> list[str]:
        """What may go once the checkpoint that is about to be made is in place, up to a number; then :meth:`forget`
        it."""
        return [each.path for each in self._kept if newest is None or each.number <= newest]

    def newest(self) -> int:
        """The highest number that was given."""
        return self._number

    def forget(self, paths: list[str]) -> None:
        self._kept = [each for each in self._kept if each.path not in paths]

    def _is_file(self, path: str) -> bool:
        try:
            return self._disk.stat(path, self._at).is_file
        except (FileNotFoundError, NotADirectoryError):
            return False


def forget_captures(disk: Disk, at: int, state: State, client: bytes) -> None:
    """Drop what a client captured and nothing will ask for again: versions replaced before they were placed, and
    uploads that never returned. Only once its journal is wholly applied and gone."""
    wanted = set(state.incoming.values())
    for name in disk.listdir(INCOMING, at):
        if name.startswith(client.hex()) and name not in wanted:
            disk.unlink(f"{INCOMING}/{name}", at)


def unhashed(state: State) -> list[tuple[str, str]]:
    """(id, path) of the placed files whose checksum is not known yet."""
    return [
        (file_id, place_of(record))
        for file_id, record in state.files.items()
        if record.get("checksum") is None and record.get("deletedAt") is None
    ]
