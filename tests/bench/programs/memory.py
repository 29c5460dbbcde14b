"""Resident memory of a client, step by step, and SESSIONS open sessions, held until a line comes on standard input.

memory.py FOLDER SESSIONS CALLS
"""

from __future__ import annotations

import sys
from time import perf_counter


def resident() -> int:
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmRSS:"):
                return int(line.split()[1]) << 10
    return 0


found: dict[str, float] = {"bare": resident()}
from dreamlake import Session  # noqa: E402 - weighed

found["imported"] = resident()
folder, sessions, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
opened = [Session("memory-0", "bench", local_path=folder).open()]
found["one"] = resident()
track = opened[0].track("loss")
for step in range(calls):
    track.append(value=step / 7, step=step)
opened[0].flush()
found["called"] = resident()
began = perf_counter()
for number in range(1, sessions):
    opened.append(Session(f"memory-{number}", "bench", local_path=folder).open())
    opened[-1].track("loss").append(value=0.5)
for session in opened:
    session.flush()
found["seconds"] = perf_counter() - began
found["all"] = resident()

import json  # noqa: E402 - after what is weighed

print(json.dumps(found), flush=True)
sys.stdin.readline()
began = perf_counter()
for session in opened:
    session.close()
print(json.dumps({"closing": perf_counter() - began}))
