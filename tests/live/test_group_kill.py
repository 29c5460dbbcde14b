"""Everybody is killed at one instant: the script, its children and the agent. The directory holds everything."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import leftovers, reading, scripts
from tests.live.ledger import (
    Ledger,
    Row,
    assert_all_there_once,
    assert_files_are_whole,
    assert_indexes_as_told,
    assert_views_agree,
    rows_of,
)
from tests.waiting import wait_for

CHILDREN = 3
# A script that has an agent and children, all of one process group.
SCRIPT = f"""
import subprocess, sys, time
from dreamlake.world.endpoints import find_agent

scribe, root, scratch, never = sys.argv[1:]
agent = [sys.executable, "-m", "dreamlake.cli", "agent", "run"]
children = [subprocess.Popen(agent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
while find_agent() is None:
    time.sleep(0.02)
for number in range({CHILDREN}):
    children.append(subprocess.Popen([sys.executable, scribe, root, "run", f"w{{number}}", never, scratch]))
for child in children:
    child.wait()
"""
VISIT = """
import sys
from dreamlake import Session

Session("run", "project", local_path=sys.argv[1]).open().close()
"""
SCRIBE = Path(__file__).parent / "programs" / "scribe.py"


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_group_left_everything_here_elsewhere_and_in_a_copy(
    home: Path, other_home: Path, root: Path, tmp_path: Path, seed: int
) -> None:
    words, scratch = tmp_path / "words", tmp_path / "scratch"
    scratch.mkdir()
    with words.open("wb") as out:
        script = subprocess.Popen(
            scripts.command(SCRIPT, SCRIBE, root, scratch, tmp_path / "never"),
            stdout=out,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        wait_for(lambda: len(Ledger(words).calls) == CHILDREN)
        moment = time.monotonic() + random.Random(seed).uniform(0.1, 0.7)
        wait_for(lambda: time.monotonic() >= moment)
    finally:
        os.killpg(script.pid, signal.SIGKILL)
        script.wait()
    wait_for(lambda: not leftovers.processes_of(home))

    copy, faithful_copy = tmp_path / "copy", tmp_path / "faithful-copy"
    shutil.copytree(root, copy)
    subprocess.run(["cp", "-a", root, faithful_copy], check=True)
    ledger = Ledger(words)
    places = [(root, other_home), (copy, home), (faithful_copy, other_home)]
    found = [rows_after_a_visit(place, of_home, ledger) for place, of_home in places]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 100


def rows_after_a_visit(root: Path, home: Path, ledger: Ledger) -> list[Row]:
    scripts.run(VISIT, root, env={"DREAMLAKE_HOME": str(home)})
    folder = root / "project" / "run"
    rows = list(rows_of(folder))
    assert_all_there_once(folder, ledger)
    assert_indexes_as_told(folder, ledger)
    assert_views_agree(folder)
    assert_files_are_whole(folder)
    ends = [row for row in reading.lines(folder / ".dreamlake" / "session.jsonl") if row["op"] == "end"]
    assert sorted(row["state"] for row in ends) == ["finished", *["killed"] * CHILDREN]
    return rows
