"""Markers and spools as a reader sees them: whatever somebody puts in their place, nothing else is touched."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamlake import config
from dreamlake.journal import Journal
from dreamlake.reader import segments
from dreamlake.reader.segments import JOURNALS, SYNCING, UNNAMED
from dreamlake.reader.session import SessionReader
from dreamlake.reader.spools import (
    MARKER,
    MARKER_BYTES_MAX,
    Marker,
    NoMarker,
    Spooled,
    binding,
    decode_marker,
    encode_marker,
    marked,
    marker_path,
)
from dreamlake.reader.verify import NotASession, is_session, sessions_below, verify
from dreamlake.spool import Spool
from dreamlake.wire import ops
from dreamlake.world import processes
from dreamlake.world.disk import READ, REAL_DISK, read_file
from dreamlake_agent.repair import Refused, repair
from dreamlake_agent.store.directory import Directory, Unseen

ALICE, BOB = b"a" * 16, b"b" * 16
OPEN = (ops.OPEN, 1, {"name": "run", "workspace": "project", "pid": 1, "host": "here"}, b"{}")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")


class Run:
    """A session directory, and one journal of it in a spool."""

    def __init__(self, path: Path, spool: Path, client: bytes = ALICE) -> None:
        self.path, self.client = path, client
        (path / JOURNALS).mkdir(parents=True, exist_ok=True)
        self.folder = spool / config.spool_name()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.at = REAL_DISK.root(str(path))
        self.by = processes.myself()
        of = binding(REAL_DISK.fstat(self.at), os.path.realpath(path))
        self.spool = Spool(REAL_DISK, self.at, str(self.folder), client, self.by)
        self.journal = Journal(REAL_DISK, self.spool.root, client, 1, {**self.by, "of": of})
        self.journal.spool = self.spool
        self.spool.mark()
        self.journal.append(OPEN)
        self.seen = Spooled(REAL_DISK, self.at, os.path.realpath(path))

    @property
    def marker(self) -> Path:
        return self.path / marker_path(self.client)

    @property
    def segment(self) -> Path:
        return self.folder / segments.segment_path(self.client, 0)

    def names(self) -> list[str]:
        return self.seen.listdir(JOURNALS, self.at)

    def is_seen(self) -> bool:
        return f"{self.client.hex()}.0" in self.names()

    def says(self, **changes: Any) -> None:
        """Another marker in place of the one that is there."""
        self.marker.write_bytes(encode_marker(dataclasses.replace(decode_marker(self.marker.read_bytes()), **changes)))
        self.seen.let_go()
        self.seen = Spooled(REAL_DISK, self.at, os.path.realpath(self.path))

    def close(self) -> None:
        self.seen.let_go()
        self.journal.close()
        REAL_DISK.close(self.at)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    made.mkdir()
    return made


@pytest.fixture
def run(tmp_path: Path, spool: Path) -> Iterator[Run]:
    made = Run(tmp_path / "project" / "run", spool)
    yield made
    made.close()


def test_a_spooled_journal_is_seen_as_if_it_stood_in_the_directory(run: Run) -> None:
    mine = segments.journals(run.seen, run.at)[ALICE]
    assert [(each.number, each.end) for each in mine] == [(0, run.journal.end)]
    assert segments.read_stream(run.seen, run.at, mine, 0, 1 << 20) == run.journal.read(0, run.journal.end)
    assert run.seen.has(ALICE)
    assert marked(REAL_DISK, run.at) == {ALICE}
    assert segments.journals(REAL_DISK, run.at) == {}


def test_dropping_it_drops_it_in_the_spool_and_nothing_beside_it(run: Run) -> None:
    other = run.folder / segments.segment_path(BOB, 0)
    other.write_bytes(b"somebody's")
    assert run.is_seen()
    run.seen.unlink(segments.segment_path(ALICE, 0), run.at)
    assert not run.segment.exists()
    assert other.read_bytes() == b"somebody's"
    with pytest.raises(FileNotFoundError):
        run.seen.unlink(segments.segment_path(BOB, 0), run.at)
    assert other.exists()


@pytest.mark.parametrize(
    "name", [f"{'a' * 32}.0/../../secret", "../secret", f"{(b'a' * 16).hex()}.00", f"{(b'a' * 16).hex()}.0.txt"]
)
def test_nothing_but_a_segment_of_that_client_is_looked_for_in_its_spool(run: Run, name: str) -> None:
    assert run.is_seen()
    (run.folder / "secret").write_bytes(b"secret")
    (run.folder / JOURNALS / name.rpartition("/")[2]).write_bytes(b"secret")
    for reach in (run.seen.stat, run.seen.unlink, lambda path, at: run.seen.open(path, READ, at)):
        with pytest.raises((FileNotFoundError, PermissionError)):
            reach(f"{JOURNALS}/{name}", run.at)
    assert (run.folder / JOURNALS / name.rpartition("/")[2]).read_bytes() == b"secret"


def test_a_spool_is_nobodys_session_directory(run: Run, tmp_path: Path) -> None:
    """Whoever took it for one would apply the journals of every session in it there, and drop them."""
    assert not is_session(str(run.folder))
    assert sessions_below(str(tmp_path)) == [str(run.path)]
    with pytest.raises(NotASession):
        verify(str(run.folder))
    with pytest.raises(FileNotFoundError, match="not a session directory"):
        SessionReader(str(run.folder))
    found = run.folder.stat()
    with pytest.raises(Unseen):
        Directory.open(REAL_DISK, str(run.folder), (found.st_dev, found.st_ino), run.by, "0" * 32)
    with pytest.raises(Refused):
        repair(str(run.folder), lambda _text: None)
    assert sorted(each.name for each in (run.folder / ".dreamlake").iterdir()) == ["journals", "spool"]
    assert run.segment.exists()


# ── what others may put there ───────────────────────────────────────────────────────────────────────────────────────


def _a_link(run: Run) -> None:
    run.marker.rename(run.path / "elsewhere")
    run.marker.symlink_to(run.path / "elsewhere")


def _a_pipe(run: Run) -> None:
    run.marker.unlink()
    os.mkfifo(run.marker)


def _a_folder(run: Run) -> None:
    run.marker.unlink()
    run.marker.mkdir()


def _a_flood(run: Run) -> None:
    run.marker.write_bytes(b" " * MARKER_BYTES_MAX + run.marker.read_bytes())


def _nonsense(run: Run) -> None:
    run.marker.write_bytes(b"[[[")


def _another_name(run: Run) -> None:
    run.folder.rename(run.folder.with_name("private"))
    run.says(path=str(run.folder.with_name("private")))


def _relative(run: Run) -> None:
    os.symlink(run.folder, run.path / config.spool_name())
    run.says(path=config.spool_name())


def _a_link_to_it(run: Run) -> None:
    other = run.path / config.spool_name()
    other.symlink_to(run.folder)
    run.says(path=str(other))


def _open_to_others(run: Run) -> None:
    run.folder.chmod(0o711)


def _a_surrogate(run: Run) -> None:
    run.marker.write_bytes(b'{"v":1,"host":"h","ino":1,"path":"/\\ud800/%s"}' % config.spool_name().encode())


def _of_another_version(run: Run) -> None:
    run.marker.write_bytes(run.marker.read_bytes().replace(b'"v":1', b'"v":2'))


@pytest.mark.parametrize(
    "put",
    [
        _a_link,
        _a_pipe,
        _a_folder,
        _a_flood,
        _nonsense,
        _another_name,
        _relative,
        _a_link_to_it,
        _open_to_others,
        _a_surrogate,
        _of_another_version,
    ],
)
def test_a_marker_that_is_none_leads_nowhere(run: Run, put: Callable[[Run], None]) -> None:
    before = run.segment.read_bytes()
    put(run)
    assert not run.is_seen()
    assert not run.seen.has(ALICE)
    with pytest.raises(FileNotFoundError):
        run.seen.open(segments.segment_path(ALICE, 0), READ, run.at)
    kept = next(run.folder.parent.rglob(f"{ALICE.hex()}.0"))
    assert kept.read_bytes() == before
    assert verify(str(run.path)).findings, "nothing is said of it"


@needs_root
def test_a_folder_of_somebody_else_is_no_spool(run: Run) -> None:
    os.chown(run.folder, 65534, 65534)
    assert not run.is_seen()
    assert run.seen.away[ALICE.hex()].why == "the folder is not ours alone"


def test_a_marker_that_names_another_sessions_journal_does_not_get_it(run: Run, tmp_path: Path, spool: Path) -> None:
    """Somebody who may write into one directory must not make its owner apply, and drop, the journal of another."""
    other = Run(tmp_path / "project" / "other", spool, BOB)
    shutil.copy(other.marker, run.path / marker_path(BOB))
    assert f"{BOB.hex()}.0" in other.names()
    assert f"{BOB.hex()}.0" not in run.names()
    assert run.is_seen()
    assert run.seen.away[BOB.hex()].is_copied
    with pytest.raises(FileNotFoundError):
        run.seen.unlink(segments.segment_path(BOB, 0), run.at)
    assert other.segment.exists()
    other.close()


def test_a_copy_of_the_directory_does_not_take_the_journal_and_a_moved_one_keeps_it(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copy")
    at = REAL_DISK.root(str(tmp_path / "copy"))
    copy = Spooled(REAL_DISK, at, str(tmp_path / "copy"))
    assert copy.listdir(JOURNALS, at) == [f"{ALICE.hex()}{MARKER}"]
    assert copy.away[ALICE.hex()].is_copied
    assert not copy.litter
    copy.let_go()
    REAL_DISK.close(at)
    (note,) = [each for each in verify(str(tmp_path / "copy")).notes if each.kind == "spool"]
    assert "came with a copy" in note.sentence

    run.path.rename(tmp_path / "moved")
    moved = Spooled(REAL_DISK, run.at, str(tmp_path / "moved"))
    assert f"{ALICE.hex()}.0" in moved.listdir(JOURNALS, run.at)
    moved.let_go()


# ── what is not here ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_on_another_node_is_neither_here_nor_gone(run: Run) -> None:
    run.folder.rename(run.folder.with_name("unmounted"))
    run.says(host="node2")
    assert run.names() == [run.marker.name]
    assert (run.seen.litter, run.seen.waits()) == ([], False)
    (note,) = [each for each in verify(str(run.path)).notes if each.kind == "spool"]
    assert f"a journal is in {run.folder} on node2 and is not seen from here" in note.sentence
    assert not verify(str(run.path)).problems


def test_a_disk_that_is_not_mounted_may_come_back(run: Run) -> None:
    away = run.folder.with_name("unmounted")
    run.folder.rename(away)
    assert not run.is_seen()
    assert run.seen.waits()
    away.rename(run.folder)
    assert run.is_seen()
    assert not run.seen.waits()


def test_a_folder_of_the_same_name_on_another_disk_is_not_taken_for_it(run: Run) -> None:
    run.folder.rename(run.folder.with_name("unmounted"))
    run.folder.mkdir(mode=0o700)
    assert not run.is_seen()
    assert run.seen.litter == [], "its journal is elsewhere, not gone"
    assert run.seen.waits()


def test_a_marker_of_nothing_is_cleared_away(run: Run) -> None:
    run.segment.unlink()
    (run.path / JOURNALS / f"{BOB.hex()}{MARKER}{UNNAMED}").write_bytes(b"")
    assert not run.is_seen()
    assert run.seen.litter == [f"{BOB.hex()}{MARKER}{UNNAMED}", f"{ALICE.hex()}{MARKER}"]
    run.says(host="node2")
    run.names()
    assert run.seen.litter == [f"{BOB.hex()}{MARKER}{UNNAMED}"], "that may be another disk"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"v":1,"host":1,"path":"/a","ino":1}', b"\0" * 64])
def test_what_is_no_marker_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(NoMarker):
        decode_marker(data)


def test_a_marker_is_read_as_it_was_written() -> None:
    marker = Marker("node1", "/local/scratch/dreamlake-1000", 42)
    assert encode_marker(marker) == b'{"v":1,"host":"node1","path":"/local/scratch/dreamlake-1000","ino":42}\n'
    assert decode_marker(encode_marker(marker)) == marker


# ── on its way home ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_journal_that_comes_home_is_the_same_stream(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamlake.journal.SEGMENT_BYTES", 300)
    run.journal._room = 0
    for number in range(20):
        run.journal.append((ops.LOG, number, "info", f"message {number}", None, None))
    run.journal.sync()
    before, names = run.journal.read(0, run.journal.end), run.names()
    assert len([each for each in names if each.startswith(ALICE.hex())]) == 5
    run.journal.move(run.at)
    assert run.journal.read(0, run.journal.end) == before
    run.journal.append((ops.LOG, 20, "info", "home", None, None))
    assert list((run.folder / JOURNALS).iterdir()) == []
    assert run.names() == [name for name in names if not name.endswith(MARKER)]
    assert not run.seen.has(ALICE)
    mine = segments.journals(REAL_DISK, run.at)[ALICE]
    assert segments.read_stream(REAL_DISK, run.at, mine, 0, 1 << 20) in run.journal.read(0, run.journal.end)
    assert mine[-1].end == run.journal.end
    run.journal.cover(run.journal.end)
    assert len(list((run.path / JOURNALS).iterdir())) == 1


def test_its_spool_may_be_gone_by_then(run: Run) -> None:
    shutil.rmtree(run.folder)
    run.journal.append((ops.LOG, 1, "info", "nameless", None, None))
    assert run.journal.is_gone()
    run.journal.move(run.at)
    assert not run.journal.is_gone()
    (mine,) = segments.journals(REAL_DISK, run.at)[ALICE]
    assert mine.end == run.journal.end


def test_what_a_death_on_the_way_home_leaves_is_not_applied_and_goes_with_the_journal(run: Run) -> None:
    stale = run.path / segments.segment_path(ALICE, 0)
    stale.write_bytes(run.segment.read_bytes()[:-3])
    (mine,) = segments.journals(run.seen, run.at)[ALICE]
    assert mine.end == run.journal.end
    run.seen.unlink(mine.path, run.at)
    assert not stale.exists()
    assert not run.segment.exists()


def test_it_stays_where_it_was_when_the_directory_does_not_take_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(REAL_DISK, "fsync", fails, raising=False)
        with pytest.raises(OSError, match="Input/output"):
            run.journal.move(run.at)
    assert run.is_seen()
    assert [each.name for each in (run.path / JOURNALS).iterdir()] == [run.marker.name]
    run.journal.append((ops.LOG, 1, "info", "on", None, None))
    run.journal.move(run.at)
    assert not run.marker.exists()


def test_bytes_that_a_failed_fsync_took_are_not_carried_home(run: Run) -> None:
    run.journal.append((ops.LOG, 1, "info", "on", None, None))
    with run.segment.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    with pytest.raises(OSError, match="as it was written"):
        run.journal.move(run.at)
    assert run.marker.exists()


def test_what_the_dead_have_begun_in_a_spool_and_not_marked_is_cleared_away(run: Run) -> None:
    kept = {run.segment.name}
    begun = Journal(REAL_DISK, run.spool.root, BOB, 1, run.by)
    kept.add(f"{BOB.hex()}.0")  # it lives
    (run.folder / JOURNALS / f"{'c' * 32}.0{UNNAMED}").write_bytes(b"half a header")
    (run.folder / JOURNALS / f"{'c' * 32}{SYNCING}").write_bytes(b"")
    Spool(REAL_DISK, run.at, str(run.folder), b"d" * 16, run.by).close()
    assert {each.name for each in (run.folder / JOURNALS).iterdir()} == kept | {f"{'c' * 32}{SYNCING}"}
    begun.close()
    Spool(REAL_DISK, run.at, str(run.folder), b"d" * 16, run.by).close()
    assert {each.name for each in (run.folder / JOURNALS).iterdir()} == {run.segment.name, f"{'c' * 32}{SYNCING}"}


def test_the_marker_is_locked_as_long_as_somebody_writes(run: Run) -> None:
    def is_free() -> bool:
        fd = REAL_DISK.open(marker_path(ALICE), READ, run.at)
        try:
            return REAL_DISK.lock(fd)
        finally:
            REAL_DISK.close(fd)

    assert not is_free()
    run.journal.close()
    assert is_free()
    assert read_file(REAL_DISK, marker_path(ALICE), run.at, 4096)


def test_what_a_death_on_the_way_home_leaves_counts_once_the_marker_of_a_lost_spool_is_removed(run: Run) -> None:
    shutil.copy(run.segment, run.path / segments.segment_path(ALICE, 0))
    shutil.rmtree(run.folder)
    assert run.names() == [run.marker.name], "the rest may come back with its disk"
    run.marker.unlink()
    (mine,) = segments.journals(run.seen, run.at)[ALICE]
    assert mine.end == run.journal.end
