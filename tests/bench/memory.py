"""What the agent and a client hold in memory. The agent's peak under a flood is measured with the flood."""

from __future__ import annotations

import json

from tests.bench.flood import MIB
from tests.bench.place import Place, memory, memory_peak
from tests.bench.report import Report


def measure(place: Place, report: Report, quick: bool) -> None:
    sessions, calls = (50, 20_000) if quick else (200, 200_000)
    place.start_agent()
    pid = place.agent_pid()
    idle = memory(pid)
    client = place.start("memory.py", place.folder, sessions, calls)
    assert client.stdout is not None
    assert client.stdin is not None
    found = json.loads(client.stdout.readline())
    with_sessions, peak = memory(pid), memory_peak(pid)
    client.communicate("done\n", timeout=120)
    place.stop_agent()
    report.section("memory", "resident")
    report.add("agent, just started", idle / MIB, "MiB", 60, later="≤ 45 MiB")
    report.add(f"agent, {sessions} sessions open", with_sessions / MIB, "MiB", 250, note=f"peak {peak / MIB:.1f} MiB")
    report.add("client: import Session", (found["imported"] - found["bare"]) / MIB, "MiB")
    report.add("client: and one session open", (found["one"] - found["bare"]) / MIB, "MiB", later="≤ 12 MiB")
    report.add(f"client: and {calls:,} calls made", (found["called"] - found["bare"]) / MIB, "MiB", later="≤ 12 MiB")
    report.add(f"client: and {sessions} sessions open", (found["all"] - found["bare"]) / MIB, "MiB")
    report.add("opening each of these", found["seconds"] / (sessions - 1) * 1e3, "ms")
