"""What one call costs: at full speed beside a bare write of as many bytes, and at a steady pace."""

from __future__ import annotations

from tests.bench.place import Place
from tests.bench.report import Report, median, quantile

QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))


def full_speed(place: Place, report: Report, quick: bool) -> None:
    """Several processes one after the other: the median of what each found, and the longest call of all."""
    calls, repeats = (20_000, 2) if quick else (100_000, 5)
    for how, what in (("kept", "track kept, track.append(…)"), ("fresh", 'session.track("loss").append(…)')):
        runs = [place.run("full_speed.py", place.folder / f"{how}-{number}", how, calls) for number in range(repeats)]
        report.section("full speed", f"{what}, {repeats} times {calls:,} calls, record of {runs[0]['bytes']} bytes")
        clock = median([quantile(run["clock"], 0.5) for run in runs])
        for name, part in QUANTILES:
            appends = [quantile(run["append"], part) for run in runs]
            writes = [quantile(run["write"], part) for run in runs]
            ratio = median([ours / bare for ours, bare in zip(appends, writes, strict=True)])
            target, later = (5.0, "≤ 4x") if name == "p50" else (None, "")
            note = f"{median(appends) / 1e3:.2f} µs; bare {median(writes) / 1e3:.2f} µs"
            report.add(f"append / bare os.write, {name}", ratio, "x", target, later=later, note=note)
        for name, column in (("append", "append"), ("bare os.write", "write")):
            report.add(f"{name}, longest", max(max(run[column]) for run in runs) / 1e6, "ms")
        report.add("in each of these: reading the clock", clock, "ns")


def paced(place: Place, report: Report, quick: bool) -> None:
    seconds, repeats = (2, 1) if quick else (5, 3)
    for between, what in (
        ("spin", "Python runs between the calls"),
        ("sleep", "the process sleeps between the calls"),
    ):
        runs = [place.run("paced.py", place.folder / f"{number}", between, seconds) for number in range(repeats)]
        report.section("1,000 calls a second", f"{what}, {repeats} times {seconds} s")
        best = min(runs, key=lambda run: sum(run["append"]))
        appends, writes = best["append"], best["write"]
        mean, bare = sum(appends) / len(appends) / 1e3, sum(writes) / len(writes) / 1e3
        note = f"best of {repeats}"
        # The target is for calls that nothing but waiting parts; a process that sleeps comes back to cold caches.
        target, later = (10.0, "≤ 5 µs") if between == "spin" else (None, "")
        report.add("append, mean", mean, "µs", target, later=later, note=f"bare os.write {bare:.2f} µs, {note}")
        report.add("append / bare os.write, mean", mean / bare, "x")
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            note = f"bare os.write {quantile(writes, part) / 1e3:.2f} µs"
            report.add(f"append, {name}", quantile(appends, part) / 1e3, "µs", note=note)
        report.add("append, longest", max(appends) / 1e6, "ms", note=f"bare os.write {max(writes) / 1e6:.2f} ms")
