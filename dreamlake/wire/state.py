"""State: what a session is, folded from the rows of its histories, and how its views look.

``fold`` is the only thing that changes a noun: the agent folds the row it has just made, a reader folds the rows it has
read, and both come to the same state. Points and log lines carry no state beyond how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire import jsons, ops
from dreamlake.wire.digest import sha256_hex
from dreamlake.wire.names import file_place, track_folder
from dreamlake.wire.remotes import remote_of

SESSION_LOG = ".dreamlake/session.jsonl"
PARAMETERS_LOG = ".dreamlake/parameters.jsonl"
TRACKS_LOG = ".dreamlake/tracks.jsonl"
FILES_LOG = ".dreamlake/files.jsonl"
HISTORIES = (SESSION_LOG, PARAMETERS_LOG, TRACKS_LOG, FILES_LOG)
LOGS_LOG = "logs/logs.jsonl"

SESSION_VIEW = "session.json"
PARAMETERS_VIEW = "parameters.json"
FILES_VIEW = "files/.files_metadata.json"

Row = dict[str, Any]

# What 0.2.x answers for its server-side chunks; a local series is one file and is never chunked.
CHUNK_SIZE = 10_000

_SESSION_FIELDS = ("description", "tags", "folder", "metadata")


def data_log(track: str) -> str:
    return f"tracks/{track}/data.jsonl"


def track_view(track: str) -> str:
    return f"tracks/{track}/metadata.json"


@dataclass
class Tail:
    """How far a log has come: rows in it, the index that the next row gets, when the last one was made."""

    rows: int = 0
    next: int = 0
    time: str | None = None


@dataclass
class Track:
    id: str
    log: str
    created: str
    tail: Tail
    description: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None
    updated: str = ""

    def says(self, given: dict[str, Any]) -> bool:
        """Whether the track is described so already."""
        mine = {"description": self.description, "tags": self.tags, "metadata": self.metadata}
        return all(_is_same(value, mine.get(key)) for key, value in given.items())


@dataclass
class Client:
    """One journal's author: a process, or a process after a fork."""

    rank: int | None
    state: str
    forked: bool = False
    pid: int | None = None
    host: str | None = None


@dataclass
class State:
    """Everything about one session that applying an operation may use."""

    origin: str
    session: dict[str, Any] | None = None
    clients: dict[str, Client] = field(default_factory=dict)
    # The clients of the present run: those since the session was last wholly closed.
    run: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, Any] | None = None
    parameters_version: int = 0
    parameters_updated: str | None = None
    parameters_nonfinite: set[str] = field(default_factory=set)
    tracks: dict[str, Track] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    incoming: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    logs: Tail = field(default_factory=Tail)
    # Where the session is meant to go: every remote that it was opened with, the last one last.
    remotes: dict[str, str | None] = field(default_factory=dict)

    @property
    def protected(self) -> bool:
        return bool(self.session and self.session.get("write_protected"))

    @property
    def run_state(self) -> str | None:
        return self.session.get("state") if self.session else None


# ── folding ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def fold(state: State, log: str, row: Row) -> None:
    """Take one row of a history, as we make them, into the state."""
    _FOLDS[log](state, row)


def fold_read(state: State, log: str, row: Row) -> bool:
    """Take a row that was read from a history into the state; False for one that says nothing known. A history is a
    file, and anybody may have written into it: such a row is passed over, and the line stays where it is."""
    if not _is_row(state, log, row):
        return False
    _FOLDS[log](state, row)
    return True


# log → what a row says that it is → the fields that it must have, and those that it may have
_ROWS: dict[str, dict[Any, tuple[dict[str, Any], dict[str, Any]]]] = {
    SESSION_LOG: {
        "import": ({"set": dict}, {}),
        "open": (
            {"time": str, "client": str, "name": str, "workspace": str, "set": dict},
            {"rank": int, "pid": int, "host": str, "remote": dict},
        ),
        "end": ({"time": str, "client": str, "state": str}, {"error": dict, "counts": dict}),
    },
    PARAMETERS_LOG: {
        "import": ({"set": dict}, {"version": int, "nonfinite": list}),
        "set": ({"time": str, "set": dict}, {"nonfinite": list}),
    },
    TRACKS_LOG: {
        None: ({"time": str, "track": str}, {"trackId": str, "set": dict}),
        "import": ({"time": str, "track": str}, {"trackId": str, "set": dict}),
    },
    FILES_LOG: {
        "import": ({"record": dict}, {}),
        "upload": ({"record": dict}, {"incoming": str}),
        "change": ({"time": str, "id": str, "set": dict}, {}),
        "delete": ({"time": str, "id": str}, {}),
        "hashed": ({"id": str, "checksum": str}, {}),
    },
}
_CLIENT = re.compile(r"[0-9a-f]{32}\Z")
INCOMING = re.compile(r"[0-9a-f]{32}-[0-9A-Za-z_-]{1,64}\Z")


def _is_row(state: State, log: str, row: Row) -> bool:
    what = row.get("op")
    shape = _ROWS[log].get(what) if what is None or isinstance(what, str) else None
    if shape is None:
        return False
    must, may = shape
    if not all(isinstance(row.get(key), kind) for key, kind in must.items()):
        return False
    if not all(row.get(key) is None or isinstance(row[key], kind) for key, kind in may.items()):
        return False
    if what in ("open", "end"):
        return bool(_CLIENT.match(row["client"]))
    if "nonfinite" in may:
        return all(isinstance(each, str) for each in row.get("nonfinite") or ())
    if what == "change":
        return set(row["set"]) <= {"description", "tags", "metadata"}
    if log == TRACKS_LOG:
        known = row["track"] in state.tracks
        return known or (row.get("trackId") is not None and _is_place(track_folder, row["track"]))
    if "record" in must:
        record = row["record"]
        return (
            isinstance(record.get("id"), str)
            and _is_place(file_place, record.get("path"), record.get("filename"))
            and (not row.get("incoming") or bool(INCOMING.match(row["incoming"])))
        )
    return True


def _is_place(place: Callable[..., str], *names: Any) -> bool:
    try:
        place(*names)
    except (TypeError, ValueError):
        return False
    return True


def _fold_session(state: State, row: Row) -> None:
    what = row.get("op")
    if what == "import":
        state.session = {**row["set"]}
        return
    client, time = row.get("client", ""), row["time"]
    if what == "open":
        _fold_open(state, row, client, time)
    elif what == "end" and state.session is not None and client in state.clients:
        state.clients[client].state = row["state"]
        if client in state.run:
            state.run[client].update(state=row["state"], ended_at=time, error=row.get("error"))
            if row["state"] == ops.KILLED_STATE and _is_replaced(state, client):
                del state.run[client]
            state.session["updated_at"] = time
            _sum_up_run(state, time, row.get("counts"))


def _fold_open(state: State, row: Row, client: str, time: str) -> None:
    given = row["set"]
    if state.session is None:
        state.session = {
            "name": row["name"],
            "workspace": row["workspace"],
            **dict.fromkeys(_SESSION_FIELDS),
            "created_at": time,
            "updated_at": time,
            "write_protected": False,
        }
    session = state.session
    remote = remote_of(row.get("remote"))
    if remote is not None:
        state.remotes.pop(remote.url, None)
        state.remotes[remote.url] = remote.user
    sealed = session.get("write_protected") and session.get("state") == ops.FINISHED
    state.clients[client] = Client(
        row.get("rank"), ops.RUNNING, bool(row.get("forked")), row.get("pid"), row.get("host")
    )
    if sealed:  # opened to be read: nothing changes
        state.clients[client].state = ops.FINISHED
        return
    session.update({key: given[key] for key in _SESSION_FIELDS if given.get(key) is not None})
    session["write_protected"] = bool(session.get("write_protected") or given.get("write_protected"))
    session["updated_at"] = time
    # A forked child belongs to the run of who forked it, also when that one died before the child was heard of.
    rank, size = row.get("rank"), row.get("world_size")
    if not row.get("forked") and _is_over(state, rank, size):
        state.run = {}
        session["started_at"] = time
    if rank is not None and not row.get("forked"):
        # A rank that died and is there again, while the others went on: how it ends counts, not that it had died.
        lost = (ops.KILLED_STATE, ops.FAILED)
        state.run = {key: it for key, it in state.run.items() if it["rank"] != rank or it["state"] not in lost}
    state.run[client] = {"rank": rank, "size": size, "state": ops.RUNNING}
    session["state"] = ops.RUNNING
    for key in ("ended_at", "error", "killed_ranks", "counts"):
        session.pop(key, None)


def _is_over(state: State, rank: int | None, size: Any) -> bool:
    """Whether who opens now begins another run. Not while a client runs, and not a rank that comes when others of the
    same training have ended already: launchers start them one after the other, and one that failed stays part of it."""
    clients = list(state.run.values())
    if any(each["state"] == ops.RUNNING for each in clients):
        return False
    return not clients or rank is None or any(each["rank"] in (None, rank) or each["size"] != size for each in clients)


def _is_replaced(state: State, client: str) -> bool:
    """Whether another process of its rank has opened the session since: its launcher was quicker to start one than
    the agent to see that this one is dead."""
    mine = state.clients[client]
    if mine.rank is None or mine.forked:
        return False
    keys = list(state.run)
    later = (state.clients[key] for key in keys[keys.index(client) + 1 :])
    return any(
        each.rank == mine.rank and not each.forked and (each.host, each.pid) != (mine.host, mine.pid) for each in later
    )


def _sum_up_run(state: State, time: str, counts: dict[str, int] | None) -> None:
    """The session's state out of its clients': running while one runs, else the worst that happened."""
    assert state.session is not None
    ends = list(state.run.values())
    states = {each["state"] for each in ends}
    if ops.RUNNING in states:
        return
    session = state.session
    session["state"] = next((s for s in (ops.FAILED, ops.KILLED_STATE) if s in states), ops.FINISHED)
    session["ended_at"] = time
    # When one rank has died its launcher asks the others to end: the one is named, and not those.
    killed = [each for each in ends if each["state"] == ops.KILLED_STATE]
    vanished = [each for each in killed if not each.get("error")]
    if session["state"] == ops.FAILED or vanished:
        killed = vanished
    worst = (each for each in ends if each["state"] == session["state"])
    error = next((each for each in worst if each.get("error")), None)
    if error and (session["state"] == ops.FAILED or not vanished):
        session["error"] = {**error["error"], **({} if error["rank"] is None else {"rank": error["rank"]})}
    ranks = {each["rank"] for each in killed} - {None}
    if ranks:
        session["killed_ranks"] = sorted(ranks)
    if counts is not None:
        session["counts"] = counts


def _fold_parameters(state: State, row: Row) -> None:
    if row.get("op") == "import":
        state.parameters_version = int(row.get("version") or 0)
    else:
        state.parameters_version += 1
    if state.parameters is None:
        state.parameters = {}
    given = row["set"]
    state.parameters.update(given)
    state.parameters_nonfinite = {
        name for name in state.parameters_nonfinite if not any(_is_of(name, key) for key in given)
    }
    state.parameters_nonfinite.update(row.get("nonfinite") or ())
    state.parameters_updated = row["time"]


def holds(state: State, given: dict[str, Any], nonfinite: Collection[str]) -> bool:
    """Whether those parameters have those values already."""
    known = state.parameters or {}
    if not all(key in known and _is_same(value, known[key]) for key, value in given.items()):
        return False
    listed = {name for name in state.parameters_nonfinite if any(_is_of(name, key) for key in given)}
    return listed == set(nonfinite)


def _is_same(one: Any, other: Any) -> bool:
    """As JSON: 1, 1.0 and true are three things."""
    try:
        return jsons.encode(one) == jsons.encode(other)
    except (TypeError, ValueError):  # what JSON cannot hold has come from a file that somebody wrote
        return False


def _is_of(field: str, key: str) -> bool:
    """Whether a listed field (``lr``, or ``lr.0`` inside a list) belongs to the parameter ``key``."""
    return field == key or (field.startswith(key) and field[len(key) : len(key) + 1] == ".")


def _fold_track(state: State, row: Row) -> None:
    name = row["track"]
    track = state.tracks.get(name)
    if track is None:
        track = Track(row["trackId"], data_log(name), row["time"], Tail(), updated=row["time"])
        state.tracks[name] = track
    given = row.get("set") or {}
    track.description = given.get("description", track.description)
    track.tags = given.get("tags", track.tags)
    track.metadata = given.get("metadata", track.metadata)
    track.updated = row["time"]


def _fold_file(state: State, row: Row) -> None:
    what = row["op"]
    if what in ("upload", "import"):
        record = {**row["record"]}
        place = file_place(record["path"], record["filename"])
        replaced = state.places.get(place)
        if replaced is not None:
            state.files.pop(replaced, None)
            state.incoming.pop(replaced, None)
        else:
            for folder in parents(place):
                state.folders[folder] = state.folders.get(folder, 0) + 1
        state.files[record["id"]] = record
        state.places[place] = record["id"]
        if row.get("incoming"):
            state.incoming[record["id"]] = row["incoming"]
        return
    found = state.files.get(row["id"])
    if found is None:
        return
    if what == "change":
        found.update(row["set"])
        found["updatedAt"] = row["time"]
    elif what == "delete":
        found["deletedAt"] = found["updatedAt"] = row["time"]
    elif what == "hashed":
        found["checksum"] = row["checksum"]


_FOLDS = {
    SESSION_LOG: _fold_session,
    PARAMETERS_LOG: _fold_parameters,
    TRACKS_LOG: _fold_track,
    FILES_LOG: _fold_file,
}


def parents(place: str) -> list[str]:
    """
    >>> parents("a/b/c.txt")
    ['a', 'a/b']
    """
    parts = place.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def track_id(origin: str, name: str) -> str:
    """A track's id: the same wherever and whenever this session's history is replayed."""
    return sha256_hex(f"{origin}/{name}".encode())[:24]


# ── views ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def session_view(state: State) -> dict[str, Any] | None:
    return None if state.session is None else {**state.session, "id": state.origin}


def parameters_view(state: State) -> dict[str, Any] | None:
    if state.parameters is None:
        return None
    view: dict[str, Any] = {
        "version": state.parameters_version,
        "data": state.parameters,
        "updatedAt": state.parameters_updated,
    }
    if state.parameters_nonfinite:
        view["nonfinite"] = sorted(state.parameters_nonfinite)
    return view


def track_metadata_view(state: State, name: str) -> dict[str, Any]:
    track = state.tracks[name]
    return {
        "trackId": track.id,
        "name": name,
        "description": track.description,
        "tags": track.tags,
        "metadata": track.metadata,
        "totalDataPoints": track.tail.rows,
        "nextIndex": track.tail.next,
        "createdAt": track.created,
        "updatedAt": max(track.updated, track.tail.time or ""),
    }


def files_view(state: State) -> dict[str, Any] | None:
    return {"files": list(state.files.values())} if state.files else None


def view(state: State, path: str) -> dict[str, Any] | None:
    """The view that belongs at ``path``, or None when there is nothing to show there yet."""
    if path == SESSION_VIEW:
        return session_view(state)
    if path == PARAMETERS_VIEW:
        return parameters_view(state)
    if path == FILES_VIEW:
        return files_view(state)
    return track_metadata_view(state, path[len("tracks/") : -len("/metadata.json")])


def view_of(log: str) -> str | None:
    """The view that changes when rows are added to ``log``."""
    return {
        SESSION_LOG: SESSION_VIEW,
        PARAMETERS_LOG: PARAMETERS_VIEW,
        FILES_LOG: FILES_VIEW,
        TRACKS_LOG: None,
        LOGS_LOG: None,
    }.get(log, log[: -len("data.jsonl")] + "metadata.json" if log.endswith("/data.jsonl") else None)
