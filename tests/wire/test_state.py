"""State: rows folded one by one, and the views that show what they come to."""

from __future__ import annotations

from typing import Any

import pytest

from dreamlake.wire import state as states
from dreamlake.wire.state import (
    FILES_LOG,
    PARAMETERS_LOG,
    SESSION_LOG,
    TRACKS_LOG,
    State,
    Tail,
    fold,
    fold_read,
    view,
)

ORIGIN = "0" * 32


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000Z"


def opened(second: int, client: str, rank: int | None = None, **given: Any) -> dict[str, Any]:
    found = {"op": "open", "time": at(second), "client": client, "name": "run", "workspace": "w", "set": given}
    return found if rank is None else {**found, "rank": rank}


def ended(second: int, client: str, how: str, **more: Any) -> dict[str, Any]:
    return {"op": "end", "time": at(second), "client": client, "state": how, **more}


def session(*rows: dict[str, Any]) -> dict[str, Any]:
    state = State(ORIGIN)
    for row in rows:
        fold(state, SESSION_LOG, row)
    found = view(state, "session.json")
    assert found is not None
    return found


@pytest.mark.parametrize("path", ["session.json", "parameters.json", "files/.files_metadata.json"])
def test_where_nothing_was_said_there_is_no_view(path: str) -> None:
    assert view(State(ORIGIN), path) is None


def test_a_new_session_shows_who_it_is() -> None:
    assert session(opened(1, "a", description="d")) == {
        "name": "run",
        "workspace": "w",
        "description": "d",
        "tags": None,
        "folder": None,
        "metadata": None,
        "created_at": at(1),
        "updated_at": at(1),
        "write_protected": False,
        "started_at": at(1),
        "state": "running",
        "id": ORIGIN,
    }


def test_an_opening_replaces_what_it_gives_and_keeps_the_rest() -> None:
    found = session(
        opened(1, "a", description="d", tags=["x", "y"], metadata={"a": 1}),
        ended(2, "a", "finished"),
        opened(3, "b", tags=["z"], description=None, metadata={"b": 2}),
    )
    assert (found["description"], found["tags"], found["metadata"]) == ("d", ["z"], {"b": 2})
    assert (found["created_at"], found["started_at"], found["updated_at"]) == (at(1), at(3), at(3))


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        (["finished", "finished"], "finished"),
        (["finished", "killed"], "killed"),
        (["killed", "finished"], "killed"),
        (["killed", "failed"], "failed"),
        (["failed", "finished"], "failed"),
    ],
)
def test_a_run_ends_with_its_last_client_as_the_worst_that_happened(ends: list[str], state: str) -> None:
    rows = [opened(1, "a", 0), opened(1, "b", 1), ended(2, "a", ends[0])]
    before = session(*rows)
    assert (before["state"], "ended_at" in before) == ("running", False)
    found = session(*rows, ended(3, "b", ends[1], counts={"logs/logs.jsonl": 3}))
    assert (found["state"], found["ended_at"], found["counts"]) == (state, at(3), {"logs/logs.jsonl": 3})
    assert found.get("killed_ranks") == ([ends.index("killed")] if "killed" in ends else None)


def test_the_error_is_shown_with_its_rank_and_is_gone_with_the_next_run() -> None:
    rows = [opened(1, "a", 0), opened(1, "b", 1), ended(2, "b", "failed", error={"type": "E", "message": "m"})]
    found = session(*rows, ended(3, "a", "finished"))
    assert found["error"] == {"type": "E", "message": "m", "rank": 1}
    again = session(*rows, ended(3, "a", "killed"), opened(4, "c"))
    assert again["state"] == "running"
    assert not {"error", "ended_at", "killed_ranks", "counts"} & set(again)


def test_a_forked_child_belongs_to_the_run_of_its_parent_also_when_it_is_heard_of_later() -> None:
    child = {**opened(3, "b"), "forked": True}
    found = session(opened(1, "a"), ended(2, "a", "killed"), child, ended(4, "b", "finished"))
    assert found["state"] == "killed"


def test_a_run_that_is_resumed_forgets_the_clients_of_the_one_before() -> None:
    found = session(opened(1, "a", 0), ended(2, "a", "killed"), opened(3, "b", 0), ended(4, "b", "finished"))
    assert found["state"] == "finished"
    assert "killed_ranks" not in found


def test_a_client_thought_dead_may_still_end_by_itself() -> None:
    found = session(opened(1, "a", 0), ended(2, "a", "killed"), ended(3, "a", "finished"))
    assert (found["state"], found["ended_at"]) == ("finished", at(3))


def test_an_end_of_nobody_is_passed_over() -> None:
    assert session(opened(1, "a"), ended(2, "z", "failed"))["state"] == "running"


def test_a_protected_session_that_is_finished_is_opened_to_be_read() -> None:
    sealed = [opened(1, "a", write_protected=True, description="d"), ended(2, "a", "finished")]
    assert session(*sealed, opened(3, "b", description="new")) == session(*sealed)
    failed = [opened(1, "a", write_protected=True), ended(2, "a", "failed")]
    found = session(*failed, opened(3, "b", description="new"))
    assert (found["state"], found["description"], found["write_protected"]) == ("running", "new", True)


def test_an_imported_session_is_shown_as_it_was() -> None:
    old = {"name": "old", "workspace": "w", "created_at": at(1), "someone_elses": [1]}
    assert session({"op": "import", "time": at(1), "set": old}) == {**old, "id": ORIGIN}
    found = session({"op": "import", "time": at(1), "set": old}, opened(2, "a"))
    assert (found["name"], found["created_at"], found["someone_elses"]) == ("old", at(1), [1])


def test_rows_of_a_later_version_are_passed_over() -> None:
    assert session(opened(1, "a"), {"op": "from the future", "time": at(2)}) == session(opened(1, "a"))


# ── parameters, tracks, files ───────────────────────────────────────────────────────────────────────────────────────


def test_parameters_are_merged_key_by_key() -> None:
    state = State(ORIGIN)
    fold(state, PARAMETERS_LOG, {"op": "import", "time": at(1), "version": 7, "set": {"a": 1, "b": 1}})
    fold(state, PARAMETERS_LOG, {"op": "set", "time": at(2), "set": {"b": "NaN", "c": "NaN"}, "nonfinite": ["c", "b"]})
    assert view(state, "parameters.json") == {
        "version": 8,
        "data": {"a": 1, "b": "NaN", "c": "NaN"},
        "updatedAt": at(2),
        "nonfinite": ["b", "c"],
    }
    fold(state, PARAMETERS_LOG, {"op": "set", "time": at(3), "set": {"b": "NaN", "c": 2}})
    found = view(state, "parameters.json")
    assert found is not None
    assert "nonfinite" not in found


@pytest.mark.parametrize("name", ["loss", "train/loss", "a/b/c"])
def test_a_track_shows_its_points_and_when_the_last_one_came(name: str) -> None:
    state = State(ORIGIN)
    fold(state, TRACKS_LOG, {"time": at(1), "track": name, "trackId": "t"})
    fold(state, TRACKS_LOG, {"time": at(2), "track": name, "set": {"tags": ["x"], "description": "d"}})
    fold(state, TRACKS_LOG, {"time": at(3), "track": name, "set": {"tags": ["y"]}})
    state.tracks[name].tail = Tail(3, 5, at(9))
    assert view(state, states.track_view(name)) == {
        "trackId": "t",
        "name": name,
        "description": "d",
        "tags": ["y"],
        "metadata": None,
        "totalDataPoints": 3,
        "nextIndex": 5,
        "createdAt": at(1),
        "updatedAt": at(9),
    }


def test_a_tracks_id_hangs_on_its_name_and_the_directory_alone() -> None:
    assert states.track_id(ORIGIN, "loss") == "0713fd064aa79ffce6698ac1"
    assert len({states.track_id(o, n) for o in (ORIGIN, "1" * 32) for n in ("loss", "val")}) == 4


def uploaded(file_id: str, filename: str, path: str = "/") -> dict[str, Any]:
    record = {"id": file_id, "path": path, "filename": filename, "checksum": None, "deletedAt": None}
    return {"op": "upload", "time": at(1), "record": record, "incoming": f"in-{file_id}"}


def files(*rows: dict[str, Any]) -> State:
    state = State(ORIGIN)
    for row in rows:
        fold(state, FILES_LOG, row)
    return state


def test_a_file_in_the_same_place_replaces_the_one_before() -> None:
    state = files(uploaded("1", "x"), uploaded("2", "y"), uploaded("3", "x"))
    found = view(state, "files/.files_metadata.json")
    assert found is not None
    assert [each["id"] for each in found["files"]] == ["2", "3"]
    assert state.incoming == {"2": "in-2", "3": "in-3"}
    assert state.places == {"x": "3", "y": "2"}


def test_a_deleted_file_stays_on_record_and_its_place_may_be_used_again() -> None:
    deleted = {"op": "delete", "time": at(2), "id": "1"}
    state = files(uploaded("1", "x"), deleted)
    assert state.files["1"]["deletedAt"] == state.files["1"]["updatedAt"] == at(2)
    assert list(files(uploaded("1", "x"), deleted, uploaded("2", "x")).files) == ["2"]


def test_changes_of_a_file_that_was_replaced_are_passed_over() -> None:
    late = [
        {"op": "hashed", "time": at(2), "id": "1", "checksum": "c"},
        {"op": "change", "time": at(2), "id": "1", "set": {"description": "d"}},
        {"op": "delete", "time": at(2), "id": "1"},
    ]
    assert files(uploaded("1", "x"), uploaded("2", "x"), *late) == files(uploaded("1", "x"), uploaded("2", "x"))


def test_folders_are_counted_by_the_places_in_them() -> None:
    state = files(uploaded("1", "x", "/a/b"), uploaded("2", "y", "/a"), uploaded("3", "x", "/a/b"))
    assert state.folders == {"a": 2, "a/b": 1}


@pytest.mark.parametrize(
    ("log", "path"),
    [
        (SESSION_LOG, "session.json"),
        (PARAMETERS_LOG, "parameters.json"),
        (FILES_LOG, "files/.files_metadata.json"),
        ("tracks/train/loss/data.jsonl", "tracks/train/loss/metadata.json"),
        (TRACKS_LOG, None),
        ("logs/logs.jsonl", None),
    ],
)
def test_a_log_and_the_view_it_moves(log: str, path: str | None) -> None:
    assert states.view_of(log) == path


OPEN = {"op": "open", "time": at(1), "client": "a" * 32, "name": "s", "workspace": "w", "set": {}}
END = {"op": "end", "time": at(2), "client": "a" * 32, "state": "finished"}
TRACK = {"time": at(1), "track": "loss", "trackId": "t"}
RECORD = {"id": "f", "path": "/", "filename": "x"}
UPLOAD = {"op": "upload", "time": at(1), "record": RECORD, "incoming": f"{'a' * 32}-f"}
SET = {"op": "set", "time": at(1), "set": {"lr": 1}}


def sound() -> State:
    state = State("0" * 32)
    for log, row in ((SESSION_LOG, OPEN), (TRACKS_LOG, TRACK), (FILES_LOG, UPLOAD), (PARAMETERS_LOG, SET)):
        assert fold_read(state, log, row)
    return state


@pytest.mark.parametrize(
    ("log", "row"),
    [
        *((log, {"op": op}) for log in (SESSION_LOG, PARAMETERS_LOG, TRACKS_LOG, FILES_LOG) for op in (None, [], "x")),
        *((SESSION_LOG, {**OPEN, key: value}) for key in ("time", "client", "name", "set") for value in (None, 5)),
        (SESSION_LOG, {**OPEN, "client": "x" * 32}),
        (SESSION_LOG, {**OPEN, "rank": "0"}),
        (SESSION_LOG, {**END, "state": []}),
        (SESSION_LOG, {**END, "error": 5}),
        (SESSION_LOG, {"op": "import", "set": None}),
        (PARAMETERS_LOG, {**SET, "set": []}),
        (PARAMETERS_LOG, {**SET, "nonfinite": 5}),
        (PARAMETERS_LOG, {**SET, "nonfinite": [1]}),
        (PARAMETERS_LOG, {"op": "import", "set": {}, "version": "x"}),
        (TRACKS_LOG, {**TRACK, "time": 5}),
        (TRACKS_LOG, {**TRACK, "track": "../x"}),
        (TRACKS_LOG, {**TRACK, "track": []}),
        (TRACKS_LOG, {"time": at(1), "track": "another"}),
        (FILES_LOG, {**UPLOAD, "record": []}),
        (FILES_LOG, {**UPLOAD, "record": {**RECORD, "id": []}}),
        (FILES_LOG, {**UPLOAD, "record": {**RECORD, "filename": "../x"}}),
        (FILES_LOG, {**UPLOAD, "incoming": "../owner"}),
        (FILES_LOG, {"op": "change", "time": at(2), "id": "f", "set": {"path": 5}}),
        (FILES_LOG, {"op": "delete", "time": at(2), "id": []}),
        (FILES_LOG, {"op": "hashed", "id": "f", "checksum": None}),
    ],
    ids=repr,
)
def test_a_row_that_says_nothing_known_is_passed_over(log: str, row: Any) -> None:
    """A history is a file that anybody may edit: what stands in it must not be the end of the next agent."""
    state, other = sound(), sound()
    assert not fold_read(state, log, row)
    assert state == other
