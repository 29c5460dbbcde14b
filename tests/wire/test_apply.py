"""Apply: this operation came, those rows were added; or it was refused, and nothing changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import codec, jsons, ops
from dreamlake.wire.applied import Applied
from dreamlake.wire.apply import apply_run
from dreamlake.wire.state import State, fold
from tests import reading

ORIGIN = "0" * 32
ALICE, BOB, AGENT = b"a" * 16, b"b" * 16, b"g" * 16
T = 1_767_225_600 * 10**9
WHEN = "2026-01-01T00:00:00.000000Z"
SHA = "ab" * 32

LOGS = "logs/logs.jsonl"
LOSS = "tracks/loss/data.jsonl"
SESSION, PARAMETERS = ".dreamlake/session.jsonl", ".dreamlake/parameters.jsonl"
TRACKS, FILES = ".dreamlake/tracks.jsonl", ".dreamlake/files.jsonl"


def opening(time: int = T, given: bytes = b"{}", **who: Any) -> ops.Op:
    return (ops.OPEN, time, {"name": "run", "workspace": "project", **who}, given)


def upload(file_id: str, filename: str = "m.pth", path: str = "/models", client: bytes = ALICE, **more: Any) -> ops.Op:
    record = {"id": file_id, "path": path, "filename": filename, "checksum": None, **more}
    return (ops.FILE, T, jsons.encode(record), f"{client.hex()}-{file_id}")


def applied(state: State, client: bytes, *run: Any, skip: set[int] | None = None) -> Applied:
    out = Applied()
    apply_run(state, client, list(run), out, skip)
    return out


def rows(out: Applied) -> dict[str, list[Any]]:
    assert all(block.endswith(b"\n") for blocks in out.rows.values() for block in blocks)
    return {log: [reading.strict(line) for line in out.lines(log)] for log in out.rows}


@pytest.fixture
def state() -> State:
    """A session that Alice has open, with a file."""
    found = State(ORIGIN)
    assert not applied(found, ALICE, opening(rank=0), upload("f0")).refused
    return found


# ── each operation ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_open_makes_the_session_and_its_client() -> None:
    state = State(ORIGIN)
    given = b'{"description":"d","tags":["a"],"write_protected":true}'
    out = applied(state, ALICE, opening(given=given, rank=1, world_size=2, pid=7, host="node1"))
    assert rows(out) == {
        SESSION: [
            {
                "op": "open",
                "time": WHEN,
                "client": ALICE.hex(),
                "name": "run",
                "workspace": "project",
                "rank": 1,
                "world_size": 2,
                "pid": 7,
                "host": "node1",
                "set": {"description": "d", "tags": ["a"], "write_protected": True},
            }
        ]
    }
    assert out.stale == {"session.json"}
    assert state.session is not None
    assert (state.session["state"], state.protected) == ("running", True)
    assert state.clients[ALICE.hex()].rank == 1


@pytest.mark.parametrize(
    ("state_said", "error", "told"),
    [
        ("finished", None, None),
        ("failed", {"type": "ValueError", "message": "x"}, {"type": "ValueError", "message": "x"}),
        ("killed", {"type": "T" * 2000, "message": "m" * 20_000}, {"type": "T" * 1000, "message": "m" * 10_000}),
        ("failed", {}, {"type": "", "message": ""}),
    ],
)
def test_the_last_close_ends_the_run_and_counts(state: State, state_said: str, error: Any, told: Any) -> None:
    applied(state, ALICE, (ops.LOG, T, "info", "x", None, None))
    out = applied(state, ALICE, (ops.CLOSE, T, state_said, error))
    (row,) = rows(out)[SESSION]
    assert row.pop("error", None) == told
    assert row == {"op": "end", "time": WHEN, "client": ALICE.hex(), "state": state_said, "counts": {LOGS: 1}}
    assert state.run_state == state_said


def test_a_close_while_others_run_counts_nothing(state: State) -> None:
    applied(state, BOB, opening(rank=1))
    (row,) = rows(applied(state, ALICE, (ops.CLOSE, T, "finished", None)))[SESSION]
    assert "counts" not in row
    assert state.run_state == "running"


def test_log_lines_are_numbered(state: State) -> None:
    out = applied(
        state,
        ALICE,
        (ops.LOG, T, "info", 'a "b"\n\0é', None, None),
        (ops.LOG, T + 1000, "fatal", "", b'{"a":"NaN"}', ["a"]),
    )
    assert rows(out) == {
        LOGS: [
            {"sequenceNumber": 0, "timestamp": WHEN, "level": "info", "message": 'a "b"\n\0é', "rank": 0},
            {
                "sequenceNumber": 1,
                "timestamp": "2026-01-01T00:00:00.000001Z",
                "level": "fatal",
                "message": "",
                "metadata": {"a": "NaN"},
                "nonfinite": ["a"],
                "rank": 0,
            },
        ]
    }
    assert (state.logs.next, state.logs.rows, state.logs.time) == (2, 2, "2026-01-01T00:00:00.000001Z")
    assert out.stale == set()


def test_parameters_are_merged_and_the_version_rises(state: State) -> None:
    out = applied(
        state, ALICE, (ops.PARAMETERS, T, b'{"lr":"NaN","a":1}', ["lr"]), (ops.PARAMETERS, T, b'{"lr":0.5}', None)
    )
    assert rows(out)[PARAMETERS] == [
        {
            "op": "set",
            "time": WHEN,
            "client": ALICE.hex(),
            "rank": 0,
            "set": {"lr": "NaN", "a": 1},
            "nonfinite": ["lr"],
        },
        {"op": "set", "time": WHEN, "client": ALICE.hex(), "rank": 0, "set": {"lr": 0.5}},
    ]
    assert (state.parameters, state.parameters_version) == ({"lr": 0.5, "a": 1}, 2)
    assert state.parameters_nonfinite == set()
    assert out.stale == {"parameters.json"}


def test_a_track_is_described_once_it_is_and_has_its_id_from_its_first_row(state: State) -> None:
    out = applied(
        state, ALICE, (ops.TRACK, T, "loss", b'{"tags":["a"]}'), (ops.TRACK, T + 1000, "loss", b'{"description":"d"}')
    )
    first, second = rows(out)[TRACKS]
    assert first == {
        "time": WHEN,
        "client": ALICE.hex(),
        "rank": 0,
        "track": "loss",
        "trackId": state.tracks["loss"].id,
        "set": {"tags": ["a"]},
    }
    assert "trackId" not in second
    assert (state.tracks["loss"].description, state.tracks["loss"].tags) == ("d", ["a"])
    assert out.stale == {"tracks/loss/metadata.json"}


def test_points_stand_in_order_of_arrival_and_their_places_are_told(state: State) -> None:
    applied(state, BOB, opening(rank=1))
    one = applied(
        state,
        ALICE,
        (ops.POINT, T, "loss", 0, b'{"v":1}'),
        (ops.POINTS, T, "loss", 1, (b'{"v":2}', b'{"v":"NaN"}'), (None, ["v"])),
    )
    two = applied(state, BOB, (ops.POINT, T, "loss", 0, b'{"v":3}', ["v"]))
    three = applied(state, ALICE, (ops.POINT, T, "loss", 3, b'{"v":4}'), (ops.POINT, T, "other", 0, b"{}"))
    assert [list(row.values())[:2] for out in (one, two, three) for row in rows(out)[LOSS]] == [
        [0, {"v": 1}],
        [1, {"v": 2}],
        [2, {"v": "NaN"}],
        [3, {"v": 3}],
        [4, {"v": 4}],
    ]
    assert [row.get("nonfinite") for row in rows(one)[LOSS]] == [None, None, ["v"]]
    assert (one.placed, two.placed) == ({"loss": [[0, 0, 3]]}, {"loss": [[0, 3, 1]]})
    assert three.placed == {"loss": [[3, 4, 1]], "other": [[0, 0, 1]]}
    assert state.tracks["loss"].tail.next == 5


@pytest.mark.parametrize(
    ("ordinals", "spans"),
    [
        ([0, 1, 2], [[0, 0, 3]]),
        ([5], [[5, 0, 1]]),
        ([0, 2, 3], [[0, 0, 1], [2, 1, 2]]),  # a call was lost
    ],
)
def test_places_of_one_run_are_told_in_as_few_spans_as_can_be(
    ordinals: list[int], spans: list[list[int]], state: State
) -> None:
    run = [(ops.POINT, T, "loss", ordinal, b"{}") for ordinal in ordinals]
    assert applied(state, ALICE, *run).placed == {"loss": spans}


def test_the_times_of_points_are_those_of_their_calls(state: State) -> None:
    out = applied(state, ALICE, (ops.POINT, T + 5_000, "loss", 0, b"{}"), (ops.POINT, T, "loss", 1, b"{}"))
    assert [row["createdAt"][-7:] for row in rows(out)[LOSS]] == ["000005Z", "000000Z"]


def test_a_file_is_uploaded_replaced_changed_hashed_and_deleted(state: State) -> None:
    out = applied(state, ALICE, upload("f1"))
    (row,) = rows(out)[FILES]
    assert row["incoming"] == f"{ALICE.hex()}-f1"
    assert row["record"]["sessionId"] == ORIGIN
    assert (row["record"]["uploadedAt"], row["record"]["deletedAt"]) == (WHEN, None)
    assert list(state.files) == ["f1"]  # the same place: f0 is replaced
    assert list(state.incoming) == ["f1"]
    applied(state, ALICE, (ops.FILE_CHANGE, T, "f1", b'{"description":"d"}'))
    applied(state, AGENT, (ops.HASHED, T, "f1", SHA))
    applied(state, ALICE, (ops.FILE_DELETE, T + 1000, "f1"))
    found = state.files["f1"]
    assert (found["description"], found["checksum"], found["deletedAt"]) == ("d", SHA, "2026-01-01T00:00:00.000001Z")


def test_a_client_that_vanished_is_killed_and_a_forked_child_is_not(state: State) -> None:
    applied(state, BOB, opening(forked=True))
    (row,) = rows(applied(state, AGENT, (ops.KILLED, T, BOB)))[SESSION]
    assert (row["client"], row["state"]) == (BOB.hex(), "finished")
    (row,) = rows(applied(state, AGENT, (ops.KILLED, T, ALICE)))[SESSION]
    assert (row["client"], row["state"]) == (ALICE.hex(), "killed")
    assert state.session is not None
    assert (state.session["state"], state.session["killed_ranks"]) == ("killed", [0])


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────────

POINT = (ops.POINT, T, "loss", 0, b"{}")

REFUSED: dict[str, tuple[bytes, Any]] = {
    "what is no operation": (ALICE, None),
    "a list": (ALICE, [ops.LOG, T]),
    "an empty one": (ALICE, ()),
    "a kind without a time": (ALICE, (ops.FILE_DELETE,)),
    "a kind that is text": (ALICE, ("log", T)),
    "a kind nobody knows": (ALICE, (99, T)),
    "a time before the year 1": (ALICE, (ops.FILE_DELETE, -(10**20), "f0")),
    "a time that is no int": (ALICE, (ops.FILE_DELETE, 1.5, "f0")),
    "too few values": (ALICE, (ops.POINT, T, "loss", 0)),
    "too many values": (ALICE, (*POINT, None, None)),
    "values of other types": (ALICE, (ops.POINT, T, b"loss", 0, b"{}")),
    "an open without a name": (BOB, (ops.OPEN, T, {"workspace": "w"}, b"{}")),
    "an open with an empty name": (BOB, (ops.OPEN, T, {"name": "", "workspace": "w"}, b"{}")),
    "an open with a rank that is text": (BOB, opening(rank="0")),
    "an open with fields that are no object": (BOB, opening(given=b"[]")),
    "an open with fields that are no JSON": (BOB, opening(given=b"{")),
    "a close of a stranger": (BOB, (ops.CLOSE, T, "finished", None)),
    "a close in no known state": (ALICE, (ops.CLOSE, T, "running", None)),
    "a log of a stranger": (BOB, (ops.LOG, T, "info", "x", None, None)),
    "a log with an unknown level": (ALICE, (ops.LOG, T, "INFO", "x", None, None)),
    "a log with metadata that is no object": (ALICE, (ops.LOG, T, "info", "x", b"[]", None)),
    "a log with half an object": (ALICE, (ops.LOG, T, "info", "x", b'{"a":1}}', None)),
    "a log with two lines": (ALICE, (ops.LOG, T, "info", "x", b'{"a":\n1}', None)),
    "a log with nonfinite that is no list of names": (ALICE, (ops.LOG, T, "info", "x", None, (1,))),
    "parameters of a stranger": (BOB, (ops.PARAMETERS, T, b"{}", None)),
    "parameters that are no object": (ALICE, (ops.PARAMETERS, T, b"1", None)),
    "parameters with nonfinite that is no list of names": (ALICE, (ops.PARAMETERS, T, b'{"a":1}', (None,))),
    "a track of a stranger": (BOB, (ops.TRACK, T, "loss", b"{}")),
    "a track that leaves the session": (ALICE, (ops.TRACK, T, "../loss", b"{}")),
    "a track of a name of ours": (ALICE, (ops.TRACK, T, ".dreamlake/x", b"{}")),
    "a point of a stranger": (BOB, POINT),
    "a point on a track that leaves the session": (ALICE, (ops.POINT, T, "/loss", 0, b"{}")),
    "a point that is no object": (ALICE, (ops.POINT, T, "loss", 0, b"1")),
    "a point that closes its line": (ALICE, (ops.POINT, T, "loss", 0, b'{},"x":{}')),
    "a point of bare NaN": (ALICE, (ops.POINT, T, "loss", 0, b'{"v":NaN}')),
    "a point with nonfinite that is no list of names": (ALICE, (*POINT, (b"v",))),
    "no points": (ALICE, (ops.POINTS, T, "loss", 0, ())),
    "points that are no bytes": (ALICE, (ops.POINTS, T, "loss", 0, ("{}",))),
    "points one of which is no object": (ALICE, (ops.POINTS, T, "loss", 0, (b"{}", b"[]"))),
    "points with nonfinite of another number": (ALICE, (ops.POINTS, T, "loss", 0, (b"{}",), (None, None))),
    "a file of a stranger": (BOB, upload("f1", client=BOB)),
    "a file without a record": (ALICE, (ops.FILE, T, b"[]", f"{ALICE.hex()}-f1")),
    "a file without an id": (ALICE, (ops.FILE, T, b'{"path":"/","filename":"x"}', f"{ALICE.hex()}-f1")),
    "a file with an id that is a path": (ALICE, upload("../f1")),
    "a file with an id that is taken": (ALICE, upload("f0", filename="other")),
    "a file captured elsewhere": (ALICE, (ops.FILE, T, b'{"id":"f1","path":"/","filename":"x"}', "../../etc/passwd")),
    "a file that leaves the session": (ALICE, upload("f1", path="/../..")),
    "a file without a name": (ALICE, upload("f1", filename="")),
    "a file where a folder is": (ALICE, upload("f1", filename="models", path="/")),
    "a file below a file": (ALICE, upload("f1", path="/models/m.pth")),
    "a file in the place of our view": (ALICE, upload("f1", filename=".files_metadata.json", path="/")),
    "a change of a stranger": (BOB, (ops.FILE_CHANGE, T, "f0", b"{}")),
    "a change of an unknown file": (ALICE, (ops.FILE_CHANGE, T, "f9", b"{}")),
    "a change of what cannot change": (ALICE, (ops.FILE_CHANGE, T, "f0", b'{"path":"/x"}')),
    "a deletion of an unknown file": (ALICE, (ops.FILE_DELETE, T, "f9")),
    "a death that a client tells": (ALICE, (ops.KILLED, T, ALICE)),
    "a death of a stranger": (AGENT, (ops.KILLED, T, BOB)),
    "a checksum that a client tells": (ALICE, (ops.HASHED, T, "f0", SHA)),
    "a checksum of an unknown file": (AGENT, (ops.HASHED, T, "f9", SHA)),
    "a checksum that is none": (AGENT, (ops.HASHED, T, "f0", "AB" * 32)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_and_changes_nothing(name: str, state: State) -> None:
    client, op = REFUSED[name]
    before = copy.deepcopy(state)
    out = applied(state, client, op)
    assert list(out.refused) == [0]
    assert out.refused[0]
    assert (out.rows, out.placed, out.stale) == ({}, {}, set())
    assert state == before


def test_a_refusal_holds_up_nothing(state: State) -> None:
    out = applied(state, ALICE, POINT, None, (*POINT[:3], 1, b"{}"), (99, T), (*POINT[:3], 2, b"{}"))
    assert list(out.refused) == [1, 3]
    assert [row["index"] for row in rows(out)[LOSS]] == [0, 1, 2]


def test_what_was_refused_when_it_was_committed_is_refused_on_replay_whatever_it_is(state: State) -> None:
    out = applied(state, ALICE, POINT, (*POINT[:3], 1, b'{"later":1}'), skip={0})
    assert list(out.refused) == [0]
    assert [row["data"] for row in rows(out)[LOSS]] == [{"later": 1}]


def test_a_write_protected_session_takes_rows_until_it_is_finished_and_no_change_ever() -> None:
    state = State(ORIGIN)
    log = (ops.LOG, T, "info", "x", None, None)
    changes = [(ops.PARAMETERS, T, b'{"a":1}', None), upload("f1"), (ops.FILE_DELETE, T, "f0")]
    everything = [POINT, log, (ops.TRACK, T, "loss", b"{}"), *changes]
    assert not applied(state, ALICE, opening(), upload("f0"), (ops.CLOSE, T, "finished", None)).refused
    assert not applied(state, BOB, opening(given=b'{"write_protected":true}')).refused
    assert list(applied(state, BOB, *everything).refused) == [3, 4, 5]
    applied(state, BOB, (ops.CLOSE, T, "failed", None))
    assert list(applied(state, BOB, *everything).refused) == [3, 4, 5]
    carol = b"c" * 16
    applied(state, carol, opening(), (ops.CLOSE, T, "finished", None))
    assert list(applied(state, carol, *everything).refused) == [0, 1, 2, 3, 4, 5]


# ── whatever comes ──────────────────────────────────────────────────────────────────────────────────────────────────

JSON_TEXT = st.sampled_from(
    [b"{}", b'{"a":1}', b'{"description":"x"}', b'{"a":[1,{"b":null}]}', b"[]", b"{", b'{"a":1}\n', b'{"tags":5}']
)
NONFINITE = st.one_of(st.none(), st.lists(st.sampled_from(["a", "b"]), max_size=2).map(tuple))
TRACK_NAMES = st.sampled_from(["loss", "train/loss", "", "../x", "a/b/c", ".dreamlake"])
IDS = st.sampled_from(["f0", "f1", "f2", "no such"])
TIMES = st.integers(T, T + 10**10)
CLIENTS = st.sampled_from([ALICE, BOB])

OPERATIONS = st.one_of(
    st.tuples(st.just(ops.OPEN), TIMES, st.just({"name": "run", "workspace": "w", "rank": 1}), JSON_TEXT),
    st.tuples(st.just(ops.CLOSE), TIMES, st.sampled_from([*ops.END_STATES, "running"]), st.none()),
    st.tuples(st.just(ops.LOG), TIMES, st.sampled_from(["info", "x"]), st.text(max_size=5), st.none(), NONFINITE),
    st.tuples(st.just(ops.PARAMETERS), TIMES, JSON_TEXT, NONFINITE),
    st.tuples(st.just(ops.TRACK), TIMES, TRACK_NAMES, JSON_TEXT),
    st.tuples(st.just(ops.POINT), TIMES, TRACK_NAMES, st.integers(0, 9), JSON_TEXT),
    st.tuples(st.just(ops.POINTS), TIMES, TRACK_NAMES, st.integers(0, 9), st.lists(JSON_TEXT, max_size=3).map(tuple)),
    st.builds(upload, IDS, st.sampled_from(["a", "b", ""]), st.sampled_from(["/", "/a", "/a/b"])),
    st.tuples(st.just(ops.FILE_CHANGE), TIMES, IDS, JSON_TEXT),
    st.tuples(st.just(ops.FILE_DELETE), TIMES, IDS),
    st.tuples(st.just(ops.KILLED), TIMES, CLIENTS),
    st.tuples(st.just(ops.HASHED), TIMES, IDS, st.just(SHA)),
)
RUNS = st.lists(st.tuples(st.sampled_from([ALICE, BOB, AGENT]), OPERATIONS), max_size=25)
HISTORIES = {SESSION, PARAMETERS, TRACKS, FILES}


@settings(deadline=None, derandomize=True, max_examples=200)
@given(RUNS)
def test_replaying_the_same_order_gives_the_same_rows_and_the_rows_give_the_same_state(
    runs: list[tuple[bytes, Any]],
) -> None:
    """Three ways to the same place: applied, replayed with its refusals, and folded from the rows alone."""
    state, again, folded = State(ORIGIN), State(ORIGIN), State(ORIGIN)
    for client, op in runs:
        out = applied(state, client, op)
        assert rows(applied(again, client, op, skip=set(out.refused))) == rows(out)
        for log in out.rows:
            for line in out.lines(log):
                row = reading.strict(line)
                if log in HISTORIES:
                    fold(folded, log, row)
    assert again == state
    for track in folded.tracks.values():  # points carry no state but how many there are
        track.tail = state.tracks[next(name for name in folded.tracks if folded.tracks[name] is track)].tail
    folded.logs = state.logs
    assert folded == state


@settings(deadline=None, derandomize=True, max_examples=200)
@given(RUNS)
def test_indexes_have_no_hole_and_every_point_is_placed_once(runs: list[tuple[bytes, Any]]) -> None:
    state, indexes, placed = State(ORIGIN), dict[str, list[int]](), dict[str, list[int]]()
    for client, op in runs:
        out = applied(state, client, op)
        for log in out.rows:
            if log not in HISTORIES:
                key = "sequenceNumber" if log == LOGS else "index"
                indexes.setdefault(log, []).extend(reading.strict(line)[key] for line in out.lines(log))
        for track, spans in out.placed.items():
            for _ordinal, index, count in spans:
                placed.setdefault(f"tracks/{track}/data.jsonl", []).extend(range(index, index + count))
    for log, found in indexes.items():
        assert found == list(range(len(found)))
        assert log == LOGS or placed[log] == found


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# Whole records of a client's, which any program of this user may write: the agent that applies them dies of them, and
# so does the next one that finds the journal.
DEADLY: dict[str, Any] = {
    "POINTS with nonfinite that holds a number": (ops.POINTS, T, "loss", 0, (b"{}",), (5,)),
    "a file without a path": (ops.FILE, T, b'{"id":"f1","filename":"x"}', f"{ALICE.hex()}-f1"),
    "parameters of NaN and a large integer": (ops.PARAMETERS, T, b'{"a":NaN,"b":100000000000000000000000}', None),
    "parameters with a lone surrogate": (ops.PARAMETERS, T, b'{"a":"\\ud800"}', None),
    "parameters that are nested very deep": (ops.PARAMETERS, T, b'{"a":' + b"[" * 990 + b"]" * 990 + b"}", None),
    "an opening with a lone surrogate": opening(given=b'{"description":"\\ud800"}'),
    "a change with a lone surrogate": (ops.FILE_CHANGE, T, "f0", b'{"description":"\\ud800"}'),
}


@pytest.mark.parametrize("name", DEADLY)
def test_an_operation_that_cannot_be_applied_is_refused_and_kills_nobody(name: str, state: State) -> None:
    before = copy.deepcopy(state)
    (op,) = codec.payloads(codec.frame(codec.pack(DEADLY[name]), 0)[0])
    assert list(applied(state, ALICE, op).refused) == [0]
    assert state == before


@pytest.mark.parametrize(
    "op",
    [
        (ops.POINTS, T, "loss", 0, (b"{}",), ("v",)),
        (ops.PARAMETERS, T, b'{"a":NaN}', None),
        (ops.TRACK, T, "loss", b'{"description":Infinity}'),
    ],
)
def test_what_is_not_strictly_of_its_shape_is_refused(op: Any, state: State) -> None:
    assert list(applied(state, ALICE, op).refused) == [0]


def test_no_line_is_longer_than_readers_read(state: State) -> None:
    from dreamlake.reader.lines import LINE_BYTES_MAX

    out = applied(state, ALICE, (ops.LOG, T, "info", "\x01" * (2 << 20), None, None))
    assert all(len(line) < LINE_BYTES_MAX for log in out.rows for line in out.lines(log))


def test_a_parameter_that_is_set_anew_is_listed_no_longer(state: State) -> None:
    applied(
        state, ALICE, (ops.PARAMETERS, T, b'{"lr":["NaN"]}', ["lr.0"]), (ops.PARAMETERS, T, b'{"lr":["NaN"]}', None)
    )
    assert state.parameters_nonfinite == set()


def test_a_point_whose_line_no_reader_would_read_is_refused(state: State) -> None:
    """A name of control characters is six times as long in JSON; a reader stops at a line that is too long."""
    from dreamlake.reader.lines import LINE_BYTES_MAX

    names = ["\x01" * (2 << 20)]
    out = applied(state, ALICE, (ops.POINT, T, "loss", 0, b"{}", names), (ops.POINTS, T, "loss", 1, [b"{}"], [names]))
    assert set(out.refused) == {0, 1}
    assert "loss" not in state.tracks
    assert all(len(line) < LINE_BYTES_MAX for log in out.rows for line in out.lines(log))
