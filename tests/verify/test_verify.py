"""``verify`` as a library: what is no damage, what cannot be read, and what moves meanwhile."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dreamlake.journal import Journal
from dreamlake.reader.verify import NotASession, summary, verify
from dreamlake.wire import codec, ops
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK, RealDisk
from dreamlake_agent.store.directory import Directory
from tests.golden import world
from tests.golden.world import OPERATIONS
from tests.verify.damages import LOSS
from tests.verify.directories import WRITER, killed, recovered

GONE = {**processes.myself(), "boot": "another", "pid": 4242, "start": 1.0}


class Unreadable(RealDisk):
    """The operating system's disk, on which one file is nobody's to read (root may read everything)."""

    def __init__(self, path: str, error: int = errno.EACCES) -> None:
        self.path, self.error = path, error

    def open(self, path: str, flags: int, at: int) -> int:
        if path == self.path:
            raise OSError(self.error, "Permission denied", path.rpartition("/")[2])
        return super().open(path, flags, at)


def journal(folder: Path, by: dict[str, object], half: bytes = b"") -> None:
    for inner in ("journals", "incoming"):
        (folder / ".dreamlake" / inner).mkdir(parents=True, exist_ok=True)
    root = REAL_DISK.root(str(folder))
    written = Journal(REAL_DISK, root, WRITER, world.EPOCH, by)
    written.append(OPERATIONS["OPEN"])
    written.append((ops.LOG, world.at(1), "info", "waits", None, None))
    written.close()
    REAL_DISK.close(root)
    with (folder / ".dreamlake/journals" / f"{WRITER.hex()}.0").open("ab") as file:
        file.write(half)


def notes(folder: Path) -> list[str]:
    report = verify(str(folder))
    assert report.problems == []
    return [each.sentence for each in report.notes]


def test_what_was_looked_at_is_counted(tmp_path: Path) -> None:
    report = verify(str(recovered(tmp_path)))
    assert summary(report) == "7 logs with 27 rows, 5 views, 2 files, 0 journals"
    assert report.counts() == {"logs": 7, "rows": 27, "views": 5, "files": 2, "journals": 0, "waiting": 0}


@pytest.mark.parametrize(("by", "life"), [(GONE, "is gone"), (processes.myself(), "is alive")])
def test_a_journal_that_waits_is_a_note_that_says_whose_it_is(by: dict[str, object], life: str, tmp_path: Path) -> None:
    journal(tmp_path, by)
    whose = f"its writer, pid {by['pid']} on {by['host']}, {life}"
    assert notes(tmp_path) == [f".dreamlake/journals/{WRITER.hex()}.*: 2 operations wait for an agent; {whose}"]


def test_half_a_call_of_a_dead_process_is_a_note(tmp_path: Path) -> None:
    half = codec.frame(b"never returned", 0)[0][:20]
    journal(tmp_path, GONE, half)
    segment = tmp_path / ".dreamlake/journals" / f"{WRITER.hex()}.0"
    assert notes(tmp_path)[1] == (
        f".dreamlake/journals/{segment.name} ends in half a call of 20 bytes (from byte {segment.stat().st_size - 20})"
        ": its process died in the middle of it, and it never returned"
    )


def test_half_a_call_of_a_live_process_is_nothing(tmp_path: Path) -> None:
    journal(tmp_path, processes.myself(), codec.frame(b"soon", 0)[0][:12])
    assert len(notes(tmp_path)) == 1


def test_an_owner_who_distrusts_the_disk_is_a_note(tmp_path: Path) -> None:
    folder = recovered(tmp_path)
    (folder / ".dreamlake/owner").write_text('{"pid": 1, "released": true, "distrust": true}')
    said = "says that the disk failed to make something durable: the next agent writes it again from the journals"
    assert notes(folder) == [f".dreamlake/owner {said}"]


def test_what_was_set_aside_is_a_note(tmp_path: Path) -> None:
    folder = recovered(tmp_path)
    (folder / ".dreamlake/cut").mkdir()
    (folder / ".dreamlake/cut/logs__logs.jsonl.0").write_text("half")
    assert notes(folder) == [".dreamlake/cut/logs__logs.jsonl.0 keeps 4 bytes that an earlier repair set aside"]


@pytest.mark.parametrize(
    "path", [LOSS, "session.json", "files/models/model.pth", ".dreamlake/checkpoint", ".dreamlake/owner"]
)
def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_checked(path: str, tmp_path: Path) -> None:
    report = verify(str(recovered(tmp_path)), Unreadable(path))
    said = "cannot be read (Permission denied), so it was not checked; see to its permissions and its disk, and verify"
    assert {each.sentence for each in report.problems if each.path == path} == {f"{path} {said} again"}
    assert {each.kind for each in report.problems} == {"unreadable"}
    assert report.logs >= 6


def test_under_a_live_owner_only_what_cannot_move_is_judged(tmp_path: Path) -> None:
    folder = killed(tmp_path, "v1-ranks")  # of an older agent its owner would have written a checkpoint
    found = folder.stat()
    me = {**processes.myself(), "endpoint": "ipc://here", "version": "0"}
    owner = Directory.open(REAL_DISK, str(folder), (found.st_dev, found.st_ino), me, world.ORIGIN)
    try:
        with (folder / LOSS).open("a") as log:
            log.write('{"index":6,"da')  # in the middle of a write
        (folder / "session.json.tmp").write_text("{")
        assert notes(folder) == [
            f"it is being written by a live agent (pid {me['pid']} on {me['host']}): checked up to its commits"
        ]
        damaged = (folder / LOSS).read_bytes().replace(b'"index":5', b'"index":8')  # after the checkpoint, committed
        (folder / LOSS).write_bytes(damaged)
        assert [each.kind for each in verify(str(folder)).problems] == ["differs"]
        (folder / LOSS).write_bytes(damaged.replace(b"0.125", b"0.999"))  # before it
        assert [each.kind for each in verify(str(folder)).problems] == ["changed", "differs"]
    finally:
        owner.close()


def test_an_agent_that_comes_meanwhile_is_waited_for(tmp_path: Path) -> None:
    """A view is missing at first; then an agent has come, and has written it."""
    folder = recovered(tmp_path)
    view = (folder / "session.json").read_bytes()
    (folder / "session.json").unlink()

    class Comes(RealDisk):
        came = False

        def listdir(self, path: str, at: int) -> list[str]:
            if path.endswith("journals") and not Comes.came:
                Comes.came = True
                (folder / "session.json").write_bytes(view)
                (folder / ".dreamlake/owner").write_text('{"pid": 1, "released": true, "epoch": 9}')
            return super().listdir(path, at)

    first = verify(str(folder))
    assert [each.path for each in first.problems] == ["session.json"]
    assert verify(str(folder), Comes()).problems == []
    assert Comes.came


@pytest.mark.parametrize("made", ["nothing", "file", "empty", "root"])
def test_what_is_no_session_is_said_plainly(made: str, tmp_path: Path) -> None:
    path = tmp_path / made
    if made == "file":
        path.write_text("")
    elif made != "nothing":
        path.mkdir()
    if made == "root":  # as the default root, .dreamlake, makes of a working directory
        (path / ".dreamlake/workspace").mkdir(parents=True)
    sentence = {
        "nothing": "is not there",
        "file": "is not a folder",
        "empty": "is not a session directory: it has no session.json and no .dreamlake",
        "root": "is not a session directory: it has no session.json and no .dreamlake",
    }
    with pytest.raises(NotASession) as said:
        verify(str(path))
    assert str(said.value) == f"{path} {sentence[made]}"
