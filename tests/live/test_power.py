"""The power goes, for real: a file system stops in the middle of everything. What was durable is there afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dreamlake.world.sockets import answers
from tests import scripts
from tests.live.ledger import (
    Ledger,
    assert_all_there_once,
    assert_files_are_whole,
    assert_indexes_as_told,
    assert_views_agree,
    kept,
)
from tests.live.volume import Volume
from tests.waiting import wait_for

NURSERY = Path(__file__).parent / "programs" / "nursery.py"
LOSSES = 50
WRITERS = 2
ROUNDS_A_SESSION = 5
# What is on the disk after power loss differs between these: whether a size may come before its bytes, how soon.
MOUNTS = ("defaults", "data=writeback", "nodelalloc,data=writeback", "nodelalloc,commit=1")


class Nursery:
    def __init__(self, complaints: Path) -> None:
        with complaints.open("ab") as stderr:
            self._process = subprocess.Popen(
                scripts.command(NURSERY), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self.children: list[psutil.Process] = []

    def fork(self, what: str, words: Path, *arguments: Any) -> psutil.Process:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, str(words), *map(str, arguments)]) + "\n")
        self._process.stdin.flush()
        child = psutil.Process(int(self._process.stdout.readline()))
        self.children.append(child)
        return child

    def kill_children(self) -> None:
        for child in self.children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(self.children, timeout=10)
        self.children.clear()

    def end(self) -> None:
        self.kill_children()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)


@pytest.fixture
def nursery(home: Path, volume: Volume, tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path / "complaints")
    try:
        yield nursery
    finally:
        nursery.end()


class Lab:
    """One volume, and who works on it until the power goes."""

    def __init__(self, home: Path, volume: Volume, nursery: Nursery, tmp: Path) -> None:
        self.home, self.volume, self.nursery, self.tmp = home, volume, nursery, tmp
        self.root = volume.path / "experiments"
        self.scratch = tmp / "scratch"
        self.scratch.mkdir()
        self.never = tmp / "never"
        self.chance = random.Random(5)
        # of each session and writer, how many calls were seen to be there after a power loss: they must stay
        self.seen: dict[str, dict[str, int]] = {}

    def words(self, session: str) -> Path:
        return self.tmp / f"words of {session}"

    def start_agent(self) -> psutil.Process:
        agent = self.nursery.fork("agent", self.tmp / "agent")
        wait_for(lambda: answers(str(self.home / "run" / "agent.sock")))
        return agent

    def work_until_the_power_goes(self, session: str, number: int, *, with_agent: bool) -> None:
        words = self.words(session)
        workers = [self.start_agent()] if with_agent else []
        before = Ledger(words) if words.exists() else None
        names = [f"r{number}{letter}" for letter in "abcdefgh"[:WRITERS]]
        mode = "durable" if with_agent else "durable alone"
        for name in names:
            workers.append(self.nursery.fork("scribe", words, self.root, session, name, self.never, self.scratch, mode))
        wait_for(lambda: all(Ledger(words).durable.get(name) for name in names))
        moment = time.monotonic() + self.chance.uniform(0.0, 0.2)
        while time.monotonic() < moment:
            self.make_the_file_system_write()
        self.volume.cut_power()
        # Nobody dies of it: everybody goes on, and what the disk does not take is counted as lost.
        then = Ledger(words)
        wait_for(lambda: all(len(Ledger(words).calls[name]) > len(then.calls[name]) + 20 for name in names))
        assert all(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
        assert before is None or before.count() < then.count()
        self.nursery.kill_children()

    def make_the_file_system_write(self) -> None:
        """The fsync of a stranger commits the file system's own journal: names and sizes of everybody's files."""
        fd = os.open(self.volume.path / "stranger", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, b"x" * self.chance.randrange(1, 5000))
            os.fsync(fd)
        finally:
            os.close(fd)

    def recover(self, session: str) -> None:
        self.start_agent()
        visitor = self.nursery.fork("visitor", self.tmp / "visitor", self.root, session)
        visitor.wait(timeout=30)
        self.nursery.kill_children()

    def check(self, session: str) -> None:
        folder = self.root / "project" / session
        ledger = Ledger(self.words(session))
        seen = self.seen.setdefault(session, {})
        promised = {writer: max(ledger.durable[writer], seen.get(writer, 0)) for writer in ledger.calls}
        assert_all_there_once(folder, ledger, promised=promised)
        assert_indexes_as_told(folder, ledger, promised=ledger.durable)
        assert_views_agree(folder)
        assert_files_are_whole(folder, promised=ledger.durable)
        seen.update(kept(folder))


@pytest.mark.timeout(300)
def test_what_was_durable_is_there_after_every_power_loss(
    home: Path, volume: Volume, nursery: Nursery, tmp_path: Path
) -> None:
    lab = Lab(home, volume, nursery, tmp_path)
    for number in range(LOSSES):
        session = f"run{number // ROUNDS_A_SESSION}"
        volume.mount(MOUNTS[number % len(MOUNTS)])
        lab.work_until_the_power_goes(session, number, with_agent=number % 5 != 4)
        volume.unmount()
        volume.mount()
        lab.recover(session)
        lab.check(session)
        volume.unmount()
    complaints = (tmp_path / "complaints").read_text()
    assert "Traceback" not in complaints
