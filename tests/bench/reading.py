"""Reading back, and opening what is long."""

from __future__ import annotations

from tests.bench.place import Place
from tests.bench.report import Report, median

MILLION, MIB = 1_000_000, 1 << 20


def measure(place: Place, report: Report, quick: bool) -> None:
    points, page = (200_000, 10_000) if quick else (10_000_000, 10_000)
    place.start_agent()
    found = place.run("reading.py", place.folder, points, page)
    report.section("reading", f"{points:,} points, written by append_batch of 10,000")
    report.add("append_batch, per point", found["batches"] / points * 1e6, "µs")
    report.add("points per second until all is committed", points / found["committed"], "/s")
    million = min(points, MILLION)
    note = f"{million / found['read']:,.0f} points/s"
    report.add(f"read() {million:,}, {page:,} a page", found["read"], "s", note=note)
    report.add(f"to_numpy() of {million:,}", found["million"], "s", 0.5)
    note = f"memory grew by {found['grown'] / MIB:.0f} MiB, the arrays are {found['arrays'] / MIB:.0f}"
    report.add(f"to_numpy() of {points:,}", found["every"], "s", 4.0, note=note)
    report.add(f"read() the last 1,000 of {points:,}", median(found["tail"]) * 1e3, "ms", 5.0)
    again = [place.run("opening.py", place.folder, "reading", 0)["first"][0] for _ in range(3)]
    report.add("open() it again", median(again) * 1e3, "ms")
    place.stop_agent()
