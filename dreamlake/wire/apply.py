"""Apply: what an operation does to a session, as rows to add to its logs.

Deterministic: it uses the operation and the state, nothing else, so replaying the order that ``commits.log`` recorded
gives the same rows with the same indexes. An operation that cannot be applied raises
:class:`~dreamlake.wire.ops.Impossible` and changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from dreamlake.wire import jsons, ops
from dreamlake.wire.applied import LINE_BYTES_MAX, RANKS_IN_ROWS, Applied, rank_in_line, rank_of
from dreamlake.wire.names import file_place, is_sha256, track_folder
from dreamlake.wire.ops import Impossible, Op
from dreamlake.wire.points import more_points
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

_AT_ONCE = 256  # points of a batch that are made into lines together
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")


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
                position = more_points(state, author, run, position, skipped, out)


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
    rank = rank_of(state, author, out)
    return {} if rank is None else {"rank": rank}


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
    if not isinstance(parent, int) or out.rules < RANKS_IN_ROWS:
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
        rank_in_line(state, author, out),
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
    rank = rank_in_line(state, author, out)
    # What stands around them in the line is some 90 bytes.
    if max(map(len, data)) + (max(map(len, extra)) if extra else 0) > LINE_BYTES_MAX - 256:
        raise Impossible(f"a point that makes a line over the limit of {LINE_BYTES_MAX} bytes")
    track = state.tracks.get(name)
    if track is None:
        track = _describe(state, out, author, name, time, {})
    tail, when = track.tail, time_text(time)
    stamp, index = when.encode(), tail.next
    log = out.blocks_of(track, name)
    if extra is None:
        for first in range(0, len(data), _AT_ONCE):
            some = data[first : first + _AT_ONCE]
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
    out.place(name, ordinal, index, number)


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
