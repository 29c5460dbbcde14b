"""Joining: the logs and histories of several origins as those of one directory.

Within an origin its own order, across origins by (latest time so far, origin, index), as the server's reads have it.
Rows are numbered anew where that is needed; else a line stays as it is, to the byte.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dreamlake.remote.follow import Piece
from dreamlake.wire import jsons
from dreamlake.wire.projection import Projection, time_of
from dreamlake.wire.rows import row_of
from dreamlake.wire.state import (
    FILES_LOG,
    LOGS_LOG,
    PARAMETERS_LOG,
    SESSION_LOG,
    TRACKS_LOG,
    Row,
    State,
    Tail,
    fold,
    track_id,
)
from dreamlake.wire.summary import joined, summarised

Stamped = tuple[str, str, int, bytes]  # latest time so far, origin, index, line
_NUMBER = re.compile(rb'\s*\{\s*"(index|sequenceNumber)"\s*:\s*(\d{1,18})\s*[,}]')
_ROW_BYTES = 4 << 20  # of parameters in one row of their history


def number_of(log: str) -> str:
    """What the rows of a log call their number."""
    return "sequenceNumber" if log == LOGS_LOG else "index"


def stamped(origin: str, pieces: Iterable[Piece]) -> Iterator[Stamped]:
    """The records of one origin, without those that were refused."""
    time = ""
    for piece in pieces:
        time = max(time, piece.time)
        for index, line in enumerate(piece.lines, piece.first):
            if line:
                time = max(time, time_of(_row(line)) or "")
                yield time, origin, index, line


def in_one(pieces: Mapping[str, Iterable[Piece]]) -> Iterator[Sequence[bytes]]:
    """The lines of a log of all its origins, in the joined order, some at a time."""
    if len(pieces) == 1:  # then nobody asks when they were made
        for piece in next(iter(pieces.values())):
            yield [line for line in piece.lines if line]
        return
    for _time, _origin, _index, line in heapq.merge(*(stamped(origin, each) for origin, each in pieces.items())):
        yield (line,)


def numbered(line: bytes, key: str, number: int) -> bytes:
    """
    >>> numbered(b'{"index":7,"data":{}}', "index", 7), numbered(b'{"index": 7, "data": {}}', "index", 3)
    (b'{"index":7,"data":{}}', b'{"index": 3, "data": {}}')
    >>> numbered(b'{"data":{"v":NaN}}', "index", 0)
    b'{"index":0,"data":{"v":"NaN"},"nonfinite":["v"]}'
    """
    found = _NUMBER.match(line)
    if found is not None and found[1] == key.encode():
        if int(found[2]) == number:
            return line
        return b"%s%d%s" % (line[: found.start(2)], number, line[found.end(2) :])
    return jsons.encode({key: number, **{name: value for name, value in _row(line).items() if name != key}})


def _row(line: bytes) -> Row:
    """What a server has taken is a row; anything else says nothing."""
    try:
        return row_of(line)
    except ValueError:
        return {}


class Histories:
    """What the histories of all origins say together, and the rows that say it in a directory of its own."""

    def __init__(self, origin: str, workspace: str, name: str) -> None:
        self._projection = Projection()
        self._summaries: dict[str, dict[str, Any]] = {}
        self._workspace, self._name = workspace, name
        self.state = State(origin)
        self.rows: dict[str, list[Row]] = {}

    def take(self, log: str, origin: str, pieces: Iterable[Piece]) -> None:
        """One history of one origin, whole."""
        if log == SESSION_LOG:
            self._summaries[origin] = summarised(
                origin, (_row(line) for piece in pieces for line in piece.lines if line)
            )
            return
        for time, _origin, index, line in stamped(origin, pieces):
            self._projection.take(log, (time, origin, index), _row(line))

    @property
    def files(self) -> list[Row]:
        """The records of the files that were not replaced, deleted ones too, in the order of their uploads."""
        found = (self._projection.file(file_id) for file_id in self._projection.files)
        records = [{**each, "sessionId": self.state.origin} for each in found if each is not None]
        return sorted(records, key=lambda each: (str(each.get("uploadedAt")), str(each["id"])))

    def settle(self, tails: Mapping[str, Tail], now: str) -> None:
        """Make :attr:`rows` and :attr:`state`. ``tails``: how far each log of lines came."""
        self._session(now)
        self._parameters(now)
        self._tracks(tails)
        for record in self.files:
            self._add(FILES_LOG, {"op": "import", "time": record.get("uploadedAt"), "record": record})
        self.state.logs = tails.get(LOGS_LOG, Tail())

    def _add(self, log: str, row: Row) -> None:
        fold(self.state, log, row)
        self.rows.setdefault(log, []).append(row)

    def _session(self, now: str) -> None:
        said = joined(self._summaries)
        for key in ("created_at", "updated_at"):
            said[key] = said[key] or now
        kept = {key: value for key, value in said.items() if value is not None or key in _ALWAYS}
        row = {"name": self._name, "workspace": self._workspace, **kept}
        self._add(SESSION_LOG, {"op": "import", "time": said["updated_at"], "set": row})

    def _parameters(self, now: str) -> None:
        said = self._projection
        row: Row = {"op": "import", "time": said.parameters_updated or now, "version": said.parameters_sets, "set": {}}
        listed, size = said.parameters_nonfinite, 0
        for key, value in (said.parameters or {}).items():
            length = len(jsons.encode(value)) + len(key)
            if size + length > _ROW_BYTES and row["set"]:
                self._set(row, listed)
                row, size = {**row, "set": {}}, 0
            row["set"][key] = value
            size += length
        if row["set"] or said.parameters_sets:
            self._set(row, listed)

    def _set(self, row: Row, listed: Sequence[str]) -> None:
        nonfinite = [each for each in listed if any(each == key or each.startswith(f"{key}.") for key in row["set"])]
        self._add(PARAMETERS_LOG, {**row, **({"nonfinite": nonfinite} if nonfinite else {})})

    def _tracks(self, tails: Mapping[str, Tail]) -> None:
        with_points = {log[len("tracks/") : -len("/data.jsonl")] for log in tails if log != LOGS_LOG}
        for name in sorted(with_points | set(self._projection.tracks)):
            said = self._projection.tracks.get(name)
            tail = tails.get(f"tracks/{name}/data.jsonl", Tail())
            row: Row = {
                "op": "import",
                "time": said.created if said else tail.time or "",
                "track": name,
                "trackId": (said.id if said else "") or track_id(self.state.origin, name),
            }
            given = {key: last.value for key, last in said.given.items() if last.value is not None} if said else {}
            self._add(TRACKS_LOG, {**row, **({"set": given} if given else {})})
            self.state.tracks[name].tail = tail


_ALWAYS = ("description", "tags", "folder", "metadata", "write_protected")
