"""Write POINTS points, read a million back in pages, all as arrays, and the last thousand.

reading.py FOLDER POINTS PAGE
"""

from __future__ import annotations

import json
import sys
from time import perf_counter

from dreamlake import Session

MILLION = 1_000_000


def resident() -> int:
    return _status(b"VmRSS:")


def peak() -> int:
    return _status(b"VmHWM:")


def _status(what: bytes) -> int:
    """Bytes; 0 where the system does not say."""
    try:
        with open("/proc/self/status", "rb") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(what))
    except (OSError, StopIteration):
        return 0


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
    while at < MILLION and (found := track.read(start_index=at, limit=page))["data"]:
        at += len(found["data"])
    assert at == min(points, MILLION), at
    read = perf_counter()
    assert len(track.to_numpy("value", limit=MILLION)["value"]) == min(points, MILLION)
    million = perf_counter()
    before_all = resident()
    values = track.to_numpy("value")["value"]
    every, grown = perf_counter(), peak() - before_all
    assert len(values) == points
    tails = []
    for _ in range(5):
        before = perf_counter()
        assert len(track.read(start_index=points - 1000, limit=1000)["data"]) == min(points, 1000)
        tails.append(perf_counter() - before)
    session.close()
    found = {"batches": written - began, "committed": committed - began, "read": read - committed, "tail": tails}
    arrays = {"million": million - read, "every": every - million, "grown": grown, "arrays": 2 * values.nbytes}
    print(json.dumps({**found, **arrays}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
