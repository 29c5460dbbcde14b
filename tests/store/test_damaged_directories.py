"""An owner of a directory that is not whole: what can be known is known, and nothing is thrown away."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.repair import Refused, repair
from dreamlake_agent.store.directory import Directory
from tests.golden import make, world

LOSS = [0.5, "NaN", 0.25, 0.125, 8, 4, 0.0625]


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    folder = make.directory("killed", tmp_path)
    (folder / ".dreamlake" / "owner").unlink()
    return folder


def said(folder: Path) -> list[str]:
    found: list[str] = []
    repair(str(folder), found.append)
    return found


def test_a_refusal_says_whose_the_directory_is(tmp_path: Path) -> None:
    folder = make.directory("recovered", tmp_path)
    found = folder.stat()
    owner = Directory.open(REAL_DISK, str(folder), (found.st_dev, found.st_ino), processes.myself(), world.ORIGIN)
    try:
        with pytest.raises(Refused, match=f"live agent .pid {processes.myself()['pid']} .*dreamlake agent stop"):
            said(folder)
    finally:
        owner.close()
