"""Files: how long `upload()` takes beside `cp`, and until the agent has hashed them, beside `sha256sum`."""

from __future__ import annotations

import shutil

from tests.bench.place import Place
from tests.bench.report import Report

MIB, KIB = 1 << 20, 1 << 10


def measure(place: Place, report: Report, quick: bool) -> None:
    place.start_agent()
    size, repeats = (256 * MIB, 2) if quick else (1024 * MIB, 5)
    runs = _run(place, "large", 1, size, repeats)
    report.section("files", f"one of {size // MIB} MiB, {repeats} times; the least of each")
    least = {name: min(run[name] for run in runs) for name in runs[0]}
    note = f"{least['returned']:.2f} s; cp {least['copied']:.2f} s"
    report.add("upload() / cp --reflink=auto", least["returned"] / least["copied"], "x", 1.2, note=note)
    ratio = least["sha256sum"] / least["hashed"]
    note = f"{size / MIB / least['hashed']:.0f} MiB/s"
    report.add("hashing, of the speed of sha256sum", ratio, "x", 0.8, at_least=True, note=note)

    count = 1000 if quick else 10_000
    (run,) = _run(place, "small", count, 10 * KIB, 1)
    report.section("files", f"{count:,} of 10 KiB")
    report.add(
        "upload(), each", run["returned"] / count * 1e3, "ms", note=f"cp -r {run['copied'] / count * 1e3:.2f} ms"
    )
    report.add("until all are committed", run["committed"], "s")
    report.add("from then until all are hashed", run["hashed"], "s")


def _run(place: Place, name: str, count: int, size: int, rounds: int) -> list[dict[str, float]]:
    found: list[dict[str, float]] = place.run("uploads.py", place.folder, name, count, size, rounds)  # type: ignore[assignment]
    for each in place.folder.iterdir():
        shutil.rmtree(each)
    return found
