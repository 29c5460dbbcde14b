"""The first `open()` of a process, and later ones. Imports nothing that Dreamlake might have to.

opening.py FOLDER NAME LATER
"""

from __future__ import annotations

import sys
from time import perf_counter

began = perf_counter()
from dreamlake import Session  # noqa: E402 - timed

imported = perf_counter()


def timed(name: str) -> tuple[float, float]:
    session = Session(name, "bench", local_path=sys.argv[1])
    before = perf_counter()
    session.open()
    opened = perf_counter()
    session.track("loss").append(value=0.5)
    closing = perf_counter()
    session.close()
    return opened - before, perf_counter() - closing


first = timed(sys.argv[2])
later = [timed(f"{sys.argv[2]}-{number}") for number in range(int(sys.argv[3]))]

import json  # noqa: E402 - after what is timed

print(json.dumps({"import": imported - began, "first": first, "later": later}))
