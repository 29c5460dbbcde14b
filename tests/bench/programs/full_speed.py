"""One process, full speed: `append()` beside a bare `os.write` of as many bytes, in turns.

full_speed.py FOLDER HOW CALLS   HOW is `kept` (one handle for all calls) or `fresh` (`session.track("loss")` each time)
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from time import perf_counter_ns as clock

from dreamlake import Session

BLOCK = 500  # calls of one kind before the other has its turn


def main(folder: str, how: str, calls: int) -> None:
    session = Session("speed", "bench", local_path=folder).open()
    kept = session.track("loss")
    kept.append(value=0.25, step=0)
    writer = session._writer
    assert writer is not None
    journal = writer.journal
    before = journal.end
    kept.append(value=100_001 / 7, step=100_001)  # as long as most of those that follow
    data = os.urandom(journal.end - before)
    bare_fd = os.open(os.path.join(folder, "bare"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write = os.write
    appends, writes, nothing = array("q"), array("q"), array("q")
    for block in range(-4, calls // BLOCK):
        if block == 0:  # what came before was to warm up
            appends, writes, nothing = array("q"), array("q"), array("q")
        steps = range(100_000 + block * BLOCK, 100_000 + (block + 1) * BLOCK)
        if how == "kept":
            for step in steps:
                value = step / 7
                began = clock()
                kept.append(value=value, step=step)
                appends.append(clock() - began)
        else:
            for step in steps:
                value = step / 7
                began = clock()
                session.track("loss").append(value=value, step=step)
                appends.append(clock() - began)
        for _ in steps:
            began = clock()
            write(bare_fd, data)
            writes.append(clock() - began)
        for _ in range(50):
            began = clock()
            nothing.append(clock() - began)
    os.close(bare_fd)
    session.close()
    found = {"append": appends, "write": writes, "clock": nothing}
    print(json.dumps({"bytes": len(data), **{name: list(times) for name, times in found.items()}}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
