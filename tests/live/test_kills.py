"""The agent is killed again and again under writers that do not notice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests import leftovers, reading
from tests.waiting import wait_for

WRITERS = 4
SECONDS = 8.0
KILLS_AT_LEAST = 5

WRITER = """
import os, sys, time
from dreamlake import Session

root, note, number, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
session = Session("run", "project", local_path=root).open()
track = session.track("loss")
returned = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
count, slowest, end = 0, 0.0, time.monotonic() + seconds
while time.monotonic() < end:
    began = time.perf_counter()
    track.append(writer=number, count=count)
    slowest = max(slowest, time.perf_counter() - began)
    os.write(returned, b"%d\\n" % count)
    count += 1
    if count % 20 == 0:
        time.sleep(0.005)
session.flush(timeout=60)
session.close()
assert slowest < 1.0, slowest
"""


def _bytes(notes: list[Path]) -> int:
    return sum(note.stat().st_size for note in notes if note.exists())


def _wait_for_calls(notes: list[Path], more: int, writers: list[subprocess.Popen[str]]) -> None:
    goal = _bytes(notes) + more
    wait_for(lambda: _bytes(notes) >= goal or all(writer.poll() is not None for writer in writers), timeout=60)


def test_no_call_is_lost_doubled_or_moved_while_the_agent_is_killed(home: Path, root: Path, tmp_path: Path) -> None:
    notes = [tmp_path / f"returned-{number}" for number in range(WRITERS)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITER, str(root), str(note), str(number), str(SECONDS)],
            env=dict(os.environ),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, note in enumerate(notes)
    ]
    chance, kills = random.Random(7), 0
    while any(writer.poll() is None for writer in writers):
        # After so many more calls, wherever the agent then is.
        _wait_for_calls(notes, chance.randrange(1_000, 40_000), writers)
        for agent in leftovers.agents_of(home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(agent.pid, signal.SIGKILL)
                kills += 1
    for writer in writers:
        _, told = writer.communicate(timeout=90)
        assert writer.returncode == 0, told
    assert kills >= KILLS_AT_LEAST
    folder = root / "project" / "run"
    points = reading.points(folder)
    reading.assert_consecutive(points)
    for number, note in enumerate(notes):
        mine = [point["data"]["count"] for point in points if point["data"]["writer"] == number]
        assert mine == list(range(len(note.read_text().splitlines())))
