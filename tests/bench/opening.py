"""What is paid once: imports, `open()` with and without a live agent, `close()`."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.place import Place
from tests.bench.report import Report, median

IMPORTS = (
    ("import dreamlake", 60.0, "≤ 40 ms"),
    ("from dreamlake import Session", None, ""),
    ("from dreamlake import Session; import dreamlake.world.sockets", None, ""),
)


def _run_milliseconds(place: Place, program: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], env=place.environment, cwd=place.folder, check=True)
    return (time.perf_counter() - began) * 1e3


def imports(place: Place, report: Report, quick: bool) -> None:
    repeats = 10 if quick else 20
    programs = ["pass", *(program for program, _target, _later in IMPORTS)]
    times: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(repeats):
        for program in programs:  # in turns, so that a busy second is everybody's
            times[program].append(_run_milliseconds(place, program))
    bare = min(times["pass"])
    report.section("import", f"over `python -c pass` ({bare:.1f} ms); the least of {repeats} processes each")
    for program, target, later in IMPORTS:
        what = program.replace("from dreamlake import Session; import dreamlake.world.sockets", "the same, and ZeroMQ")
        note = f"median {median(times[program]) - median(times['pass']):.1f} ms"
        report.add(what, min(times[program]) - bare, "ms", target, later=later, note=note)


def _add(report: Report, what: str, seconds: list[float], target: float | None = None) -> None:
    every = [each * 1e3 for each in seconds]
    report.add(what, median(every), "ms", target, note=f"{min(every):.1f} to {max(every):.1f} ms, {len(every)} times")


def opens(place: Place, report: Report, quick: bool) -> None:
    processes, later = (4, 5) if quick else (10, 10)
    without = []
    for number in range(5 if quick else 8):
        without.append(place.run("opening.py", place.folder, f"alone-{number}", 0)["first"][0])
        place.stop_agent()
    place.start_agent()
    runs = [place.run("opening.py", place.folder, f"open-{number}", later) for number in range(processes)]
    place.stop_agent()
    report.section("open and close", "medians")
    _add(report, "open(), an agent lives, first of its process", [run["first"][0] for run in runs], 10)
    _add(report, "open(), an agent lives, later ones", [opened for run in runs for opened, _ in run["later"]], 10)
    _add(report, "open(), no agent lives: starts one", without, 500)
    _add(report, "close(), first of its process", [run["first"][1] for run in runs])
    _add(report, "close(), later ones", [closed for run in runs for _, closed in run["later"]])
