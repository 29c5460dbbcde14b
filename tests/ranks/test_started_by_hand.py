"""Ranks without a launcher: started by multiprocessing or torch.multiprocessing.spawn, and replaced one at a time."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading, scripts
from tests.conftest import StartScript
from tests.ranks.launching import LAUNCH_SECONDS, PROGRAMS, QUIET, ended

TOLD = {"type": "ArithmeticError", "message": "the loss is not finite", "rank": 1}

pytestmark = [pytest.mark.timeout(2 * LAUNCH_SECONDS), pytest.mark.usefixtures("home")]


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


def assert_both_wrote(folder: Path) -> None:
    points = reading.points(folder)
    reading.assert_consecutive(points)
    for rank in (0, 1):
        assert [row["data"]["value"] for row in points if row["rank"] == rank] == list(range(50))


LEFT_OPEN = ("leave open", [0, 0], "finished", None)
RAISES = ("raise", [0, 1], "failed", TOLD)
EXITS = ("exit", [0, 3], "failed", {"type": "SystemExit", "message": "3", "rank": 1})


@pytest.mark.parametrize(
    ("method", "way", "codes", "state", "error"),
    [
        ("fork", *LEFT_OPEN),  # leaves by os._exit: atexit is not heard
        ("fork", *RAISES),
        ("fork", *EXITS),
        ("forkserver", *LEFT_OPEN),
        ("forkserver", *RAISES),
        ("spawn", *RAISES),
    ],
)
def test_a_rank_of_multiprocessing_says_how_it_ended(
    method: str, way: str, codes: list[int], state: str, error: Any, root: Path, folder: Path
) -> None:
    done = scripts.run(PROGRAMS / "children.py", root, method, way, flags=())
    assert done.stdout == f"{codes}\n"
    session = ended(folder)
    assert (session["state"], session.get("error")) == (state, error)
    assert "killed_ranks" not in session
    assert_both_wrote(folder)


def test_a_rank_of_torch_multiprocessing_spawn_that_fails_is_named(root: Path, folder: Path) -> None:
    """PyTorch catches the exception in the rank and leaves with 1: the session knows that, and which rank it was."""
    program = PROGRAMS / "children.py"
    done = scripts.run(program, root, "torch", "raise", env=QUIET, flags=(), expect=1, timeout=LAUNCH_SECONDS)
    assert "ProcessRaisedException" in done.stderr
    session = ended(folder)
    assert (session["state"], session["error"]["rank"]) == ("failed", 1)
    assert_both_wrote(folder)


RANK = """
import sys
from dreamlake import Session
session = Session("run", "project", local_path=sys.argv[1]).open()
for value in range(50):
    session.track("loss").append(value=value)
session.flush()
print("there", flush=True)
sys.stdin.readline()
session.close()
"""


def test_a_rank_is_replaced_while_the_others_go_on(root: Path, folder: Path, start_script: StartScript) -> None:
    """At once, most likely before the agent has seen that the first one is dead."""

    def start(rank: int) -> subprocess.Popen[str]:
        return start_script(RANK, root, env={"RANK": str(rank), "WORLD_SIZE": "2"})

    def come(process: subprocess.Popen[str]) -> None:
        assert process.stdout
        assert process.stdout.readline() == "there\n"

    ranks = [start(rank) for rank in (0, 1)]
    for each in ranks:
        come(each)
    ranks[1].kill()
    ranks[1] = start(1)
    come(ranks[1])
    for each in reversed(ranks):
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
        assert each.wait(timeout=60) == 0
    session = ended(folder)
    assert session["state"] == "finished"
    assert not {"error", "killed_ranks"} & set(session)
    points = reading.points(folder)
    reading.assert_consecutive(points)
    values = [row["data"]["value"] for row in points if row["rank"] == 1]
    assert values == 2 * list(range(50))


def test_a_session_that_was_pickled_writes_into_the_same_directory_and_leaves_the_token_behind(
    root: Path, folder: Path
) -> None:
    with Session("run", "project", local_path=root, tags=["a"], api_key="dlk_secret") as session:
        text = pickle.dumps((session, session.track("loss")))
        assert b"dlk_secret" not in text
        copy, track = pickle.loads(text)
        assert (copy.path, copy.tags, copy.mode) == (session.path, ["a"], session.mode)
        track.append(value=1)
        copy.flush()
        session.flush()
        assert reading.view(folder / "session.json")["state"] == "running"
        copy.close()
        track._session.close()
        session.track("loss").append(value=2)
        assert pickle.loads(pickle.dumps(Session("other", "project")))._is_open is False
    assert sorted(reading.values(folder)) == [1, 2]
    assert ended(folder)["state"] == "finished"
