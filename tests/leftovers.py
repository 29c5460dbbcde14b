"""Which processes belong to a test, found by what they carry: their environment and their command line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import psutil


def _those(belongs: Callable[[dict[str, str], list[str]], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            environment, command = process.environ(), process.cmdline()
        except (psutil.Error, OSError):
            continue  # gone, a zombie, or not ours to look at
        if any("multiprocessing.resource_tracker" in word for word in command):
            continue  # the interpreter's own; lives as long as the test process
        if belongs(environment, command):
            found.append(process)
    return found


def processes_of(home: Path) -> list[psutil.Process]:
    """Every live process, but this one, whose environment or command line names `home`."""
    text = str(home)
    return _those(lambda env, command: any(text in word for word in [*env.values(), *command]))


def processes_marked(variable: str, value: str) -> list[psutil.Process]:
    return _those(lambda env, _: env.get(variable) == value)


def agents_of(home: Path) -> list[psutil.Process]:
    """The agents of `home`, without the processes which an agent itself started."""
    found = []
    for process in processes_of(home):
        with contextlib.suppress(psutil.Error):
            if any("agent" in word for word in process.cmdline()):
                found.append(process)
    pids = {process.pid for process in found}
    tops = []
    for process in found:
        with contextlib.suppress(psutil.Error):
            if process.ppid() not in pids:
                tops.append(process)
    return tops


def end(processes: list[psutil.Process]) -> list[str]:
    """Kill them; say what they were."""
    said = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            said.append(f"{process.pid}: {' '.join(process.cmdline())}")
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    return said
