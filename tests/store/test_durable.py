"""Files made durable, some at a time."""

from __future__ import annotations

import errno
from random import Random

import pytest

from dreamlake.world.disk import READ, sync_folder
from dreamlake_agent.store.durable import AT_ONCE, sync_files
from tests.sim.disk import SimDisk, SimProcess

COUNTS = (0, 1, AT_ONCE - 1, AT_ONCE, 3 * AT_ONCE + 1)


def made(count: int, seed: int = 0) -> tuple[SimDisk, SimProcess, dict[str, bytes]]:
    disk = SimDisk(Random(seed))
    disk.mkdirs("/s")
    files = {f"f{number}": b"%d" % number * 50 for number in range(count)}
    for name, data in files.items():
        disk.write(f"/s/{name}", data)
    return disk, disk.process(1), files


@pytest.mark.parametrize("count", COUNTS)
def test_all_of_them_last_and_one_that_is_not_there_is_passed_over(count: int) -> None:
    for seed in range(5):
        disk, process, files = made(count, seed)
        at = process.root("/s")
        sync_files(process, [*files, "never"], at)
        sync_folder(process, ".", at)
        sync_folder(process, ".", process.root("/"))
        assert len(process.files) == 2
        disk.power_loss()
        assert disk.tree("/s") == files


@pytest.mark.parametrize("count", COUNTS[1:])
def test_one_that_fails_is_told_of_and_none_stays_open(count: int) -> None:
    disk, process, files = made(count)
    at = process.root("/s")
    disk.faults.fsync_error = 1.0
    with pytest.raises(OSError, match=r"Input/output error|No space left on device") as told:
        sync_files(process, files, at)
    assert told.value.errno in (errno.EIO, errno.ENOSPC)
    assert list(process.files) == [at]


def test_what_cannot_be_opened_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    _disk, process, files = made(5)
    at = process.root("/s")
    shipped = process.open

    def opens(path: str, flags: int, at: int) -> int:
        if path == "f3":
            raise OSError(errno.EMFILE, "too many")
        return shipped(path, flags, at)

    monkeypatch.setattr(process, "open", opens)
    with pytest.raises(OSError, match="too many"):
        sync_files(process, files, at)
    assert list(process.files) == [at]
    monkeypatch.undo()
    process.close(process.open("f4", READ, at))
