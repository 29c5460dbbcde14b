"""What a point costs as there are more processes, tracks, sessions and points: it should stay the same."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass

from tests.bench.place import Place, cpu_seconds, go, memory
from tests.bench.report import Report

MIB = 1 << 20
CALLS_A_SESSION = 2_000
QUIET_SECONDS = 120


# what there is more of: how it is spread, how many, how many when it has to be quick
MORE: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "processes": ("into one session", (1, 2, 4, 8), (1, 4)),
    "tracks": ("of one session, one process", (1, 10, 100, 1000, 10_000), (1, 10, 100, 1000)),
    "sessions": ("of 8 processes", (8, 64, 256, 1000), (8, 64)),
    "points": (
        "in the series already, one process",
        (10**3, 10**4, 10**5, 10**6, 10**7),
        (10**3, 10**5),
    ),
}


@dataclass
class Cost:
    """Microseconds of processor time for a point, points a second until committed, MiB of the agent."""

    count: int
    agent: float
    client: float
    rate: float
    memory: float


def measure(place: Place, report: Report, quick: bool) -> None:
    for title, (what, many, few) in MORE.items():
        # What a session costs besides its points is in all of these: each has as many.
        calls = 100_000 if quick else 400_000
        each = f"{CALLS_A_SESSION:,} calls in each" if title == "sessions" else f"{calls:,} calls"
        report.section(f"more {title}", f"{what}, {each}")
        costs = []
        for count in few if quick else many:
            cost = cost_of(place, title, count, CALLS_A_SESSION * count if title == "sessions" else calls)
            costs.append(cost)
            note = (
                f"{cost.rate:,.0f} points/s until committed; client {cost.client:.2f} µs; agent {cost.memory:.0f} MiB"
            )
            report.add(f"{count:,} {title}: agent's processor time a point", cost.agent, "µs", note=note)
        slope = slope_of(costs)
        report.add(f"ten times as many {title}: agent's µs a point", slope, "x", note="1 is no growth")


def cost_of(place: Place, title: str, count: int, calls: int) -> Cost:
    processes, sessions, tracks, before = 1, 1, 1, 0
    if title == "processes":
        processes = count
    elif title == "tracks":
        tracks = count
    elif title == "sessions":
        processes, sessions = 8, count // 8
    else:
        before = count
    place.start_agent()
    name = f"{title}{count}"
    each = [
        (
            place.folder,
            name if title != "sessions" else f"{name}-{number}",
            sessions,
            tracks,
            calls // processes,
            before,
        )
        for number in range(processes)
    ]
    agent = place.agent_pid()
    started = place.ready("growth.py", each)
    _until_quiet(place)
    before_it = cpu_seconds(agent)
    go(started)
    found = []
    for process in started:
        assert process.stdout is not None
        found.append(json.loads(process.stdout.readline()))
    used = cpu_seconds(agent) - before_it
    resident = memory(agent)
    for process in started:
        process.communicate("end\n", timeout=600)
        if process.returncode != 0:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
    wall = max(one["committed"] for one in found) - min(one["began"] for one in found)
    place.stop_agent()
    client = sum(one["cpu"] for one in found)
    return Cost(count, used / calls * 1e6, client / calls * 1e6, calls / wall, resident / MIB)


def _until_quiet(place: Place) -> None:
    """What was made before the calls that are measured is on the disk."""
    deadline = time.monotonic() + QUIET_SECONDS
    while any(each["uncovered_commits"] for each in place.status()["sessions"]) and time.monotonic() < deadline:
        time.sleep(0.5)


def slope_of(costs: list[Cost]) -> float:
    """By what the cost is multiplied when the count is, by ten: of the line through the logarithms."""
    points = [(math.log10(cost.count), math.log10(cost.agent)) for cost in costs]
    middle_x = sum(x for x, _y in points) / len(points)
    middle_y = sum(y for _x, y in points) / len(points)
    rise = sum((x - middle_x) * (y - middle_y) for x, y in points)
    return float(10 ** (rise / sum((x - middle_x) ** 2 for x, _y in points)))
