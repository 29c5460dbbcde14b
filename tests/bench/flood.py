"""Four processes flat out into one session; and what a bare write meets on this machine when as many run."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from tests.bench.place import Place, cpu_seconds, memory_peak, result_of, wait_until
from tests.bench.report import Report

PROCESSES = 4
MIB = 1 << 20


def _slow(runs: list[dict[str, Any]], milliseconds: float) -> int:
    return sum(1 for run in runs for took, _waited in run["slow"] if took >= milliseconds * 1e6)


def _longest(runs: list[dict[str, Any]], *, ready: bool = False) -> float:
    """Milliseconds of the longest call; ``ready``: less what it stood ready to run, and the kernel ran others."""
    return max((took - ready * waited for run in runs for took, waited in run["slow"]), default=0) / 1e6


def _calls_per_second(runs: list[dict[str, Any]]) -> float:
    return sum(run["calls"] / (run["stopped"] - run["began"]) for run in runs)


def bare(place: Place, seconds: float) -> list[dict[str, Any]]:
    """Four processes with a bare write each, and a fifth that is as busy as an agent would be."""
    jobs: list[tuple[object, ...]] = [(place.folder, "bare", seconds, "write")] * PROCESSES
    started = place.together("flood.py", [*jobs, (place.folder, "bare", seconds, "spin")])
    return [result_of(each) for each in started][:PROCESSES]


def appends(place: Place, name: str, seconds: float, how: str = "append") -> list[subprocess.Popen[str]]:
    return place.together("flood.py", [(place.folder, name, seconds, how)] * PROCESSES)


def _rows(place: Place, name: str) -> int:
    path = place.folder / "bench" / name / "tracks" / "loss" / "data.jsonl"
    count = 0
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            count += chunk.count(b"\n")
    return count


def measure(place: Place, report: Report, quick: bool) -> None:
    seconds = 3.0 if quick else 8.0
    base = bare(place, seconds)
    place.start_agent()
    agent_before = cpu_seconds(place.agent_pid())
    runs = [result_of(each) for each in appends(place, "flood", seconds)]
    agent = cpu_seconds(place.agent_pid()) - agent_before
    began, stopped = min(run["began"] for run in runs), max(run["stopped"] for run in runs)
    committed = max(run["committed"] for run in runs)
    calls = sum(run["calls"] for run in runs)
    report.section(
        "flood", f"{PROCESSES} processes into one session, {seconds:.0f} s; bare: {PROCESSES} and a busy one"
    )
    report.add("longest call", _longest(runs), "ms", 50.0, note=f"bare os.write {_longest(base):.1f} ms")
    note = f"bare os.write {_longest(base, ready=True):.1f} ms"
    report.add("longest call, less waiting for a processor", _longest(runs, ready=True), "ms", 50.0, note=note)
    for limit in (50.0, 10.0):
        note = f"of {calls:,}; bare {_slow(base, limit)} of {sum(run['calls'] for run in base):,}"
        report.add(f"calls over {limit:.0f} ms", _slow(runs, limit), "", 0 if limit == 50.0 else None, note=note)
    report.add("calls per second, all together", _calls_per_second(runs), "/s", note="while they ran")
    rate = calls / (committed - began)
    report.add("points per second until all is committed", rate, "/s", later="≥ 600,000/s")
    report.add("after the last call, until all is committed", committed - stopped, "s")
    report.add("points there, of 100 calls returned", 100 * _rows(place, "flood") / calls, "", 100, at_least=True)
    report.add("agent, processor time for a point", agent / calls * 1e6, "µs", later="0.65 µs in a trial")
    clients = sum(run["cpu"] for run in runs)
    report.add("clients, processor time for a point", clients / calls * 1e6, "µs", note="the bench's own loop included")
    report.add("agent, peak memory", memory_peak(place.agent_pid()) / MIB, "MiB", 250)
    place.stop_agent()
    _batches(place, report, seconds)


def _batches(place: Place, report: Report, seconds: float) -> None:
    place.start_agent()
    before = cpu_seconds(place.agent_pid())
    runs = [result_of(each) for each in appends(place, "batches", seconds, "batch")]
    used = cpu_seconds(place.agent_pid()) - before
    points = sum(run["calls"] for run in runs)
    took = max(run["committed"] for run in runs) - min(run["began"] for run in runs)
    report.section("flood in batches", f"{PROCESSES} processes into one session, append_batch of 1,000")
    report.add("points per second until all is committed", points / took, "/s", 600_000, at_least=True)
    report.add("points there, of 100 given", 100 * _rows(place, "batches") / points, "", 100, at_least=True)
    report.add("agent, processor time for a point", used / points * 1e6, "µs", later="0.65 µs in a trial")
    place.stop_agent()


def recovery(place: Place, report: Report, quick: bool) -> None:
    """Under load the agent is killed; the load goes on for a second, the clients find or start the next one."""
    seconds = 2.0 if quick else 4.0
    place.start_agent()
    started = appends(place, "killed", seconds)
    killer = place.agent_pid()
    time.sleep(seconds - 1.0)  # they were let go just now
    place.kill_agent()
    killed = time.monotonic()
    took = wait_until(lambda: place.agent_pid() not in (0, killer), 60)
    runs = [result_of(each) for each in started]
    calls = sum(run["calls"] for run in runs)
    committed, stopped = max(run["committed"] for run in runs), max(run["stopped"] for run in runs)
    report.section("recovery", f"kill -9 of the agent while {PROCESSES} processes write, which go on for a second")
    report.add("until the next agent has begun", took, "s")
    report.add("from the kill until all is committed", committed - killed, "s", note=f"{calls:,} points")
    report.add("from the last call until all is committed", committed - stopped, "s")
    report.add("points there, of 100 calls returned", 100 * _rows(place, "killed") / calls, "", 100, at_least=True)
    place.stop_agent()
