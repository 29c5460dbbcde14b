"""How schedulers end a job: SIGTERM and a grace, the whole process group, or the control group with all that is in
it, the agent too."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake import Session
from tests import leftovers, reading, scripts
from tests.conftest import Cli, agent_pid
from tests.waiting import wait_for

JOB = "DREAMLAKE_TEST_JOB"
COUNTS = """
import signal, sys, threading
from dreamlake import Session

session = Session("run", "project", local_path=sys.argv[1])
told = threading.Event()
if sys.argv[2] == "checkpoints":  # the user's own handler: goes on until it is killed
    signal.signal(signal.SIGTERM, lambda *_: told.set())
session.open()
value = 0
while True:
    session.track("loss").append(value=value)
    print(value, "told" if told.is_set() else "", flush=True)
    value += 1
    told.wait(0.001)
"""


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


class Job:
    """A script that says each value once its call has returned."""

    def __init__(self, root: Path, how: str, tmp: Path, *before: str) -> None:
        self.words, self.mark = tmp / "words", uuid.uuid4().hex
        with self.words.open("wb") as out:
            self.process = subprocess.Popen(
                [*before, *scripts.command(COUNTS, root, how)],
                env=scripts.environment({JOB: self.mark}),
                stdout=out,
                start_new_session=True,
            )
        wait_for(lambda: self.returned() > 50)

    def returned(self, word: str = "") -> int:
        lines = self.words.read_text().split("\n")[:-1]
        return int([line for line in lines if word in line][-1].split()[0]) if lines else -1


@pytest.fixture
def job(home: Path, root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Job]:
    started = Job(root, getattr(request, "param", "plain"), tmp_path)
    yield started
    with contextlib.suppress(ProcessLookupError):
        started.process.kill()
    started.process.wait()


def ends(folder: Path) -> list[dict[str, object]]:
    return [row for row in reading.lines(folder / ".dreamlake" / "session.jsonl") if row["op"] == "end"]


def assert_kept(folder: Path, job: Job) -> None:
    """Everything that returned, once and in order, and perhaps the call that was cut off."""
    returned = job.returned()
    wait_for(lambda: len(reading.values(folder)) > returned)
    assert reading.values(folder) == list(range(len(reading.values(folder))))
    wait_for(lambda: reading.view(folder / "session.json")["state"] == "killed")


@pytest.mark.parametrize("job", ["checkpoints"], indirect=True)
def test_a_script_with_a_handler_of_its_own_has_all_of_the_grace_and_then_is_killed(job: Job, folder: Path) -> None:
    job.process.terminate()
    wait_for(lambda: "told" in job.words.read_text())
    told = job.returned("told")
    wait_for(lambda: job.returned() > told + 50)  # the grace: 30 s, of which nothing depends on the clock
    assert job.process.poll() is None
    assert ends(folder) == []
    job.process.kill()
    job.process.wait()
    assert_kept(folder, job)


def test_a_script_without_one_says_that_it_was_asked_to_end(job: Job, folder: Path) -> None:
    job.process.terminate()
    assert job.process.wait(timeout=10) == -signal.SIGTERM
    assert_kept(folder, job)
    assert [end["state"] for end in ends(folder)] == ["killed"]
    assert "SIGTERM" in str(ends(folder)[0])


IN_ONE_GROUP = """
import subprocess, sys, time
from dreamlake.world.endpoints import find_agent
subprocess.Popen([sys.executable, "-m", "dreamlake.cli", "agent", "run"], stdout=subprocess.DEVNULL)
while find_agent() is None:
    time.sleep(0.02)
exec(sys.argv[1])
"""


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGKILL])
def test_a_whole_process_group_with_its_agent_is_ended(
    first: signal.Signals, home: Path, root: Path, folder: Path, tmp_path: Path, dreamlake: Cli
) -> None:
    program = tmp_path / "job.py"
    program.write_text(IN_ONE_GROUP.replace("exec(sys.argv[1])", COUNTS))
    job = Job(root, "plain", tmp_path, *scripts.command(program, root, "plain")[:0], "env")
    job.process.kill()
