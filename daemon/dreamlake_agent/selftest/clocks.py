"""The clocks: of the two nodes, and of whoever keeps the file system."""

from __future__ import annotations

import os
import time

from dreamlake_agent.selftest.finding import HOLDS, Finding, Raw
from dreamlake_agent.selftest.meeting import Side

NAME = "clocks"
_TRIES = 5
_SWAPS_MAX = 20
_NEAR_SECONDS = 0.02  # as near as clocks have to be known, for what is to happen at one instant


def measure(side: Side) -> Raw:
    for number in range(_SWAPS_MAX):
        near = side.post.clock()[1] < _NEAR_SECONDS
        if side.swap(f"clock {number}", {"near": near})["near"] and near:
            break
    ahead, unsure = side.post.clock()
    return {"wall": time.time() - time.monotonic(), "ahead": ahead, "unsure": unsure, "server": _server(side)}


def _server(side: Side) -> float:
    """How far the file system's times are ahead of this node's clock, at least; seconds."""
    found = []
    for number in range(_TRIES):
        path = side.mine(f"clock{number}")
        before = time.time()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"x")
            os.fsync(fd)
        finally:
            os.close(fd)
        found.append(os.stat(path).st_mtime - (before + time.time()) / 2)
    return min(found, key=abs)


def judge(first: Raw, second: Raw) -> list[Finding]:
    # wall = monotonic + wall0; the second's monotonic is ours + ahead
    between = second["wall"] + first["ahead"] - first["wall"]
    servers = [first["server"], second["server"]]
    text = (
        f"the second node's is {_apart(between)} (± {first['unsure']:.2f} s); the file system's is "
        f"{_apart(servers[0])} of the first node's, {_apart(servers[1])} of the second's"
    )
    follows = "times in rows are those of the node that wrote them; Dreamlake compares no two clocks"
    return [Finding("clocks", HOLDS, text, follows, figures={"second": between, "file system": servers})]


def _apart(seconds: float) -> str:
    return f"{abs(seconds):.2f} s {'ahead' if seconds >= 0 else 'behind'}"
