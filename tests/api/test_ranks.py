"""Ranks, as a user reads them: the variables of a launcher, a few processes, one session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamlake import Session
from tests.conftest import StartScript

RANK = """
import sys
from dreamlake import Session
session = Session("run", "project", local_path=sys.argv[1], description="four ranks")
assert (session.world_size, session.is_main) == (4, session.rank == 0)
with session:
    session.parameters().set(lr=0.1, batch=32)
    track = session.track("loss", description="cross entropy")
    for step in range(50):
        track.append(step=step)
    session.log(f"rank {session.rank}")
"""


def test_four_ranks_write_one_session_and_each_is_read_by_its_number(
    home: Path, root: Path, start_script: StartScript
) -> None:
    ranks = [start_script(RANK, str(root), env={"RANK": str(rank), "WORLD_SIZE": "4"}) for rank in range(4)]
    assert [rank.wait(60) for rank in ranks] == [0, 0, 0, 0]
    folder = root / "project" / "run"
    session = json.loads((folder / "session.json").read_text())
    assert session["state"] == "finished"
    assert len((folder / ".dreamlake" / "parameters.jsonl").read_text().splitlines()) == 1
    lines = [json.loads(line) for line in (folder / "tracks" / "loss" / "data.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(200))
    for rank in range(4):
        assert [line["data"]["step"] for line in lines if line["rank"] == rank] == list(range(50))
    logs = [json.loads(line) for line in (folder / "logs" / "logs.jsonl").read_text().splitlines()]
    assert {line["message"] for line in logs} == {f"rank {line['rank']}" for line in logs}

    with Session("run", "project", local_path=str(root)) as reading:
        track = reading.track("loss")
        mine = [line for line in lines if line["rank"] == 2]
        page = track.read(limit=20, rank=2)
        assert [point["index"] for point in page["data"]] == [str(line["index"]) for line in mine[:20]]
        assert page["hasMore"]
        rest = track.read(start_index=int(page["endIndex"]) + 1, rank=2)
        assert [point["index"] for point in rest["data"]] == [str(line["index"]) for line in mine[20:]]
        assert not rest["hasMore"]
        said = track.stats(rank=2)
        assert said["totalDataPoints"] == "50"
        assert (said["firstDataAt"], said["lastDataAt"]) == (mine[0]["createdAt"], mine[-1]["createdAt"])
        assert track.stats()["totalDataPoints"] == "200"
        assert track.read(rank=4)["data"] == []
        assert track.stats(rank=4)["totalDataPoints"] == "0"


def test_a_process_without_a_launcher_is_the_main_one(session: Session) -> None:
    assert (session.rank, session.world_size, session.is_main) == (0, 1, True)
    session.track("loss").append(value=1)
    (point,) = session.track("loss").read()["data"]
    assert "rank" not in point


@pytest.mark.parametrize("field", [{"rank": 3}, {"nested": {"rank": 3}}])
def test_a_user_s_field_called_rank_is_not_the_rank(session: Session, field: dict[str, object]) -> None:
    session.track("loss").append(**field)
    assert session.track("loss").read(rank=3)["data"] == []
    assert session.track("loss").stats(rank=3)["totalDataPoints"] == "0"
