"""Files: captured by the client into ``incoming/``, put in their place by the owner.

Commit first, rename after: a rename that a death prevented is done again at the next recovery, because the committed
history still says where the file belongs.
"""

from __future__ import annotations

from dreamlake.reader.segments import JOURNALS
from dreamlake.wire.names import file_place
from dreamlake.wire.state import State
from dreamlake.world.disk import Disk

INCOMING = ".dreamlake/incoming"


def place_of(record: dict[str, object]) -> str:
    """Where a file stands, below the session directory."""
    return f"files/{file_place(str(record['path']), str(record['filename']))}"


def place_new(disk: Disk, at: int, state: State) -> tuple[list[str], list[str]]:
    """Put every captured file whose operation is committed in its place; returns the ids of those that are there now,
    and the places of those whose bytes are nowhere.

    Raises :class:`OSError` when a file is there to be moved and cannot be.
    """
    placed: list[str] = []
    missing: list[str] = []
    for file_id, incoming in list(state.incoming.items()):
        place = place_of(state.files[file_id])
        try:
            disk.mkdirs(place.rpartition("/")[0], at)
            disk.rename(f"{INCOMING}/{incoming}", place, at)
            placed.append(file_id)
        except FileNotFoundError:
            if _is_there(disk, at, place):
                placed.append(file_id)  # in its place already, since before a recovery
            else:
                missing.append(place)
        del state.incoming[file_id]
    return placed, missing


def _is_there(disk: Disk, at: int, place: str) -> bool:
    try:
        return disk.stat(place, at).is_file
    except FileNotFoundError:
        return False


def forget_captures(disk: Disk, at: int, state: State, client: bytes) -> None:
    """Drop what a client captured and nothing will ask for again: versions replaced before they were placed, and
    uploads that never returned. Only once its journal is wholly applied and gone."""
    wanted = set(state.incoming.values())
    for name in disk.listdir(INCOMING, at):
        if name.startswith(client.hex()) and name not in wanted:
            disk.unlink(f"{INCOMING}/{name}", at)


def forget_orphans(disk: Disk, at: int, state: State) -> None:
    """Drop captures of clients of whom no journal is left (the power went before it was durable): nothing can ask for
    them any more. A journal is there before its captures, so the captures are listed first."""
    wanted = set(state.incoming.values())
    captures = [name for name in disk.listdir(INCOMING, at) if name not in wanted]
    if captures:
        clients = {name.partition(".")[0] for name in disk.listdir(JOURNALS, at)}
        for name in captures:
            if name.partition("-")[0] not in clients:
                disk.unlink(f"{INCOMING}/{name}", at)


def unhashed(state: State) -> list[tuple[str, str]]:
    """(id, path) of the placed files whose checksum is not known yet."""
    return [
        (file_id, place_of(record))
        for file_id, record in state.files.items()
        if record.get("checksum") is None and record.get("deletedAt") is None
    ]
