"""Write POINTS points, read them all back in pages, and the last thousand.

reading.py FOLDER POINTS PAGE
"""

from __future__ import annotations

import json
import sys
from time import perf_counter

from dreamlake import Session


def main(folder: str, points: int, page: int) -> None:
    session = Session("reading", "bench", local_path=folder).open()
    track = session.track("loss")
    began = perf_counter()
    for start in range(0, points, 10_000):
        steps = range(start, min(points, start + 10_000))
        track.append_batch([{"value": step / 7, "step": step} for step in steps])
    written = perf_counter()
    session.flush()
    committed = perf_counter()
    at = 0
    while (found := track.read(start_index=at, limit=page))["data"]:
        at += len(found["data"])
    read = perf_counter()
    tails = []
    for _ in range(5):
        before = perf_counter()
        assert len(track.read(start_index=points - 1000, limit=1000)["data"]) == min(points, 1000)
        tails.append(perf_counter() - before)
    assert at == points, (at, points)
    session.close()
    found = {"batches": written - began, "committed": committed - began, "read": read - committed, "tail": tails}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
