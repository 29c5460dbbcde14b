"""Views: each the JSON that its history says, or said a moment ago."""

from __future__ import annotations

import zlib

from dreamlake.reader.baseline import VIEW_BYTES_MAX, DamagedView, read_view
from dreamlake.reader.checks.finding import Look
from dreamlake.reader.checks.logs import damaged_histories
from dreamlake.reader.checks.standing import Standing
from dreamlake.reader.spools import marked
from dreamlake.reader.views import MAIN_VIEWS, shows_some_row
from dreamlake.wire import jsons
from dreamlake.wire.state import SESSION_VIEW, track_view, view
from dreamlake.world.disk import read_file

_KEPT = "repair keeps it in .dreamlake/cut and writes the view anew from its history"


def check_views(look: Look, standing: Standing | None) -> None:
    tracks = standing.loaded.state.tracks if standing else {}
    judged = not damaged_histories(look)
    for path in (*MAIN_VIEWS, *map(track_view, sorted(tracks))):
        with look.reading(path):
            if standing is None or standing.loaded.checkpoint is None or not judged:
                _check_alone(look, standing, path)
            else:
                _check_view(look, standing, path)


def _check_alone(look: Look, standing: Standing | None, path: str) -> None:
    """No history to hold it against."""
    try:
        found = read_view(look.disk, look.at, path)
    except DamagedView as damage:
        if not any(each.path == path for each in look.report.findings):
            look.problem(
                "view",
                path,
                f"{damage}, and no history says what stood there: it is left out; mend it by hand, or restore it "
                "from a backup",
                lost=True,
            )
        return
    look.report.views += found is not None
    unseen = bool(marked(look.disk, look.at))  # a journal elsewhere may say it
    if found is None and path == SESSION_VIEW and standing and not standing.loaded.segments and not unseen:
        look.problem(
            "view",
            path,
            f"{path} is missing, and no history says what stood there: the name is taken from the folder, the rest "
            "is lost; restore it from a backup",
            lost=True,
        )


def _check_view(look: Look, standing: Standing, path: str) -> None:
    state, checkpoint = standing.loaded.state, standing.loaded.checkpoint
    assert checkpoint is not None
    known = checkpoint.views.get(path)
    # A track's view is rewritten when something comes for it: one that the checkpoint knows may show what a history has
    # lost since.
    lags = look.live or path in standing.lagging or path not in MAIN_VIEWS
    wanted = view(state, path)
    try:
        data = read_file(look.disk, path, look.at, VIEW_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        if wanted is not None and known is not None and not look.live and not look.is_behind_a_link(path):
            look.problem(
                "view", path, f"{path} is missing; nothing is lost: repair writes it from its history", repairable=True
            )
        return
    look.report.views += 1
    # Before its first checkpoint under an owner, a view of 0.2.x stands as it was.
    if (wanted is not None and data == jsons.pretty(wanted)) or (lags and zlib.crc32(data) == known):
        return
    try:
        found = jsons.loads(data)
    except ValueError:
        look.problem("view", path, f"{path} is not JSON; nothing is lost: {_KEPT}", repairable=True)
        return
    if shows_some_row(look.disk, look.at, state, path, found):
        if look.live or path in standing.lagging or known is None:
            return
        what = (
            "shows an earlier state than its history" if path in MAIN_VIEWS else "shows other counts than its log has"
        )
        look.problem("view", path, f"{path} {what}; nothing is lost: repair writes it anew", repairable=True)
    elif not look.live or path in MAIN_VIEWS:
        look.problem(
            "view",
            path,
            f"{path} says what its history never said: somebody edited it; nothing recorded is lost: {_KEPT}",
            repairable=True,
        )
