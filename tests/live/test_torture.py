"""Everything that can be killed is killed, at any moment, for a minute; nothing that had returned is lost."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import scripts
from tests.live.ledger import (
    Ledger,
    assert_all_there_once,
    assert_files_are_whole,
    assert_indexes_as_told,
    assert_views_agree,
    assert_what_was_cut_came_again,
)
from tests.waiting import wait_for

HERE = Path(__file__).parent
SCRIBE = HERE / "programs" / "scribe.py"
WRITERS = 8
SECONDS = 60.0
# `make torture` asks for 200.
KILLS = int(os.environ.get("DREAMLAKE_TORTURE_KILLS", "50"))
KILLS_BETWEEN_ROWS_AND_COMMIT = 20 * KILLS // 50
SECONDS_MAX = SECONDS * max(1, KILLS // 50) * 2


# Whoever opens the session next is welcomed once the dead have been heard out.
LAST = """
import sys
from dreamlake import Session

Session("run", "project", local_path=sys.argv[1]).open().close()
"""


class Torture:
    """Eight writers, one agent, and the chances of each to be killed, stopped or restarted."""

    def __init__(self, home: Path, root: Path, tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.root, self.tmp = home, root, tmp
        self.chance = random.Random(11)
        self.mortal = tmp / "between rows and commit"
        self.mortal.touch()
        monkeypatch.setenv("PYTHONPATH", str(HERE / "sabotage"))
        monkeypatch.setenv("DREAMLAKE_TEST_MORTAL", str(self.mortal))
        self.scratch = tmp / "scratch"
        self.scratch.mkdir()
        self.enough = tmp / "enough"
        self.words, self.complaints = tmp / "words", tmp / "complaints"
        # The recorder: what a writer has said is out of its hands, whatever becomes of it.
        with self.words.open("wb") as words:
            self.recorder = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=words)
        self.writers: list[subprocess.Popen[bytes]] = []
        self.born = 0
        self.blows: dict[str, int] = {"writer": 0, "agent": 0, "stop": 0, "restart": 0, "start": 0}
        self.stopped: psutil.Process | None = None
        self.stopped_until = 0.0
        self.commands: list[subprocess.Popen[bytes]] = []

    def start_writer(self) -> None:
        with self.complaints.open("ab") as complaints:
            self.writers.append(
                subprocess.Popen(
                    scripts.command(SCRIBE, self.root, "run", f"w{self.born}", self.enough, self.scratch),
                    stdout=self.recorder.stdin,
                    stderr=complaints,
                )
            )
        self.born += 1

    def agent(self) -> psutil.Process | None:
        """Whoever holds the lock, if it is an agent of this home."""
        try:
            process = psutil.Process(int((self.home / "run" / "agent.lock").read_text()))
            ours = process.environ().get("DREAMLAKE_HOME") == str(self.home) and any(
                "dreamlake_agent" in word for word in process.cmdline()
            )
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def deaths_between(self) -> int:
        return self.mortal.stat().st_size

    def is_going_on(self, seconds: float) -> bool:
        """For so long, and until there were enough kills for it to count; not for ever."""
        enough = self.kills() >= KILLS and self.deaths_between() >= KILLS_BETWEEN_ROWS_AND_COMMIT
        return seconds < SECONDS or (not enough and seconds < SECONDS_MAX)

    def kills(self) -> int:
        return self.blows["agent"] + self.deaths_between()

    def kill_agent(self) -> None:
        agent = self.agent()
        if agent is not None:
            with contextlib.suppress(psutil.Error):
                agent.kill()
                self.blows["agent"] += 1

    def kill_writer(self) -> None:
        victim = self.chance.choice(self.writers)
        victim.kill()
        victim.wait()
        self.blows["writer"] += 1
        self.writers.remove(victim)
        self.start_writer()

    def stop_agent(self) -> None:
        """For a moment, or for longer than a client believes in an agent that says nothing."""
        self.stopped = self.agent()
        if self.stopped is not None:
            [seconds] = self.chance.choices((0.2, 1.0, 3.5), (6, 3, 1))
            self.stopped_until = time.monotonic() + seconds
            with contextlib.suppress(psutil.Error):
                self.stopped.suspend()
                self.blows["stop"] += 1

    def go_on(self) -> None:
        if self.stopped is not None:
            with contextlib.suppress(psutil.Error):
                self.stopped.resume()
        self.stopped = None

    def command_agent(self, word: str) -> None:
        if not self.commands:
            self.blows[word] += 1
            self.commands.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dreamlake.cli", "agent", word],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )

    def restart_agent(self) -> None:
        self.command_agent("restart")

    def bring_back_agent(self) -> None:
        """As a supervisor would; else the writers do it, once they have missed it for 1.5 s."""
        if self.agent() is None:
            self.command_agent("start")

    def strike(self) -> None:
        if time.monotonic() >= self.stopped_until:
            self.go_on()
        self.commands = [each for each in self.commands if each.poll() is None]
        assert all(writer.poll() in (None, 0) for writer in self.writers), self.complaints.read_text()
        kinds = (self.kill_agent, self.bring_back_agent, self.kill_writer, self.stop_agent, self.restart_agent)
        [blow] = self.chance.choices(kinds, (8, 8, 5, 3, 0.8))
        blow()

    def finish(self) -> None:
        """No more blows: whoever lives ends as a script does."""
        self.go_on()
        self.mortal.rename(self.tmp / "was mortal")
        self.mortal = self.tmp / "was mortal"
        self.enough.touch()
        for restart in self.commands:
            restart.wait(timeout=60)
        for writer in self.writers:
            assert writer.wait(timeout=90) == 0, self.complaints.read_text()

    def end_all(self) -> None:
        self.go_on()
        for process in (*self.writers, *self.commands):
            process.kill()
            process.wait()
        assert self.recorder.stdin is not None
        self.recorder.stdin.close()
        self.recorder.wait()


@pytest.fixture
def torture(home: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Torture]:
    torture = Torture(home, root, tmp_path, monkeypatch)
    try:
        yield torture
    finally:
        torture.end_all()


@pytest.mark.timeout(SECONDS_MAX + 180)
def test_nothing_is_lost_doubled_or_moved_whoever_is_killed(torture: Torture) -> None:
    for _ in range(WRITERS):
        torture.start_writer()
    began = time.monotonic()
    while torture.is_going_on(time.monotonic() - began):
        next_blow = time.monotonic() + torture.chance.uniform(0.05, 0.5)
        wait_for(lambda at=next_blow: time.monotonic() >= at)
        torture.strike()
    torture.finish()
    took = time.monotonic() - began

    folder = torture.root / "project" / "run"
    scripts.run(LAST, torture.root)
    wait_for(lambda: not os.listdir(folder / ".dreamlake" / "journals"))
    torture.end_all()
    ledger = Ledger(torture.words)
    print(
        f"{took:.0f} s: {torture.kills()} kills of the agent, {torture.deaths_between()} of them between rows and "
        f"commit; {torture.blows}; {torture.born} writers, {ledger.count()} calls returned"
    )
    assert "Traceback" not in torture.complaints.read_text()
    assert not ledger.stalls
    rows = assert_all_there_once(folder, ledger)
    told = assert_indexes_as_told(folder, ledger)
    assert_views_agree(folder)
    assert_files_are_whole(folder)
    cut = assert_what_was_cut_came_again(folder)
    print(f"{rows} rows, {told} indexes as told, {cut} lines cut and written anew")
    assert torture.kills() >= KILLS
    assert torture.deaths_between() >= KILLS_BETWEEN_ROWS_AND_COMMIT
