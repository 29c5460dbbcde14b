"""What several directories of one session are together, said as simply as it can be: from their files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Stamp = tuple[str, str, int]  # latest time so far, origin, index
NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TIMES = ("createdAt", "timestamp", "time")


class Together:
    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = {str(json.loads((each / "session.json").read_bytes())["id"]): each for each in folders}
        assert len(self.folders) == len(folders), "two directories have one identity"

    def rows(self, log: str) -> list[tuple[Stamp, Row]]:
        """Of all origins, in order."""
        return sorted(
            (each for origin, folder in self.folders.items() for each in _stamped(origin, folder / log)),
            key=lambda each: each[0],
        )

    def tracks(self) -> list[str]:
        """Of which there are points or a word."""
        points = {
            str(path.parent.relative_to(folder / "tracks"))
            for folder in self.folders.values()
            for path in folder.glob("tracks/**/data.jsonl")
        }
        return sorted(points | {row["track"] for _, row in self.rows(".dreamlake/tracks.jsonl")})

    def points(self, track: str) -> list[tuple[str, int, Row]]:
        """(origin, index, data)"""
        return [(at[1], at[2], row) for at, row in self.rows(f"tracks/{track}/data.jsonl")]

    def lines(self) -> list[tuple[str, int, Row]]:
        return [(at[1], at[2], row) for at, row in self.rows("logs/logs.jsonl")]

    def parameters(self) -> Row:
        found: Row = {}
        for _, row in self.rows(".dreamlake/parameters.jsonl"):
            found.update(row["set"])
        return found

    def said_of(self, track: str) -> Row:
        found: Row = {"description": None, "tags": None, "metadata": None}
        for _, row in self.rows(".dreamlake/tracks.jsonl"):
            if row["track"] == track:
                found.update(row.get("set") or {})
        return found

    def files(self) -> dict[tuple[str, str], Row]:
        """By place, the one that was uploaded last."""
        found: dict[tuple[str, str], Row] = {}
        rows = self.rows(".dreamlake/files.jsonl")
        for _, row in rows:
            if row["op"] == "upload":
                found[row["record"]["path"], row["record"]["filename"]] = dict(row["record"])
        for _, row in rows:
            for record in found.values():
                if row["op"] == "hashed" and row["id"] == record["id"]:
                    record["checksum"] = row["checksum"]
        return found


def restored(row: Row) -> Row:
    """The fields of a point, as Python has them."""
    data = dict(row["data"])
    for name in row.get("nonfinite", ()):
        data[name] = NONFINITE[data[name]]
    return data


def _stamped(origin: str, path: Path) -> Iterator[tuple[Stamp, Row]]:
    latest = ""
    for index, line in enumerate(path.read_bytes().splitlines()) if path.exists() else ():
        row = json.loads(line)
        latest = max(latest, *(row.get(key) or "" for key in _TIMES))
        yield (latest, origin, index), row
