"""`dreamlake sync` of a whole directory, beside a bare loop that has all of it in memory and sends the same."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from typing import Any

import pymongo

from tests.bench.place import Place, cpu_seconds
from tests.bench.report import Report, median
from tests.bench.server import MIB, running
from tests.services import install
from tests.services.mongod import mongod
from tests.services.seaweed import s3

COUNTS = ("records", "bytes", "file_bytes")
Options = Callable[[int], list[str]]  # of the server of a turn: each has its own, with nothing in it


class Race:
    """One directory, sent by the bare loop and by a sync in turns."""

    def __init__(self, place: Place, quick: bool) -> None:
        self._place, self._turns = place, itertools.count()
        self._points, sizes, self.rounds = (500_000, [64, *[8] * 8], 1) if quick else (5_000_000, [512, *[8] * 64], 3)
        self._file_bytes = sum(sizes) * MIB
        self.what = f"{self._points:,} points and {sum(sizes):,} MiB in {len(sizes)} files"
        place.start_agent()
        self._path = place.run("training.py", place.folder, "training", self._points, *sizes)["path"]
        place.stop_agent()

    def run(self, report: Report, options: Options) -> None:
        bare, ours = [], []
        for _ in range(self.rounds):
            bare.append(self._turn(options, self._bare))
            ours.append(self._turn(options, self._sync))
            self._check(bare[-1], ours[-1])
        wholes = [each["points"] + each["files"] for each in bare]
        ratio = median([whole / each["seconds"] for whole, each in zip(wholes, ours, strict=True)])
        in_points, in_files = (median([each[name] for each in bare]) for name in ("points", "files"))
        report.add("speed of the bare loop, reached by sync", ratio, "x", 0.7, at_least=True)
        note = f"bare {median(wholes):.1f} s: {in_points:.1f} s points, {in_files:.1f} s files"
        report.add("sync, from start to end", median([each["seconds"] for each in ours]), "s", note=note)
        report.add("bare loop, points", self._points / in_points, "/s", note=f"{bare[0]['pushes']} pushes")
        report.add("bare loop, files", self._file_bytes / in_files / MIB, "MiB/s")
        in_sync, in_bare = (median([each["server"] for each in runs]) for runs in (ours, bare))
        note = f"server {in_sync:.1f} s; in the bare loop {in_bare:.1f} s"
        report.add("sync, processor time", median([each["cpu"] for each in ours]), "s", note=note)
        report.add("sync, peak memory", max(each["peak"] for each in ours) / MIB, "MiB")
        report.add("sync once more, with nothing to send", median([each["again"]["seconds"] for each in ours]), "s")

    def _bare(self, url: str) -> dict[str, Any]:
        return self._place.run("bare.py", self._path, url)

    def _sync(self, url: str) -> dict[str, Any]:
        first, again = (
            self._place.run("timed.py", "sync", self._path, "--remote", url, "--json") for _ in ("first", "again")
        )
        return {**first, "again": again}

    def _turn(self, options: Options, work: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        number = next(self._turns)
        data = self._place.folder / f"server-{number}"
        os.sync()  # nobody pays for what another one has left to write back
        with running(self._place, "--data", str(data), *options(number)) as (url, pid):
            before = cpu_seconds(pid)
            found = work(url)
            found["server"] = cpu_seconds(pid) - before
        shutil.rmtree(data)
        return found

    def _check(self, bare: dict[str, Any], ours: dict[str, Any]) -> None:
        """Both have sent everything, and the second sync nothing: else their times say nothing."""
        (sent,), (again,) = ours["said"], ours["again"]["said"]
        is_whole = bare["records"] >= self._points and bare["file_bytes"] == self._file_bytes
        if not is_whole or any(sent[name] != bare[name] or again[name] for name in COUNTS):
            raise RuntimeError(f"sync sent {sent}, then {again}; the bare loop {bare}")


def measure(place: Place, report: Report, quick: bool) -> None:
    race = Race(place, quick)
    how = f"in {race.rounds} turns with a bare loop"
    report.section("sync", f"{race.what} into SQLite and a folder, {how}")
    race.run(report, lambda _turn: [])
    if not (install.FOLDER / "made-of").exists():
        report.section("sync", "into MongoDB and S3: left out; python -m tests.services.install gets them")
        return
    with mongod() as documents, s3() as store:
        store.make_bucket("bench")
        place.environment.update(AWS_ACCESS_KEY_ID=store.access_key, AWS_SECRET_ACCESS_KEY=store.secret_key)

        def options(turn: int) -> list[str]:
            with pymongo.MongoClient[dict[str, Any]](documents.uri) as client:
                client.drop_database("dreamlake")
            return ["--mongo", documents.uri, "--s3", f"s3://bench/{turn}", "--s3-endpoint", store.endpoint]

        report.section("sync", f"{race.what} into MongoDB and S3, {how}")
        race.run(report, options)
