"""A directory whose owner was on another node, repaired (or synced) from this one when the job is over."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from dreamlake.reader.owners import last_word
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.core.afar import SKEW_SECONDS
from dreamlake_agent.repair import Refused, repair
from tests.golden import world


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What the node of tests/golden left when it was killed."""
    world.make(tmp_path)
    return tmp_path / "killed"


def grown_old(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_what_has_just_shown_that_it_lives_is_not_taken_over(left: Path) -> None:
    grown_old(left, SKEW_SECONDS)
    with pytest.raises(Refused, match=r"an agent on node1 .pid 4000.*dreamlake agent takeover"):
        repair(str(left), print)
    at = REAL_DISK.root(str(left))
    assert last_word(REAL_DISK, at)["epoch"] == 1  # type: ignore[index]
    REAL_DISK.close(at)


def test_what_has_shown_nothing_for_long_is_taken_over_and_its_ranks_are_gone(left: Path) -> None:
    grown_old(left, 600)
    said: list[str] = []
    repair(str(left), said.append)
    assert any("has shown no sign of life" in each for each in said)
    shown = json.loads((left / "session.json").read_text())
    assert shown["state"] != "running"
    assert not list((left / ".dreamlake/epochs").iterdir())
    owner = json.loads((left / ".dreamlake/owner").read_text())
    assert owner["released"]
    assert owner["epoch"] == 3
