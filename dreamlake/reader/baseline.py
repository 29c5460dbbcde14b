"""Baseline: a directory that no agent has kept yet, as it stands.

A directory of 0.2.x, or one copied here without ``.dreamlake``, is taken as it is: its whole lines are its rows, its
views become record 0 of their histories. Half a line at the end of a log is no row.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from typing import Any

from dreamlake.reader.commits import LogMark
from dreamlake.reader.lines import Lines
from dreamlake.wire import jsons
from dreamlake.wire.names import file_place, track_folder
from dreamlake.wire.state import (
    FILES_LOG,
    FILES_VIEW,
    HISTORIES,
    LOGS_LOG,
    PARAMETERS_LOG,
    PARAMETERS_VIEW,
    SESSION_LOG,
    SESSION_VIEW,
    TRACKS_LOG,
    Row,
    State,
    Tail,
    data_log,
    fold,
    fold_read,
    track_id,
    track_view,
)
from dreamlake.world.disk import READ, Disk, read_file

VIEW_BYTES_MAX = 256 << 20
_TRACK_DEPTH_MAX = 64
_NUMBER = re.compile(rb'\s*\{\s*"(?:index|sequenceNumber)"\s*:\s*(\d{1,18})\b')


class DamagedView(ValueError):
    """A view that is not JSON where there is no history to rebuild it from."""


@dataclass
class Baseline:
    state: State
    marks: dict[str, LogMark] = field(default_factory=dict)
    # log → bytes after its last newline
    torn: dict[str, int] = field(default_factory=dict)
    # logs whose last line is whole but for its newline
    unended: list[str] = field(default_factory=list)
    imports: list[tuple[str, Row]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_baseline(disk: Disk, at: int, origin: str) -> Baseline:
    """The directory as it stands. :class:`DamagedView` when session.json or parameters.json cannot be read at all."""
    base = Baseline(State(origin))
    uploads: set[str] = set()  # ids of every file that the history ever had
    for log in HISTORIES:
        _measure(disk, at, log, base)
        if log in base.marks:
            for row in Lines(disk, at, log, base.marks[log].size).rows():
                fold_read(base.state, log, row)
                if log == FILES_LOG and isinstance(row.get("record"), dict):
                    uploads.add(str(row["record"].get("id")))
    _import_session(disk, at, base)
    _import_parameters(disk, at, base)
    _import_files(disk, at, base, uploads)
    base.state.logs = _measure(disk, at, LOGS_LOG, base)
    for name in sorted({*track_names(disk, at), *base.state.tracks}):
        _import_track(disk, at, base, name)
    return base


def read_view(disk: Disk, at: int, path: str) -> dict[str, Any] | None:
    """A view as it stands on disk; None when absent or empty. :class:`DamagedView` when it is not a JSON object."""
    try:
        data = read_file(disk, path, at, VIEW_BYTES_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        found = jsons.loads(data)
    except ValueError as error:
        raise DamagedView(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise DamagedView(f"{path} is not a JSON object")
    return found


def _plain(value: Any, where: str, field: str, nonfinite: list[str]) -> Any:
    """A value as JSON can hold it, or :class:`DamagedView`: an old view is somebody's file, and may hold anything."""
    try:
        return jsons.plain_value(value, field, nonfinite)
    except (TypeError, RecursionError) as error:
        raise DamagedView(f"{where} cannot be taken over ({error})") from None


def _key(key: str, where: str) -> str:
    if _text(key) is None:
        raise DamagedView(f"{where} cannot be taken over (the name {key!r} is not valid Unicode)")
    return key


def _id_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _text(value: Any) -> str | None:
    """A text that a line can hold, else None."""
    try:
        return value if isinstance(value, str) and value.encode() is not None else None
    except UnicodeEncodeError:
        return None


def _import(base: Baseline, log: str, row: Row) -> None:
    fold(base.state, log, row)
    base.imports.append((log, row))


def _import_session(disk: Disk, at: int, base: Baseline) -> None:
    if base.state.session is not None:
        return
    view = read_view(disk, at, SESSION_VIEW)
    if view is not None:
        plain = _plain(view, SESSION_VIEW, "session", [])
        plain.pop("id", None)
        _import(base, SESSION_LOG, {"op": "import", "time": plain.get("updated_at"), "set": plain})


def _import_parameters(disk: Disk, at: int, base: Baseline) -> None:
    if base.state.parameters is not None:
        return
    view = read_view(disk, at, PARAMETERS_VIEW)
    if view is None or not isinstance(view.get("data"), dict):
        return
    listed, version = view.get("nonfinite"), view.get("version")
    nonfinite = [each for each in listed if _text(each)] if isinstance(listed, list) else []
    row: Row = {
        "op": "import",
        "time": _text(view.get("updatedAt")),
        "version": version if isinstance(version, int) else 0,
        "set": {
            _key(key, PARAMETERS_VIEW): _plain(value, PARAMETERS_VIEW, key, nonfinite)
            for key, value in view["data"].items()
        },
    }
    if nonfinite:
        row["nonfinite"] = nonfinite
    _import(base, PARAMETERS_LOG, row)


def _import_files(disk: Disk, at: int, base: Baseline, known: set[str]) -> None:
    try:
        view = read_view(disk, at, FILES_VIEW)
    except DamagedView as damage:
        base.warnings.append(str(damage))
        return
    listed = (view or {}).get("files")
    for record in listed if isinstance(listed, list) else ():
        try:
            plain = _plain(record, FILES_VIEW, "record", [])
            if str(plain["id"]) in known:
                continue  # the history says more of it: that it was changed, or replaced since the view was written
            file_place(plain["path"], plain["filename"])
            row = {"op": "import", "time": plain.get("uploadedAt"), "record": {**plain, "id": str(plain["id"])}}
        except (ValueError, TypeError, KeyError) as error:
            base.warnings.append(f"{FILES_VIEW}: a record was left out ({error})")
            continue
        _import(base, FILES_LOG, row)


def _import_track(disk: Disk, at: int, base: Baseline, name: str) -> None:
    tail = _measure(disk, at, data_log(name), base)
    if name not in base.state.tracks:
        try:
            found = read_view(disk, at, track_view(name)) or {}
        except DamagedView as damage:
            base.warnings.append(str(damage))
            found = {}
        given = {key: found[key] for key in ("description", "tags", "metadata") if found.get(key) is not None}
        row: Row = {
            "op": "import",
            "time": _text(found.get("createdAt")) or tail.time or "",
            "track": name,
            "trackId": _text(_id_text(found.get("trackId"))) or track_id(base.state.origin, name),
        }
        if given:
            try:
                row["set"] = _plain(given, track_view(name), "track", [])
            except DamagedView as damage:
                base.warnings.append(str(damage))
        _import(base, TRACKS_LOG, row)
    base.state.tracks[name].tail = tail


def track_names(disk: Disk, at: int, folder: str = "tracks", depth: int = 0) -> list[str]:
    names: list[str] = []
    for entry in disk.listdir(folder, at):
        path = f"{folder}/{entry}"
        try:
            if not disk.stat(path, at).is_dir or depth > _TRACK_DEPTH_MAX:
                continue
            name = track_folder(path[len("tracks/") :])
            inside = disk.listdir(path, at)
        except (OSError, ValueError):
            continue
        if "data.jsonl" in inside or "metadata.json" in inside:
            names.append(name)
        names.extend(track_names(disk, at, path, depth + 1))
    return names


def _measure(disk: Disk, at: int, log: str, base: Baseline) -> Tail:
    """Read a log once: its size up to the last newline, checksum, rows, and the index after the highest."""
    tail = Tail()
    try:
        fd = disk.open(log, READ, at)
    except (FileNotFoundError, NotADirectoryError):
        return tail
    size = crc = offset = 0
    rest = last = b""
    try:
        while chunk := disk.pread(fd, 1 << 20, offset):
            offset += len(chunk)
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if not newline:
                continue
            block = whole + newline
            size += len(block)
            crc = zlib.crc32(block, crc)
            for line in whole.split(b"\n"):
                number = _NUMBER.match(line)
                if number is not None:
                    tail.next = max(tail.next, int(number[1]) + 1)
                tail.rows += bool(line.strip())
            last = whole.rpartition(b"\n")[2]
    finally:
        disk.close(fd)
    if _is_row(rest):  # whole but for its newline
        size, crc, last = size + len(rest), zlib.crc32(rest, crc), rest
        number = _NUMBER.match(rest)
        tail.next = max(tail.next, int(number[1]) + 1) if number else tail.next
        tail.rows += 1
        base.unended.append(log)
    elif rest:
        base.torn[log] = len(rest)
    tail.time = _time_of(last)
    base.marks[log] = LogMark(size, crc, tail)
    return tail


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(jsons.loads(line), dict)
    except ValueError:
        return False


def _time_of(line: bytes) -> str | None:
    row = jsons.object_of(line)
    return _text(row.get("createdAt") or row.get("timestamp")) if row is not None else None
