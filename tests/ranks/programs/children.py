"""Ranks that multiprocessing starts, with RANK set in the child: children.py ROOT METHOD WAY. Rank 1 of 2 ends that
WAY, once both are there; METHOD `torch` is torch.multiprocessing.spawn."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.synchronize import Barrier

from dreamlake import Session


def work(rank: int, root: str, way: str, both: Barrier) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    session = Session("run", "project", local_path=root).open()
    for value in range(50):
        session.track("loss").append(value=value)
    both.wait(60)
    if rank == 1 and way == "raise":
        raise ArithmeticError("the loss is not finite")
    if rank == 1 and way == "exit":
        sys.exit(3)


def main() -> None:
    root, method, way = sys.argv[1:]
    if method == "torch":
        from torch.multiprocessing import spawn

        spawn(work, (root, way, multiprocessing.get_context("spawn").Barrier(2)), nprocs=2)
        return
    context = multiprocessing.get_context(method)
    both = context.Barrier(2)
    ranks = [context.Process(target=work, args=(rank, root, way, both)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    print([rank.exitcode for rank in ranks])


if __name__ == "__main__":
    main()
