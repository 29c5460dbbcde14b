"""Chaos: trainings with a remote, their agent, its uploader and the server are killed, over a network that hurts.

::

    trainings ─▶ agent ─▶ uploader ─▶ Faults ─▶ server ─▶ Faults ─▶ S3, where there is one
                              └──────── parts of files ──────┘
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

from dreamlake.remote.credentials import word_token
from dreamlake_agent.remote.blobs import SMALL_BYTES
from tests import scripts
from tests.conftest import run_cli
from tests.remote.live import account
from tests.server_live.lake import Lake
from tests.services.faults import CLEAR, FAULTS, REFUSE, Faults
from tests.waiting import wait_for

HERE = Path(__file__).parent
TRAINER = HERE / "programs" / "trainer.py"
HASTE = {"PYTHONPATH": str(HERE / "haste")}
USER = "alice"
CLEAR_CHANCE = 0.4
FAULT_SECONDS = (0.2, 2.5)
UNMET_SECONDS = 4.0  # longer, when nobody comes
BLOW_SECONDS = (0.1, 0.6)
START_SECONDS = 30  # after which the first request has come
LAST_SECONDS = 120  # after which everything is on the server
LONGER_SECONDS = 120  # than was asked for, at most, until there was enough of everything


@dataclass
class Training:
    """One session directory, and whoever writes into it now."""

    name: str
    root: Path
    words: Path
    process: subprocess.Popen[bytes] | None = None
    births: int = 0

    @property
    def folder(self) -> Path:
        return self.root / "project" / self.name

    @property
    def who(self) -> str:
        return f"{self.words.name}{self.births}"


@dataclass
class Chaos:
    """``least`` is how often everything has to happen before it is over. ``stores`` stand behind the server: it does
    not start without them."""

    home: Path
    tmp: Path
    server: Lake
    network: Faults
    stores: Sequence[Faults]
    chance: Random
    large_mib: tuple[int, int]
    least: Counter[str]
    blows: Counter[str] = field(default_factory=Counter)
    trainings: list[Training] = field(default_factory=list)
    # of the present faults: until when they last, at least and at most, and who had met what before
    _until: dict[str, tuple[float, float]] = field(default_factory=dict)
    _met: dict[str, Counter[str]] = field(default_factory=dict)
    _faults: list[str] = field(default_factory=list)  # still to come
    _commands: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def enough(self) -> Path:
        return self.tmp / "enough"

    @property
    def complaints(self) -> Path:
        return self.tmp / "complaints"

    # ── who lives ───────────────────────────────────────────────────────────────────────────────────────────────────

    def train(self, name: str, root: str) -> None:
        training = Training(name, self.tmp / root, self.tmp / f"{root}-{name}-")
        self.trainings.append(training)
        self._start(training)

    def _start(self, training: Training) -> None:
        training.births += 1
        args = (self.network.url, training.root, training.name, training.who, training.words, self.enough)
        with self.complaints.open("ab") as complaints:
            training.process = subprocess.Popen(
                scripts.command(TRAINER, *args, *self.large_mib),
                env=scripts.environment(HASTE),
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )

    def agent(self) -> psutil.Process | None:
        """Whoever holds the lock, if it is an agent of this home."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int((self.home / "run" / "agent.lock").read_text()))
            if process.environ().get("DREAMLAKE_HOME") == str(self.home):
                return process
        return None

    def uploader(self) -> psutil.Process | None:
        agent = self.agent()
        with contextlib.suppress(psutil.Error):
            for child in agent.children() if agent is not None else ():
                if "remote.main" in " ".join(child.cmdline()):
                    return child
        return None

    # ── what happens to them ────────────────────────────────────────────────────────────────────────────────────────

    def kill_training(self) -> None:
        training = self.chance.choice(self.trainings)
        assert training.process is not None
        training.process.kill()
        training.process.wait()
        self.blows["training"] += 1
        self._start(training)

    def kill_agent(self) -> None:
        self._kill("agent", self.agent())

    def kill_uploader(self) -> None:
        self._kill("uploader", self.uploader())

    def _kill(self, whom: str, process: psutil.Process | None) -> None:
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.kill()
                self.blows[whom] += 1

    def bring_back_agent(self) -> None:
        """As a supervisor would; else a training does it, once it has missed it."""
        self._commands = [each for each in self._commands if each.poll() is None]
        if self.agent() is None and not self._commands:
            command = [sys.executable, "-m", "dreamlake.cli", "agent", "start"]
            self._commands.append(
                subprocess.Popen(
                    command, env=scripts.environment(HASTE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )

    def kill_server(self) -> None:
        self.server.kill()
        self.blows["server"] += 1
        self._pass(self.chance.choice((0.0, 0.5)))
        for store in self.stores:
            store.become(CLEAR)
        self.server.start()

    def hurt(self) -> None:
        """Each network has a fault for a while, at least until somebody met it, and then another one, or none."""
        now = time.monotonic()
        for place in (self.network, *self.stores):
            least, most = self._until.get(place.url, (0.0, 0.0))
            if now < (least if place.fault in (CLEAR, REFUSE) or place.met != self._met.get(place.url) else most):
                continue
            is_clear = place.fault != CLEAR and self.chance.random() < CLEAR_CHANCE
            fault = CLEAR if is_clear else self._next_fault()
            self._met[place.url] = place.met.copy()
            place.become(fault)
            self.blows[fault] += fault == REFUSE  # the others are counted where they are met
            least = now + self.chance.uniform(*FAULT_SECONDS)
            self._until[place.url] = (least, least + UNMET_SECONDS)

    def _next_fault(self) -> str:
        """All of them before one comes again."""
        if not self._faults:
            self._faults = self.chance.sample(FAULTS, len(FAULTS))
        return self._faults.pop()

    def counts(self) -> Counter[str]:
        """What has happened, so often."""
        places = (self.network, *self.stores)
        met = sum((place.met for place in places), Counter[str]())
        met.pop(REFUSE, None)
        to_stores = sum(place.requests for place in self.stores)
        return self.blows + met + Counter(requests=self.network.requests, to_stores=to_stores)

    def _pass(self, seconds: float) -> None:
        at = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() >= at)

    def run(self, seconds: float) -> None:
        """For so long, and until everything has happened often enough; not for ever."""
        wait_for(lambda: self.network.requests, START_SECONDS)
        began = time.monotonic()
        while (took := time.monotonic() - began) < seconds or (
            took < seconds + LONGER_SECONDS and not self.counts() >= self.least
        ):
            self._pass(self.chance.uniform(*BLOW_SECONDS))
            self.hurt()
            for training in self.trainings:
                assert training.process is not None
                assert training.process.poll() is None, self.complaints.read_text()
            kinds = (self.kill_training, self.kill_agent, self.bring_back_agent, self.kill_uploader, self.kill_server)
            [blow] = self.chance.choices((*kinds, lambda: None), (3, 2.5, 8, 3, 1.2, 3))
            blow()

    # ── and how it ends ─────────────────────────────────────────────────────────────────────────────────────────────

    def heal(self) -> None:
        """No more blows. Every training ends as it should, and after a while everything is on the server."""
        for place in (self.network, *self.stores):
            place.become(CLEAR)
        for command in self._commands:
            command.wait(timeout=60)
        started = run_cli("agent", "start", env=HASTE)
        assert started.returncode == 0, started
        self.enough.touch()
        deadline = time.monotonic() + LAST_SECONDS
        for training in self.trainings:
            assert training.process is not None
            assert training.process.wait(deadline - time.monotonic()) == 0, self.complaints.read_text()
        wait_for(lambda: not self._remembered(), deadline - time.monotonic())

    def _remembered(self) -> list[str]:
        """The directories that are not wholly sent, as the agent remembers them for the next one."""
        return [path.read_text() for path in self.home.glob("*/directories/*")]

    def assert_all_there_once(self) -> str:
        token, calls, records, points = word_token(USER), 0, 0, 0
        sizes: list[int] = []
        for training in self.trainings:
            assert not os.listdir(training.folder / ".dreamlake" / "journals")
            calls += account.assert_kept(training.folder, training.words)
            records += account.assert_sent(self.server.url, token, training.folder)
            sizes += account.assert_blobs_sent(self.server.url, token, training.folder, training.words)
        for name in sorted({training.name for training in self.trainings}):
            folders = [training.folder for training in self.trainings if training.name == name]
            points += account.assert_joined(self.server.url, token, name, folders)
        assert "Traceback" not in self.complaints.read_text()
        for log in self.home.rglob("agent.log*"):
            assert "Traceback" not in log.read_text(), log.read_text()
        self.server.assert_no_complaints()
        large = sum(size > SMALL_BYTES for size in sizes)
        assert large, "no large file"
        return (
            f"{calls} calls, {records} records, {points} points, {len(sizes)} files of {sum(sizes) >> 20} MiB, "
            f"{large} of them large"
        )

    def end(self) -> None:
        for training in self.trainings:
            if training.process is not None:
                training.process.kill()
                training.process.wait()
        for command in self._commands:
            command.kill()
            command.wait()
