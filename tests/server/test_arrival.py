"""Arrival: whichever origin is heard of first, and however pushes are cut, the joined answers are the same; and pages
by cursor have each row once while origins go on pushing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire.state import FILES_LOG, LOGS_LOG, PARAMETERS_LOG, SESSION_LOG, TRACKS_LOG
from tests.server.serving import LOSS, Directory, Serving, opened, said

Row = dict[str, Any]
ORIGINS = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
RANKS = 2  # a node
URL = "/sessions/{}/tracks/train/loss/data"


def time(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000000Z"


def line(row: Row) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


def logs_of(node: int, skew: int) -> dict[str, list[bytes]]:
    """What a node of a training writes whose clock is so far ahead."""
    now = [time(60 + skew + second) for second in range(60)]
    ranks = range(RANKS * node, RANKS * (node + 1))
    clients = {rank: f"{rank:032x}" for rank in ranks}
    said = {"name": "run", "workspace": "project", "set": {"description": f"said by {node}", "tags": [str(node)]}}
    sessions: list[Row] = [
        {"op": "open", "time": now[0], "client": clients[rank], "rank": rank, "world_size": 8, **said} for rank in ranks
    ]
    states = {2: "killed", 5: "failed", 6: "failed"}
    for rank in ranks:
        row: Row = {"op": "end", "time": now[50 - rank], "client": clients[rank], "state": states.get(rank, "finished")}
        if row["state"] == "failed":
            row["error"] = {"type": "ValueError", "message": f"of {rank}"}
        sessions.append(row)
    parameters = [
        {"op": "set", "time": now[1], "set": {"batch": 16, "by": node}},
        {
            "op": "set",
            "time": now[20 - node],
            "set": {"late": node, f"only.{node}": "NaN"},
            "nonfinite": [f"only.{node}"],
        },
    ]
    tracks = [
        {"time": now[2], "track": "train/loss", "trackId": f"{node}", "set": {"description": f"said by {node}"}},
        {"time": now[9 - node], "track": "train/loss", "set": {"tags": [f"of {node}"]}},
    ]
    shared = {"path": "/models", "filename": "model.pt", "uploadedAt": now[5], "updatedAt": now[5], "deletedAt": None}
    own = {**shared, "id": f"own{node}", "filename": f"{node}.txt", "tags": [], "checksum": None}
    files = [
        {"op": "upload", "time": now[5], "record": {**shared, "id": f"file{node}", "tags": [], "checksum": None}},
        {"op": "hashed", "time": now[6], "id": f"file{node}", "checksum": f"{node}" * 64},
        {"op": "upload", "time": now[7], "record": own},
        {"op": "change", "time": now[8], "id": f"file{node}", "set": {"description": f"of {node}"}},
        {"op": "delete" if node == 3 else "change", "time": now[9], "id": f"own{node}", "set": {"tags": ["late"]}},
    ]
    points = [
        {"index": at, "data": {"value": at}, "createdAt": now[10 + at * 7 % 12], "rank": ranks[at % RANKS]}
        for at in range(12)
    ]
    words = [
        {"sequenceNumber": at, "timestamp": now[30 - at], "level": "info", "message": f"{node} {at}", "rank": ranks[0]}
        for at in range(6)
    ]
    found = {
        SESSION_LOG: sessions,
        PARAMETERS_LOG: parameters,
        TRACKS_LOG: tracks,
        FILES_LOG: files,
        LOSS: points,
        LOGS_LOG: words,
    }
    return {log: [line(row) for row in rows] for log, rows in found.items()}


def answers(serving: Serving, session: str) -> dict[str, Any]:
    """All that is read of a session, without what each server chooses."""
    path = f"/sessions/{session}"
    found: dict[str, Any] = {
        "session": said(serving.alice.get(path)),
        "listed": said(serving.alice.get("/sessions"))["sessions"][0],
        "parameters": said(serving.alice.get(f"{path}/parameters")),
        "tracks": said(serving.alice.get(f"{path}/tracks")),
        "points": said(serving.alice.get(URL.format(session))),
        "of a rank": said(serving.alice.get(URL.format(session), params={"rank": 5})),
        "lines": said(serving.alice.get(f"{path}/logs")),
        "files": said(serving.alice.get(f"{path}/files"))["files"],
    }
    return dict(json.loads(json.dumps(found).replace(session, "the session")))


turns = st.lists(st.tuples(st.integers(0, 23), st.integers(1, 12)), max_size=60)


def read(serving: Serving, session: str) -> None:
    """What the server has read of it by now it keeps."""
    for noun in ("parameters", "tracks", "files"):
        assert serving.alice.get(f"/sessions/{session}/{noun}").status_code in (200, 404)


def arrived(serving: Serving, logs: dict[str, dict[str, list[bytes]]], turns: list[tuple[int, int]]) -> str:
    """Push all of it: in each turn some records of one log of one origin, at last what is left of each."""
    left = {(origin, log): 0 for origin in logs for log in logs[origin]}
    directories = {origin: Directory(serving.alice, origin, logs=each) for origin, each in logs.items()}
    session = ""
    for number, (which, count) in enumerate([*turns, *((0, 100) for _ in left)]):
        if not left:
            break
        origin, log = sorted(left)[which % len(left)]
        first = left[origin, log]
        piece = directories[origin].piece(log, first, first + count)
        session = str(said(directories[origin].push({log: piece}))["session"]["id"])
        if number % 9 == 8:
            read(serving, session)
        left[origin, log] += count
        if left[origin, log] >= len(logs[origin][log]):
            del left[origin, log]
    return session


@settings(max_examples=12, deadline=None)
@given(turns, turns, st.lists(st.integers(-60, 60), min_size=4, max_size=4))
def test_who_comes_first_makes_no_difference(
    one: list[tuple[int, int]], other: list[tuple[int, int]], skews: list[int]
) -> None:
    logs = {origin: logs_of(node, skews[node]) for node, origin in enumerate(ORIGINS)}
    found = []
    for order in (one, other):
        with opened() as serving:
            session = arrived(serving, logs, order)
            found.append(answers(serving, session))
    assert found[0] == found[1]
    session_ = found[0]["session"]
    assert (session_["state"], session_["killedRanks"]) == ("failed", [2])
    assert session_["error"]["rank"] in (5, 6)
    assert found[0]["parameters"]["data"].keys() == {"batch", "by", "late", *(f"only.{node}" for node in range(4))}
    assert len(found[0]["points"]["data"]) == 12 * 4
    assert [row["index"] for row in found[0]["of a rank"]["data"]] == [str(at) for at in range(1, 12, 2)]
    assert sorted(each["filename"] for each in found[0]["files"]) == ["0.txt", "1.txt", "2.txt", "model.pt"]


steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 59), min_size=1, max_size=6)),  # an origin pushes
        st.integers(1, 4),  # a page is read
    ),
    max_size=16,
)


@settings(max_examples=50, deadline=None)
@given(steps, st.sampled_from([None, 1]), st.booleans())
def test_pages_by_cursor_have_each_row_once_while_origins_push(steps: list[Any], rank: int | None, lines: bool) -> None:
    """Also what comes late and belongs before what was read: it comes later then. Each origin's rows in their order."""
    log, path, key = (LOGS_LOG, "/sessions/{}/logs", "logs") if lines else (LOSS, URL, "data")
    with opened() as serving:
        session = serving.alice.session()
        directories = {origin: Directory(serving.alice, origin, logs={log: []}) for origin in ORIGINS}
        found: list[Row] = []
        query: dict[str, Any] = {} if rank is None else {"rank": rank}

        def page(limit: int) -> bool:
            answer = said(serving.alice.get(path.format(session), params={"limit": limit, **query}))
            assert len(answer[key]) <= limit
            found.extend(answer[key])
            query["cursor"] = answer["nextCursor"] or query.get("cursor")
            return answer["nextCursor"] is not None

        def push(origin: str, seconds: list[int]) -> None:
            rows = directories[origin].logs[log]
            first = len(rows)
            rows += [
                line({"index": at, "message": origin, "data": {}, "createdAt": time(second), "rank": at % 2})
                for at, second in enumerate(seconds, first)
            ]
            said(directories[origin].push({log: directories[origin].piece(log, first)}))

        # One page is left until the end: where there is no more there is no cursor.
        push(ORIGINS[0], [30] * 60)
        for step in steps:
            if isinstance(step, int):
                page(step)
            else:
                push(ORIGINS[step[0]], step[1])
        while page(7):
            pass
        for origin, directory in directories.items():
            wanted = [at for at in range(len(directory.logs[log])) if rank is None or at % 2 == rank]
            mine = [row for row in found if row.get("origin", ORIGINS[0]) == origin]
            assert [int(row["sequenceNumber" if lines else "index"]) for row in mine] == wanted
