"""The disk is full, read-only or away: training goes on, what is lost is counted, and all is well once it is back."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers, reading, scripts
from tests.conftest import run_cli
from tests.live.ledger import (
    Ledger,
    assert_all_there_once,
    assert_files_are_whole,
    assert_views_agree,
    rows_of,
)
from tests.live.volume import CannotMount, Volume, small_disk
from tests.waiting import wait_for

HERE = Path(__file__).parent
SCRIBE = HERE / "programs" / "scribe.py"
HEALED_SECONDS = 5.0
FILL_BYTES = 64 << 10


class Work:
    """One scribe at work below `root`."""

    def __init__(self, root: Path, tmp: Path, mode: str) -> None:
        self.folder = root / "project" / "run"
        self.words, self.complaints, self.enough = tmp / "words", tmp / "complaints", tmp / "enough"
        with self.words.open("wb") as words, self.complaints.open("wb") as complaints:
            self.scribe = subprocess.Popen(
                scripts.command(SCRIBE, root, "run", "scribe", self.enough, tmp, mode),
                stdout=words,
                stderr=complaints,
            )
        self.wait_for_calls(200)

    def ledger(self) -> Ledger:
        return Ledger(self.words)

    def made(self) -> int:
        return self.ledger().count()

    def wait_for_calls(self, more: int) -> None:
        goal = (self.made() if self.words.stat().st_size else 0) + more
        wait_for(lambda: self.made() >= goal)
        assert self.scribe.poll() is None, self.complaints.read_text()

    def there(self) -> int:
        """The last of the scribe's calls that the logs show."""
        return max((row.number for row in rows_of(self.folder)), default=-1)

    def seconds_until_healed(self) -> float:
        """How long until calls made from now on are in the logs."""
        began, now = time.monotonic(), self.made()
        wait_for(lambda: self.there() > now)
        return time.monotonic() - began

    def finish(self) -> str:
        """Let the scribe end as a script does; returns what it complained of. Without the agent's notice that the disk
        fills up: whether it has looked while it was full is chance."""
        self.enough.touch()
        assert self.scribe.wait(timeout=60) == 0, self.complaints.read_text()
        said = self.complaints.read_text().splitlines(keepends=True)
        return "".join(line for line in said if "MiB left, below the limit of" not in line)

    def kill(self) -> None:
        self.scribe.kill()
        self.scribe.wait()


Begin = Callable[..., Work]


@pytest.fixture
def work(home: Path, tmp_path: Path) -> Iterator[Begin]:
    begun: list[Work] = []

    def begin(root: Path, mode: str = "carefree") -> Work:
        begun.append(Work(root, tmp_path, mode))
        return begun[0]

    try:
        yield begin
    finally:
        for each in begun:
            each.kill()


@pytest.fixture
def disk(home: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    try:
        with small_disk(16) as folder:
            yield folder
            run_cli("agent", "stop")
    except CannotMount as reason:
        pytest.skip(f"no small file system: {reason}")


# Whoever opens the session is welcomed once everything that was left there is applied.
VISIT = """
import sys
from dreamlake import Session

Session("run", "project", local_path=sys.argv[1]).open().close()
"""


def fill(folder: Path) -> Path:
    """Take every byte that is left there."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        size = FILL_BYTES
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    return filler


def session_status() -> dict[str, Any]:
    """What the agent says of the one session that it keeps; `KeyError` when there is no agent just now."""
    report = reading.strict(run_cli("agent", "status", "--json").stdout) or {}
    [session] = report["sessions"]
    assert isinstance(session, dict)
    return session


def assert_kept_or_lost(work: Work, lost: int) -> None:
    """Each call that returned is there once and in order, but for as many as were said to be lost."""
    ledger = work.ledger()
    counted: dict[int, list[str]] = defaultdict(list)
    last: dict[str, int] = defaultdict(int)
    for row in rows_of(work.folder):
        assert row.number >= last[row.place]
        last[row.place] = row.number
        counted[row.number].append(row.place)
    calls = ledger.calls["scribe"]
    for number, places in counted.items():
        place, count = calls[number]
        assert places == [place] * count, (number, places)
    # An upload whose bytes were captured and whose operation was not kept counts as lost, and has not returned.
    raised = sum("journal could not take it" in reason for reason in ledger.refused["scribe"])
    assert len(calls) - len(counted) == lost - raised


@pytest.mark.parametrize("agent_dies", ["never", "while it is full", "afterwards"])
def test_a_full_disk_loses_what_it_cannot_take_and_says_how_much(
    home: Path, disk: Path, work: Begin, agent_dies: str
) -> None:
    at_work = work(disk / "experiments")
    filler = fill(disk)
    wait_for(lambda: session_status()["lost"] > 0)
    if agent_dies == "while it is full":
        leftovers.end(leftovers.agents_of(home))
        wait_for(lambda: session_status()["trouble"])
    at_work.wait_for_calls(500)
    filler.unlink()
    assert at_work.seconds_until_healed() < HEALED_SECONDS
    assert session_status()["trouble"] is None
    if agent_dies == "afterwards":
        leftovers.end(leftovers.agents_of(home))
        at_work.seconds_until_healed()
    warning, report = at_work.finish().splitlines()
    lost = session_status()["lost"]
    assert "cannot take calls (No space left on device)" in warning
    assert f"{lost} calls could not be kept" in report
    assert_kept_or_lost(at_work, lost)
    assert_views_agree(at_work.folder)
    assert_files_are_whole(at_work.folder)


def test_a_disk_that_is_read_only_for_a_while_is_written_again(
    home: Path, root: Path, tmp_path: Path, work: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = tmp_path / "read only"
    monkeypatch.setenv("PYTHONPATH", str(HERE / "sabotage"))
    monkeypatch.setenv("DREAMLAKE_TEST_READ_ONLY", str(read_only))
    at_work = work(root)
    read_only.touch()
    wait_for(lambda: session_status()["lost"] > 0)
    wait_for(lambda: "Read-only" in str(session_status()["trouble"]))
    at_work.wait_for_calls(500)
    read_only.unlink()
    assert at_work.seconds_until_healed() < HEALED_SECONDS
    warning, report = at_work.finish().splitlines()
    lost = session_status()["lost"]
    assert "cannot take calls (Read-only file system)" in warning
    assert f"{lost} calls could not be kept" in report
    assert_kept_or_lost(at_work, lost)
    assert_views_agree(at_work.folder)
    assert_files_are_whole(at_work.folder)


def test_an_agent_that_cannot_write_for_long_is_warned_of_once_and_loses_nothing(
    home: Path, root: Path, tmp_path: Path, work: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = tmp_path / "read only"
    monkeypatch.setenv("PYTHONPATH", str(HERE / "sabotage"))
    monkeypatch.setenv("DREAMLAKE_TEST_READ_ONLY_AGENT", str(read_only))
    at_work = work(root)
    read_only.touch()
    wait_for(at_work.complaints.read_text)
    at_work.wait_for_calls(1000)
    read_only.unlink()
    assert at_work.seconds_until_healed() < HEALED_SECONDS
    [warning] = at_work.finish().splitlines()
    assert "is in trouble: Read-only file system" in warning
    assert_all_there_once(at_work.folder, at_work.ledger())
    assert_views_agree(at_work.folder)
    assert_files_are_whole(at_work.folder)


def test_a_disk_that_the_kernel_makes_read_only_stops_no_training(home: Path, volume: Volume, work: Begin) -> None:
    """As it does with a disk that fails. There is no way back but to mount it anew."""
    volume.mount()
    root = volume.path / "experiments"
    at_work = work(root, "durable")
    volume.remount("abort")
    wait_for(lambda: session_status()["lost"] > 0)
    wait_for(lambda: "Read-only" in str(session_status()["trouble"]))
    at_work.wait_for_calls(500)
    warning, where, report = at_work.finish().splitlines()
    assert "cannot take calls (Read-only file system)" in warning
    assert "safe in" in where
    assert "calls could not be kept" in report
    assert run_cli("agent", "stop").returncode == 0
    volume.unmount()
    volume.mount()
    scripts.run(VISIT, root)
    ledger = at_work.ledger()
    assert ledger.durable["scribe"] > 0
    assert_all_there_once(at_work.folder, ledger, promised=ledger.durable)
    assert_views_agree(at_work.folder)
    assert_files_are_whole(at_work.folder, promised=ledger.durable)


@pytest.mark.parametrize("agent_dies", [False, True])
def test_a_root_that_is_moved_away_and_back_loses_nothing(
    home: Path, root: Path, work: Begin, agent_dies: bool
) -> None:
    at_work = work(root)
    away = root.with_name("away")
    root.rename(away)
    at_work.wait_for_calls(200)
    if agent_dies:
        leftovers.end(leftovers.agents_of(home))
        wait_for(lambda: leftovers.agents_of(home))  # it is told where the directory stands now
        at_work.wait_for_calls(200)
    away.rename(root)
    assert at_work.seconds_until_healed() < HEALED_SECONDS
    assert at_work.finish() == ""
    assert_all_there_once(at_work.folder, at_work.ledger())
    assert_views_agree(at_work.folder)
    assert_files_are_whole(at_work.folder)


def test_a_root_that_is_removed_is_made_again_with_every_call_that_was_not_applied_yet(
    home: Path, root: Path, work: Begin
) -> None:
    at_work = work(root)
    shutil.rmtree(root)
    made = at_work.made()
    assert at_work.seconds_until_healed() < HEALED_SECONDS
    [warning] = at_work.finish().splitlines()
    assert "was removed" in warning
    numbers = sorted({row.number for row in rows_of(at_work.folder)})
    assert numbers == list(range(numbers[0], at_work.made()))
    assert numbers[0] <= made
    assert_views_agree(at_work.folder)
