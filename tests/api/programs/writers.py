"""Many processes with many threads each, all writing into one session.

usage: writers.py METHOD ROOT PROCESSES THREADS POINTS

METHOD   spawn      every process opens the session for itself
         fork       the same, in forked children
         inherited  the parent opens the session; forked children use it, and end without a word
Every point says which process (p) and thread (t) it is from, and its place there (value).
"""

from __future__ import annotations

import multiprocessing
import sys
import threading

from dreamlake import Session


def write(session: Session, process: int, threads: int, points: int) -> None:
    faults: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            track = session.track("loss")
            for value in range(points):
                track.append(value=value, p=process, t=thread)
        except BaseException as fault:
            faults.append(fault)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]


def own(root: str, process: int, threads: int, points: int) -> None:
    with Session("run", "project", local_path=root) as session:
        write(session, process, threads, points)


def main() -> int:
    method, root = sys.argv[1:3]
    processes, threads, points = map(int, sys.argv[3:])
    context = multiprocessing.get_context("spawn" if method == "spawn" else "fork")
    session = Session("run", "project", local_path=root)
    children = []
    if method == "inherited":
        session.open()
        session.track("loss").append(value=0, p=-1, t=0)
    for number in range(processes):
        if method == "inherited":
            child = context.Process(target=write, args=(session, number, threads, points))
        else:
            child = context.Process(target=own, args=(root, number, threads, points))
        child.start()
        children.append(child)
    for child in children:
        child.join()
    if method == "inherited":
        session.track("loss").append(value=1, p=-1, t=0)
        session.close()
    return 0 if all(child.exitcode == 0 for child in children) else 1


if __name__ == "__main__":
    sys.exit(main())
