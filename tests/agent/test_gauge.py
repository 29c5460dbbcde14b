"""The gauge: what disks have left, and one that does not answer holds up nobody."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from dreamlake_agent.core.events import Disk
from dreamlake_agent.observe.gauge import Gauge, disk_of
from tests.waiting import wait_for


def looked(gauge: Gauge, *sessions: tuple[int, str]) -> tuple[Disk, ...]:
    gauge.look(sessions)
    assert gauge._looking is not None
    gauge._looking.join(20)
    return gauge.disks


def test_one_disk_is_one_whatever_is_on_it(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    sessions = [(device, str(tmp_path / name)) for name in ("b", "a")]
    for _, path in sessions:
        Path(path).mkdir()
    gauge = Gauge(str(tmp_path), spool=str(tmp_path / "a"))
    (disk,) = looked(gauge, *sessions)
    found = os.statvfs(tmp_path)
    assert (disk.device, disk.path, disk.bytes_total) == (device, sessions[1][1], found.f_blocks * found.f_frsize)
    assert 0 < disk.bytes_free <= disk.bytes_total
    assert gauge.state_device == device


def test_what_was_moved_away_is_not_taken_for_the_disk_that_it_was_on(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    assert disk_of(device, [str(tmp_path / "moved"), str(tmp_path)]) is not None
    assert disk_of(device + 1, [str(tmp_path)]) is None
    gauge = Gauge(str(tmp_path / "nowhere"))
    assert looked(gauge, (device, str(tmp_path / "moved"))) == ()
    assert gauge.state_device is None


def test_a_disk_that_does_not_answer_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gauge = Gauge(str(tmp_path))
    before = looked(gauge)
    assert len(before) == 1
    comes_back, really = threading.Event(), os.statvfs
    asked: list[Any] = []

    def hangs(path: Any) -> os.statvfs_result:
        asked.append(path)
        comes_back.wait(20)
        return really(path)

    monkeypatch.setattr(os, "statvfs", hangs)
    try:
        for _ in range(5):
            gauge.look([])
        wait_for(lambda: asked)
        assert gauge.disks is before
        assert len(asked) == 1  # and not a thread more for each time that it was to look
    finally:
        comes_back.set()
        assert gauge._looking is not None
        gauge._looking.join(20)
