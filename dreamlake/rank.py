"""Rank: which of several processes of one training this is, as launchers say it."""

from __future__ import annotations

import os

# The innermost launcher first: torchrun and mpirun run in a step of srun, and mpirun in a batch script of Slurm's.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),  # torchrun, accelerate, deepspeed
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),  # MVAPICH2
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI
    # srun. Not SLURM_NTASKS: a batch script has that too, with SLURM_PROCID=0, and is not the first task of four.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def rank_and_size() -> tuple[int | None, int | None]:
    """(rank, world size) of this process; (None, None) when nobody says.

    The first launcher that says both is believed: one that starts a single process says that this training is alone,
    whatever stands around it. A world of one has no ranks.
    """
    for rank_name, size_name in _LAUNCHERS:
        rank, size = _number(rank_name), _number(size_name)
        if rank is not None and size is not None:
            return (rank, size) if rank < size and size > 1 else (None, None)
    return None, None


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
