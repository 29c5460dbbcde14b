"""Rank: which of several processes of one training this is, as launchers say it."""

from __future__ import annotations

import os

# torchrun and accelerate · srun · Open MPI · MPICH and Intel MPI · MVAPICH
_RANK = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def rank_and_size() -> tuple[int | None, int | None]:
    """(rank, world size) of this process; (None, None) when nobody says.

    ``srun`` and a batch script set their variables for a single task too: a world of one has no ranks.
    """
    for rank_name, size_name in zip(_RANK, _SIZE, strict=True):
        rank, size = _number(rank_name), _number(size_name)
        if rank is not None and size is not None and size > 1:
            return rank, size
    return None, None


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None
