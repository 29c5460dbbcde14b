"""One process, 1,000 calls a second: what a call costs when there is time between the calls.

paced.py FOLDER BETWEEN SECONDS   BETWEEN is `spin` (Python runs until the tick) or `sleep`
"""

from __future__ import annotations

import json
import os
import sys
import time
from time import perf_counter_ns as clock

from dreamlake import Session

PERIOD = 1_000_000  # nanoseconds


def main(folder: str, between: str, seconds: float) -> None:
    session = Session(f"paced-{between}", "bench", local_path=folder).open()
    track = session.track("loss")
    bare_fd = os.open(os.path.join(folder, f"bare-{between}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    appends: list[int] = []
    writes: list[int] = []
    tick = clock() + PERIOD
    for step in range(-200, int(seconds * 1000)):
        while (left := tick - clock()) > 0:
            if between == "sleep" and left > 150_000:
                time.sleep((left - 100_000) / 1e9)
        began = clock()
        track.append(value=step / 7, step=step)
        took = clock() - began
        # The bare write has its turn half-way, so that it finds the caches as cold.
        half = tick + PERIOD // 2
        while (left := half - clock()) > 0:
            if between == "sleep" and left > 150_000:
                time.sleep((left - 100_000) / 1e9)
        began = clock()
        os.write(bare_fd, b"x" * 75)
        bare = clock() - began
        if step >= 0:
            appends.append(took)
            writes.append(bare)
        tick = max(tick + PERIOD, clock())
    os.close(bare_fd)
    session.close()
    print(json.dumps({"append": appends, "write": writes}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
