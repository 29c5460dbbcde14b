"""One process of a tracker's own environment: opens a run, does one thing, and says what it cost. Prints JSON.

system.py SYSTEM WHAT JSON   WHAT is a function below, JSON its arguments
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from array import array
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from time import perf_counter_ns as clock
from typing import Any

TOP = str(Path(__file__).resolve().parents[3])
sys.path[0] = TOP  # not this folder, whose files are called as others' modules are
PIECE = 1 << 20
WARM = 50  # calls before the first that counts
FIRST_SECONDS = 30.0


def resident() -> int:
    with open("/proc/self/status", "rb") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(b"VmRSS:"))


def system(name: str) -> Any:
    return importlib.import_module(f"tests.bench.systems.{name}")


def quantiles(times: array[int]) -> dict[str, float]:
    """Of nanoseconds, in microseconds."""
    every = sorted(times)
    parts = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    found = {name: every[min(len(every) - 1, int(len(every) * part))] / 1e3 for name, part in parts.items()}
    return {**found, "mean": sum(every) / len(every) / 1e3}


def calls(name: str, folder: str, run: str, rate: float, seconds: float, most: int, rank: int | None = None) -> Any:
    """Log scalars, at full speed (``rate`` 0) or so many a second, for so long; then flush and close."""
    opened = system(name).Run(folder, run, rank)
    log = opened.log
    for step in range(WARM):
        log(step / 7, step)
    if rank is not None:
        print("ready", flush=True)
        sys.stdin.readline()
    times = array("q")
    step = WARM
    started = time.monotonic()
    end = clock() + int(seconds * 1e9)
    period = int(1e9 / rate) if rate else 0
    tick = clock()
    while clock() < end and step < WARM + most:
        if period and (left := tick - clock()) > 0:
            time.sleep(left / 1e9)  # not a loop of Python's, which keeps the interpreter's lock from every other thread
        value = step / 7
        before = clock()
        log(value, step)
        after = clock()
        times.append(after - before)
        step += 1
        tick = tick + period if period else after
    stopped = time.monotonic()
    opened.flush()
    flushed = time.monotonic()
    opened.close()
    closed = time.monotonic()
    return {
        "calls": len(times),
        "started": started,
        "stopped": stopped,
        "flushed": flushed,
        "closed": closed,
        **quantiles(times),
    }


def series(name: str, folder: str, run: str, count: int, seconds: float, most: int) -> Any:
    """Log scalars into so many series in turn, at full speed and for so long, after a first one into each. No calls
    where these alone take longer than ``FIRST_SECONDS``."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a file for each series takes more than most shells allow
    opened = system(name).Run(folder, run)
    log_to = getattr(opened, "log_to", None) or (lambda each, value, step: opened.log_all({each: value}, step))
    names = [f"series{number}" for number in range(count)]
    step, end = 0, time.monotonic() + FIRST_SECONDS
    for each in names:
        log_to(each, 0.5, step)
        step += 1
        if time.monotonic() > end:
            most = 0
            break
    first, end = step, time.monotonic() + seconds
    for each in islice(cycle(names), most):
        log_to(each, step / 7, step)
        step += 1
        if time.monotonic() > end:
            break
    opened.close()
    return {"calls": step - first}


def opening(name: str, folder: str, run: str) -> Any:
    """Seconds of importing, opening, the first call and closing; bytes of memory before and after."""
    bare, before = resident(), perf_counter()
    module = system(name)
    imported = perf_counter()
    opened = module.Run(folder, run)
    made = perf_counter()
    opened.log(0.5, 0)
    called = perf_counter()
    step = 1
    while step < 1000 and perf_counter() - called < 2:
        opened.log(step / 7, step)
        step += 1
    memory = resident() - bare
    closing = perf_counter()
    opened.close()
    return {
        "import": imported - before,
        "open": made - imported,
        "first": called - made,
        "close": perf_counter() - closing,
        "memory": memory,
    }


def until_killed(name: str, folder: str, run: str, ledger: str, seconds: float) -> Any:
    """Log 100 scalars a second, and put down a byte for each call that returned; what raises is not put down."""
    fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    opened = system(name).Run(folder, run)
    raised: dict[str, int] = {}
    tick = time.monotonic()
    end = tick + seconds
    step = 0
    while tick < end:
        time.sleep(max(0.0, tick - time.monotonic()))
        try:
            opened.log(float(step), step)
            os.write(fd, b".")
        except Exception as error:
            raised[type(error).__name__] = raised.get(type(error).__name__, 0) + 1
        step += 1
        tick += 0.01
    try:
        opened.close()
    except Exception as error:
        raised[f"close: {type(error).__name__}"] = 1
    return {"raised": raised}


def training(name: str, folder: str, run: str, steps: int, rounds: int, values: int) -> Any:
    """Seconds of a step of a real training (two layers, their gradients by hand), with and without logging ``values``
    scalars in each, in turns; and of the calls in it."""
    import numpy

    chance = numpy.random.default_rng(0)
    batch, targets = chance.standard_normal((2048, 512)), chance.standard_normal((2048, 64))
    layers = [chance.standard_normal((512, 512)) / 23, chance.standard_normal((512, 64)) / 23]
    opened = system(name).Run(folder, run)
    took: dict[str, list[float]] = {"without": [], "with": [], "calls": []}
    step = 0
    for turn in range(2 * rounds):
        how = "with" if turn % 2 else "without"
        before, calling = perf_counter(), 0.0
        for _ in range(steps):
            hidden = numpy.maximum(batch @ layers[0], 0)
            off = hidden @ layers[1] - targets
            loss = float((off * off).mean())
            back = (off @ layers[1].T) * (hidden > 0)
            layers[1] -= 1e-6 * (hidden.T @ off)
            layers[0] -= 1e-6 * (batch.T @ back)
            if how == "with":
                given = {f"value{number}": loss * number for number in range(values)}
                called = perf_counter()
                opened.log_all(given, step)
                calling += perf_counter() - called
            step += 1
        took[how].append((perf_counter() - before) / steps)
        if how == "with":
            took["calls"].append(calling / steps)
    opened.close()
    return took


def read(name: str, folder: str, run: str) -> Any:
    """How many values a reader finds, and how long reading takes."""
    module = system(name)
    before = perf_counter()
    found = module.read(folder, run)
    count = len(found)
    return {"count": count, "seconds": perf_counter() - before}


def files(name: str, folder: str, run: str, count: int, size: int, seconds: float) -> Any:
    """Upload so many files, as far as there is time: seconds until the last call has returned and until the run is
    closed, beside `cp`; and how many bytes of each are then anywhere below HOME, besides where it came from."""
    module = system(name)
    if not hasattr(module.Run, "upload"):
        return {}
    sources, copies = os.path.join(folder, f"{run}-sources"), os.path.join(folder, f"{run}-copies")
    os.mkdir(sources)
    paths = [os.path.join(sources, f"file{number}.bin") for number in range(count)]
    for path in paths:
        with open(path, "wb") as file:
            for start in range(0, size, PIECE):
                file.write(os.urandom(min(PIECE, size - start)))
    os.sync()
    copied = 60.0
    for _ in range(3):
        before = perf_counter()
        subprocess.run(["cp", "-r", "--reflink=auto", sources, copies], check=True)
        copied = min(copied, perf_counter() - before)
        shutil.rmtree(copies)
        os.sync()
    opened = module.Run(folder, run)
    opened.log(0.5, 0)
    bytes_before, uploaded = taken(os.environ["HOME"]), 0
    before = perf_counter()
    for path in paths:
        opened.upload(path)
        uploaded += 1
        if perf_counter() - before > seconds:
            break
    returned = perf_counter() - before
    opened.close()
    closed = perf_counter() - before
    kept = (taken(os.environ["HOME"]) - bytes_before) / (uploaded * size)
    return {
        "files": uploaded,
        "copied": copied / count,
        "returned": returned / uploaded,
        "closed": closed,
        "kept": kept,
    }


def taken(folder: str) -> int:
    """Bytes of all files below a folder."""
    return sum(
        os.lstat(os.path.join(where, name)).st_size for where, _folders, names in os.walk(folder) for name in names
    )


def end(name: str, folder: str) -> Any:
    module = system(name)
    if hasattr(module, "end"):
        module.end(folder)
    return {}


if __name__ == "__main__":
    what = {each.__name__: each for each in (calls, series, opening, until_killed, training, read, files, end)}
    found = what[sys.argv[2]](sys.argv[1], **json.loads(sys.argv[3]))
    print("\n" + json.dumps(found), flush=True)
