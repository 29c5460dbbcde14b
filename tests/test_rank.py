"""Which rank a process is, in the environments that launchers really made (docs/cluster.md says which were tried)."""

from __future__ import annotations

import os

import pytest

from dreamlake.rank import rank_and_size

ALONE = (None, None)

# What Slurm 22.05 says in the batch script of a job of four tasks, and what it adds in a step of srun.
BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"}
STEP = {**BATCH, "SLURM_PROCID": "2", "SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "4"}
STEP_OF_ONE = {**BATCH, "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_UNIVERSE_SIZE": "4", "PMIX_RANK": "1"}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ALONE),
        (TORCHRUN, (3, 8)),
        (OPEN_MPI, (1, 2)),
        (MPICH, (1, 2)),
        ({"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"}, (0, 2)),
        (STEP, (2, 4)),
        (STEP_OF_ONE, ALONE),
        (BATCH, ALONE),  # not the first of four
        ({**BATCH, **OPEN_MPI}, (1, 2)),  # mpirun in a batch script: all of them have its SLURM_PROCID=0
        ({**STEP, "SLURM_STEP_NUM_TASKS": "2", **OPEN_MPI}, (1, 2)),  # on further nodes a step of srun starts them
        ({**STEP, **TORCHRUN}, (3, 8)),  # torchrun, once a node
        ({**STEP, **TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}, ALONE),  # four trainings of one process each
        ({**STEP, "PMI_RANK": "2", "PMI_SIZE": "4"}, (2, 4)),  # srun --mpi=pmi2
        ({"RANK": "1"}, ALONE),  # of how many is not said
        ({"RANK": "x", "WORLD_SIZE": "8"}, ALONE),
        ({"RANK": "-1", "WORLD_SIZE": "8"}, ALONE),
        ({"RANK": "8", "WORLD_SIZE": "8"}, ALONE),
        ({"RANK": "9" * 5000, "WORLD_SIZE": "9" * 5001}, ALONE),
    ],
)
def test_the_innermost_launcher_is_believed(
    environment: dict[str, str], found: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if "RANK" in name or name.startswith(("SLURM_", "OMPI_", "PMI", "WORLD"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank_and_size() == found
