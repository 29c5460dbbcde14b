"""Starting ranks as their launchers do, on this machine's loopback alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests import reading, scripts
from tests.waiting import wait_for

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ddp.py"
# Four processes that import PyTorch, on a machine that does other things as well.
LAUNCH_SECONDS = 150

# One thread each; nothing leaves loopback.
QUIET = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def torchrun(
    ranks: int, program: Path, *args: object, restarts: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The real one, to its end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return subprocess.run(
        [*launcher, f"--nproc-per-node={ranks}", f"--max-restarts={restarts}", str(program), *map(str, args)],
        env=scripts.environment({**QUIET, **(env or {})}),
        capture_output=True,
        text=True,
        timeout=LAUNCH_SECONDS,
        check=False,
    )


def ended(folder: Path) -> dict[str, Any]:
    """session.json, once nobody has the session open any more."""

    def view() -> dict[str, Any] | None:
        found = reading.view(folder / "session.json")
        return found if found["state"] != "running" else None

    return wait_for(view, timeout=30)


def notes(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What `noted.py` wrote down: of each process its calls that returned, in their order."""
    return {
        path.name: [json.loads(line) for line in path.read_bytes().splitlines()] for path in sorted(folder.iterdir())
    }


def assert_all_there_once(folder: Path, said: dict[str, list[dict[str, Any]]], tracks: tuple[str, ...]) -> None:
    """Every call that returned is there once with the rank that made it, in that process's order, and nothing else but
    at most one call of a process that was killed before it could note it."""
    for track in tracks:
        stored = reading.points(folder, track)
        reading.assert_consecutive(stored)
        rows: dict[tuple[int, int], list[Any]] = defaultdict(list)
        for row in stored:
            rows[row["rank"], row["data"]["pid"]].append(row["data"])
        calls: dict[tuple[int, int], list[Any]] = defaultdict(list)
        for each in (each for process in said.values() for each in process if each.get("track") == track):
            calls[each["rank"], each["data"]["pid"]].append(each["data"])
        assert set(calls) <= set(rows)
        for process, stored_calls in rows.items():
            made = calls[process]
            assert stored_calls[: len(made)] == made, (track, process)
            assert len(stored_calls) <= len(made) + 1, (track, process)
