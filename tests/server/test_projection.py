"""The projection of several histories: whoever hears of them in whatever order says the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import state
from dreamlake.wire.projection import Projection, time_of
from dreamlake.wire.state import FILES_LOG, PARAMETERS_LOG, TRACKS_LOG, State, fold_read
from dreamlake.wire.summary import joined, summarised
from tests.server.serving import RUN, Directory, Serving, over_memory, said

__all__ = ["over_memory"]

Row = dict[str, Any]
Histories = dict[tuple[str, str], list[Row]]

ORIGINS = ("a" * 32, "b" * 32, "c" * 32)
IDS = ("one", "two", "three")
SHA = "ab" * 32

texts = st.sampled_from(["", "x", "y"])
times = st.integers(0, 5).map(lambda minute: f"2026-01-01T00:0{minute}:00.000000Z")
# What a row may also say of its time: anybody may have written it.
odd_times = st.one_of(times, st.none(), st.just(""), st.just(7), st.just("yesterday"))
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.sampled_from(IDS)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=4,
)
given_of = st.fixed_dictionaries(
    {}, optional={"description": texts, "tags": st.lists(texts, max_size=2), "metadata": st.none(), "other": texts}
)


def record(file_id: str, place: str, checksum: str | None) -> Row:
    return {"id": file_id, "path": "/", "filename": place, "checksum": checksum, "updatedAt": "", "deletedAt": None}


def parameters(time: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    values = st.dictionaries(st.sampled_from(["lr", "depth"]), st.sampled_from([1, 2, "NaN"]), min_size=1, max_size=2)
    sets = st.fixed_dictionaries({"op": st.just("set"), "time": time, "set": values})
    imports = st.fixed_dictionaries(
        {"op": st.just("import"), "time": time, "set": values, "version": st.integers(0, 3)}
    )
    return st.one_of(sets, imports).map(
        lambda row: {**row, "nonfinite": [key for key, value in row["set"].items() if value == "NaN"]}
    )


def tracks(time: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    return st.fixed_dictionaries(
        {"time": time, "track": st.sampled_from(["loss", "train/acc"]), "set": given_of},
        optional={"trackId": st.sampled_from(IDS)},
    )


def files(time: st.SearchStrategy[Any]) -> st.SearchStrategy[Row]:
    ids = st.sampled_from(IDS)
    records = st.builds(record, ids, st.sampled_from(["m.pth", "n.txt"]), st.sampled_from([None, SHA]))
    return st.one_of(
        st.fixed_dictionaries({"op": st.just("upload"), "time": time, "record": records}),
        st.fixed_dictionaries({"op": st.just("change"), "time": time, "id": ids, "set": given_of}),
        st.fixed_dictionaries({"op": st.just("delete"), "time": time, "id": ids}),
        st.fixed_dictionaries(
            {"op": st.just("hashed"), "time": time, "id": ids, "checksum": st.sampled_from([SHA, "cd" * 32])}
        ),
    )


ROWS = {PARAMETERS_LOG: parameters, TRACKS_LOG: tracks, FILES_LOG: files}
histories = st.fixed_dictionaries(
    {(origin, log): st.lists(rows(odd_times), max_size=5) for origin in ORIGINS for log, rows in ROWS.items()}
)


def projected(histories: Histories, turns: list[int]) -> Projection:
    """The projection of rows which come in that order: each turn names whose next row it is, of those with any left."""
    found = Projection()
    left = {key: list(enumerate(rows)) for key, rows in histories.items() if rows}
    latest = dict.fromkeys(left, "")
    for turn in [*turns, *[0] * sum(map(len, left.values()))]:
        if not left:
            break
        key = sorted(left)[turn % len(left)]
        index, row = left[key].pop(0)
        latest[key] = max(latest[key], time_of(row) or "")
        found.take(key[1], (latest[key], key[0], index), row)
        if not left[key]:
            del left[key]
    return found


def told(projection: Projection) -> Row:
    """All that is answered out of it."""
    return {
        "parameters": projection.parameters,
        "nonfinite": projection.parameters_nonfinite,
        "version": projection.parameters_sets,
        "times": (projection.parameters_created, projection.parameters_updated),
        "tracks": {
            name: (track.id, track.created, track.updated, {key: last.value for key, last in track.given.items()})
            for name, track in projection.tracks.items()
        },
        "files": projection.file_records(),
        "each": {file_id: projection.file(file_id) for file_id in IDS},
    }


@settings(max_examples=80, deadline=None)
@given(histories, st.lists(st.integers(0, 8), max_size=45))
def test_any_interleaving_gives_the_same(histories: Histories, turns: list[int]) -> None:
    assert told(projected(histories, turns)) == told(projected(histories, []))


def new_tracks(rows: list[Row]) -> list[Row]:
    """As an agent writes them: the first row of a track has its id."""
    known: set[str] = set()
    found = []
    for row in rows:
        if "trackId" in row:
            known.add(row["track"])
        if row["track"] in known:
            found.append(row)
    return found


def new_files(rows: list[Row]) -> list[Row]:
    """As an agent writes them: no id is uploaded twice."""
    uploaded: set[str] = set()
    found = []
    for row in rows:
        if row["op"] == "upload":
            if row["record"]["id"] in uploaded:
                continue
            uploaded.add(row["record"]["id"])
        elif row["id"] not in uploaded:
            continue
        found.append(row)
    return found


@settings(max_examples=80, deadline=None)
@given(st.lists(parameters(times)), st.lists(tracks(times)).map(new_tracks), st.lists(files(times)).map(new_files))
def test_of_one_history_it_says_what_the_directory_shows(
    parameters: list[Row], tracks: list[Row], files: list[Row]
) -> None:
    shown = State(ORIGINS[0])
    rows = {PARAMETERS_LOG: parameters, TRACKS_LOG: tracks, FILES_LOG: files}
    for row in tracks:
        row["set"].pop("other", None)
    for row in files:
        row.get("set", {}).pop("other", None)
    for log, each in rows.items():
        for row in each:
            fold_read(shown, log, row)
    found = projected({(ORIGINS[0], log): each for log, each in rows.items()}, [])
    view = state.parameters_view(shown) or {}
    assert found.parameters == view.get("data")
    assert found.parameters_nonfinite == view.get("nonfinite", [])
    for name, track in shown.tracks.items():
        mine = found.tracks[name]
        said = {key: last.value for key, last in mine.given.items()}
        assert (mine.id, said.get("description"), said.get("tags")) == (track.id, track.description, track.tags)
    kept = [each for each in shown.files.values() if each["deletedAt"] is None]
    keys = ("id", "filename", "checksum", "description", "tags")
    assert sorted([each.get(key) for key in keys] for each in found.file_records()) == sorted(
        [each.get(key) for key in keys] for each in kept
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(["time", "set", "version", "nonfinite", "track", "trackId", "record", "id"], anything),
                "op": st.one_of(
                    anything, st.sampled_from(["import", "set", "upload", "change", "delete", "hashed", "open"])
                ),
                "record": st.one_of(
                    anything, st.fixed_dictionaries({"id": anything, "path": anything, "filename": anything})
                ),
            },
        ),
        max_size=4,
    )
)
def test_no_row_whatever_is_in_it_is_more_than_passed_over(rows: list[Row]) -> None:
    """One that raised would have the whole session unreadable for good."""
    for log in ROWS:
        told(projected({(ORIGINS[0], log): rows}, []))
    joined({"a": summarised("a", rows), "b": summarised("b", [{"op": "import", "set": {"state": "running"}}])})


def test_a_change_counts_also_where_the_clock_is_behind_that_of_the_upload(in_memory: Serving) -> None:
    """A machine whose clock is ahead uploads; the change comes by way of the server, of whose time it is the past."""
    time = "2099-01-01T00:00:00.000000Z"
    row = b'{"op":"upload","time":"%b","record":{"id":"one","path":"/","filename":"m.pth","description":"old"}}'
    directory = Directory(in_memory.alice, ORIGINS[0], RUN, {FILES_LOG: [row % time.encode()]})
    session = directory.pushed()
    changed = said(in_memory.alice.patch(f"/sessions/{session}/files/one", json={"description": "new"}))
    assert changed["description"] == "new"


def test_parameters_of_version_0_are_shown(in_memory: Serving) -> None:
    row = b'{"op":"import","time":"2026-01-01T00:00:00.000000Z","set":{"lr":1},"version":0}'
    session = Directory(in_memory.alice, logs={PARAMETERS_LOG: [row]}).pushed()
    assert said(in_memory.alice.get(f"/sessions/{session}/parameters"))["data"] == {"lr": 1}


def test_a_strange_row_of_a_session_hides_no_other_session(in_memory: Serving) -> None:
    rows = [b'{"op":"import","set":{"state":["x"],"created_at":7,"tags":"x","metadata":[],"folder":1,"error":[1]}}']
    session = Directory(in_memory.alice, logs={state.SESSION_LOG: rows}).pushed()
    other = in_memory.alice.session("other")
    listed = said(in_memory.alice.get("/sessions"))["sessions"]
    assert {each["id"] for each in listed} == {session, other}
