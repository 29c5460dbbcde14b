"""A directory whose owner is on another node: it is read as it will be, and while it changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dreamlake.reader import late
from dreamlake.reader import session as session_module
from dreamlake.reader.commits import CHECKPOINT, COMMITS
from dreamlake.reader.late import Patience
from dreamlake.reader.owners import OWNER, epoch_path, is_elsewhere, last_word, owner_of
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.session import SessionReader
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from tests.golden import make, world

FAR = {**processes.myself(), "host": "node7", "boot": "another", "machine": "m7", "endpoint": "ipc:///run/a.sock"}
GONE = {**processes.myself(), "pid": 1 << 22, "start": 1.0}


@pytest.fixture(autouse=True)
def nothing_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_in_vain", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The golden session as its owner left it in the middle, and that one is on another node."""
    folder = make.directory("killed", tmp_path)
    (folder / OWNER).unlink()
    beat(folder, 1, {**FAR, "beat": 3})
    return folder


def beat(folder: Path, epoch: int, record: dict[str, Any], desk: str = "d0") -> None:
    (folder / epoch_path(epoch) / desk).mkdir(parents=True)
    (folder / epoch_path(epoch) / desk / "beat").write_text(json.dumps(record))


def record(folder: Path, record: dict[str, Any]) -> None:
    (folder / OWNER).write_text(json.dumps(record))


def said(folder: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    at = REAL_DISK.root(str(folder))
    try:
        return last_word(REAL_DISK, at), owner_of(REAL_DISK, at)
    finally:
        REAL_DISK.close(at)


def shown(folder: Path, patience: Callable[[str], Patience] = Patience) -> dict[str, Any]:
    with SessionReader(str(folder), patience=patience) as reader:
        rows = {name: reader.points(name)[0] for name in reader.tracks()}
        return {"rows": rows, "logs": reader.logs(), "parameters": reader.parameters(), "session": reader.session()}


def never(_seconds: float) -> None:
    raise AssertionError("nothing is late")


def without_owner(folder: Path) -> dict[str, Any]:
    with SessionReader(str(folder)) as reader:
        assert reader.owner() is not None
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / ".dreamlake/epochs")
    try:
        return shown(copy)
    finally:
        shutil.rmtree(copy)


# ── who owns it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_highest_epoch_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / ".dreamlake").mkdir()
    assert said(tmp_path) == (None, None)
    record(tmp_path, {**GONE, "epoch": 7})
    assert said(tmp_path) == ({**GONE, "epoch": 7}, None)
    beat(tmp_path, 6, FAR)
    assert said(tmp_path)[0] == {**GONE, "epoch": 7}  # an agent before 0.4 came after it
    beat(tmp_path, 9, FAR)
    beat(tmp_path, 10, FAR)
    assert said(tmp_path) == ({**FAR, "epoch": 10},) * 2
    beat(tmp_path, 11, {**FAR, "released": True})
    assert said(tmp_path)[1] is None


@pytest.mark.parametrize("found", ["", "{", "[1]", '{"epoch": "x"}', "\0" * 200, '{"epoch": -4, "beat": NaN}'])
def test_an_epoch_that_says_nothing_yet_is_somebodys_all_the_same(found: str, tmp_path: Path) -> None:
    beat(tmp_path, 12, {})
    (tmp_path / epoch_path(12) / "d0" / "beat").write_text(found)
    (tmp_path / ".dreamlake/epochs/junk").mkdir()
    (tmp_path / ".dreamlake/epochs/013").mkdir()
    word, owner = said(tmp_path)
    assert word is not None
    assert word == owner
    assert word["epoch"] == 12
    assert is_elsewhere(owner)


def test_a_beat_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    beat(tmp_path, 1, FAR)
    opened, fails = type(REAL_DISK).open, [True, True]

    def open_later(self: Any, path: str, flags: int, at: int) -> int:
        if path.endswith("/beat") and fails:
            fails.pop()
            raise FileNotFoundError(2, "replaced", path)
        return opened(self, path, flags, at)

    with mock.patch.object(type(REAL_DISK), "open", open_later):
        assert said(tmp_path)[0] == {**FAR, "epoch": 1}
    assert not fails


# ── what is read ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_only_journals_hold_is_read_while_an_owner_elsewhere_lives(folder: Path) -> None:
    found = shown(folder)
    assert found == without_owner(folder)
    with SessionReader(str(folder)) as reader:
        assert reader.pending


def test_with_an_owner_of_this_node_the_files_are_read_as_they_stand(folder: Path) -> None:
    beat(folder, 2, processes.myself())
    with SessionReader(str(folder)) as reader:
        assert reader.pending == 0
    with SessionReader(str(folder), me=FAR) as reader:
        assert reader.pending


def test_a_checkpoint_that_comes_while_it_is_read_is_read_as_well(folder: Path, tmp_path: Path) -> None:
    """The owner takes everything in, and drops the journals and commits.log, between two looks of the reader."""
    expected = without_owner(folder)
    after = make.directory("recovered", tmp_path / "after")
    loads = session_module.load
    looks: list[int] = []

    def load(disk: Any, at: int, origin: str) -> Any:
        found = loads(disk, at, origin)
        looks.append(found.seq)
        if len(looks) == 1:
            shutil.rmtree(folder / JOURNALS)
            shutil.copytree(after, folder, dirs_exist_ok=True)
            (folder / OWNER).unlink()
        return found

    with mock.patch.object(session_module, "load", load):
        found = shown(folder, lambda path: Patience(path, never))
    assert len(looks) == 2
    assert looks[1] > looks[0]
    assert found == shown(folder)
    for name, rows in expected["rows"].items():
        assert len(found["rows"][name]) == len(rows)
    assert len(found["logs"]) == len(expected["logs"])


def test_an_owner_that_never_rests_is_not_waited_for_for_ever(folder: Path) -> None:
    with mock.patch.object(SessionReader, "_has_moved", return_value=True):
        assert shown(folder) == without_owner(folder)


LATE: dict[str, Callable[[Path], Path]] = {
    "a history that is short": lambda folder: folder / ".dreamlake/session.jsonl",
    "a log that is short": lambda folder: folder / "logs/logs.jsonl",
    "a track that is short": lambda folder: folder / "tracks/train/loss/data.jsonl",
    "a journal that is short": lambda folder: folder / JOURNALS / f"{world.BOB.hex()}.0",
}


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("what", LATE)
def test_what_is_seen_late_is_waited_for(what: str, hole: bool, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = shown(folder)
    path = LATE[what](folder)
    content = path.read_bytes()
    # Bob's journal is what commits.log needs; its header is there.
    kept = 300 if what == "a journal that is short" else len(content) // 3
    path.write_bytes(content[:kept] + bytes(len(content) - kept if hole else 0))
    moments: list[float] = []

    def moment(seconds: float) -> None:
        moments.append(seconds)
        if len(moments) == 3:
            path.write_bytes(content)

    assert shown(folder, lambda path: Patience(path, moment)) == expected
    assert len(moments) == 3
    assert not caplog.records


@pytest.mark.parametrize("what", LATE)
def test_what_does_not_come_is_said_and_the_rest_is_read(
    what: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = LATE[what](folder)
    content = path.read_bytes()
    path.write_bytes(content[: 300 if what == "a journal that is short" else len(content) // 3])
    found = [shown(folder, lambda path: Patience(path, lambda _seconds: None)) for _ in range(2)]
    assert found[0] == found[1]
    assert len(caplog.records) == 1
    assert found[0]["logs"] or what == "a log that is short"


def test_a_checkpoint_that_is_not_whole_yet_is_no_reason_to_forget_what_it_says(folder: Path) -> None:
    """Replaced by rename on the owner's node, and its bytes come later."""
    expected = shown(folder)
    content = (folder / CHECKPOINT).read_bytes()
    (folder / CHECKPOINT).write_bytes(bytes(len(content)))
    moments: list[float] = []

    def moment(seconds: float) -> None:
        moments.append(seconds)
        (folder / CHECKPOINT).write_bytes(content)

    assert shown(folder, lambda path: Patience(path, moment)) == expected
    assert moments


def test_without_owner_nobody_waits(folder: Path) -> None:
    shutil.rmtree(folder / ".dreamlake/epochs")
    (folder / "logs/logs.jsonl").write_bytes(b"")
    (folder / COMMITS).write_bytes(b"")

    shown(folder, lambda path: Patience(path, never))
