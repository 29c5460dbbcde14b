"""The workers of a real DataLoader: they write into the session of their training, and keep nobody waiting."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import reading, scripts
from tests.ranks.launching import LAUNCH_SECONDS, PROGRAMS, QUIET, ended

pytestmark = [pytest.mark.timeout(2 * LAUNCH_SECONDS), pytest.mark.usefixtures("home")]


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("forkserver", 2), ("spawn", 1)])
def test_persistent_workers_write_however_they_are_started(method: str, workers: int, root: Path, folder: Path) -> None:
    """The dataset holds the session: it is inherited, or pickled and open over there as well."""
    scripts.run(PROGRAMS / "loaders.py", root, method, workers, -1, env=QUIET, flags=(), timeout=LAUNCH_SECONDS)
    assert ended(folder)["state"] == "finished"
    loaded = reading.points(folder, "loaded")
    reading.assert_consecutive(loaded)
    assert Counter(row["data"]["value"] for row in loaded) == dict.fromkeys(range(64), 2)
    assert len({row["data"]["pid"] for row in loaded}) == workers
    assert len(reading.values(folder)) == 16
    openings = [row for row in reading.lines(folder / ".dreamlake" / "session.jsonl") if row["op"] == "open"]
    assert [row.get("forked") for row in openings] == [None] + [True] * workers


def test_a_worker_that_is_killed_fails_the_training_with_its_own_error(root: Path, folder: Path) -> None:
    program = PROGRAMS / "loaders.py"
    done = scripts.run(program, root, "fork", 2, 30, env=QUIET, flags=(), expect=1, timeout=LAUNCH_SECONDS)
    assert "RuntimeError: DataLoader worker" in done.stderr
    session = ended(folder)
    assert (session["state"], session["error"]["type"]) == ("failed", "RuntimeError")
    assert "killed_ranks" not in session
    assert reading.values(folder, "loaded").count(30) == 1
