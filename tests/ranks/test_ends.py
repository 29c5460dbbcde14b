"""How ranks end under the real torchrun, and what the session says of it. No PyTorch in the ranks themselves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading
from tests.conftest import StartScript
from tests.ranks.launching import LAUNCH_SECONDS, PROGRAMS, ended, torchrun

POINTS = 50  # as the program has it
TOLD = {"type": "ArithmeticError", "message": "the loss is not finite"}

pytestmark = [pytest.mark.timeout(2 * LAUNCH_SECONDS), pytest.mark.usefixtures("home")]


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


@pytest.mark.parametrize(
    ("ways", "code", "state", "more"),
    [
        (["close", "leave open", "exit", "exit in with"], 0, "finished", {}),
        (["wait", "raise in with", "wait", "with"], 1, "failed", {"error": {**TOLD, "rank": 1}}),
        (["raise", "wait", "wait", "wait"], 1, "failed", {"error": {**TOLD, "rank": 0}}),
        (["wait", "close", "kill", "wait"], 1, "killed", {"killed_ranks": [2]}),
    ],
    ids=["well", "an exception in a with", "an exception", "a kill"],
)
def test_the_session_says_how_its_ranks_ended(
    ways: list[str], code: int, state: str, more: dict[str, Any], root: Path, folder: Path
) -> None:
    done = torchrun(4, PROGRAMS / "ends.py", root, *ways)
    assert done.returncode == code, done.stderr
    session = ended(folder)
    assert session["state"] == state
    assert {key: session[key] for key in ("error", "killed_ranks") if key in session} == more

    points = reading.points(folder)
    reading.assert_consecutive(points)
    for rank in range(4):
        assert [row["data"]["value"] for row in points if row["rank"] == rank] == list(range(POINTS))
    logs = reading.lines(folder / "logs" / "logs.jsonl")
    assert sorted(line["rank"] for line in logs if line["message"] == "there") == [0, 1, 2, 3]
    assert [row["set"] for row in reading.lines(folder / ".dreamlake" / "parameters.jsonl")] == [
        {"lr": 0.1, "layers": [64, 64]}
    ]
    described = reading.lines(folder / ".dreamlake" / "tracks.jsonl")
    assert [row["set"]["tags"] for row in described] == [["train"]]


def test_one_process_resumes_what_ranks_have_written_and_ranks_resume_that(
    root: Path, folder: Path, start_script: StartScript
) -> None:
    def alone() -> None:
        with Session("run", "project", local_path=root) as session:
            assert (session.rank, session.world_size, session.is_main) == (0, 1, True)
            session.track("loss").append(value="alone")

    def together() -> None:
        shutil.rmtree(root / "there", ignore_errors=True)
        variables = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in (0, 1)]
        ranks = [start_script(PROGRAMS / "ends.py", root, "close", "close", env=each) for each in variables]
        assert [rank.wait(timeout=60) for rank in ranks] == [0, 0]

    together()
    alone()
    together()
    assert ended(folder)["state"] == "finished"
    points = reading.points(folder)
    reading.assert_consecutive(points)
    assert [row.get("rank") for row in points].count(None) == 1
    assert "rank" not in points[2 * POINTS]
    with Session("run", "project", local_path=root) as session:
        for rank in (0, 1):
            rows = session.track("loss").read(rank=rank)["data"]
            assert [row["data"]["value"] for row in rows] == 2 * list(range(POINTS))
            assert int(session.track("loss").stats(rank=rank)["totalDataPoints"]) == 2 * POINTS
        assert int(session.track("loss").stats()["totalDataPoints"]) == 4 * POINTS + 1


ASKED = """
import signal, sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.track("loss").append(value=1)
    print("there", flush=True)
    signal.pause()
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated.")
"""


def test_what_fails_once_a_rank_was_asked_to_end_is_not_why_it_ended(
    root: Path, folder: Path, start_script: StartScript
) -> None:
    """A launcher's SIGTERM reaches the workers of a loader too, and their training raises over it."""
    rank = start_script(ASKED, root, env={"RANK": "1", "WORLD_SIZE": "2"})
    assert rank.stdout
    assert rank.stdout.readline() == "there\n"
    rank.terminate()
    rank.wait(timeout=60)
    session = ended(folder)
    assert (session["state"], session["killed_ranks"]) == ("killed", [1])
    assert (session["error"]["type"], session["error"]["rank"]) == ("SIGTERM", 1)
