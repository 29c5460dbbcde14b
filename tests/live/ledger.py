"""What writers said that had returned, held against what a session directory holds."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests import reading

# What a row is without its number, which may be another when it is written anew.
_NUMBERED = re.compile(rb'^\{"(?:index|sequenceNumber)":\d+,')
TRACKS = ("loss", "train/loss", "train/accuracy")
Calls = dict[int, tuple[str, int]]


class Ledger:
    """The words of `programs/scribe.py`: for each writer its calls that returned, by number, with place and count."""

    def __init__(self, words: Path) -> None:
        self.calls: dict[str, Calls] = defaultdict(dict)
        self.indexes: dict[tuple[str, int, str], int] = {}
        self.durable: dict[str, int] = defaultdict(int)
        self.refused: dict[str, list[str]] = defaultdict(list)
        self.stalls: list[dict[str, Any]] = []
        for line in words.read_bytes().splitlines():
            word = json.loads(line)
            writer = word["writer"]
            if "number" in word:
                self.calls[writer][word["number"]] = (word["place"], word["count"])
            elif "indexed" in word:
                self.indexes[writer, word["indexed"], word["place"]] = word["index"]
            elif "durable" in word:
                self.durable[writer] = word["durable"]
            elif "refused" in word:
                self.refused[writer].append(word["refused"])
            elif "stalled" in word:
                self.stalls.append(word)

    def count(self) -> int:
        return sum(map(len, self.calls.values()))


class Row(NamedTuple):
    writer: str
    number: int
    place: str
    index: int


def rows_of(folder: Path) -> Iterator[Row]:
    """Every row that a writer's call became. Every line must parse, every index be one more than the last."""
    for track in TRACKS:
        points = reading.points(folder, track)
        reading.assert_consecutive(points)
        for point in points:
            yield Row(point["data"]["writer"], point["data"]["number"], track, point["index"])
    logs = reading.lines(folder / "logs" / "logs.jsonl")
    reading.assert_consecutive(logs, "sequenceNumber")
    for line in logs:
        yield Row(line["metadata"]["writer"], line["metadata"]["number"], "logs", line["sequenceNumber"])
    for at, row in enumerate(reading.lines(folder / ".dreamlake" / "parameters.jsonl")):
        for writer, number in row["set"].items():
            yield Row(writer, number, "parameters", at)
    for at, row in enumerate(reading.lines(folder / ".dreamlake" / "files.jsonl")):
        if row["op"] == "upload":
            record = row["record"]
            yield Row(record["path"].strip("/"), int(record["filename"].partition(".")[0]), "files", at)


def assert_all_there_once(folder: Path, ledger: Ledger, *, promised: dict[str, int] | None = None) -> int:
    """Every call that returned (or, of each writer, as many as were `promised`) is there once, in its writer's order,
    without a hole; beyond those that returned at most one, which was on its way. Returns the number of rows."""
    rows = list(rows_of(folder))
    of_writer: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_writer[row.writer].append(row)
    assert not set(of_writer) - set(ledger.calls), "rows of nobody"
    for writer, calls in ledger.calls.items():
        assert sorted(calls) == list(range(len(calls))), f"{writer}'s own account has a hole"
        counted: dict[int, list[str]] = defaultdict(list)
        last: dict[str, int] = defaultdict(int)
        for row in of_writer[writer]:
            counted[row.number].append(row.place)
            assert row.number >= last[row.place], f"out of order: {row}"
            last[row.place] = row.number
        must = len(calls) if promised is None else promised.get(writer, 0)
        lost = [number for number in range(must) if number not in counted]
        assert not lost, f"{writer} lost {len(lost)} of {must} calls: {lost[:5]}"
        assert sorted(counted) == list(range(len(counted))), f"{writer}'s calls there have a hole"
        assert len(counted) <= len(calls) + 1, f"{writer} made {len(calls)} calls and has {len(counted)}"
        for number, places in counted.items():
            place, count = calls.get(number, (places[0], len(places)))
            assert places == [place] * count, f"{writer}'s call {number} to {place} ({count} rows) became {places}"
    return len(rows)


def assert_indexes_as_told(folder: Path, ledger: Ledger, *, promised: dict[str, int] | None = None) -> int:
    """Every index that a receipt told is the point's; returns how many were told."""
    told = {
        index_of: index
        for index_of, index in ledger.indexes.items()
        if promised is None or index_of[1] < promised.get(index_of[0], 0)
    }
    for row in rows_of(folder):
        index = told.get((row.writer, row.number, row.place))
        assert index in (None, row.index), f"a receipt said {index}: {row}"
    return len(told)


def assert_views_agree(folder: Path) -> None:
    """The views say what the logs do."""
    parameters: dict[str, int] = {}
    for row in reading.lines(folder / ".dreamlake" / "parameters.jsonl"):
        parameters.update(row["set"])
    if parameters:
        assert reading.view(folder / "parameters.json")["data"] == parameters
    for track in TRACKS:
        points = reading.points(folder, track)
        if points:
            shown = reading.view(folder / "tracks" / track / "metadata.json")
            assert (shown["totalDataPoints"], shown["nextIndex"]) == (len(points), len(points)), track
    uploads = [row for row in rows_of(folder) if row.place == "files"]
    if uploads:
        records = reading.view(folder / "files" / ".files_metadata.json")["files"]
        assert len(records) == len(uploads)


def assert_files_are_whole(folder: Path, *, promised: dict[str, int] | None = None) -> None:
    """What was uploaded is in its place, to the byte: all, or of each writer's calls as many as were `promised`."""
    for row in rows_of(folder):
        if row.place != "files" or (promised is not None and row.number >= promised.get(row.writer, 0)):
            continue
        place = folder / "files" / row.writer / f"{row.number}.txt"
        assert place.read_text() == f"{row.writer} {row.number}\n"


def assert_what_was_cut_came_again(folder: Path) -> int:
    """Recovery keeps aside what it cuts out of a log; all of it must have been written anew. Returns the number of
    lines that were cut."""
    lines = 0
    for cut in sorted((folder / ".dreamlake" / "cut").glob("*")):
        log = folder / cut.name.rpartition(".")[0].replace("__", "/")
        again = {_NUMBERED.sub(b"", line) for line in log.read_bytes().splitlines()}
        *whole, torn = cut.read_bytes().split(b"\n")
        for line in whole:
            assert _NUMBERED.sub(b"", line) in again, f"{cut} holds what is not in {log}: {line!r}"
        # An agent can be killed in the middle of a write.
        start = _NUMBERED.sub(b"", torn)
        assert any(line.startswith(start) for line in again), f"{cut} ends in what is not in {log}: {torn!r}"
        lines += len(whole)
    return lines


def kept(folder: Path) -> dict[str, int]:
    """Of each writer, how many calls the directory has."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for row in rows_of(folder):
        numbers[row.writer].add(row.number)
    return {writer: len(each) for writer, each in numbers.items()}
