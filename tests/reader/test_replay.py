"""Replay: whatever a death left, the reader answers what the next agent will write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamlake.reader.commits import COMMITS, read_checkpoint, read_commits
from dreamlake.reader.replay import committed, leftovers, load
from dreamlake.reader.segments import JOURNALS, segment_path
from dreamlake.reader.session import SessionReader
from dreamlake.wire import codec, ops
from dreamlake.world.disk import REAL_DISK
from tests import reading
from tests.golden import make, world
from tests.golden.world import AGENT, ALICE, BOB, CAROL


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The golden session as a SIGKILL of everybody left it; nobody owns it."""
    folder = make.directory("killed", tmp_path)
    (folder / ".dreamlake" / "owner").unlink()
    return folder


def replayed(folder: Path) -> Any:
    """(what was loaded, the numbers of the commits that were replayed, rows from the journals alone)."""
    at = REAL_DISK.root(str(folder))
    try:
        loaded = load(REAL_DISK, at, world.ORIGIN)
        seqs = [commit.seq for commit, _out in committed(REAL_DISK, at, loaded)]
        rest = [row for out in leftovers(REAL_DISK, at, loaded) for rows in out.rows.values() for row in rows]
        return loaded, seqs, rest
    finally:
        REAL_DISK.close(at)


def shown(folder: Path) -> dict[str, Any]:
    """Everything a reader says, but for what the next agent adds of its own: that Bob was killed."""
    found = json.loads(make.values(folder))
    del found["session"]
    return dict(found)


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def test_what_is_behind_the_checkpoint_is_replayed_and_then_what_no_commit_names(killed: Path) -> None:
    loaded, seqs, rest = replayed(killed)
    assert seqs == [2]
    assert len(rest) == 4  # a file, a point, a line, and who closed; Bob's half a record is none
    assert loaded.warnings == []
    assert loaded.seq == 3


def test_the_oldest_journal_comes_first_whatever_its_id(killed: Path) -> None:
    (killed / ".dreamlake" / "commits.log").unlink()
    (killed / ".dreamlake" / "checkpoint").unlink()
    for path in ("logs", "tracks", "files", ".dreamlake/session.jsonl", "session.json"):
        whole = killed / path
        shutil.rmtree(whole) if whole.is_dir() else whole.unlink()
    loaded, _, _ = replayed(killed)
    assert list(loaded.segments) == [ALICE, BOB, CAROL, AGENT]  # in the order of their beginning
    assert list(loaded.state.clients) == [ALICE.hex(), BOB.hex(), CAROL.hex()]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "nothing": lambda folder: None,
    "the last commit is torn": lambda folder: cut(folder / COMMITS, 200),
    "the last commit is gone": lambda folder: cut(folder / COMMITS, 169),
    "a commit that the checkpoint covers is torn": lambda folder: cut(folder / COMMITS, 140),
    "commits.log is empty": lambda folder: cut(folder / COMMITS, 0),
    "commits.log is gone": lambda folder: (folder / COMMITS).unlink(),
    "commits.log ends in zeros": lambda folder: _add(folder / COMMITS, bytes(4096)),
    "a commit is damaged": lambda folder: _flip(folder / COMMITS, 230),
    "rows of the last commit are missing": lambda folder: (folder / "tracks/val/data.jsonl").unlink(),
    "rows are torn": lambda folder: cut(folder / "tracks/train/loss/data.jsonl", 450),
    "rows are zeros": lambda folder: _zero(folder / "tracks/train/loss/data.jsonl", 429),
    "a journal ends in zeros": lambda folder: _add(folder / segment_path(BOB, 0), bytes(4096)),
    "a temporary file stays": lambda folder: (folder / ".dreamlake/checkpoint.tmp").write_bytes(b"half"),
    "a file of nobody's is in journals": lambda folder: (folder / JOURNALS / "notes.txt").write_bytes(b"mine"),
}


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _add(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


def _zero(path: Path, start: int) -> None:
    size = path.stat().st_size
    cut(path, start)
    path.write_bytes(path.read_bytes() + bytes(size - start))


@pytest.mark.parametrize("name", DAMAGE)
def test_the_reader_says_what_the_next_agent_will_write(name: str, killed: Path) -> None:
    DAMAGE[name](killed)
    before = world.tree(killed)
    said = shown(killed)
    assert world.tree(killed) == before
    world.recover(killed)
    (killed / ".dreamlake" / "owner").unlink()
    assert shown(killed) == said


@pytest.mark.parametrize("name", DAMAGE)
def test_no_call_is_lost_and_none_is_there_twice(name: str, killed: Path) -> None:
    """Also where a commit is lost, and with it the order: the indexes may be others, the points are the same."""
    whole = shown(killed)
    DAMAGE[name](killed)
    world.recover(killed)
    (killed / ".dreamlake" / "owner").unlink()
    found = shown(killed)
    for track, wanted in whole["tracks"].items():
        points = found["tracks"][track]["points"]
        reading.assert_consecutive(points)
        assert sorted(json.dumps(each["data"]) for each in points) == sorted(
            json.dumps(each["data"]) for each in wanted["points"]
        )
    assert found["logs"] == whole["logs"]
    assert found["parameters"] == whole["parameters"]
    assert {each["id"] for each in found["files"]} == {each["id"] for each in whole["files"]}
    for path in ("session", "parameters", "tracks", "files"):
        for line in (killed / f".dreamlake/{path}.jsonl").read_bytes().splitlines():
            reading.strict(line)


@pytest.mark.parametrize("size", range(0, 272, 17))
def test_wherever_commits_log_is_torn_the_reader_says_what_the_next_agent_will_write(size: int, killed: Path) -> None:
    cut(killed / COMMITS, size)
    said = shown(killed)
    world.recover(killed)
    (killed / ".dreamlake" / "owner").unlink()
    assert shown(killed) == said


def test_a_commit_whose_journal_is_not_whole_is_not_replayed_and_said(killed: Path) -> None:
    cut(killed / segment_path(ALICE, 1), 400)
    loaded, seqs, _rest = replayed(killed)
    assert seqs == []
    assert loaded.warnings == ["commit 2 cannot be replayed: its journal is not whole"]


def test_what_was_refused_when_it_was_committed_is_believed(killed: Path) -> None:
    """Bob's first point is refused by the commit; today's code would take it."""
    data = (killed / COMMITS).read_bytes()
    records = list(codec.records(data, codec.seed(world.ORIGIN.encode()), codec.CHECKPOINT_BYTES_MAX))
    _seq, runs = codec.unpack(records[-1][2])
    changed = [2, [[*run[:4], [0]] if run[0] == BOB else list(run) for run in runs]]
    record, _ = codec.frame(codec.packer().pack(changed), records[-2][1])
    (killed / COMMITS).write_bytes(data[: records[-2][0]] + record)
    with SessionReader(str(killed)) as reader:
        assert reader.tracks() == ["train/loss"]  # "val" was that point's


def test_a_damaged_checkpoint_leaves_the_lines_and_what_commits_log_says(killed: Path) -> None:
    _flip(killed / ".dreamlake" / "checkpoint", 300)
    loaded, seqs, rest = replayed(killed)
    assert (seqs, len(rest)) == ([], 4)
    assert [warning for warning in loaded.warnings if "checkpoint" in warning]
    assert loaded.state.tracks["train/loss"].tail.rows == 7
    world.recover(killed)
    reading.assert_consecutive(reading.points(killed, "train/loss"))
    assert len(reading.points(killed, "train/loss")) == 7


def test_a_journal_that_turns_up_again_is_not_applied_again(tmp_path: Path, killed: Path) -> None:
    folder = make.directory("recovered", tmp_path)
    (folder / ".dreamlake" / "owner").unlink()
    wanted = shown(folder)
    for client in (ALICE, BOB, CAROL):
        for path in (killed / JOURNALS).glob(f"{client.hex()}.*"):
            shutil.copy(path, folder / JOURNALS)
    loaded, _, rest = replayed(folder)
    assert rest == []
    assert all(loaded.is_finished(client) for client in (ALICE, BOB, CAROL))
    assert shown(folder) == wanted


def test_a_directory_with_journals_alone_is_read_whole(killed: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(killed / JOURNALS, bare / JOURNALS)
    shutil.copytree(killed / ".dreamlake/incoming", bare / ".dreamlake/incoming")
    with SessionReader(str(bare)) as reader:
        assert reader.session()["name"] == "run"
        assert reader.parameters()["model.lr"] == 0.0005
        assert (len(reader.points("train/loss")[0]), len(reader.points("val")[0])) == (7, 2)
        assert reader.log_count() == 3
        assert reader.pending > 10
        assert reader.last_point("train/loss") is not None


def test_captured_files_are_read_where_they_wait(killed: Path) -> None:
    with SessionReader(str(killed)) as reader:
        found = {record["id"]: reader.open_file(record) for record in reader.files()}
        try:
            read = {file_id: REAL_DISK.pread(fd, 99, 0) for file_id, fd in found.items()}
        finally:
            for fd in found.values():
                REAL_DISK.close(fd)
    assert read == {file_id: world.WEIGHTS[file_id] for file_id in ("f1", "f2")}


def test_a_directory_that_was_let_go_is_replayed_though_its_agent_lives(tmp_path: Path) -> None:
    """Somebody journals in it with DREAMLAKE_AGENT=never."""
    from dreamlake.journal import Journal
    from dreamlake.world import processes

    folder = make.directory("recovered", tmp_path)
    world.recover(folder, {**processes.myself(), "endpoint": "ipc:///nowhere"})
    at = REAL_DISK.root(str(folder))
    try:
        journal = Journal(REAL_DISK, at, b"d" * 16, world.at(20), processes.myself())
        journal.append((ops.OPEN, world.at(20), {"name": "run", "workspace": "project"}, b"{}"))
        journal.append((ops.POINT, world.at(21), "val", 0, b'{"mine":1}'))
        with SessionReader(str(folder)) as reader:
            assert reader.points("val")[0][-1]["data"] == {"mine": 1}
        journal.close()
    finally:
        REAL_DISK.close(at)


def test_the_golden_checkpoint_covers_two_commits(killed: Path) -> None:
    at = REAL_DISK.root(str(killed))
    try:
        checkpoint, log = read_checkpoint(REAL_DISK, at), read_commits(REAL_DISK, at, world.ORIGIN)
    finally:
        REAL_DISK.close(at)
    assert checkpoint is not None
    assert log is not None
    assert (checkpoint.seq, log.seq, log.next_seq) == (2, 0, 3)
    assert [log.end_before(seq)[0] for seq in (0, 1, 2, 3, 9)] == [29, 128, 169, 272, 272]
