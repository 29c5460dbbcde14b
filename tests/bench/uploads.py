"""Files: how long `upload()` takes beside `cp`, and until the agent has hashed them, beside `sha256sum`."""

from __future__ import annotations

import shutil

from tests.bench.place import Place
from tests.bench.report import Report, median

MIB, KIB = 1 << 20, 1 << 10


def measure(place: Place, report: Report, quick: bool) -> None:
    place.start_agent()
    size, repeats = (256 * MIB, 2) if quick else (1024 * MIB, 3)
    runs = [_run(place, f"large{number}", 1, size) for number in range(repeats)]
    report.section("files", f"one of {size // MIB} MiB, {repeats} times")
    ratio = median([run["returned"] / run["copied"] for run in runs])
    note = f"{median([run['returned'] for run in runs]):.2f} s; cp {median([run['copied'] for run in runs]):.2f} s"
    report.add("upload() / cp --reflink=auto", ratio, "x", 1.2, note=note)
    ratio = median([run["sha256sum"] / run["hashed"] for run in runs])
    note = f"{size / MIB / median([run['hashed'] for run in runs]):.0f} MiB/s"
    report.add("hashing, of the speed of sha256sum", ratio, "x", 0.8, at_least=True, note=note)

    count = 1000 if quick else 10_000
    run = _run(place, "small", count, 10 * KIB)
    report.section("files", f"{count:,} of 10 KiB")
    report.add(
        "upload(), each", run["returned"] / count * 1e3, "ms", note=f"cp -r {run['copied'] / count * 1e3:.2f} ms"
    )
    report.add("until all are committed", run["committed"], "s")
    report.add("from then until all are hashed", run["hashed"], "s")


def _run(place: Place, name: str, count: int, size: int) -> dict[str, float]:
    found = place.run("uploads.py", place.folder, name, count, size)
    for each in place.folder.iterdir():
        shutil.rmtree(each)
    return found
