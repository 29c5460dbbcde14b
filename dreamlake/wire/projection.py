"""Projection: parameters, tracks and files of a session, out of the histories of all its origins. PURE.

Rows of one origin must come in their order; those of different origins may come in any: whoever is later by
:data:`Stamp` has the last word, so two servers that heard of them in another order say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire.names import file_place
from dreamlake.wire.state import FILES_LOG, PARAMETERS_LOG, TRACKS_LOG

# (latest time in the origin's log up to this row, origin, index): the order of joined reads
Stamp = tuple[str, str, int]
Row = dict[str, Any]
TIME_CHARACTERS_MAX = 40
_TIMES = ("createdAt", "timestamp", "time")
_SETS_MAX = 1 << 53  # beyond it a version is no count of anything
_CHANGES = ("description", "tags", "metadata")


@dataclass
class Last:
    """A value, and when it was given."""

    stamp: Stamp
    value: Any
    nonfinite: list[str] = field(default_factory=list)


@dataclass
class Track:
    """What was said of a track; how many points it has is in the heads of its logs."""

    created: str
    updated: str
    id: str = ""  # the earliest that was given
    stamp: Stamp | None = None  # of the row that gave it
    given: dict[str, Last] = field(default_factory=dict)


@dataclass
class File:
    """What was said of an upload, by whichever origin."""

    stamp: Stamp | None = None
    record: Row | None = None
    given: dict[str, Last] = field(default_factory=dict)
    checksum: Last | None = None
    deleted: str | None = None
    updated: str = ""


class Projection:
    """The state that reads are answered from."""

    def __init__(self) -> None:
        self._parameters: dict[str, Last] = {}
        self.parameters_sets = 0
        self.parameters_created: str | None = None
        self.parameters_updated: str | None = None
        self.tracks: dict[str, Track] = {}
        self._heard: dict[str, Track] = {}  # also those of which no row has said yet that they are there
        self.files: dict[str, File] = {}
        self._places: dict[str, tuple[Stamp, str]] = {}

    def take(self, log: str, stamp: Stamp, row: Row) -> None:
        """One row of a history; one that says nothing known is passed over."""
        fold = {PARAMETERS_LOG: self._set, TRACKS_LOG: self._track, FILES_LOG: self._file}.get(log)
        if fold is not None:
            fold(stamp, row)

    @property
    def size(self) -> int:
        """How many things it holds: what a cache counts."""
        return len(self._parameters) + len(self._heard) + len(self.files)

    # ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _set(self, stamp: Stamp, row: Row) -> None:
        given = row.get("set")
        if not isinstance(given, dict):
            return
        version = row.get("version")
        is_count = isinstance(version, int) and 0 <= version <= _SETS_MAX
        self.parameters_sets += int(version or 0) if row.get("op") == "import" and is_count else 1
        time = _time(stamp, row)
        self.parameters_created = _first(self.parameters_created, time)
        self.parameters_updated = max(self.parameters_updated or time, time)
        listed = row.get("nonfinite")
        listed = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
        for key, value in given.items():
            known = self._parameters.get(key)
            if known is None or known.stamp <= stamp:
                mine = [each for each in listed if each == key or each.startswith(f"{key}.")]
                self._parameters[key] = Last(stamp, value, mine)

    @property
    def parameters(self) -> dict[str, Any] | None:
        return {key: last.value for key, last in self._parameters.items()} if self._parameters else None

    @property
    def parameters_nonfinite(self) -> list[str]:
        return sorted(name for last in self._parameters.values() for name in last.nonfinite)

    # ── tracks ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _track(self, stamp: Stamp, row: Row) -> None:
        name, time = row.get("track"), row.get("time")
        if not isinstance(name, str) or not isinstance(time, str):
            return
        track = self._heard.setdefault(name, Track(time, time))
        track_id = row.get("trackId")
        if isinstance(track_id, str):
            self.tracks[name] = track
            if track.stamp is None or stamp < track.stamp:
                track.id, track.stamp = track_id, stamp
        track.created, track.updated = min(track.created, time), max(track.updated, time)
        _give(track.given, row.get("set"), stamp)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _file(self, stamp: Stamp, row: Row) -> None:
        what = row.get("op")
        if what in ("upload", "import"):
            self._upload(stamp, row.get("record"))
            return
        file_id = row.get("id")
        if not isinstance(file_id, str):
            return
        file = self.files.setdefault(file_id, File())
        time = _time(stamp, row)
        if what == "change":
            _give(file.given, row.get("set"), stamp)
            file.updated = max(file.updated, time)
        elif what == "delete":
            file.deleted = _first(file.deleted, time)
            file.updated = max(file.updated, time)
        elif what == "hashed":
            self._hashed(file, stamp, row.get("checksum"))

    def _hashed(self, file: File, stamp: Stamp, checksum: Any) -> None:
        if isinstance(checksum, str) and (file.checksum is None or file.checksum.stamp <= stamp):
            file.checksum = Last(stamp, checksum)

    def _upload(self, stamp: Stamp, record: Any) -> None:
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            return
        try:
            place = file_place(record.get("path"), record.get("filename"))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return
        file = self.files.setdefault(record["id"], File())
        if file.stamp is None or file.stamp <= stamp:
            file.stamp, file.record = stamp, record
        self._hashed(file, stamp, record.get("checksum"))
        known = self._places.get(place)
        if known is None or known[0] <= stamp:
            self._places[place] = (stamp, record["id"])

    def file(self, file_id: str) -> Row | None:
        """The record of an upload that stands in its place, deleted ones too; None when it was replaced or never
        there."""
        file = self.files.get(file_id)
        if file is None or file.record is None or file.stamp is None:
            return None
        place = file_place(file.record["path"], file.record["filename"])
        if self._places[place][1] != file_id:
            return None
        deleted = file.deleted or file.record.get("deletedAt")
        return {
            **file.record,
            **{key: last.value for key, last in file.given.items() if not _is_before(last.stamp, file.stamp)},
            "checksum": file.checksum.value if file.checksum else None,
            "updatedAt": max(str(file.record.get("updatedAt") or ""), file.updated),
            "deletedAt": deleted,
        }

    def file_records(self) -> list[Row]:
        """Of what is not deleted, in the order of their uploads."""
        found = [self.file(file_id) for file_id in dict.fromkeys(each[1] for each in sorted(self._places.values()))]
        return [each for each in found if each is not None and each.get("deletedAt") is None]


def time_of(row: Row) -> str | None:
    """When a record was made, as it says itself."""
    for key in _TIMES:
        found = row.get(key)
        if isinstance(found, str) and 0 < len(found) <= TIME_CHARACTERS_MAX:
            return found
    return None


def _time(stamp: Stamp, row: Row) -> str:
    return row["time"] if isinstance(row.get("time"), str) else stamp[0]


def _first(known: str | None, time: str) -> str:
    return time if known is None else min(known, time)


def _is_before(change: Stamp, upload: Stamp) -> bool:
    """Whether an upload undoes a change of what has its id: not by the clocks of two machines, since whoever changes an
    upload has seen it."""
    return change[1] == upload[1] and change < upload


def _give(known: dict[str, Last], given: Any, stamp: Stamp) -> None:
    for key, value in given.items() if isinstance(given, dict) else ():
        if key in _CHANGES and (key not in known or known[key].stamp <= stamp):
            known[key] = Last(stamp, value)


def checksums(rows: list[Row]) -> list[str]:
    """The SHA-256 of the bytes that rows of ``files.jsonl`` speak of, each once."""
    found: dict[str, None] = {}
    for row in rows:
        record = row.get("record")
        said = row.get("checksum") if row.get("op") == "hashed" else isinstance(record, dict) and record.get("checksum")
        if isinstance(said, str) and len(said) == 64 and set(said) <= set("0123456789abcdef"):
            found[said] = None
    return list(found)
