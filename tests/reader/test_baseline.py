"""Baseline: a directory that no agent has kept, taken as it stands."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from dreamlake.reader.baseline import DamagedView, read_baseline, track_names
from dreamlake.wire import jsons
from dreamlake.wire.state import view
from dreamlake.world.disk import REAL_DISK
from tests import reading
from tests.golden import world

ORIGIN = "0" * 32
OLD = {
    "name": "old",
    "workspace": "w",
    "description": None,
    "tags": ["a"],
    "folder": None,
    "metadata": None,
    "created_at": "2025-01-01T00:00:00.000000Z",
    "updated_at": "2025-01-02T00:00:00.000000Z",
    "write_protected": False,
}


@pytest.fixture
def put(tmp_path: Path) -> Any:
    def put(path: str, content: Any) -> bytes:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        place.write_bytes(data)
        return data

    return put


def rows(*numbers: int, key: str = "index") -> bytes:
    return b"".join(
        json.dumps({key: number, "data": {}, "createdAt": f"2025-01-01T00:00:{number % 60:02}.000000Z"}).encode()
        + b"\n"
        for number in numbers
    )


def test_an_empty_directory_is_nothing_yet(at: int) -> None:
    base = read_baseline(REAL_DISK, at, ORIGIN)
    assert (base.state.session, base.state.tracks, base.marks, base.imports, base.warnings) == (None, {}, {}, [], [])


def test_views_become_record_0_of_their_histories(put: Any, at: int) -> None:
    put("session.json", {**OLD, "id": "another's"})
    put("parameters.json", {"version": 3, "data": {"lr": 0.1}, "updatedAt": "2025-01-01T00:00:00.000000Z"})
    record = {"id": 7, "path": "/models", "filename": "m.pth", "uploadedAt": "2025-01-01T00:00:00.000000Z"}
    put("files/.files_metadata.json", {"files": [record]})
    put("tracks/loss/metadata.json", {"trackId": "t", "description": "d", "createdAt": "2025-01-01T00:00:00.000000Z"})
    base = read_baseline(REAL_DISK, at, ORIGIN)
    assert [(log.rpartition("/")[2], row["op"]) for log, row in base.imports] == [
        ("session.jsonl", "import"),
        ("parameters.jsonl", "import"),
        ("files.jsonl", "import"),
        ("tracks.jsonl", "import"),
    ]
    assert view(base.state, "session.json") == {**OLD, "id": ORIGIN}
    assert (base.state.parameters, base.state.parameters_version) == ({"lr": 0.1}, 3)
    assert list(base.state.files) == ["7"]
    assert (base.state.tracks["loss"].id, base.state.tracks["loss"].description) == ("t", "d")


@pytest.mark.parametrize(
    ("content", "following", "count", "kept", "torn", "unended"),
    [
        (b"", 0, 0, 0, 0, False),
        (rows(0, 1, 2), 3, 3, None, 0, False),
        (rows(0, 1, 1, 5, 2), 6, 5, None, 0, False),  # as 4 processes of 0.2.x wrote
        (rows(0, 1) + rows(2)[:-1], 3, 3, None, 0, True),  # whole but for its newline
        (rows(0, 1) + rows(2)[:-5], 2, 2, len(rows(0, 1)), len(rows(2)) - 5, False),
        (rows(0)[:-9] + rows(1), 1, 1, None, 0, False),  # half a line and a row, glued
        (b'{"index": 4, "data": NaN}\n', 5, 1, None, 0, False),
        (b'{"data": {}, "index": 4}\n', 0, 1, None, 0, False),  # nobody wrote it so
        (rows(0) + b"\n\n", 1, 1, None, 0, False),
    ],
)
def test_the_numbers_of_a_log_go_on_after_the_highest(
    content: bytes, following: int, count: int, kept: int | None, torn: int, unended: bool, put: Any, at: int
) -> None:
    put("tracks/loss/data.jsonl", content)
    base = read_baseline(REAL_DISK, at, ORIGIN)
    log, tail = "tracks/loss/data.jsonl", base.state.tracks["loss"].tail
    assert (tail.next, tail.rows) == (following, count)
    size = len(content) if kept is None else kept
    assert (base.marks[log].size, base.marks[log].crc) == (size, zlib.crc32(content[:size]))
    assert base.torn.get(log, 0) == torn
    assert (log in base.unended) == unended


def test_the_time_of_the_last_row_is_that_of_the_track(put: Any, at: int) -> None:
    put("tracks/loss/data.jsonl", rows(0, 1, 2))
    track = read_baseline(REAL_DISK, at, ORIGIN).state.tracks["loss"]
    assert (track.tail.time, track.created) == ("2025-01-01T00:00:02.000000Z", "2025-01-01T00:00:02.000000Z")


def test_log_lines_are_counted_by_their_sequence_number(put: Any, at: int) -> None:
    put("logs/logs.jsonl", rows(0, 1, 2, key="sequenceNumber"))
    put("logs/.log_sequence", b"99")
    put("logs/logs.jsonl.lock", b"")
    base = read_baseline(REAL_DISK, at, ORIGIN)
    assert (base.state.logs.next, base.state.logs.rows) == (3, 3)


def test_tracks_are_found_however_deep_and_however_little_of_them_is_there(put: Any, at: int) -> None:
    for path in ("a/data.jsonl", "a/b/metadata.json", "c/d/e/data.jsonl"):
        put(f"tracks/{path}", b"{}" if path.endswith("metadata.json") else b"")
    put("tracks/notes.txt", b"")
    put("tracks/empty/.keep", b"")
    assert sorted(track_names(REAL_DISK, at)) == ["a", "a/b", "c/d/e"]


def test_a_link_out_of_the_directory_is_not_followed(put: Any, at: int, tmp_path: Path) -> None:
    put("elsewhere/data.jsonl", rows(0))
    (tmp_path / "tracks").mkdir()
    (tmp_path / "tracks" / "loss").symlink_to(tmp_path / "elsewhere")
    assert track_names(REAL_DISK, at) == []


def test_floats_that_json_cannot_hold_become_strings_that_are_listed(put: Any, at: int) -> None:
    put("parameters.json", b'{"version":1,"data":{"a":NaN,"b":[1,-Infinity],"c":"NaN"},"updatedAt":null}')
    base = read_baseline(REAL_DISK, at, ORIGIN)
    ((_log, row),) = base.imports
    assert row["set"] == {"a": "NaN", "b": [1, "-Infinity"], "c": "NaN"}
    assert row["nonfinite"] == ["a", "b.1"]
    reading.strict(json.dumps(row))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"a":1}x', b"\0\0"])
@pytest.mark.parametrize("path", ["session.json", "parameters.json"])
def test_a_main_view_that_is_damaged_is_said_and_nothing_is_guessed(
    path: str, content: bytes, put: Any, at: int
) -> None:
    put("session.json", OLD)
    put(path, content)
    with pytest.raises(DamagedView, match=path):
        read_baseline(REAL_DISK, at, ORIGIN)


@pytest.mark.parametrize("path", ["tracks/loss/metadata.json", "files/.files_metadata.json"])
def test_a_small_view_that_is_damaged_is_left_out_with_a_warning(path: str, put: Any, at: int) -> None:
    put("tracks/loss/data.jsonl", rows(0))
    put(path, b"{")
    base = read_baseline(REAL_DISK, at, ORIGIN)
    assert [path in warning for warning in base.warnings] == [True]
    assert base.state.tracks["loss"].tail.next == 1


@pytest.mark.parametrize(
    "record",
    [{"id": "1"}, {"id": "1", "path": "/..", "filename": "x"}, {"path": "/", "filename": "x"}, "x", None, 5],
)
def test_a_file_record_that_is_none_is_left_out_with_a_warning(record: Any, put: Any, at: int) -> None:
    good = {"id": "2", "path": "/", "filename": "y"}
    put("files/.files_metadata.json", {"files": [record, good]})
    base = read_baseline(REAL_DISK, at, ORIGIN)
    assert list(base.state.files) == ["2"]
    assert len(base.warnings) == 1


def test_a_history_that_is_there_is_believed_before_a_view(put: Any, at: int) -> None:
    put("session.json", {**OLD, "description": "of the view"})
    row = {"op": "import", "time": None, "set": {**OLD, "description": "of the history"}}
    put(".dreamlake/session.jsonl", json.dumps(row).encode() + b'\nnot a row\n{"op":"open"}\n')
    base = read_baseline(REAL_DISK, at, ORIGIN)
    assert base.imports == []
    assert base.state.session is not None
    assert base.state.session["description"] == "of the history"


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# What 0.2.x, a person or another tool may have left; json.dumps writes a lone surrogate without a word.
ODD: dict[str, tuple[str, bytes]] = {
    "a session with a lone surrogate": ("session.json", b'{"name":"x","description":"\\ud800"}'),
    "parameters with a lone surrogate": ("parameters.json", b'{"version":1,"data":{"a":"\\ud800"}}'),
    "parameters with a version that is text": ("parameters.json", b'{"version":"abc","data":{"a":1}}'),
    "parameters with a nonfinite that is a number": ("parameters.json", b'{"data":{"a":1},"nonfinite":1}'),
    "parameters that are nested very deep": ("parameters.json", b'{"data":{"a":' + b"[" * 80 + b"]" * 80 + b"}}"),
    "files that are a number": ("files/.files_metadata.json", b'{"files":5}'),
    "a file with a lone surrogate": ("files/.files_metadata.json", b'{"files":[{"id":"\\ud800"}]}'),
    "parameters whose name is a lone surrogate": ("parameters.json", b'{"data":{"\\ud800":1}}'),
    "parameters of a time with a lone surrogate": ("parameters.json", b'{"data":{"a":1},"updatedAt":"\\ud800"}'),
    "parameters that list a lone surrogate": ("parameters.json", b'{"data":{"a":1},"nonfinite":["\\ud800"]}'),
    "a track whose time is a number": ("tracks/loss/metadata.json", b'{"createdAt":5}'),
    "a track whose time is a lone surrogate": ("tracks/loss/metadata.json", b'{"createdAt":"\\ud800"}'),
    "a track whose id is a lone surrogate": ("tracks/loss/metadata.json", b'{"trackId":"\\ud800"}'),
    "a track with a lone surrogate": ("tracks/loss/metadata.json", b'{"description":"\\ud800"}'),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_a_view_holds_it_is_taken_left_out_or_said_to_be_damaged(name: str, put: Any, at: int) -> None:
    path, content = ODD[name]
    put(path, content)
    try:
        base = read_baseline(REAL_DISK, at, ORIGIN)
    except DamagedView as damage:
        assert path in str(damage)  # noqa: PT017
        return
    for _log, row in base.imports:
        jsons.encode(row)
    for shown in ("session.json", "parameters.json", *(f"tracks/{name}/metadata.json" for name in base.state.tracks)):
        jsons.pretty(view(base.state, shown))


def test_an_import_of_files_that_was_cut_off_goes_on(put: Any, at: int, tmp_path: Path) -> None:
    records = [{"id": file_id, "path": "/", "filename": f"{file_id}.pth"} for file_id in ("1", "2", "3")]
    put("session.json", OLD)
    put("files/.files_metadata.json", {"files": records})
    row = {"op": "import", "time": None, "record": records[0]}
    put(".dreamlake/files.jsonl", json.dumps(row).encode() + b"\n")
    assert list(read_baseline(REAL_DISK, at, ORIGIN).state.files) == ["1", "2", "3"]


def test_an_old_directory_is_kept_by_its_first_owner_to_the_byte(put: Any, tmp_path: Path) -> None:
    put("session.json", OLD)
    put("tracks/loss/data.jsonl", rows(0, 1, 1) + rows(3)[:-4])
    put("logs/logs.jsonl", rows(0, key="sequenceNumber"))
    before = world.tree(tmp_path)
    for inner in ("journals", "incoming"):
        (tmp_path / ".dreamlake" / inner).mkdir(parents=True)
    found = tmp_path.stat()
    from dreamlake_agent.store.directory import Directory

    opened = Directory.open(REAL_DISK, str(tmp_path), (found.st_dev, found.st_ino), world.OWNER, ORIGIN)
    try:
        assert opened.position(b"x" * 16)[0] == 0
    finally:
        opened.close()
    after = world.tree(tmp_path)
    assert after["tracks/loss/data.jsonl"] == rows(0, 1, 1)
    assert after[".dreamlake/cut/tracks__loss__data.jsonl.0"] == rows(3)[:-4]
    unchanged = {path for path in before if not path.startswith("tracks/")}
    assert {path: after[path] for path in unchanged} == {path: before[path] for path in unchanged}
