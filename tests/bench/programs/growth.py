"""One of several processes that log scalars into so many tracks of so many sessions, in turn; says `ready`, begins at a
line on standard input. Prints when it began and when all was committed.

growth.py FOLDER NAME SESSIONS TRACKS CALLS BEFORE   BEFORE: so many points stand in each series already
"""

from __future__ import annotations

import json
import sys
from itertools import cycle, islice
from time import monotonic, process_time

from dreamlake import Session

BATCH = 10_000


def main(folder: str, name: str, sessions: int, tracks: int, calls: int, before: int) -> None:
    opened = [Session(f"{name}-{number}", "bench", local_path=folder).open() for number in range(sessions)]
    series = [session.track(f"track{number}") for number in range(tracks) for session in opened]
    for each in series:
        for start in range(0, before, BATCH):
            each.append_batch([{"value": step / 7, "step": step} for step in range(start, min(before, start + BATCH))])
            if start % (50 * BATCH) == 0:
                each._session.flush()
        each.append(value=0.5, step=before)  # what is made with the first point is made
    for session in opened:
        session.flush()
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu = monotonic(), process_time()
    for step, each in enumerate(islice(cycle(series), calls)):
        each.append(value=step / 7, step=step)
    called = monotonic()
    for session in opened:
        session.flush()
    found = {"began": began, "called": called, "committed": monotonic(), "cpu": process_time() - cpu}
    print(json.dumps(found), flush=True)
    sys.stdin.readline()
    for session in opened:
        session.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
