"""The logs that an agent has open, over all its directories."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

import pytest

from dreamlake.wire import ops
from dreamlake_agent.store.directory import Directory
from dreamlake_agent.store.opened import Opened
from tests.golden import world
from tests.golden.world import ALICE, OPERATIONS
from tests.sim.disk import SimDisk, SimProcess
from tests.store.test_directory import Journal, follow

TRACKS = ("a", "b", "c", "d")


def two(shared: Opened) -> tuple[SimDisk, SimProcess, list[tuple[Directory, Journal]]]:
    """Two directories of one agent, each with a client's journal."""
    disk = SimDisk(Random(0))
    for path in ("/s", "/t"):
        for inner in ("journals", "incoming"):
            disk.mkdirs(f"{path}/.dreamlake/{inner}")
    process = disk.process(1)
    found = []
    for path in ("/s", "/t"):
        at = process.root(path)
        journal = Journal(process, at, ALICE, world.EPOCH, world.RANKS[ALICE])
        journal.append(OPERATIONS["OPEN"])
        stat = process.fstat(at)
        key = (stat.dev, stat.ino)
        directory = Directory.open(process, path, key, world.OWNER, world.ORIGIN, opened=shared)
        follow(directory, ALICE)
        found.append((directory, journal))
    return disk, process, found


def points(journal: Journal, turn: int) -> None:
    for track in TRACKS:
        journal.append((ops.POINT, world.at(turn), track, turn, b'{"turn":%d}' % turn))


@pytest.mark.parametrize("most", [1, 3, 100])
def test_all_directories_together_have_no_more_open_than_may_be(most: int) -> None:
    disk, _process, found = two(Opened(most))
    for turn in range(3):
        for directory, journal in found:
            points(journal, turn)
            follow(directory, ALICE)
            assert sum(len(each.rows._fds) for each, _journal in found) <= most
    for path, (directory, _journal) in zip(("/s", "/t"), found, strict=True):
        for track in TRACKS:
            assert disk.read(f"{path}/tracks/{track}/data.jsonl").count(b"\n") == 3
        directory.close()
    assert not found[0][0].rows._opened._logs


def test_what_closes_badly_for_anothers_sake_is_told_of_its_own_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network disk a close tells of bytes that could not be written, and nothing else will tell again."""
    _disk, _process, ((first, of_first), (second, of_second)) = two(Opened(1))
    points(of_first, 1)
    follow(first, ALICE)
    (fd,) = first.rows._fds.values()
    closes = first.rows._disk.close

    def close(which: int) -> Any:
        closes(which)
        if which == fd:
            raise OSError(errno.EIO, "close")

    monkeypatch.setattr(first.rows._disk, "close", close)
    points(of_second, 1)
    follow(second, ALICE)
    second.sync_job()
    for asked in (lambda: first.sync_job(), lambda: (points(of_first, 2), follow(first, ALICE))):
        with pytest.raises(OSError, match="close"):
            asked()


def test_when_fewer_may_be_open_the_oldest_are_closed() -> None:
    shared = Opened(100)
    _disk, _process, found = two(shared)
    for turn, most in enumerate((100, 2)):
        shared.bound(most)
        for directory, journal in found:
            points(journal, turn)
            follow(directory, ALICE)
    assert sum(len(each.rows._fds) for each, _journal in found) == 2
