"""One process: what `append()` costs at 1,000 calls a second, and then flat out. Prints JSON, times in nanoseconds.

Says `ready` when its session is open (and, where a server works, there), and begins at a line on standard input.

appends.py FOLDER SECONDS HOW [URL]   HOW is `alone` (no remote), `stalled` or `working`
"""

from __future__ import annotations

import json
import sys
from array import array
from time import monotonic
from time import perf_counter_ns as clock

from dreamlake import AgentUnavailable, Session
from dreamlake.tracks import Track

PERIOD = 1_000_000  # nanoseconds
SYNC_SECONDS = 300


def paced(track: Track, seconds: float) -> array[int]:
    """Python runs between the calls."""
    times = array("q")
    tick = clock()
    for step in range(int(seconds * 1000)):
        tick = max(tick + PERIOD, clock())
        while clock() < tick:
            pass
        began = clock()
        track.append(value=step / 7, step=step)
        times.append(clock() - began)
    return times


def flat_out(track: Track, seconds: float) -> array[int]:
    times = array("q")
    step, began = 0, clock()
    end = began + int(seconds * 1e9)
    while began < end:
        track.append(value=step / 7, step=step)
        now = clock()
        times.append(now - began)
        began, step = now, step + 1
    return times


def main(folder: str, seconds: float, how: str, url: str | None = None) -> None:
    session = Session(how, "bench", local_path=folder, remote=url, user_name="alice").open()
    track = session.track("loss")
    for step in range(1000):
        track.append(value=step / 7, step=step)
    session.flush()
    if how == "working":
        session.sync(SYNC_SECONDS)
    print("ready", flush=True)
    sys.stdin.readline()
    found = {"paced": list(paced(track, seconds)), "full": list(flat_out(track, seconds))}
    began = monotonic()
    for _ in range(10):
        try:
            session.flush()
            break
        except AgentUnavailable:
            continue
    committed = monotonic() - began
    if how == "working":
        session.sync(SYNC_SECONDS)
    sent = monotonic() - began
    session.close()
    print(json.dumps({**found, "committed": committed, "sent": sent}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:])
