"""Files: the bytes of every record where the record says, as many as it says, with its checksum; and what waits in
``incoming/``."""

from __future__ import annotations

import hashlib
from typing import Any

from dreamlake.reader.base import BASE, BaseDamaged, read_base
from dreamlake.reader.checks.finding import Look, times
from dreamlake.reader.checks.standing import Standing
from dreamlake.reader.lines import Lines
from dreamlake.reader.spools import marked
from dreamlake.reader.superseded import INCOMING, places_of, superseded
from dreamlake.wire.names import file_place
from dreamlake.wire.state import FILES_LOG, State, fold_read
from dreamlake.world.disk import READ

_HASH_BYTES = 1 << 20


def check_files(look: Look, standing: Standing | None) -> None:
    """The state is the one that the journals lead to: a file may stand in ``incoming/`` until its owner places it."""
    if standing is None:
        return
    state = standing.loaded.state
    elsewhere = _elsewhere(look, state)
    for record in list(state.files.values()):
        if record.get("deletedAt") is None and record["id"] not in elsewhere:
            with look.reading(f"files/{record.get('path', '')}/{record.get('filename')}".replace("//", "/")):
                _check_file(look, state, record)
    with look.reading(INCOMING):
        _check_incoming(look, standing)


def _elsewhere(look: Look, state: State) -> set[str]:
    """Of files that came with a pull, those whose bytes did not."""
    named: frozenset[str] = frozenset()
    with look.reading(BASE):
        try:
            named = read_base(look.disk, look.at).elsewhere
        except BaseDamaged as error:
            look.problem("base", BASE, f"{error}; until then nothing of it can be sent")
    found = {
        file_id
        for file_id in named & state.files.keys()
        if not any(_is_file(look, path) for path in places_of(state.files[file_id], state.incoming, []))
    }
    if found:
        look.note(
            "elsewhere",
            BASE,
            f"the bytes of {times(len(found), 'file')} stayed on the server that this session was pulled from",
        )
    return found


def _is_file(look: Look, path: str) -> bool:
    try:
        return look.disk.stat(path, look.at).is_file
    except OSError:
        return False


def _check_file(look: Look, state: State, record: dict[str, Any]) -> None:
    try:
        place = f"files/{file_place(record['path'], record['filename'])}"
    except (KeyError, TypeError, ValueError) as error:
        look.problem("file", FILES_LOG, f"{FILES_LOG}: a record names no place for its file ({error})")
        return
    look.report.files += 1
    for path in places_of(record, state.incoming, superseded(look.disk, look.at)):
        try:
            fd = look.disk.open(path, READ, look.at)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            wrong = _compare(look, fd, record)
        finally:
            look.disk.close(fd)
        if wrong and _stands(look, record, place):
            look.problem(
                "file",
                path,
                f"{path} {wrong}: what was uploaded is not there any more; restore it from a backup or upload it again",
                lost=True,
            )
        return
    if _stands(look, record, place):
        look.problem(
            "file",
            place,
            f"{place} is missing, and with it what was uploaded; restore it from a backup or upload it again",
            lost=True,
        )


def _compare(look: Look, fd: int, record: dict[str, Any]) -> str | None:
    size, wanted = look.disk.fstat(fd).size, record.get("sizeBytes")
    if isinstance(wanted, int) and size != wanted:
        return f"has {times(size, 'byte')} where its record says {wanted:,}"
    checksum = record.get("checksum")
    if not isinstance(checksum, str) or len(checksum) != 64:
        return None  # not computed yet, or one of 0.2.x
    digest, offset = hashlib.sha256(), 0
    while chunk := look.disk.pread(fd, _HASH_BYTES, offset):
        digest.update(chunk)
        offset += len(chunk)
        look.advance(len(chunk))
    if digest.hexdigest() != checksum.lower():
        return f"has the SHA-256 {digest.hexdigest()[:12]}… where its record says {checksum[:12]}…"
    return None


def _stands(look: Look, record: dict[str, Any], place: str) -> bool:
    """Whether the record still is the one of its place: under a live agent it may have been replaced meanwhile."""
    if not look.live:
        return True
    now = State("")
    for row in Lines(look.disk, look.at, FILES_LOG).rows():
        fold_read(now, FILES_LOG, row)
    found = now.files.get(record["id"])
    # The rows of a commit come before its renames: the file of a record that was just replaced may go at any moment.
    return (
        found is not None and found.get("deletedAt") is None and now.places.get(place[len("files/") :]) == record["id"]
    )


def _check_incoming(look: Look, standing: Standing) -> None:
    if look.live:
        return  # captures come and go
    loaded = standing.loaded
    away = {each.hex() for each in marked(look.disk, look.at)}
    wanted = set(loaded.state.incoming.values())
    waiting = replaced = 0
    for name in look.disk.listdir(INCOMING, look.at):
        path = f"{INCOMING}/{name}"
        client, dash, _file_id = name.partition("-")
        if len(client) != 32 or not dash or not look.disk.stat(path, look.at).is_file:
            look.problem("foreign", path, f"{path} is nothing of Dreamlake's and is ignored; move it away")
        elif name in wanted:
            waiting += 1
        elif any(each.hex() == client for each in loaded.segments):
            replaced += 1
        elif client in away:
            waiting += 1
        else:
            look.problem(
                "orphan",
                path,
                f"{path} ({times(look.disk.stat(path, look.at).size, 'byte')}) was captured for an upload that no "
                "journal and no record names: its call did not return, or its journal was lost; keep it, or delete it",
            )
    if waiting:
        look.note(
            "incoming", INCOMING, f"{INCOMING} holds {times(waiting, 'file')} that the next agent puts in their places"
        )
    if replaced:
        look.note(
            "incoming",
            INCOMING,
            f"{INCOMING} holds {times(replaced, 'file')} that other uploads replaced or whose calls have not returned: "
            "the next agent removes them with their journals",
        )
