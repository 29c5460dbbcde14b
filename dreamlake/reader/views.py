"""Views: whether one that stands on disk shows its session as it is, or as it was after some row of its history."""

from __future__ import annotations

from typing import Any

from dreamlake.reader.lines import Lines
from dreamlake.wire.state import (
    FILES_LOG,
    FILES_VIEW,
    PARAMETERS_LOG,
    PARAMETERS_VIEW,
    SESSION_LOG,
    SESSION_VIEW,
    State,
    fold_read,
    view,
)
from dreamlake.world.disk import Disk

MAIN_VIEWS = {SESSION_VIEW: SESSION_LOG, PARAMETERS_VIEW: PARAMETERS_LOG, FILES_VIEW: FILES_LOG}
# What a track's view says that its history does not: it moves with every point.
_MOVING = {"totalDataPoints", "nextIndex", "updatedAt"}


def shows_some_row(disk: Disk, at: int, state: State, path: str, found: Any) -> bool:
    """Whether the parsed view ``found`` is what the view at ``path`` said after some row of its history."""
    if path not in MAIN_VIEWS:
        return isinstance(found, dict) and _still(found) == _still(view(state, path) or {})
    past = State(state.origin)
    for row in Lines(disk, at, MAIN_VIEWS[path]).rows():
        fold_read(past, MAIN_VIEWS[path], row)
        if found == view(past, path):
            return True
    return False


def _still(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if key not in _MOVING}
