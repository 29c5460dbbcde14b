"""The launchers by the variables that they set in each process: what stands here is what these tests know of them.

torchrun itself runs in `test_torchrun.py`. accelerate is not among what the tests install; its launcher sets
torchrun's variables. Slurm and MPI need a cluster or root to be installed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import reading, scripts
from tests.conftest import StartScript
from tests.ranks.launching import ended

pytestmark = [pytest.mark.usefixtures("home"), pytest.mark.home("shared")]

PROGRAM = """
import sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.parameters().set(lr=0.1)
    session.track("loss").append(value=session.rank)
    print(session.rank, session.world_size, session.is_main, flush=True)
    sys.stdin.readline()
"""

# {rank} is 0 and 1, of 2.
LAUNCHERS = {
    "torchrun": {
        "RANK": "{rank}",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "{rank}",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RESTART_COUNT": "0",
    },
    "accelerate": {
        "RANK": "{rank}",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "{rank}",
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_MIXED_PRECISION": "no",
    },
    "srun": {
        "SLURM_PROCID": "{rank}",
        "SLURM_LOCALID": "{rank}",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
    },
    "mpirun of Open MPI": {
        "OMPI_COMM_WORLD_RANK": "{rank}",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "{rank}",
        "PMIX_RANK": "{rank}",
    },
    "mpiexec of MPICH (hydra)": {"PMI_RANK": "{rank}", "PMI_SIZE": "2", "MPI_LOCALRANKID": "{rank}"},
    "mpirun of MVAPICH2": {
        "MV2_COMM_WORLD_RANK": "{rank}",
        "MV2_COMM_WORLD_SIZE": "2",
        "MV2_COMM_WORLD_LOCAL_RANK": "{rank}",
    },
    "torchrun in a step of srun": {
        "RANK": "{rank}",
        "WORLD_SIZE": "2",
        "SLURM_PROCID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_STEP_NUM_TASKS": "1",
    },
}
ALONE = {
    "nobody": {},
    "a batch script of Slurm": {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
    "srun of one task": {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
    "torchrun of one process": {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
}


@pytest.fixture(autouse=True)
def nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves may have been started by a launcher."""
    known = {name for names in (*LAUNCHERS.values(), *ALONE.values()) for name in names}
    for name in known & set(os.environ):
        monkeypatch.delenv(name)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_launcher_s_ranks_write_into_one_session(launcher: str, root: Path, start_script: StartScript) -> None:
    ranks: list[subprocess.Popen[str]] = []
    for rank in (0, 1):
        variables = {name: value.format(rank=rank) for name, value in LAUNCHERS[launcher].items()}
        ranks.append(start_script(PROGRAM, root, env=variables))
    for rank, process in enumerate(ranks):
        assert process.stdout
        assert process.stdout.readline() == f"{rank} 2 {rank == 0}\n"
    for process in ranks:
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    folder = root / "project" / "run"
    assert ended(folder)["state"] == "finished"
    assert sorted((row["rank"], row["data"]["value"]) for row in reading.points(folder)) == [(0, 0), (1, 1)]
    assert len(reading.lines(folder / ".dreamlake" / "parameters.jsonl")) == 1


@pytest.mark.parametrize("launcher", ALONE)
def test_where_one_process_trains_alone_there_are_no_ranks(launcher: str, root: Path) -> None:
    done = subprocess.run(
        scripts.command(PROGRAM, root),
        env=scripts.environment(ALONE[launcher]),
        input="\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0 1 True\n"), done.stderr
    (point,) = reading.points(root / "project" / "run")
    assert "rank" not in point
