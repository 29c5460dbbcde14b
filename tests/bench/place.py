"""Where the measures run: a home and a folder of their own, and processes that are gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from tests import leftovers

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM_SECONDS = 600
IN_MEMORY = ("tmpfs", "ramfs")


class Place:
    """One ``DREAMLAKE_HOME`` (so one agent) and one folder for sessions."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DREAMLAKE_")}
        # As on a user's machine: modules are compiled once, and not by every process that is timed.
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self.environment["DREAMLAKE_HOME"] = str(home)

    def cli(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "dreamlake.cli", *words],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
            check=True,
        ).stdout

    def start_agent(self) -> None:
        self.cli("agent", "start")

    def stop_agent(self) -> None:
        self.cli("agent", "stop")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cli("agent", "status", "--json"))
        return found

    def agent_pid(self) -> int:
        """Of the agent that holds this home now; 0 when none does. By its lock: asking would wake it."""
        try:
            return int(next(self.home.rglob("agent.lock")).read_text("ascii"))
        except (StopIteration, OSError, ValueError):
            return 0

    def kill_agent(self) -> None:
        os.kill(self.agent_pid(), signal.SIGKILL)

    def start(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(PROGRAMS / program), *map(str, arguments)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: object) -> dict[str, Any]:
        """Run a program to its end and give back the JSON it printed."""
        return result_of(self.start(program, *arguments))

    def together(self, program: str, each: list[tuple[object, ...]]) -> list[subprocess.Popen[str]]:
        """Start programs that say ``ready``, and let all of them go at once."""
        started = self.ready(program, each)
        go(started)
        return started

    def ready(self, program: str, each: list[tuple[object, ...]]) -> list[subprocess.Popen[str]]:
        """Start programs, and wait until each of them has said ``ready``."""
        started = [self.start(program, *arguments) for arguments in each]
        for process in started:
            assert process.stdout is not None
            word = process.stdout.readline()
            if word != "ready\n":
                raise RuntimeError(f"{program} said {word!r}")
        return started


def go(started: list[subprocess.Popen[str]]) -> None:
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=PROGRAM_SECONDS)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def memory(pid: int) -> int:
    """Resident bytes of a process now."""
    return int(psutil.Process(pid).memory_info().rss)


def memory_peak(pid: int) -> int:
    """The most resident bytes it ever had; where the kernel does not say, what it has now."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith(b"VmHWM:"))
    except (OSError, StopIteration):
        return memory(pid)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def wait_until(true: Any, seconds: float, every: float = 0.002) -> float:
    """Seconds until ``true()`` gave something true."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"waited {seconds} s in vain")
        time.sleep(every)
    return time.monotonic() - began


@contextlib.contextmanager
def fresh_place(disk: str) -> Iterator[Place]:
    """A home with a short path (a socket's path must fit into 100 bytes), and a folder on the disk to measure."""
    with contextlib.ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="dlb", dir="/tmp"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="dreamlake-bench-", dir=disk))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        place = Place(home, folder)
        stack.callback(_leave_nobody, place)
        yield place


def _leave_nobody(place: Place) -> None:
    if leftovers.agents_of(place.home):
        with contextlib.suppress(subprocess.SubprocessError):
            place.stop_agent()
    leftovers.end(leftovers.processes_of(place.home))
