"""One of several processes that write as fast as they can; says `ready`, begins at a line on standard input.

flood.py FOLDER NAME SECONDS HOW   HOW is `append` (into the session NAME), `batch` (the same, `BATCH` points a call),
`write` (a bare `os.write` loop) or `spin`
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections.abc import Callable
from time import monotonic
from time import perf_counter_ns as clock
from typing import Any

SLOW = 1_000_000  # nanoseconds: calls from here on are told one by one
BATCH = 1_000  # points
EVERY = 200  # calls between two looks at what the kernel says


def waits() -> Callable[[], int]:
    """How long this thread has stood ready and waited for a processor, in nanoseconds; 0 where nobody says."""
    try:
        fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return lambda: 0
    return lambda: int(os.pread(fd, 100, 0).split()[1])


def flat_out(seconds: float, call: Callable[[int], Any]) -> dict[str, Any]:
    """Call until the time is over. ``slow`` holds the slow calls and, of each, what was waiting for a processor."""
    times = array("q")
    slow: list[tuple[int, int]] = []
    waited = waits()
    step = 0
    began = monotonic()
    end = clock() + int(seconds * 1e9)
    seen = waited()
    before = clock()
    while before < end:
        call(step)
        took = clock() - before
        times.append(took)
        step += 1
        if took >= SLOW:
            now = waited()
            slow.append((took, min(took, now - seen)))
            seen = now
        elif step % EVERY == 0:
            seen = waited()
        before = clock()
    stopped = monotonic()
    return {"calls": step, "began": began, "stopped": stopped, "median": sorted(times)[step // 2], "slow": slow}


def wait_for_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main(folder: str, name: str, seconds: float, how: str) -> None:
    if how in ("append", "batch"):
        from dreamlake import AgentUnavailable, Session

        session = Session(name, "bench", local_path=folder).open()
        track = session.track("loss")
        wait_for_go()
        before = sum(os.times()[:2])
        if how == "append":
            found = flat_out(seconds, lambda step: track.append(value=step / 7, step=step))
        else:
            found = flat_out(
                seconds,
                lambda step: track.append_batch(
                    [{"value": at / 7, "step": at} for at in range(step * BATCH, (step + 1) * BATCH)]
                ),
            )
            found["calls"] *= BATCH
        for _ in range(10):
            try:
                session.flush()
                break
            except AgentUnavailable:
                continue
        found["committed"] = monotonic()
        found["cpu"] = sum(os.times()[:2]) - before
        session.close()
    elif how == "write":
        fd = os.open(os.path.join(folder, f"bare-{os.getpid()}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        data = os.urandom(75)
        wait_for_go()
        found = flat_out(seconds, lambda _step: os.write(fd, data))
        os.close(fd)
    else:
        wait_for_go()
        found = flat_out(seconds, lambda _step: None)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
