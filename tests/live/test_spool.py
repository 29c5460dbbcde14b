"""Journals on node-local disk: whoever dies, whatever becomes of that disk, what returned is there once and in order,
as far as somebody still has it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamlake import Session, config
from dreamlake.reader.session import SessionReader
from tests import reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.live import releases
from tests.live.ledger import Ledger, assert_all_there_once, assert_files_are_whole, assert_indexes_as_told, rows_of
from tests.live.volume import CannotMount, small_disk
from tests.waiting import wait_for

SCRIBE = Path(__file__).parent / "programs" / "scribe.py"
JOURNALS = ".dreamlake/journals"

WRITES = """
import os, sys
from dreamlake import Session
session = Session("run", "project", local_path=sys.argv[1]).open()
for value in range(int(sys.argv[2])):
    session.track("loss").append(value=value)
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def scratch(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Node-local disk, and journals are to be there."""
    made = tmp_path / "scratch"
    made.mkdir()
    monkeypatch.setenv("DREAMLAKE_SPOOL", str(made))
    return made


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


@pytest.fixture
def written(scratch: Path, root: Path, start_script: StartScript) -> Callable[..., subprocess.Popen[str]]:
    """A script that has appended so many points, and stays."""

    def start(count: int, **env: str) -> subprocess.Popen[str]:
        script = start_script(WRITES, root, count, env=env, flags=())
        assert script.stdout is not None
        assert script.stdout.readline() == "written\n"
        return script

    return start


def spooled(scratch: Path) -> list[str]:
    """What is in the spool."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(os.listdir(scratch / config.spool_name() / JOURNALS))
    return []


def markers(folder: Path) -> list[str]:
    return [each.name for each in (folder / JOURNALS).iterdir() if each.name.endswith(".spool")]


def assert_it_is_over(folder: Path, scratch: Path) -> None:
    """The agent has taken everything, and nothing is left of it anywhere."""
    wait_for(lambda: not spooled(scratch) and not list((folder / JOURNALS).iterdir()))


def kill(script: subprocess.Popen[str]) -> None:
    script.kill()
    script.wait()


def test_whoever_is_killed_everything_is_there_once_and_in_order(
    root: Path, folder: Path, scratch: Path, tmp_path: Path, agent: Path, dreamlake: Cli
) -> None:
    enough, words, names = tmp_path / "enough", tmp_path / "words", ("one", "two")
    with contextlib.ExitStack() as ends:
        said = ends.enter_context(words.open("ab"))
        scribes = [
            subprocess.Popen(scripts.command(SCRIBE, root, "run", name, enough, tmp_path), stdout=said)
            for name in names
        ]
        for scribe in scribes:
            ends.callback(scribe.wait)
            ends.callback(scribe.kill)

        wait_for(lambda: all(len(Ledger(words).calls[name]) >= 100 for name in names))
        os.kill(agent_pid(), signal.SIGKILL)
        assert len(markers(folder)) == 2
        assert len([name for name in spooled(scratch) if name.endswith(".0")]) == 2
        wait_for(lambda: all(len(Ledger(words).calls[name]) >= 300 for name in names))
        scribes[0].kill()
        enough.touch()
        assert scribes[1].wait(60) == 0
    dreamlake("agent", "start")
    assert_it_is_over(folder, scratch)
    ledger = Ledger(words)
    assert_all_there_once(folder, ledger)
    assert_indexes_as_told(folder, ledger)
    assert_files_are_whole(folder)
    assert {row.writer for row in rows_of(folder)} == set(names)
    assert reading.view(folder / "session.json")["state"] == "killed"


def test_without_an_agent_it_is_read_where_it_is_and_while_nobody_sees_it_that_is_said_and_it_waits(
    root: Path, folder: Path, scratch: Path, written: Callable[..., subprocess.Popen[str]], dreamlake: Cli
) -> None:
    kill(written(300, DREAMLAKE_AGENT="never"))
    (marker,) = markers(folder)
    assert [each.name for each in (folder / JOURNALS).iterdir()] == [marker]
    assert spooled(scratch) == [marker.replace(".spool", ".0")]
    assert (scratch / config.spool_name()).stat().st_mode & 0o777 == 0o700
    shown = reading.strict(dreamlake("show", folder, "--json").stdout)
    assert (shown["tracks"]["loss"]["points"], shown["away"]) == (300, [])
    assert "301 operations wait for an agent" in dreamlake("verify", folder).stdout

    away = scratch.with_name("unmounted")
    scratch.rename(away)
    place = f"a journal is in {scratch}/{config.spool_name()} on "
    assert place in dreamlake("show", folder).stdout
    verified = dreamlake("verify", folder)
    assert place in verified.stdout
    assert verified.returncode == 0, "it is no damage"
    with Session("run", "project", local_path=root) as session:  # in the directory: there is no such disk
        session.track("loss").append(value="meanwhile")
        session.flush(durable=True)
        assert reading.values(folder) == ["meanwhile"]
        away.rename(scratch)
        wait_for(lambda: reading.values(folder) == ["meanwhile", *range(300)])
    assert_it_is_over(folder, scratch)


def test_a_durable_flush_outlives_the_disk(
    root: Path, folder: Path, scratch: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    script = start_script(
        WRITES.replace('print("written"', 'session.flush(durable=True); print("written"'), root, 200, flags=()
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "written\n"
    assert markers(folder)
    pid = agent_pid()
    os.kill(pid, signal.SIGKILL)
    kill(script)
    shutil.rmtree(scratch)
    scratch.mkdir()
    dreamlake("agent", "start")
    wait_for(lambda: reading.view(folder / "session.json")["state"] == "killed")
    assert reading.values(folder) == list(range(200))


@pytest.mark.home("shared")
def test_a_spool_that_is_wiped_under_a_writer_takes_nothing(root: Path, folder: Path, scratch: Path) -> None:
    with Session("run", "project", local_path=root) as session:
        for value in range(100):
            session.track("loss").append(value=value)
        session.flush()
        for value in range(100, 150):
            session.track("loss").append(value=value)
        shutil.rmtree(scratch)
        for value in range(150, 200):
            session.track("loss").append(value=value)
        wait_for(lambda: session.track("loss").append(value="more") and not markers(folder))
        assert list((folder / JOURNALS).glob("*.0"))
        session.track("loss").append(value="last")
        session.flush(durable=True)
    found = reading.values(folder)
    assert found[:200] == list(range(200))
    assert set(found[200:]) == {"more", "last"}
    reading.assert_consecutive(reading.points(folder))
    assert_it_is_over(folder, scratch)


@pytest.mark.home("shared")
def test_a_directory_that_is_removed_takes_its_journal_in_the_spool_along(
    root: Path, folder: Path, scratch: Path
) -> None:
    with Session("run", "project", local_path=root) as session:
        session.track("loss").append(value="before")
        session.flush()
        (before,) = markers(folder)
        shutil.rmtree(folder)
        wait_for(lambda: session.log("again") is None and folder.is_dir() and markers(folder))
        wait_for(lambda: before.replace(".spool", ".0") not in spooled(scratch))
        session.track("loss").append(value="after")
        session.flush()
        assert reading.values(folder) == ["after"]
        assert len(markers(folder)) == 1
    assert_it_is_over(folder, scratch)


@pytest.mark.home("shared")
@pytest.mark.parametrize("what", ["missing", "a file", "somebody's"])
def test_a_spool_that_cannot_be_used_is_said_once_and_the_directory_has_the_journal(
    root: Path,
    folder: Path,
    scratch: Path,
    what: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if what == "somebody's":
        if os.geteuid() != 0:
            pytest.skip("only root may give a folder away")
        (scratch / config.spool_name()).mkdir()
        os.chown(scratch / config.spool_name(), 65534, 65534)
    else:
        scratch.rmdir()
        if what == "a file":
            scratch.touch()
    monkeypatch.setattr("dreamlake.writer._no_spool_said", set())
    with caplog.at_level(logging.WARNING, "dreamlake"):
        for name in ("run", "other"):
            with Session(name, "project", local_path=root) as session:
                session.track("loss").append(value=1)
                session.flush()
                assert not markers(root / "project" / name)
    (said,) = [each.getMessage() for each in caplog.records]
    assert "DREAMLAKE_SPOOL cannot be used" in said
    assert "kept in the session directories" in said
    assert reading.values(folder) == [1]


@pytest.fixture
def small(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    try:
        with small_disk(3) as disk:
            monkeypatch.setenv("DREAMLAKE_SPOOL", str(disk))
            yield disk
    except CannotMount as reason:
        pytest.skip(f"no small disk to be filled: {reason}")


@pytest.mark.home("shared")
def test_a_full_spool_loses_calls_as_a_full_disk_does_and_counts_them(root: Path, folder: Path, small: Path) -> None:
    with Session("run", "project", local_path=root) as session:
        session.track("loss").append(value="before")
        session.flush()
        assert spooled(small)
        with open(small / "flood", "wb", buffering=0) as flood, contextlib.suppress(OSError):
            while True:
                flood.write(bytes(1 << 12))
        writer = session._writer
        assert writer is not None
        wait_for(lambda: session.track("loss").append(value="during", text="x" * 2000) and writer.lost > 0)
        (small / "flood").unlink()
        lost = writer.lost
        session.track("loss").append(value="after")
        session.flush()
        assert writer.lost == lost
    found = reading.values(folder)
    assert (found[0], found[-1]) == ("before", "after")
    reading.assert_consecutive(reading.points(folder))


ON_NODE_2 = """
hostname node2
mount -t tmpfs tmpfs "$1"
exec "$2" -c "$3" "$4" 50
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may pretend to be another node, with a disk of its own")
def test_before_an_agent_of_another_node_the_journal_comes_home(
    root: Path, folder: Path, scratch: Path, other_home: Path, dreamlake: Cli
) -> None:
    """Another host name, and another disk where this node has its spool; the session directory is shared."""
    arguments = ["sh", "-ec", ON_NODE_2, "sh", str(scratch), sys.executable, WRITES, str(root)]
    with subprocess.Popen(
        ["unshare", "--mount", "--uts", *arguments],
        env=scripts.environment({"DREAMLAKE_HOME": str(other_home)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "written\n"
            (theirs,) = markers(folder)
            assert b'"host":"node2"' in (folder / JOURNALS / theirs).read_bytes()
            with Session("run", "project", local_path=root) as session:
                for value in range(100, 150):
                    session.track("loss").append(value=value)
                wait_for(lambda: reading.values(folder) == [*range(50), *range(100, 150)])
                assert markers(folder) == [theirs]
            other.communicate()
        finally:
            other.kill()
    assert_it_is_over(folder, scratch)


def test_before_an_agent_that_knows_no_spools_the_journal_comes_home(
    root: Path, folder: Path, scratch: Path, tmp_path: Path
) -> None:
    released = releases.unpacked(releases.FIRST, tmp_path)
    assert releases.FIRST in releases.agent(released, "start", tmp_path)
    with Session("run", "project", local_path=root) as session:
        for value in range(100):
            session.track("loss").append(value=value)
        session.flush()
        assert reading.values(folder) == list(range(100))
        assert (markers(folder), spooled(scratch)) == ([], [])
        with SessionReader(str(folder)) as reader:
            assert reader.away() == []
    releases.agent(released, "stop", tmp_path)
    assert reading.values(folder) == list(range(100))
