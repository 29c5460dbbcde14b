"""Layout: what else stands in the directory, and whether anything in it is where Dreamlake cannot follow."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dreamlake.reader.base import BASE
from dreamlake.reader.checks.finding import Look, times
from dreamlake.reader.checks.standing import Standing
from dreamlake.reader.commits import CHECKPOINT, COMMITS, ORIGIN
from dreamlake.reader.superseded import places_of
from dreamlake.wire.names import DREAMLAKE
from dreamlake.wire.state import FILES_VIEW, HISTORIES, PARAMETERS_VIEW, SESSION_VIEW
from dreamlake.world.disk import Stat, read_file

OWNER = f"{DREAMLAKE}/owner"
CUT = f"{DREAMLAKE}/cut"
_FOLDERS = {f"{DREAMLAKE}/{each}" for each in ("journals", "incoming", "cut", "superseded", "sync", "epochs")}
_RECORDS = {OWNER, ORIGIN, CHECKPOINT, COMMITS, BASE, *HISTORIES}
_TEMP = ".tmp"
_VIEWS = (SESSION_VIEW, PARAMETERS_VIEW)
_PLACES = (*_VIEWS, *(each + _TEMP for each in _VIEWS), "logs", "tracks", "files", DREAMLAKE)
_DEPTH_MAX = 64


def check_layout(look: Look) -> None:
    with look.reading(DREAMLAKE):
        for name in look.disk.listdir(DREAMLAKE, look.at):
            path = f"{DREAMLAKE}/{name}"
            if path not in _FOLDERS | _RECORDS and not name.startswith(".nfs"):
                _check_strange(look, path)
    for path in _PLACES:
        with look.reading(path):
            for found, _stat in walk(look, path):
                _check_temp(look, found)
    with look.reading(CUT):
        for name in look.disk.listdir(CUT, look.at):
            size = look.disk.stat(f"{CUT}/{name}", look.at).size
            look.note(
                "cut", f"{CUT}/{name}", f"{CUT}/{name} keeps {times(size, 'byte')} that an earlier repair set aside"
            )
    with look.reading(OWNER):
        _check_owner(look)


def walk(look: Look, path: str, depth: int = 0) -> Iterator[tuple[str, Stat]]:
    """Every plain file at or below ``path``; what is neither file nor folder is a finding."""
    try:
        found = look.disk.stat(path, look.at)
    except FileNotFoundError:
        return
    if found.is_dir:
        if depth < _DEPTH_MAX:
            with look.reading(path):
                for name in look.disk.listdir(path, look.at):
                    yield from walk(look, f"{path}/{name}", depth + 1)
    elif found.is_file:
        yield path, found
    else:
        look.problem(
            "link",
            path,
            f"{path} is a symbolic link or a special file: Dreamlake follows no links, so what is behind it was not "
            "checked and is not read; put the file or folder itself there",
        )


def _check_strange(look: Look, path: str) -> None:
    if path.endswith(_TEMP) and path[: -len(_TEMP)] in _RECORDS:
        return  # said below
    look.problem("foreign", path, f"{path} is nothing of Dreamlake's and is ignored; move it away")


def _check_temp(look: Look, path: str) -> None:
    ours = path[: -len(_TEMP)] in _RECORDS | {SESSION_VIEW, PARAMETERS_VIEW, FILES_VIEW} or (
        path.startswith("tracks/") and path.endswith("/metadata.json.tmp")
    )
    if path.endswith(_TEMP) and ours and not look.live:
        look.note(
            "temp",
            path,
            f"{path} was left by a death in the middle of a replacement; nothing is lost, and it may be deleted",
        )


def _check_owner(look: Look) -> None:
    data = read_file(look.disk, OWNER, look.at, 64 << 10)
    if look.live:
        return
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    if isinstance(record, dict):
        if record.get("distrust"):
            look.note(
                "owner",
                OWNER,
                f"{OWNER} says that the disk failed to make something durable: the next agent writes it again from the "
                "journals",
            )
    elif data.strip(b"\0"):
        look.problem(
            "owner",
            OWNER,
            f"{OWNER} is not the record of an agent; nothing is lost: repair writes it anew",
            repairable=True,
        )
    else:
        look.note("owner", OWNER, f"{OWNER} is empty: its agent died in that moment; the next one writes it anew")


def check_unrecorded(look: Look, standing: Standing | None) -> None:
    """Files that no record names: somebody's own, or of a history that was lost."""
    if standing is None or look.live:
        return
    state = standing.loaded.state
    known = {place for record in state.files.values() for place in places_of(record, state.incoming, [])}
    with look.reading("files"):
        strange = [
            path
            for path, _stat in walk(look, "files")
            if path not in known and not path.endswith((".lock", _TEMP)) and path != FILES_VIEW
        ]
    if strange:
        look.note(
            "unrecorded",
            strange[0],
            f"{strange[0]}{f' and {len(strange) - 1} more' if len(strange) > 1 else ''}: no record names it; "
            "somebody put it there",
        )
