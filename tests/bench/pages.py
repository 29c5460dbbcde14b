"""docs/benchmarks.md: the tables and plots of what was measured, made by the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.report import describe

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
TITLES = {
    "dreamlake": "**Dreamlake**",
    "wandb": "wandb, offline",
    "neptune": "neptune-scale, offline",
    "mlflow": "mlflow, SQLite",
    "trackio": "trackio",
    "tensorboardx": "tensorboardX",
    "dvclive": "dvclive",
    "oswrite": "*`os.write`*",
    "jsonlines": "*orjson and `os.write`*",
    "zeromq": "*ZeroMQ PUSH/PULL*",
}
Found = dict[str, Any]
Cell = Callable[[Found], str]


def number(value: float) -> str:
    """
    >>> [number(each) for each in (0.0123, 4.56, 45.6, 4567.8)]
    ['0.012', '4.6', '46', '4,568']
    """
    if value and abs(value) < 1:
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}"


def table(found: Found, measure: str, columns: Sequence[tuple[str, Cell]]) -> list[str]:
    lines = ["| | " + " | ".join(title for title, _cell in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, title in TITLES.items():
        of = found["systems"].get(name, {}).get(measure)
        if of:
            version = found["systems"][name].get("version")
            cells = (_cell_of(cell, of) for _title, cell in columns)
            lines.append(f"| {title}{f' {version}' if version else ''} | {' | '.join(cells)} |")
    return lines


def _cell_of(cell: Cell, of: Found) -> str:
    try:
        return cell(of)
    except (KeyError, TypeError, ZeroDivisionError):
        return ""


def _times(way: str) -> list[tuple[str, Cell]]:
    return [(name, lambda of, name=name: number(of[way][name])) for name in ("mean", "p50", "p99", "p99.9", "max")]  # type: ignore[misc]


def _lost(whom: str) -> Cell:
    def cell(of: Found) -> str:
        if of[whom] is None:
            return "no helper"
        lost = of[whom]["lost"]
        raised = of[whom]["raised"]
        told = f"{number(median(lost))}, at most {max(lost):,}" if any(lost) else "0"
        return told + (f"; {raised:,} calls raised" if raised else "")

    return cell


def sections(found: Found) -> Iterable[str]:
    yield from describe(found["machine"]).split("\n")
    yield ""
    yield "### One scalar, at full speed"
    yield ""
    yield "Microseconds a call; processor time of all processes and bytes on the disk, per point."
    yield ""
    yield from table(
        found,
        "calls",
        [
            *_times("full"),
            ("CPU, s per million", lambda of: number(of["full"]["cpu_per_million"])),
            ("bytes on disk", lambda of: number(of["full"]["bytes_per_point"])),
        ],
    )
    yield ""
    yield "![Microseconds of a call at full speed](benchmarks/calls.png)"
    yield ""
    yield "### 1,000 a second"
    yield ""
    yield from table(found, "calls", _times("paced"))
    yield ""
    yield "### 100 a second in each of 8 ranks"
    yield ""
    yield from table(found, "calls", _times("ranks"))
    yield ""
    yield "### Points a second until they can be read"
    yield ""
    yield (
        "So many processes at full speed, from the first call until the last of them has flushed. Dreamlake's write "
        "one session; of the others each has a run of its own."
    )
    yield ""
    yield from table(
        found,
        "committed",
        [
            (f"{count} process{'es' if count > 1 else ''}", lambda of, c=str(count): number(of[c]))
            for count in (1, 4, 8)
        ],  # type: ignore[misc]
    )
    yield ""
    yield "### Many series"
    yield ""
    yield (
        "Microseconds of processor time for a point, of all processes: one scalar a call at full speed, in turn "
        "through so many series of one run. Dreamlake's are tracks; the limits, but ZeroMQ, have a file for each. "
        "Empty where a first point in each takes longer than 30 s."
    )
    yield ""
    yield from table(
        found,
        "series",
        [
            (f"{count:,} series", lambda of, c=str(count): number(of[c]["cpu"]))  # type: ignore[misc]
            for count in (1, 1_000, 10_000)
        ],
    )
    yield ""
    yield from _growth(found)
    yield "### Returned calls that nobody finds again"
    yield ""
    yield (
        "100 scalars a second; then `SIGKILL` for the script, for what it had started, for both. The median of all "
        "tries, and the worst one."
    )
    yield ""
    yield from table(found, "kills", [(whom, _lost(whom)) for whom in ("script", "helper", "both")])
    yield ""
    yield "![Returned calls lost](benchmarks/kills.png)"
    yield ""
    yield "### Beginning and end"
    yield ""
    yield "Milliseconds; MiB that the script's process grows by, from before the import until 1,000 calls later."
    yield ""
    yield from table(
        found,
        "opening",
        [
            *(
                (title, lambda of, key=key: number(of[key] * 1000))  # type: ignore[misc]
                for title, key in (("import", "import"), ("open", "open"), ("first call", "first"), ("close", "close"))
            ),
            ("MiB", lambda of: number(of["memory"] / (1 << 20))),
        ],
    )
    yield ""
    yield "### A real training, 100 values logged in each step"
    yield ""
    yield from table(
        found,
        "training",
        [
            ("a step, ms", lambda of: number(of["step_seconds"] * 1000)),
            ("in the calls", lambda of: f"{of['calls']:.2%}"),
            ("slower by", lambda of: f"{of['overhead']:.1%}"),
        ],
    )
    yield ""
    yield "### Reading points back"
    yield ""
    yield (
        "A million, and ten million where a million were written in a minute; of a tracker that does not write them in "
        "time (a minute, four minutes), as many as it wrote; where a reader finds fewer right after the end, both. "
        "Dreamlake gives a NumPy array. One that died did so while it wrote."
    )
    yield ""
    yield from table(found, "reading", [*_reads("1000000"), *_reads("10000000")])
    yield ""
    yield "### Files"
    yield ""
    yield (
        "Until the calls return, beside `cp` of the same files; and how many bytes the tracker has then, for each that "
        "it was given: one that has none sends the file as it is later, if it is there later."
    )
    yield ""
    yield from table(
        found,
        "files",
        [
            ("1 GiB, s", lambda of: f"{number(of['large']['returned'])} (`cp` {number(of['large']['copied'])})"),
            (
                "10 KiB each of 10,000, ms",
                lambda of: f"{number(of['small']['returned'] * 1e3)} (`cp` {number(of['small']['copied'] * 1e3)})",
            ),
            ("bytes kept of one", lambda of: number(abs(of["large"]["kept"]))),
        ],
    )


def _found_of(count: int, wrote: int) -> str:
    return f"{count:,}" if count >= wrote else f"{count:,} of {wrote:,}"


def _reads(points: str) -> list[tuple[str, Cell]]:
    return [
        (
            "points",
            lambda of: "it died" if "died" in of[points] else _found_of(of[points]["count"], of[points]["wrote"]),
        ),
        ("seconds", lambda of: number(of[points]["seconds"])),
        ("µs a point", lambda of: number(of[points]["seconds"] / of[points]["count"] * 1e6)),
    ]


def _growth(found: Found) -> Iterable[str]:
    grown = found.get("growth")
    if not grown:
        return
    yield "### Dreamlake, as there is more of everything"
    yield ""
    yield (
        "Microseconds of processor time for a point, in the agent (in the client), and MiB of the agent: of one "
        "session and one process, but where there are more. This machine's speed changes by a third from minute to "
        "minute: a client, for one, does not know how many points a series has."
    )
    yield ""
    for title, costs in grown.items():
        yield f"| {title} | " + " | ".join(f"{cost['count']:,}" for cost in costs) + " |"
        yield "|---" * (len(costs) + 1) + "|"
        cells = (f"{number(cost['agent'])} ({number(cost['client'])})" for cost in costs)
        yield "| µs a point | " + " | ".join(cells) + " |"
        yield "| MiB | " + " | ".join(number(cost["memory"]) for cost in costs) + " |"
        yield ""
    yield "![Microseconds of a point, as there is more of everything](benchmarks/growth.png)"
    yield ""


def write(out: Path, found: Found) -> None:
    """The plots into ``out``, the tables into the page beside it, between its two marks."""
    _plots(out, found)
    page = out.parent / "benchmarks.md"
    if page.exists():
        before, _, rest = page.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        page.write_text(before + BEGIN + "\n" + "\n".join(sections(found)) + "\n" + END + after, "utf-8")


def _plots(out: Path, found: Found) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in TITLES if found["systems"].get(name, {}).get("calls")]
    plain = [TITLES[name].strip("*").replace("`", "") for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.45 * len(names) + 1.2), layout="constrained")
    for at, name in enumerate(names):
        full = found["systems"][name]["calls"]["full"]
        colour = "C3" if name == "dreamlake" else "C7" if TITLES[name].startswith("*") else "C0"
        axes.plot([full["p50"], full["p99.9"]], [at, at], color=colour, linewidth=2)
        axes.plot([full["p50"]], [at], "o", color=colour)
        axes.plot([full["p99"]], [at], "|", color=colour, markersize=12)
        axes.plot([full["p99.9"]], [at], ">", color=colour)
    axes.set_yticks(range(len(names)), plain)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("µs a call: p50 •, p99 |, p99.9 ▸")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(out / "calls.png", dpi=120)
    pyplot.close(figure)

    _plot_growth(out, found)
    killed = [name for name in TITLES if found["systems"].get(name, {}).get("kills")]
    if killed:
        figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(killed) + 1.2), layout="constrained")
        for offset, whom in enumerate(("script", "helper", "both")):
            worst = [
                max((found["systems"][name]["kills"][whom] or {"lost": [0]})["lost"], default=0) for name in killed
            ]
            axes.barh([at + 0.25 * (offset - 1) for at in range(len(killed))], worst, height=0.22, label=whom)
        axes.set_yticks(range(len(killed)), [TITLES[name].strip("*") for name in killed])
        axes.invert_yaxis()
        axes.set_xlabel("returned calls lost at worst")
        axes.legend(title="killed")
        figure.savefig(out / "kills.png", dpi=120)
        pyplot.close(figure)


def _short(count: int) -> str:
    """
    >>> [_short(each) for each in (8, 1000, 10_000_000)]
    ['8', '1k', '10M']
    """
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count // unit}{name}"
    return str(count)


def _plot_growth(out: Path, found: Found) -> None:
    from matplotlib import pyplot

    grown = found.get("growth")
    if not grown:
        return
    figure, panels = pyplot.subplots(1, len(grown), figsize=(10, 2.8), sharey=True, layout="constrained")
    for axes, (title, costs) in zip(panels, grown.items(), strict=True):
        counts = [cost["count"] for cost in costs]
        axes.plot(counts, [cost["agent"] for cost in costs], "o-", color="C3", label="agent")
        axes.plot(counts, [cost["client"] for cost in costs], "o-", color="C0", label="client")
        axes.set_xscale("log")
        axes.set_xticks(counts, [_short(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("µs a point")
    panels[0].set_ylim(bottom=0)
    panels[0].legend()
    figure.savefig(out / "growth.png", dpi=120)
    pyplot.close(figure)
