"""An owner of a directory that is not whole: what can be known is known, and nothing is thrown away."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dreamlake.reader.baseline import DamagedView
from dreamlake.reader.session import SessionReader
from dreamlake.wire import ops
from dreamlake.wire.state import SESSION_LOG, TRACKS_LOG
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.repair import Refused, repair
from dreamlake_agent.store.directory import Directory
from tests import reading
from tests.golden import make, world

LOSS = [0.5, "NaN", 0.25, 0.125, 8, 4, 0.0625]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    folder = make.directory("killed", tmp_path)
    (folder / ".dreamlake" / "owner").unlink()
    return folder


def said(folder: Path) -> list[str]:
    found: list[str] = []
    repair(str(folder), found.append)
    return found


@pytest.mark.parametrize("left", [None, b"", b"not an origin\n"])
def test_the_checkpoint_knows_the_origin_that_somebody_removed(left: bytes | None, tmp_path: Path) -> None:
    folder = make.directory("recovered", tmp_path)
    origin = folder / ".dreamlake" / "origin"
    origin.unlink() if left is None else origin.write_bytes(left)
    said(folder)
    assert origin.read_text() == f"{world.ORIGIN}\n"
    assert reading.view(folder / "session.json")["id"] == world.ORIGIN


def test_a_directory_that_cannot_be_opened_has_no_live_owner(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / ".dreamlake" / "journals").mkdir(parents=True)
    (folder / "session.json").write_text("not JSON")
    found = folder.stat()
    with pytest.raises(DamagedView):
        Directory.open(REAL_DISK, str(folder), (found.st_dev, found.st_ino), processes.myself(), world.ORIGIN)
    with SessionReader(str(folder)) as reader:
        assert reader.owner() is None


def test_a_lost_checkpoint_does_not_bring_back_a_file_that_was_replaced(killed: Path) -> None:
    """The view is older than the history then: it still shows the version before."""
    (killed / ".dreamlake" / "checkpoint").unlink()
    said(killed)
    records = {each["filename"]: each for each in reading.view(killed / "files/.files_metadata.json")["files"]}
    assert records["model.pth"]["id"] == "f1"
    assert records["model.pth"]["checksum"] == hashlib.sha256(world.WEIGHTS["f1"]).hexdigest()


def test_a_session_history_that_was_edited_does_not_refuse_what_is_in_journals(killed: Path) -> None:
    history = killed / SESSION_LOG
    lines = history.read_bytes().splitlines(keepends=True)
    lines[0], lines[2] = (lines[at].replace(b'"open"', b'"nope"') for at in (0, 2))  # Alice's, Carol's
    history.write_bytes(b"".join(lines))
    assert not [sentence for sentence in said(killed) if "refused" in sentence]
    assert reading.values(killed, "train/loss") == LOSS
    assert (killed / "files/models/plot.png").read_bytes() == world.WEIGHTS["f2"]
    # And what only an agent may say is still the agent's: that Carol was killed.
    ends = [row for row in reading.lines(history) if row["op"] == "end" and row["client"] == world.CAROL.hex()]
    assert [(row["state"], row["time"]) for row in ends] == [(ops.KILLED_STATE, "2026-01-01T00:00:07.000000Z")]


def test_a_track_history_that_was_removed_does_not_let_a_track_begin_again(killed: Path) -> None:
    (killed / TRACKS_LOG).unlink()
    said(killed)
    assert reading.values(killed, "train/loss") == LOSS
    reading.assert_consecutive(reading.points(killed, "train/loss"))


def test_journals_of_which_nobody_knows_how_far_they_were_applied_are_kept(killed: Path) -> None:
    for name in ("checkpoint", "commits.log"):
        (killed / ".dreamlake" / name).unlink()
    before = [path.read_bytes() for path in (killed / ".dreamlake/journals").iterdir() if "a6e27" not in path.name]
    said(killed)
    kept = [path.read_bytes() for path in (killed / ".dreamlake/cut").iterdir()]
    assert len(before) == 4
    assert all(data in kept for data in before)
    assert reading.kept_somewhere(killed, world.WEIGHTS["f2"])


def test_what_was_captured_stays_with_a_journal_that_is_damaged(killed: Path) -> None:
    path = killed / ".dreamlake/journals" / f"{world.ALICE.hex()}.1"
    data = bytearray(path.read_bytes())
    data[-300] ^= 1  # before the upload of f2
    path.write_bytes(data)
    said(killed)
    assert not (killed / "files/models/plot.png").exists()
    assert reading.kept_somewhere(killed, world.WEIGHTS["f2"])


def test_a_refusal_says_whose_the_directory_is(tmp_path: Path) -> None:
    folder = make.directory("recovered", tmp_path)
    found = folder.stat()
    owner = Directory.open(REAL_DISK, str(folder), (found.st_dev, found.st_ino), processes.myself(), world.ORIGIN)
    try:
        with pytest.raises(Refused, match=f"live agent .pid {processes.myself()['pid']} .*dreamlake agent stop"):
            said(folder)
    finally:
        owner.close()


def test_a_log_that_grew_in_the_middle_is_not_cut_across_a_row(tmp_path: Path) -> None:
    """Somebody wrote a line twice: what was the end of the log is now the middle of its last row."""
    folder = make.directory("recovered", tmp_path)
    log = folder / "tracks/train/loss/data.jsonl"
    first, second, *rest = log.read_bytes().splitlines(keepends=True)
    edited = b"".join([first, second, second, *rest])
    log.write_bytes(edited)
    assert any("was edited by somebody else" in sentence for sentence in said(folder))
    assert log.read_bytes() == edited
