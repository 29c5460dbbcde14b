"""`make bench-peers`: Dreamlake beside what a user would pick instead, and the limits of the machine, in one run.

Every tracker runs in an environment of its own, made on demand (tests/bench/environments.py), offline, with its files
on the same disk. Writes what it found into docs/benchmarks/, from which docs/benchmarks.md is made.

Examples:
  make bench-peers
  .venv/bin/python tests/bench/side_by_side.py --only dreamlake,wandb --measures calls,kills --kills 3 --out /tmp/found
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[2]
if str(TOP) not in sys.path:
    sys.path.insert(0, str(TOP))  # run as a script, from anywhere

import psutil  # noqa: E402

from tests.bench import growth, pages  # noqa: E402
from tests.bench.environments import CannotInstall, python_of, version_of  # noqa: E402
from tests.bench.place import PROGRAMS, Place, fresh_place, go  # noqa: E402
from tests.bench.report import describe, machine, median  # noqa: E402
from tests.bench.run import a_real_disk  # noqa: E402
from tests.bench.systems import LIMITS, NAMES  # noqa: E402

FULL_SECONDS, FULL_CALLS = 4.0, 400_000
PACED_SECONDS, PACED_RATE = 5.0, 1000.0
RANKS, RANK_RATE = 8, 100.0
LEFT_SECONDS = 20.0  # a helper that is still there so long after its script is ended
PROCESSES = (1, 4, 8)
OPENINGS = 5
SERIES, SERIES_SECONDS = (1, 1_000, 10_000), 4.0
SERIES_CALLS = 2_000_000  # many: the cost of beginning as many series is taken off, and is not always the same
READ_POINTS = {1_000_000: 60.0, 10_000_000: 240.0}  # and the seconds in which they must be written
KILLED_RATE_SECONDS = 4.0
AT_ONCE = 4  # trainings to be killed, which take no measure of time
# The model's temporaries are 8 MiB. Whether glibc gives these back to the system after each step, at 2 % of it, hangs
# on what else lies at the end of its heap; so it keeps them.
KEPT_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
TRAINING = {"steps": 10, "rounds": 20, "values": 100}
STEADY = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


class Died(RuntimeError):
    """A program did not come to its end."""


class Tracker:
    """One system in one place."""

    def __init__(self, name: str, place: Place) -> None:
        self.name, self.place, self.python = name, place, python_of(name)
        self.environment = {**place.environment, **STEADY, "HOME": str(place.folder), "TMPDIR": str(place.folder)}

    def command(self, what: str, **arguments: Any) -> list[str]:
        return [self.python, str(PROGRAMS / "system.py"), self.name, what, json.dumps(arguments)]

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self.environment,
            cwd=self.place.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, what: str, **arguments: Any) -> dict[str, Any]:
        """What a program found, without what others say on standard output."""
        return _found(self.start(self.command(what, **arguments)))[-1]

    def reaped(self, commands: list[str], folder: str) -> list[str]:
        last = self.command("end", folder=folder)
        return [sys.executable, str(PROGRAMS / "reaped.py"), str(LEFT_SECONDS), *commands, "--", *last]

    def alone(self, what: str, folder: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same, with what all processes together used, until the last of them has ended."""
        command = self.command(what, folder=folder, **arguments)
        *_, found, used = _found(self.start(self.reaped(command, folder)))
        return found, used

    def folder(self, name: str) -> Path:
        made = self.place.folder / name
        made.mkdir(exist_ok=True)
        return made


def _found(process: subprocess.Popen[str], say: str = "") -> list[dict[str, Any]]:
    out, complaints = process.communicate(say, timeout=600)
    if process.returncode != 0:
        raise Died(f"{process.args} ended with {process.returncode}: {complaints[-3000:]}")
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


# ── measures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def calls(tracker: Tracker) -> dict[str, Any]:
    """One scalar after the other; at full speed also processor time, bytes and the reading back of what was written."""
    folder = str(tracker.folder("calls"))
    full, used = tracker.alone("calls", folder=folder, run="full", rate=0, seconds=FULL_SECONDS, most=FULL_CALLS)
    full["bytes_per_point"] = _size(Path(folder)) / full["calls"]
    read = tracker.run("read", folder=folder, run="full")
    full.update(read_count=read["count"], read_seconds=read["seconds"])
    _one, nothing = tracker.alone("calls", folder=folder, run="nothing", rate=0, seconds=60, most=1)
    full["cpu_per_million"] = (used["cpu"] - nothing["cpu"]) / full["calls"] * 1e6
    paced = tracker.run("calls", folder=folder, run="paced", rate=PACED_RATE, seconds=PACED_SECONDS, most=FULL_CALLS)
    return {"full": full, "paced": paced, "ranks": _ranks(tracker, folder)}


def _together(
    tracker: Tracker, folder: str, run: str, processes: int, *, rate: float, seconds: float
) -> list[dict[str, Any]]:
    each = {"folder": folder, "run": run, "rate": rate, "seconds": seconds, "most": FULL_CALLS}
    started = [tracker.start(tracker.command("calls", **each, rank=0))]
    _until_ready(started[0])  # where all write one file, the first makes it
    started += [tracker.start(tracker.command("calls", **each, rank=rank)) for rank in range(1, processes)]
    for process in started[1:]:
        _until_ready(process)
    go(started)
    with ThreadPoolExecutor(processes) as pool:
        return [each[-1] for each in pool.map(_found, started)]


def _ranks(tracker: Tracker, folder: str) -> dict[str, Any]:
    found = _together(tracker, folder, "ranks", RANKS, rate=RANK_RATE, seconds=PACED_SECONDS)
    return {
        "calls": sum(one["calls"] for one in found),
        **{name: median([one[name] for one in found]) for name in ("p50", "p99", "p99.9", "mean")},
        "max": max(one["max"] for one in found),
    }


def _until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ready\n":
            return
    raise RuntimeError(f"{process.args}: {process.communicate()[1][-3000:]}")


def _size(folder: Path) -> int:
    """Bytes of the disk that all files below a folder take."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def series(tracker: Tracker) -> dict[str, Any]:
    """Processor time of all processes for a point, in turn through so many series."""
    found: dict[str, Any] = {}
    for count in SERIES:
        folder, each = str(tracker.folder(f"series{count}")), {"count": count, "seconds": SERIES_SECONDS}
        did, used = tracker.alone("series", folder=folder, run="many", most=SERIES_CALLS, **each)
        if not did["calls"]:
            break
        _did, nothing = tracker.alone("series", folder=folder, run="nothing", most=0, **each)
        found[str(count)] = {"calls": did["calls"], "cpu": (used["cpu"] - nothing["cpu"]) / did["calls"] * 1e6}
    return found


def opening(tracker: Tracker) -> dict[str, Any]:
    folder = str(tracker.folder("opening"))
    tracker.run("opening", folder=folder, run="warm")
    found = [tracker.run("opening", folder=folder, run=f"run{number}") for number in range(OPENINGS)]
    return {name: median([each[name] for each in found]) for name in found[0]}


def kills(tracker: Tracker, count: int) -> dict[str, Any]:
    """Returned calls that a reader does not find, when the script, what it started, or all of it is killed."""
    if tracker.name in LIMITS:
        return {}
    chance = random.Random(tracker.name)
    found: dict[str, Any] = {}
    for whom in ("script", "helper", "both"):
        moments = [chance.uniform(1.0, KILLED_RATE_SECONDS - 0.5) for _ in range(count)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            each = list(pool.map(partial(_killed, tracker, whom), moments))
        there = [one for one in each if one is not None]
        found[whom] = (
            {"lost": [one["lost"] for one in there], "raised": sum(one["raised"] for one in there)} if there else None
        )
    return found


def _killed(tracker: Tracker, whom: str, after: float) -> dict[str, Any] | None:
    """None where there is no helper to kill."""
    with fresh_place(str(tracker.place.folder)) as place:
        one = Tracker(tracker.name, place)
        folder, ledger = one.folder("killed"), place.folder / "ledger"
        seconds = after + 60 if whom != "helper" else KILLED_RATE_SECONDS
        process = one.start(
            one.command("until_killed", folder=str(folder), run="run", ledger=str(ledger), seconds=seconds)
        )
        deadline = time.monotonic() + 60
        while not (ledger.exists() and ledger.stat().st_size > 0):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{one.name} did not begin: {process.communicate()[1][-3000:]}")
            time.sleep(0.01)
        time.sleep(after)
        helpers = _helpers(process.pid, place)
        if whom == "helper" and not helpers:
            process.kill()
            process.communicate()
            return None
        raised = 0
        for victim in helpers if whom != "script" else ():
            _kill(victim)
        if whom == "helper":
            try:
                raised = sum(_found(process)[-1]["raised"].values())
            except Died:
                raised = 1  # the script died of it
        else:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        _wait_for(helpers)
        returned = ledger.stat().st_size
        one.run("end", folder=str(folder))
        there = one.run("read", folder=str(folder), run="run")["count"]
        one.run("end", folder=str(folder))
        return {"lost": max(0, returned - there), "raised": raised}


def _helpers(pid: int, place: Place) -> list[psutil.Process]:
    found = psutil.Process(pid).children(recursive=True)
    agent = place.agent_pid()
    if agent and agent not in [each.pid for each in found]:
        found.append(psutil.Process(agent))
    return [each for each in found if "resource_tracker" not in " ".join(_words(each))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        pass


def _wait_for(helpers: list[psutil.Process]) -> None:
    """What outlives its script has its time to write what it has."""
    _gone, there = psutil.wait_procs(helpers, timeout=5)
    for each in there:
        if "dreamlake" not in " ".join(_words(each)):
            _kill(each)


def training(tracker: Tracker) -> dict[str, Any]:
    if tracker.name in LIMITS:
        return {}
    tracker.environment.update(KEPT_MEMORY)
    took = tracker.run("training", folder=str(tracker.folder("training")), run="run", **TRAINING)
    ratios = [after / before for before, after in zip(took["without"], took["with"], strict=True)]
    step = median(took["without"])
    return {"step_seconds": step, "overhead": median(ratios) - 1, "calls": median(took["calls"]) / step}


def committed(tracker: Tracker) -> dict[str, Any]:
    """Points a second from the first call until all are flushed, of so many processes at full speed."""
    folder = str(tracker.folder("committed"))
    found = {}
    for processes in PROCESSES:
        each = _together(tracker, folder, f"of{processes}", processes, rate=0, seconds=FULL_SECONDS)
        took = max(one["flushed"] for one in each) - min(one["started"] for one in each)
        found[str(processes)] = sum(one["calls"] for one in each) / took
    return found


def reading(tracker: Tracker) -> dict[str, Any]:
    """Write so many points, where there is time for it; read them back."""
    if tracker.name in LIMITS:
        return {}
    found: dict[str, Any] = {}
    for points, seconds in READ_POINTS.items():
        folder = str(tracker.folder(f"reading{points}"))
        try:
            wrote = tracker.run("calls", folder=folder, run="many", rate=0, seconds=seconds, most=points)["calls"]
        except Died as died:  # such as for want of memory
            print(f"{tracker.name}: {points:,} points: {died}")
            found[str(points)] = {"died": True}
            break
        reads = [tracker.run("read", folder=folder, run="many") for _ in range(3)]
        least = min(each["seconds"] for each in reads)
        found[str(points)] = {"count": reads[0]["count"], "wrote": wrote, "seconds": least}
        if wrote < points:
            break
    return found


def files(tracker: Tracker) -> dict[str, Any]:
    if tracker.name in LIMITS:
        return {}
    found = {}
    for name, count, size in (("large", 1, 1 << 30), ("small", 10_000, 10 << 10)):
        folder = str(tracker.folder(name))
        found[name] = tracker.run("files", folder=folder, run=name, count=count, size=size, seconds=60)
    return found if found["large"] else {}


def grown(given: argparse.Namespace) -> dict[str, Any]:
    """Dreamlake alone: what a point costs as there is more of everything."""
    found: dict[str, Any] = {}
    for title, (_what, counts, _few) in growth.MORE.items():
        for count in counts:
            calls = growth.CALLS_A_SESSION * count if title == "sessions" else FULL_CALLS
            with fresh_place(given.dir) as place:
                cost = growth.cost_of(place, title, count, calls)
            print(f"growth: {title}: {cost}")
            found.setdefault(title, []).append(asdict(cost))
    return found


MEASURES = ("calls", "committed", "series", "opening", "kills", "reading", "files", "training")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES), help="some of %(default)s")
    parser.add_argument("--measures", default=",".join(MEASURES), help="some of %(default)s")
    parser.add_argument("--kills", type=int, default=20, help="of each kind and tracker (default: %(default)s)")
    parser.add_argument("--dir", default=a_real_disk(), help="the disk to measure on (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=TOP / "docs" / "benchmarks", help="default: %(default)s")
    parser.add_argument("--no-growth", dest="growth", action="store_false", help="leave out how costs grow")
    given = parser.parse_args(arguments)
    names, measures = given.only.split(","), given.measures.split(",")
    if unknown := [each for each in (*names, *measures) if each not in (*NAMES, *MEASURES)]:
        parser.error(f"no such tracker or measure: {', '.join(unknown)}")
    here = machine(given.dir)
    print(describe(here))
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "side_by_side.json"
    found: dict[str, Any] = json.loads(results.read_text("utf-8")) if results.exists() else {"systems": {}}
    found["machine"] = here
    for name in names:
        try:
            python_of(name)
        except CannotInstall as reason:
            print(f"{name}: cannot be installed: {reason}")
            found["systems"][name] = {"missing": str(reason)}
            continue
        of = found["systems"].setdefault(name, {})
        of["version"] = version_of(name)
        for measure in measures:
            began = time.monotonic()
            with fresh_place(given.dir) as place:
                tracker = Tracker(name, place)
                of[measure] = kills(tracker, given.kills) if measure == "kills" else _MEASURES[measure](tracker)
            print(f"{name}: {measure}, {time.monotonic() - began:.0f} s")
            print(f"  {json.dumps(of[measure])}")
            results.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if given.growth:
        found["growth"] = grown(given)
        results.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    pages.write(given.out, found)
    return 0


_MEASURES = {
    "calls": calls,
    "committed": committed,
    "series": series,
    "opening": opening,
    "reading": reading,
    "files": files,
    "training": training,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
