"""The server: points pushed into SQLite and into MongoDB, and a blob into S3 beside boto3, sender included."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.bench.place import Place, cpu_seconds, memory_peak
from tests.bench.report import Report
from tests.services.mongod import mongod
from tests.services.seaweed import s3

MIB = 1 << 20
LISTENING = "listening on "


@contextlib.contextmanager
def running(place: Place, *options: str, **environment: str) -> Iterator[tuple[str, int]]:
    """(URL, pid) of a server on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamlake.cli", "server", "start", "--port", "0", "--auth", "none", *options],
        env={**place.environment, **environment},
        cwd=place.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if LISTENING not in said:
            raise RuntimeError(f"the server said {said!r}")
        yield said.partition(LISTENING)[2].split()[0], process.pid
    finally:
        process.terminate()
        process.wait(30)


def _push(place: Place, report: Report, quick: bool, name: str, target: float, *options: str) -> None:
    points = 200_000 if quick else 2_000_000
    with running(place, "--data", str(place.folder / name), *options) as (url, pid):
        before = cpu_seconds(pid)
        run = place.run("push.py", url, points)
        used = cpu_seconds(pid) - before
        report.add(f"points pushed into {name}", points / run["seconds"], "/s", target, at_least=True)
        note = f"sender {run['cpu'] / points * 1e6:.2f} µs"
        report.add(f"{name}: server, processor time for a point", used / points * 1e6, "µs", note=note)
        report.add(f"{name}: server, peak memory", memory_peak(pid) / MIB, "MiB")


def pushes(place: Place, report: Report, quick: bool) -> None:
    report.section("push", "one sender, 20,000 points a request; each answer is on stable storage")
    _push(place, report, quick, "SQLite", 200_000)
    with mongod() as server:
        _push(place, report, quick, "MongoDB", 100_000, "--mongo", server.uri)


def blobs(place: Place, report: Report, quick: bool) -> None:
    """In turn, so that both meet the same machine; the best of each."""
    size = (128 if quick else 512) * MIB
    file = place.folder / "blob"
    rounds = 2 if quick else 4
    with s3() as store:
        store.make_bucket("bench")
        keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key}
        place.environment.update(keys)
        options = ("--data", str(place.folder / "blobs"), "--s3", "s3://bench/blobs", "--s3-endpoint", store.endpoint)
        with running(place, *options) as (url, pid):
            ours, theirs = [], []
            for _ in range(rounds):
                with file.open("wb") as target:  # another one each time, or nothing would have to be sent
                    for _ in range(size // MIB):
                        target.write(os.urandom(MIB))
                theirs.append(place.run("blob.py", file, "boto3", store.endpoint, "bench"))
                ours.append(place.run("blob.py", file, "server", url))
            peak = memory_peak(pid)
    best, boto3 = min(ours, key=lambda run: sum(run.values())), min(run["send"] for run in theirs)
    report.section("blobs", f"{size // MIB} MiB to one S3 server, {rounds} times each in turn, the best of each")
    whole = best["send"] + best["verify"]
    report.add("speed of boto3's upload_file, sent", boto3 / best["send"], "x", 0.8, at_least=True)
    note = f"{best['send']:.1f} s to send, {best['verify']:.1f} s to read back and hash; boto3 {boto3:.1f} s"
    report.add("the same, verified", boto3 / whole, "x", 0.8, at_least=True, note=note)
    report.add("the sender's own SHA-256 before", best["hash"], "s")
    report.add("server, peak memory", peak / MIB, "MiB")
