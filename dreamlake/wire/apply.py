"""Apply: what an operation does to a session, as rows to add to its logs.

Deterministic: it uses the operation and the state, nothing else, so replaying the order that ``commits.log`` recorded
gives the same rows with the same indexes. An operation that cannot be applied raises
:class:`~dreamlake.wire.ops.Impossible` and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from dreamlake.wire import jsons, ops
from dreamlake.wire.names import file_place, is_sha256, track_folder
from dreamlake.wire.ops import Impossible, Op
from dreamlake.wire.remotes import remote_of
from dreamlake.wire.state import (
    FILES_LOG,
    INCOMING,
    LOGS_LOG,
    PARAMETERS_LOG,
    SESSION_LOG,
    TRACKS_LOG,
    Row,
    State,
    Track,
    fold,
    holds,
    parents,
    track_id,
    track_view,
)
from dreamlake.wire.times import time_text

# A line of a log, its newline included: what a reader takes for one at most (an operation, and what is added to it).
LINE_BYTES_MAX = 9 << 20

# By which rules operations become rows. ``commits.log`` says it of its commits, or an upgrade of the agent would replay
# them to other rows than stand there.
RULES = 2
_RANKS_IN_ROWS = 2  # since 0.4; before, no row said its rank, and what every rank set alike was written by each

_SECOND = 1_000_000_000
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")


@dataclass
class Applied:
    """What a run of operations amounts to, before any of it is on disk."""

    rules: int = RULES
    # log → blocks of whole lines, in order
    rows: dict[str, list[bytes]] = field(default_factory=dict)
    # track → [first ordinal, first index, how many], as often as the line breaks
    placed: dict[str, list[list[int]]] = field(default_factory=dict)
    # position in the run → why
    refused: dict[int, str] = field(default_factory=dict)
    operations: int = 0  # in the run, the refused ones too
    # views that no longer show the state
    stale: set[str] = field(default_factory=set)

    def add(self, log: str, line: bytes) -> None:
        blocks = self.rows.get(log)
        if blocks is None:
            self.rows[log] = [line]
        else:
            blocks.append(line)

    def lines(self, log: str) -> list[bytes]:
        """The lines for a log one by one, without their newlines."""
        return b"".join(self.rows.get(log, ())).split(b"\n")[:-1]


def apply_run(state: State, client: bytes, run: list[Any], out: Applied, skip: set[int] | None = None) -> None:
    """Apply a client's operations in order; the impossible ones are refused and the others go on.

    ``skip`` are the positions that were refused when this run was first committed: on replay that record is believed,
    not today's judgement, or an upgrade of the agent would move every later index.
    """
    author = client.hex()
    skipped = skip or ()
    position = 0
    while position < len(run):
        op, here = run[position], position
        position += 1
        if here in skipped:
            out.refused[here] = "refused when it was committed"
            continue
        try:
            _APPLY[ops.check(op)[0]](state, author, op, out)
        except Impossible as reason:
            out.refused[here] = str(reason)
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError) as error:
            # Well framed and not foreseen: one refused operation, not an agent that dies of it at every start.
            out.refused[here] = f"operation of the wrong shape ({type(error).__name__}: {error})"
        else:
            if op[0] == ops.POINT:
                position = _more_points(state, author, run, position, skipped, out)


def _more_points(
    state: State, author: str, run: list[Any], position: int, skipped: Collection[int], out: Applied
) -> int:
    """Apply the points that follow an accepted one; returns where the first operation stands that it left alone.

    The same as ``_point`` for each, at a fraction of its cost: what lets a client's point in cannot change while only
    its points come. Whatever is new, odd or wrong is left to ``_point``, which judges it.
    """
    end = min(len(run), position + _FEW)
    while True:
        reached = _one_by_one(state, author, run, position, end, skipped, out)
        if reached < end or end == len(run):
            return reached
        position = end
        while not skipped and _at_once(state, author, run[position : position + _MANY], out):
            position = min(len(run), position + _MANY)
            if position == len(run):
                return position
        end = min(len(run), position + _MANY)


_FEW, _MANY = 16, 256  # operations: so many go one by one before it is tried how many go at once


def _at_once(state: State, author: str, block: list[Any], out: Applied) -> bool:
    """Apply operations that are all plain points of tracks known here, each step for all of them; or do nothing.

    Every check is that of ``_one_by_one``.
    """
    if set(map(type, block)) != {tuple} or set(map(len, block)) != {5}:
        return False
    kinds, times, names, ordinals, datas = zip(*block, strict=True)
    # Exact types only: 6.0 == 6 as a kind, and a time may be True. ops.check says what those are.
    if set(map(type, chain(kinds, times, ordinals))) != {int} or set(kinds) != {ops.POINT}:
        return False
    if set(map(type, names)) != {str} or set(map(type, datas)) != {bytes}:
        return False
    first, last = min(times), max(times)
    if first // _SECOND != last // _SECOND or not ops.TIME_MIN <= first <= ops.TIME_MAX:
        return False
    if not jsons.are_objects(datas):
        return False
    second = time_text(first)[:-8]
    tracks = set(names)
    if not tracks <= state.tracks.keys():
        return False
    line = b'{"index":%%d,"data":%%b,"createdAt":"%b.%%06dZ"%b}\n' % (
        second.encode(),
        _rank_in_line(state, author, out),
    )
    if len(tracks) > len(block) // 4:
        _in_turn(state, block, line, second, out)
        return True
    for name, points in _by_track(block, names).items():
        track, count = state.tracks[name], len(points)
        tail = track.tail
        index = tail.next
        _kinds, times, _names, ordinals, datas = zip(*points, strict=True)
        values: list[Any] = [None] * (3 * count)
        values[::3], values[1::3] = range(index, index + count), datas
        values[2::3] = micros = [time % _SECOND // 1000 for time in times]
        _log_of(track, name, out).append(line * count % tuple(values))
        if ordinals == tuple(range(ordinals[0], ordinals[0] + count)):
            _place(out, name, ordinals[0], index, count)
        else:
            for at, ordinal in enumerate(ordinals, index):
                _place(out, name, ordinal, at, 1)
        tail.next += count
        tail.rows += count
        tail.time = f"{second}.{micros[-1]:06d}Z"
    return True


def _in_turn(state: State, block: list[Any], line: bytes, second: str, out: Applied) -> None:
    """Apply points of many tracks, each of which has few: what is done once for a track would be done for each."""
    tracks, rows, placed = state.tracks, out.rows, out.placed
    for _kind, time, name, ordinal, data in block:
        track = tracks[name]
        tail, log, spans = track.tail, rows.get(track.log), placed.get(name)
        index, micros = tail.next, time % _SECOND // 1000
        if log is None:
            log = _log_of(track, name, out)
        log.append(line % (index, data, micros))
        if spans is None:
            placed[name] = [[ordinal, index, 1]]
        else:
            _place(out, name, ordinal, index, 1)
        tail.next = index + 1
        tail.rows += 1
        tail.time = f"{second}.{micros:06d}Z"


def _by_track(block: list[Any], names: tuple[str, ...]) -> dict[str, list[Any]]:
    if names.count(names[0]) == len(names):
        return {names[0]: block}
    found: dict[str, list[Any]] = {}
    for name, op in zip(names, block, strict=True):
        if name in found:
            found[name].append(op)
        else:
            found[name] = [op]
    return found


def _one_by_one(
    state: State, author: str, run: list[Any], position: int, end: int, skipped: Collection[int], out: Applied
) -> int:
    """Apply the plain points among ``run[position:end]``, until one is none; returns where that stands."""
    known: dict[str, list[Any]] = {}  # track → its tail, its lines, the time of its last point
    second, stamp, rank = None, b"", _rank_in_line(state, author, out)
    while position < end:
        op = run[position]
        if type(op) is not tuple or len(op) != 5 or op[0] != ops.POINT or position in skipped:
            break
        kind, time, name, ordinal, data = op
        if type(kind) is not int or type(time) is not int or type(ordinal) is not int:
            break
        if type(name) is not str or type(data) is not bytes:
            break
        track = state.tracks.get(name)
        if track is None:
            break
        seconds, rest = divmod(time, _SECOND)
        if seconds != second:
            if not ops.TIME_MIN <= time <= ops.TIME_MAX:
                break
            second, stamp = seconds, time_text(time)[:-8].encode()
        if not jsons.is_object(data):
            break
        found = known.get(name)
        if found is None:
            found = known[name] = [track.tail, _log_of(track, name, out), time]
        tail, lines, _ = found
        index = tail.next
        lines.append(b'{"index":%d,"data":%b,"createdAt":"%b.%06dZ"%b}\n' % (index, data, stamp, rest // 1000, rank))
        tail.next = index + 1
        tail.rows += 1
        _place(out, name, ordinal, index, 1)
        found[2] = time
        position += 1
    for tail, _lines, time in known.values():
        tail.time = time_text(time)
    return position


def _member(state: State, author: str) -> None:
    if author not in state.clients:
        raise Impossible("operation of a client that has not opened the session")


def _agent_only(state: State, author: str) -> None:
    if author in state.clients:
        raise Impossible("only the agent may say that")


def _open_for_rows(state: State, author: str) -> None:
    _member(state, author)
    if state.protected and state.run_state == ops.FINISHED:
        raise Impossible("the session is write-protected and finished")


def _open_for_change(state: State, author: str) -> None:
    _member(state, author)
    if state.protected:
        raise Impossible("the session is write-protected")


def _fields(data: bytes, what: str) -> dict[str, Any]:
    if not jsons.is_object(data):
        raise Impossible(f"{what} is not a JSON object")
    found = jsons.loads(data)
    assert isinstance(found, dict)
    return found


def _history(state: State, out: Applied, log: str, row: Row, view: str) -> None:
    try:
        line = jsons.encode(row) + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise Impossible(f"a row that JSON cannot hold: {error}") from None
    if len(line) > LINE_BYTES_MAX:
        raise Impossible(f"a row of {len(line)} bytes, over the limit of {LINE_BYTES_MAX}")
    fold(state, log, row)
    out.add(log, line)
    out.stale.add(view)


def _rank(state: State, author: str, out: Applied) -> Row:
    """What a row says of the rank whose process wrote it; nothing where there are no ranks."""
    rank = state.clients[author].rank if out.rules >= _RANKS_IN_ROWS else None
    return {} if rank is None else {"rank": rank}


def _rank_in_line(state: State, author: str, out: Applied) -> bytes:
    """The same, at the end of a line."""
    rank = state.clients[author].rank if out.rules >= _RANKS_IN_ROWS else None
    return b"" if rank is None else b',"rank":%d' % rank


def _nonfinite(listed: Any) -> bytes:
    if not listed:
        return b""
    if not isinstance(listed, (tuple, list)) or not all(isinstance(each, str) for each in listed):
        raise Impossible("nonfinite is not a list of field names")
    return b',"nonfinite":' + jsons.dumps(listed)


# ── one function per operation ──────────────────────────────────────────────────────────────────────────────────────


def _open(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, who, given = op
    name, workspace = who.get("name"), who.get("workspace")
    if not (isinstance(name, str) and isinstance(workspace, str) and name and workspace):
        raise Impossible("a session needs a name and a workspace")
    numbers = {key: who.get(key) for key in ("rank", "world_size", "pid")}
    if not all(value is None or isinstance(value, int) for value in numbers.values()):
        raise Impossible("rank, world_size and pid are numbers")
    remote = remote_of(who.get("remote"))
    row = {
        "op": "open",
        "time": time_text(time),
        "client": author,
        "name": name,
        "workspace": workspace,
        **{key: value for key, value in numbers.items() if value is not None},
        "host": str(who.get("host") or ""),
        **({"forked": True} if who.get("forked") or _is_started_by_member(state, who, out) else {}),
        **({"remote": {"url": remote.url, "user": remote.user}} if remote else {}),
        "set": _fields(given, "what the session was opened with"),
    }
    _history(state, out, SESSION_LOG, row, "session.json")


def _is_started_by_member(state: State, who: Row, out: Applied) -> bool:
    """Whether multiprocessing started this process in one that has the session open as the same rank, as a loader
    starts its workers: to the run it is what a forked child is, whatever the method."""
    parent = who.get("parent")
    if not isinstance(parent, int) or out.rules < _RANKS_IN_ROWS:
        return False
    running = (state.clients[key] for key, it in state.run.items() if it["state"] == ops.RUNNING)
    mine = (parent, str(who.get("host") or ""), who.get("rank"))
    return any((each.pid, each.host, each.rank) == mine for each in running)


def counts(state: State) -> dict[str, int]:
    """Rows in every log, as an end of session records them."""
    found = {track.log: track.tail.rows for track in state.tracks.values()}
    if state.logs.rows:
        found[LOGS_LOG] = state.logs.rows
    return found


def _close(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, end, error = op
    _member(state, author)
    if end not in ops.END_STATES:
        raise Impossible(f"a session does not end as {end!r}")
    told = None
    if error is not None:
        told = {"type": str(error.get("type", ""))[:1000], "message": str(error.get("message", ""))[:10_000]}
    _end(state, out, author, time, end, told)


def _end(state: State, out: Applied, author: str, time: int, end: str, error: dict[str, str] | None) -> None:
    row: Row = {"op": "end", "time": time_text(time), "client": author, "state": end}
    if error is not None:
        row["error"] = error
    others = (each["state"] for key, each in state.run.items() if key != author)
    if ops.RUNNING not in others:
        row["counts"] = counts(state)
    _history(state, out, SESSION_LOG, row, "session.json")


def _killed(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, whom = op
    _agent_only(state, author)
    victim = whom.hex()
    client = state.clients.get(victim)
    if client is None or client.state != ops.RUNNING:
        raise Impossible("that client is not running")
    # A forked child that goes without a word (os._exit, as every multiprocessing child does) is no death of a rank.
    _end(state, out, victim, time, ops.FINISHED if client.forked else ops.KILLED_STATE, None)


def _log(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, level, message, metadata, nonfinite = op
    _open_for_rows(state, author)
    if level not in ops.LEVELS:
        raise Impossible(f"level {level!r} is not one of {', '.join(ops.LEVELS)}")
    if metadata is not None and not jsons.is_object(metadata):
        raise Impossible("metadata is not a JSON object")
    tail, when = state.logs, time_text(time)
    try:
        text = jsons.dumps(message)
    except TypeError:
        raise Impossible("message is not valid Unicode") from None
    line = b'{"sequenceNumber":%d,"timestamp":"%b","level":"%b","message":%b%b%b%b}\n' % (
        tail.next,
        when.encode(),
        level.encode(),
        text,
        b"" if metadata is None else b',"metadata":' + metadata,
        _nonfinite(nonfinite),
        _rank_in_line(state, author, out),
    )
    if len(line) > LINE_BYTES_MAX:
        raise Impossible(f"a log line of {len(line)} bytes, over the limit of {LINE_BYTES_MAX}")
    out.add(LOGS_LOG, line)
    tail.next += 1
    tail.rows += 1
    tail.time = when


def _parameters(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, data, nonfinite = op
    _open_for_change(state, author)
    _nonfinite(nonfinite)
    given, rank = _fields(data, "parameters"), _rank(state, author, out)
    if rank and holds(state, given, nonfinite or ()):
        return  # every rank sets the same: written once
    row: Row = {"op": "set", "time": time_text(time), "client": author, **rank, "set": given}
    if nonfinite:
        row["nonfinite"] = list(nonfinite)
    _history(state, out, PARAMETERS_LOG, row, "parameters.json")


def _track(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, name, given = op
    _open_for_rows(state, author)
    _describe(state, out, author, name, time, _fields(given, "the description of a track"))


def _describe(state: State, out: Applied, author: str, name: str, time: int, given: dict[str, Any]) -> Track:
    try:
        track_folder(name)
    except ValueError as reason:
        raise Impossible(str(reason)) from None
    rank = _rank(state, author, out)
    if rank and name in state.tracks and state.tracks[name].says(given):
        return state.tracks[name]
    row: Row = {"time": time_text(time), "client": author, **rank, "track": name}
    if name not in state.tracks:
        row["trackId"] = track_id(state.origin, name)
    if given:
        row["set"] = given
    _history(state, out, TRACKS_LOG, row, track_view(name))
    return state.tracks[name]


def _log_of(track: Track, name: str, out: Applied) -> list[bytes]:
    log = out.rows.get(track.log)
    if log is None:
        log = out.rows[track.log] = []
        out.stale.add(track_view(name))
    return log


def _place(out: Applied, name: str, ordinal: int, index: int, number: int) -> None:
    spans = out.placed.get(name)
    if spans is None:
        out.placed[name] = [[ordinal, index, number]]
        return
    last = spans[-1]
    if last[0] + last[2] == ordinal and last[1] + last[2] == index:
        last[2] += number
    else:
        spans.append([ordinal, index, number])


def _point(state: State, author: str, op: Op, out: Applied) -> None:
    name, ordinal, data = op[2], op[3], op[4]
    _points_of(state, author, name, ordinal, op[1], (data,), (op[5],) if len(op) > 5 else None, out)


def _points(state: State, author: str, op: Op, out: Applied) -> None:
    data = op[4]
    if not data or not all(isinstance(each, bytes) for each in data):
        raise Impossible("a batch of points is a list of JSON objects")
    nonfinite = op[5] if len(op) > 5 else None
    if nonfinite is not None and len(nonfinite) != len(data):
        raise Impossible("nonfinite and points differ in number")
    _points_of(state, author, op[2], op[3], op[1], data, nonfinite, out)


def _points_of(
    state: State, author: str, name: str, ordinal: int, time: int, data: Any, nonfinite: Any, out: Applied
) -> None:
    _open_for_rows(state, author)
    if not jsons.are_objects(data):
        raise Impossible("a point is not one JSON object")
    extra = [_nonfinite(each) for each in nonfinite] if nonfinite else None
    rank = _rank_in_line(state, author, out)
    # What stands around them in the line is some 90 bytes.
    if max(map(len, data)) + (max(map(len, extra)) if extra else 0) > LINE_BYTES_MAX - 256:
        raise Impossible(f"a point that makes a line over the limit of {LINE_BYTES_MAX} bytes")
    track = state.tracks.get(name)
    if track is None:
        track = _describe(state, out, author, name, time, {})
    tail, when = track.tail, time_text(time)
    stamp, index = when.encode(), tail.next
    log = _log_of(track, name, out)
    if extra is None:
        for first in range(0, len(data), _MANY):
            some = data[first : first + _MANY]
            values: list[Any] = [None] * (2 * len(some))
            values[::2], values[1::2] = range(index + first, index + first + len(some)), some
            log.append(b'{"index":%%d,"data":%%b,"createdAt":"%b"%b}\n' % (stamp, rank) * len(some) % tuple(values))
    else:
        for at, each in enumerate(data):
            log.append(b'{"index":%d,"data":%b,"createdAt":"%b"%b%b}\n' % (index + at, each, stamp, extra[at], rank))
    number = len(data)
    tail.next = index + number
    tail.rows += number
    tail.time = when
    _place(out, name, ordinal, index, number)


def _file(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, data, incoming = op
    _open_for_change(state, author)
    record = _fields(data, "the record of a file")
    if not isinstance(record.get("id"), str) or not _ID.match(record["id"]) or record["id"] in state.files:
        raise Impossible("a file needs an id of its own")
    if not INCOMING.match(incoming):
        raise Impossible("a captured file has another name")
    try:
        place = file_place(record.get("path"), record.get("filename"))  # type: ignore[arg-type]  # checked there
    except (ValueError, TypeError) as reason:
        raise Impossible(str(reason)) from None
    if place in state.folders:
        raise Impossible(f"files/{place} is a folder already")
    for folder in parents(place):
        if folder in state.places:
            raise Impossible(f"files/{folder} is a file already")
    when = time_text(time)
    rank = _rank(state, author, out)
    record.update(sessionId=state.origin, uploadedAt=when, updatedAt=when, deletedAt=None, **rank)
    row = {"op": "upload", "time": when, "client": author, **rank, "record": record, "incoming": incoming}
    _history(state, out, FILES_LOG, row, "files/.files_metadata.json")


def _known_file(state: State, file_id: str) -> None:
    if file_id not in state.files:
        raise Impossible(f"no file with the id {file_id!r}")


def _file_change(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, file_id, data = op
    _open_for_change(state, author)
    _known_file(state, file_id)
    given = _fields(data, "the change of a file")
    if not set(given) <= {"description", "tags", "metadata"}:
        raise Impossible("only description, tags and metadata of a file can change")
    known = {"client": author, **_rank(state, author, out)}
    row = {"op": "change", "time": time_text(time), **known, "id": file_id, "set": given}
    _history(state, out, FILES_LOG, row, "files/.files_metadata.json")


def _file_delete(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, file_id = op
    _open_for_change(state, author)
    _known_file(state, file_id)
    row = {"op": "delete", "time": time_text(time), "client": author, **_rank(state, author, out), "id": file_id}
    _history(state, out, FILES_LOG, row, "files/.files_metadata.json")


def _hashed(state: State, author: str, op: Op, out: Applied) -> None:
    _, time, file_id, checksum = op
    _agent_only(state, author)
    _known_file(state, file_id)
    if not is_sha256(checksum):
        raise Impossible("not a sha256")
    row = {"op": "hashed", "time": time_text(time), "id": file_id, "checksum": checksum}
    _history(state, out, FILES_LOG, row, "files/.files_metadata.json")


_APPLY: dict[int, Callable[[State, str, Op, Applied], None]] = {
    ops.OPEN: _open,
    ops.CLOSE: _close,
    ops.LOG: _log,
    ops.PARAMETERS: _parameters,
    ops.TRACK: _track,
    ops.POINT: _point,
    ops.POINTS: _points,
    ops.FILE: _file,
    ops.FILE_CHANGE: _file_change,
    ops.FILE_DELETE: _file_delete,
    ops.KILLED: _killed,
    ops.HASHED: _hashed,
}
