"""What was measured, as lines of a table beside what it should be; and the machine it was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LIBRARIES = ("dreamlake", "pyzmq", "msgpack", "orjson", "psutil", "click", "httpx")
QUIET = 0.9  # of all cores idle: below this, others work on this machine too


@dataclass(frozen=True)
class Figure:
    """One line: what it is, what it came to, what it should be at most (or at least), and what that stands on."""

    section: str
    what: str
    value: float
    unit: str
    target: float | None = None
    at_least: bool = False
    later: str = ""
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


class Report:
    """Figures in the order in which they were measured; each is printed when it comes."""

    def __init__(self, say: Callable[[str], object] = print) -> None:
        self.figures: list[Figure] = []
        self._say = say
        self._section = ""

    def section(self, title: str, what: str = "") -> None:
        self._section = title
        self._say(f"\n{title}" + (f" · {what}" if what else ""))

    def add(
        self,
        what: str,
        value: float,
        unit: str,
        target: float | None = None,
        *,
        at_least: bool = False,
        later: str = "",
        note: str = "",
    ) -> None:
        figure = Figure(self._section, what, value, unit, target, at_least, later, note)
        self.figures.append(figure)
        sign = "≥" if at_least else "≤"
        wanted = "" if target is None else f"{sign} {_short(target)}{_suffix(unit)}"
        mark = {None: "", True: "met", False: "MISSED"}[figure.is_met]
        more = " · ".join(each for each in (f"later {later}" if later else "", note) if each)
        self._say(f"  {what:<50} {_short(value) + _suffix(unit):>12}  {wanted:>12}  {mark:<7} {more}".rstrip())

    def as_json(self, machine: dict[str, Any]) -> dict[str, Any]:
        return {"machine": machine, "figures": [{**asdict(each), "met": each.is_met} for each in self.figures]}


def _short(value: float) -> str:
    if value and abs(value) < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def _suffix(unit: str) -> str:
    return unit if unit in ("x", "") else f" {unit}"


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def quantile(values: Sequence[float], part: float) -> float:
    """
    >>> quantile([3, 1, 2], 0.5)
    2
    """
    every = sorted(values)
    return every[min(len(every) - 1, int(len(every) * part))]


median = statistics.median


# ── the machine ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def file_system(path: str) -> str:
    """The kind of file system that a path is on; "unknown" where the system does not say."""
    best = ("", "unknown")
    try:
        with open("/proc/mounts", encoding="utf-8") as file:
            for line in file:
                _device, mount, kind = line.split()[:3]
                inside = os.path.realpath(path).startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= len(best[0]):
                    best = (mount, kind)
    except OSError:
        pass
    return best[1]


def idle_share(seconds: float = 1.0) -> float | None:
    """How much of all cores nobody uses while this process sleeps; None where the system does not say."""

    def ticks() -> tuple[int, int]:
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(each) for each in file.readline().split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    try:
        idle, total = ticks()
        time.sleep(seconds)
        idle_after, total_after = ticks()
    except OSError:
        return None
    return (idle_after - idle) / max(1, total_after - total)


def machine(folder: str) -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "idle_before": idle_share(),
        "load_before": os.getloadavg()[0],
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": file_system(folder),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def describe(found: dict[str, Any]) -> str:
    libraries = " ".join(f"{name} {version}" for name, version in found["libraries"].items())
    idle = found["idle_before"]
    lines = [
        f"{found['cpu']}, {found['cores']} cores, {found['kernel']}, {found['file_system']}",
        f"Python {found['python']}, {libraries}",
    ]
    if idle is not None:
        others = "" if idle >= QUIET else ": others work here too, so tails and rates are theirs as well as ours"
        lines.append(f"{idle:.0%} of the cores idle before the start{others}")
    return "\n".join(lines)
