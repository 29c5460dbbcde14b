"""A disk that answers nothing any more, in the middle of training."""

from __future__ import annotations

from pathlib import Path

from tests import reading
from tests.conftest import StartScript
from tests.live.volume import Volume

TWO_SESSIONS = """
import os, sys
from dreamlake import Session

volume, elsewhere = sys.argv[1:]
here = Session("run", "project", local_path=volume + "/experiments").open()
there = Session("run", "project", local_path=elsewhere).open()
here.flush()
for number in range(100):
    here.track("loss").append(value=number)
    there.track("loss").append(value=number)
print("cut the power", flush=True)
sys.stdin.readline()
for number in range(100, 200):
    here.track("loss").append(value=number)
    there.track("loss").append(value=number)
    there.flush(timeout=10)
os._exit(0)
"""


def test_a_disk_that_answers_nothing_holds_up_no_other_session_of_the_process(
    home: Path, volume: Volume, root: Path, tmp_path: Path, start_script: StartScript
) -> None:
    volume.mount()
    script = start_script(TWO_SESSIONS, volume.path, root)
    assert script.stdin is not None
    assert script.stdout is not None
    assert script.stdout.readline() == "cut the power\n"
    volume.cut_power()
    script.stdin.write("\n")
    script.stdin.flush()
    assert script.wait(timeout=60) == 0
    assert len(reading.values(root / "project" / "run")) == 200
    [complaints] = tmp_path.glob("stderr-*")
    [warning] = complaints.read_text().splitlines()
    assert "cannot take calls" in warning
