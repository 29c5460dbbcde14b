"""The workers of a real DataLoader: they write into the session of their training, and keep nobody waiting."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests import reading, scripts
from tests.conftest import agent_pid
from tests.ranks.launching import LAUNCH_SECONDS, PROGRAMS, QUIET, ended
from tests.waiting import wait_for

pytestmark = [pytest.mark.timeout(2 * LAUNCH_SECONDS), pytest.mark.usefixtures("home")]


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


def assert_workers_wrote_everything(folder: Path, workers: int) -> None:
    assert ended(folder)["state"] == "finished"
    loaded = reading.points(folder, "loaded")
    reading.assert_consecutive(loaded)
    assert Counter(row["data"]["value"] for row in loaded) == dict.fromkeys(range(64), 2)
    assert len({row["data"]["pid"] for row in loaded}) == workers
    assert len(reading.values(folder)) == 16
    openings = [row for row in reading.lines(folder / ".dreamlake" / "session.jsonl") if row["op"] == "open"]
    assert [row.get("forked") for row in openings] == [None] + [True] * workers


@pytest.mark.parametrize(("method", "workers"), [("forkserver", 2), ("spawn", 1)])
def test_the_session_goes_with_the_dataset_into_workers_that_are_not_forked(
    method: str, workers: int, root: Path, folder: Path
) -> None:
    """It is pickled, and open over there as well."""
    program = PROGRAMS / "loaders.py"
    done = scripts.run(program, root, method, workers, -1, -1, env=QUIET, flags=(), timeout=LAUNCH_SECONDS)
    assert done.stdout == f"{[0] * workers}\n"
    assert_workers_wrote_everything(folder, workers)


def test_forked_workers_end_by_themselves_also_while_the_agent_does_not_answer(
    agent: Path, root: Path, folder: Path
) -> None:
    """They have what they wrote in their journals, and wait for nobody; nor does their training wait for them."""
    pid, program = agent_pid(), PROGRAMS / "loaders.py"
    try:
        done = scripts.run(program, root, "fork", 2, -1, pid, env=QUIET, flags=(), timeout=LAUNCH_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "no agent took everything" in done.stderr
    assert done.stdout == "[0, 0]\n"
    wait_for(lambda: len(reading.points(folder, "loaded")) == 128)
    assert_workers_wrote_everything(folder, 2)


def test_a_worker_that_is_killed_fails_the_training_with_its_own_error(root: Path, folder: Path) -> None:
    program = PROGRAMS / "loaders.py"
    done = scripts.run(program, root, "fork", 2, 30, -1, env=QUIET, flags=(), expect=1, timeout=LAUNCH_SECONDS)
    assert "RuntimeError: DataLoader worker" in done.stderr
    session = ended(folder)
    assert (session["state"], session["error"]["type"]) == ("failed", "RuntimeError")
    assert "killed_ranks" not in session
    assert reading.values(folder, "loaded").count(30) == 1
