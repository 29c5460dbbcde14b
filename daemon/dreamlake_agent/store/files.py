"""Files: captured by the client into ``incoming/``, put in their place by the owner.

Commit first, rename after: a rename that a death prevented is done again at the next recovery, because the committed
history still says where the file belongs.
"""

from __future__ import annotations

from dreamlake.wire.names import file_place
from dreamlake.wire.state import State
from dreamlake.world.disk import Disk

INCOMING = ".dreamlake/incoming"


def place_new(disk: Disk, at: int, state: State) -> list[str]:
    """Put every captured file whose operation is committed in its place; returns the ids of those that are there now.

    Raises :class:`OSError` when a file is there to be moved and cannot be.
    """
    placed: list[str] = []
    for file_id, incoming in list(state.incoming.items()):
        record = state.files[file_id]
        place = f"files/{file_place(record['path'], record['filename'])}"
        try:
            disk.mkdirs(place.rpartition("/")[0], at)
            disk.rename(f"{INCOMING}/{incoming}", place, at)
        except FileNotFoundError:
            pass  # in its place already, since before a recovery
        del state.incoming[file_id]
        placed.append(file_id)
    return placed


def forget_replaced(disk: Disk, at: int, state: State, *, alone: bool) -> None:
    """Drop captured files that nothing will ask for again: of versions that were replaced before they were placed, and,
    when no client lives (``alone``), of calls that never returned."""
    wanted = set(state.incoming.values())
    for name in disk.listdir(INCOMING, at):
        if name in wanted:
            continue
        client = name.partition("-")[0]
        author = state.clients.get(client)
        if alone or (author is not None and author.state != "running"):
            disk.unlink(f"{INCOMING}/{name}", at)


def unhashed(state: State) -> list[tuple[str, str]]:
    """(id, path) of the placed files whose checksum is not known yet."""
    return [
        (file_id, f"files/{file_place(record['path'], record['filename'])}")
        for file_id, record in state.files.items()
        if record.get("checksum") is None and record.get("deletedAt") is None
    ]
