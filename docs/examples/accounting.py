"""The accounting of the digits demo: the calls that returned, held against the rows in the session directory.

A worker notes each call in a plain file of its own, after the call has returned: one `os.write`, which a kill
of the process cannot take back. The rows are read from the session's JSON and JSON lines, without Dreamlake.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = ("parameters", "points", "logs", "files")

Calls = dict[tuple[str, int], list[str]]  # (kind, rank): what was written, in order


def notebook(folder: Path, rank: int) -> Callable[[str, object], None]:
    """A function that notes one returned call of this rank."""
    notes = os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: str, what: object) -> None:
        os.write(notes, f"{kind} {what}\n".encode())

    return note


def calls_noted(folder: Path) -> Calls:
    """What the workers noted."""
    calls: Calls = defaultdict(list)
    for path in folder.glob("*.txt"):
        for kind, what in map(str.split, whole_lines(path)):
            calls[kind, int(path.stem)].append(what)
    return calls


def calls_on_disk(directory: Path) -> Calls:
    """What the session directory holds."""
    calls: Calls = defaultdict(list)
    for name in json_file(directory / "parameters.json").get("data", {}):
        if name.startswith("rank"):
            calls["parameters", int(name[4])].append(name)
    for point in map(json.loads, whole_lines(directory / "tracks/loss/data.jsonl")):
        calls["points", point["data"]["rank"]].append(str(point["data"]["step"]))
    for line in map(json.loads, whole_lines(directory / "logs/logs.jsonl")):
        if "epoch" in line.get("metadata", {}):
            calls["logs", line["metadata"]["rank"]].append(str(line["metadata"]["epoch"]))
    listed = json_file(directory / "files/.files_metadata.json").get("files", [])
    for name in sorted(file["filename"] for file in listed):
        if (directory / "files/checkpoints" / name).exists():
            calls["files", int(name[4])].append(name)
    return calls


def account(noted: Calls, found: Calls, killed: int) -> tuple[list[str], bool]:
    """A table, one line for each kind of call, and whether it adds up.

    The kill may hit when a call is safe but not yet noted: `killed` may have one row more than it noted.
    """
    columns = ("returned", "on disk", "missing", "doubled", "cut off")
    table = [" " * 12 + "".join(f"{name:>10}" for name in columns) + "   each rank's order"]
    adds_up, cut_off_in_all = True, 0
    for kind in KINDS:
        returned = on_disk = missing = doubled = cut_off = 0
        in_order = True
        for rank in sorted(rank for known, rank in noted.keys() | found.keys() if known == kind):
            calls, rows = noted.get((kind, rank), []), found.get((kind, rank), [])
            returned, on_disk = returned + len(calls), on_disk + len(rows)
            missing += len(set(calls) - set(rows))
            doubled += len(rows) - len(set(rows))
            cut_off += len(set(rows) - set(calls))
            in_order = in_order and calls == (rows[: len(calls)] if rank == killed else rows)
        numbers = "".join(f"{number:>10,}" for number in (returned, on_disk, missing, doubled, cut_off))
        table.append(f"{kind:12}{numbers}   {'kept' if in_order else 'NOT KEPT'}")
        adds_up = adds_up and returned > 0 and in_order and not missing and not doubled
        cut_off_in_all += cut_off
    return table, adds_up and cut_off_in_all <= 1


def whole_lines(path: Path) -> list[str]:
    """The lines that have their newline: somebody may be writing the next one now."""
    text = path.read_text() if path.exists() else ""
    return text.split("\n")[:-1]


def json_file(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
