"""What the system says of a mount: its kind, and how long it is told to cache attributes."""

from __future__ import annotations

import os
import re
from typing import Any

_TABLE = "/proc/self/mountinfo"
_TELLING = (
    "nolock",
    "local_lock",
    "flock",
    "localflock",
    "noflock",
    "noac",
    "actimeo",
    "acregmax",
    "acdirmax",
    "nocto",
)
_NFS_MAX = 60.0  # nfs(5): acregmax, acdirmax
_ESCAPE = re.compile(r"\\([0-7]{3})")


def mount_of(path: str) -> dict[str, Any]:
    """Kind, telling options, and for how many seconds attributes may be cached at most; None where nothing says."""
    try:
        with open(_TABLE, encoding="utf-8", errors="surrogateescape") as file:
            return found_in(file.read(), os.path.realpath(path))
    except OSError:
        return {"kind": "unknown", "options": "", "caches": None}


def found_in(table: str, path: str) -> dict[str, Any]:
    best: tuple[int, str, dict[str, str]] = (-1, "unknown", {})
    for line in table.splitlines():
        head, dash, tail = line.partition(" - ")
        fields, kinds = head.split(), tail.split()
        if not dash or len(fields) < 6 or len(kinds) < 3:
            continue
        point = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4])
        # of several on one point the last one is seen
        if _is_below(path, point) and len(point) >= best[0]:
            best = (len(point), kinds[0], _options(f"{fields[5]},{kinds[2]}"))
    _, kind, options = best
    told = ",".join(name + (f"={value}" if value else "") for name, value in options.items() if name in _TELLING)
    return {"kind": kind, "options": told, "caches": _caches(kind, options)}


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _options(text: str) -> dict[str, str]:
    return {name: value for name, _, value in (word.partition("=") for word in text.split(","))}


def _caches(kind: str, options: dict[str, str]) -> float | None:
    if not kind.startswith("nfs"):
        return None
    if "noac" in options:
        return 0.0
    said = [options.get(name) or options.get("actimeo") for name in ("acregmax", "acdirmax")]
    return max(float(each) if each and each.isdecimal() else _NFS_MAX for each in said)
