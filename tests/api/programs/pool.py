"""One open session used from a pool of threads and by pools of processes, as data loaders do.

usage: pool.py METHOD ROOT
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from dreamlake import Session


def log_from_a_worker(root: str, number: int) -> None:
    with Session("run", "project", local_path=root) as session:
        session.log(f"process {number}")
        session.parameters().set({f"process{number}": number})


def main() -> None:
    method, root = sys.argv[1:]
    with Session("run", "project", local_path=root) as session:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: session.log(f"thread {number}"), range(40)))
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(4, mp_context=context) as processes:
            list(processes.map(log_from_a_worker, [root] * 40, range(40)))
        session.log("end")


if __name__ == "__main__":
    main()
