"""Ranks under the real torchrun, training the real model of `docs/examples/ddp.py` with DistributedDataParallel (gloo,
on the processor) and real DataLoader workers. Each training is one test: what costs is four times `import torch`."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from dreamlake import Session
from tests import reading
from tests.ranks.launching import (
    EXAMPLE,
    LAUNCH_SECONDS,
    PROGRAMS,
    assert_all_there_once,
    ended,
    notes,
    torchrun,
)

TRACKS = ("loss", "loaded")
EPOCHS, SAMPLES, BATCH = 4, 512, 16  # as the example has them

pytestmark = pytest.mark.timeout(2 * LAUNCH_SECONDS)


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def openings(folder: Path, *, forked: bool) -> list[dict[str, object]]:
    rows = reading.lines(folder / ".dreamlake" / "session.jsonl")
    return [row for row in rows if row["op"] == "open" and bool(row.get("forked")) == forked]


def assert_each_rank_reads_what_it_wrote(folder: Path, losses: dict[int, list[float]], copy: Path) -> None:
    """Through a session of its own, on a copy: this one's state is looked at elsewhere."""
    shutil.copytree(folder, copy / "examples" / "ddp")
    with Session("ddp", "examples", local_path=copy) as session:
        track = session.track("loss")
        for rank, values in losses.items():
            page = track.read(rank=rank)
            assert [row["data"]["value"] for row in page["data"]] == values
            assert {row["rank"] for row in page["data"]} == {rank}
            assert not page["hasMore"]
            stats = track.stats(rank=rank)
            assert int(stats["totalDataPoints"]) == len(values)
            assert int(session.track("loaded").stats(rank=rank)["totalDataPoints"]) == EPOCHS * SAMPLES // len(losses)
        assert int(track.stats()["totalDataPoints"]) == sum(map(len, losses.values()))
        assert track.read(rank=len(losses))["data"] == []


@pytest.mark.usefixtures("home")
def test_four_ranks_and_their_loaders_train_one_model_into_one_session(tmp_path: Path, noted: Path) -> None:
    done = torchrun(4, PROGRAMS / "noted.py", noted, EXAMPLE, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "examples" / "ddp"
    session, said = ended(folder), notes(noted)

    assert session["state"] == "finished"
    assert not {"error", "killed_ranks"} & set(session)
    assert [path.name for path in folder.parent.iterdir()] == ["ddp"]
    assert sorted(row["rank"] for row in openings(folder, forked=False)) == [0, 1, 2, 3]
    workers = Counter(row["rank"] for row in openings(folder, forked=True))
    assert workers == dict.fromkeys(range(4), 2 * EPOCHS)  # two loader workers an epoch, which are no ranks

    assert_all_there_once(folder, said, TRACKS)
    assert len(reading.points(folder, "loaded")) == EPOCHS * SAMPLES
    sets = reading.lines(folder / ".dreamlake" / "parameters.jsonl")
    assert [row["set"] for row in sets] == [{"epochs": 4, "batch": BATCH, "learning_rate": 0.03}]
    logs = reading.lines(folder / "logs" / "logs.jsonl")
    reading.assert_consecutive(logs, "sequenceNumber")
    assert Counter(line["rank"] for line in logs) == dict.fromkeys(range(4), EPOCHS)

    losses = {
        rank: [
            each["data"]["value"]
            for process in said.values()
            for each in process
            if (each.get("track"), each["rank"]) == ("loss", rank)
        ]
        for rank in range(4)
    }
    steps = SAMPLES // 4 // BATCH
    for values in losses.values():
        assert len(values) == EPOCHS * steps
        assert sum(values[-steps:]) < 0.6 * sum(values[:steps]), "it did not train"
    for epoch in range(EPOCHS):
        weights = {line["metadata"]["weights"] for line in logs if line["metadata"]["epoch"] == epoch}
        assert len(weights) == 1, "the ranks did not train the same model"

    (checkpoint,) = reading.view(folder / "files" / ".files_metadata.json")["files"]
    assert checkpoint["rank"] == 0
    assert (folder / "files" / "checkpoints" / "checkpoint.pt").read_bytes() == (
        tmp_path / "checkpoint.pt"
    ).read_bytes()
    assert_each_rank_reads_what_it_wrote(folder, losses, tmp_path / "copy")


@pytest.mark.usefixtures("home")
def test_a_rank_killed_in_the_middle_is_named_and_nothing_that_returned_is_lost(tmp_path: Path, noted: Path) -> None:
    """Whether the others fail over the lost connection or are asked to end before that is PyTorch's race."""
    done = torchrun(2, PROGRAMS / "noted.py", noted, EXAMPLE, tmp_path, env={"KILL": "1 loss 12"})
    assert done.returncode == 1, done.stderr
    assert f"exitcode  : {-signal.SIGKILL}" in done.stderr
    folder = tmp_path / "examples" / "ddp"
    session = ended(folder)
    assert session["state"] in ("killed", "failed")
    assert session["killed_ranks"] == [1]
    if session["state"] == "failed":
        assert session["error"]["rank"] == 0
    said = notes(noted)
    assert_all_there_once(folder, said, TRACKS)
    assert [row["data"]["step"] for row in reading.points(folder) if row["rank"] == 1] == list(range(12))


@pytest.mark.usefixtures("home")
def test_an_elastic_restart_goes_on_from_the_checkpoint_in_the_same_session(tmp_path: Path, noted: Path) -> None:
    steps = SAMPLES // 2 // BATCH
    kill = f"1 loss {2 * steps + 3}"  # in the third epoch: two are kept in the checkpoint
    # Else PyTorch 2.13 keeps one store for all attempts, where a rank may find the address of one that is dead.
    env = {"KILL": kill, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = torchrun(2, PROGRAMS / "noted.py", noted, EXAMPLE, tmp_path, restarts=1, env=env)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "examples" / "ddp"
    session, said = ended(folder), notes(noted)

    assert session["state"] == "finished"
    assert not {"error", "killed_ranks"} & set(session)
    attempts = Counter((each["rank"], each["attempt"]) for process in said.values() for each in process)
    assert sorted(attempts) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row["rank"] for row in openings(folder, forked=False)].count(1) == 2
    assert len({row["client"] for row in openings(folder, forked=False)}) == 4
    assert_all_there_once(folder, said, TRACKS)

    assert Counter(reading.messages(folder)) == {"epoch done": 2 * EPOCHS, "resumed": 2}
    of_rank = [row["data"]["epoch"] for row in reading.points(folder) if row["rank"] == 1]
    assert of_rank == [0] * steps + [1] * steps + [2] * (3 + steps) + [3] * steps
    ends = [row for row in reading.lines(folder / ".dreamlake" / "session.jsonl") if row["op"] == "end"]
    assert "killed" in [row["state"] for row in ends]
    assert len(reading.lines(folder / ".dreamlake" / "parameters.jsonl")) == 1
