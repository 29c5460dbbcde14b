"""How schedulers end a job: SIGTERM and a grace, the whole process group, or the control group with all that is in
it, the agent too."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamlake import Session
from dreamlake.world.disk import REAL_DISK
from tests import leftovers, reading, scripts
from tests.conftest import Cli, agent_pid
from tests.waiting import wait_for

JOB = "DREAMLAKE_TEST_JOB"
COUNTS = """
import signal, subprocess, sys, threading, time
from dreamlake import Session
from dreamlake.world.endpoints import find_agent

if sys.argv[2] == "has an agent":  # of the same process group
    subprocess.Popen([sys.executable, "-m", "dreamlake.cli", "agent", "run"], stdout=subprocess.DEVNULL)
    while find_agent() is None:
        time.sleep(0.02)
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


class ControlGroup:
    """A job's control group (v2), or, where none can be had, as good: every process that carries the job's mark."""

    def __init__(self) -> None:
        self.path: Path | None = None
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        for place in [words[1] for words in mounts if words[2] == "cgroup2"]:
            made = Path(place) / f"dreamlake-{uuid.uuid4().hex}"
            with contextlib.suppress(OSError):
                made.mkdir()
                self.path = made
                if (made / "cgroup.kill").exists():  # Linux 5.14
                    return
                made.rmdir()
                self.path = None

    def command(self) -> tuple[str, ...]:
        """What goes before a command that is to be in it."""
        if self.path is None:
            return ()
        return ("sh", "-c", 'echo $$ > "$0"/cgroup.procs && exec "$@"', str(self.path))

    def kill(self, job: Job) -> None:
        if self.path is None:
            leftovers.end(leftovers.processes_marked(JOB, job.mark))
        else:
            (self.path / "cgroup.kill").write_text("1")
        job.process.wait()

    def has_agent(self, job: Job, pid: int) -> bool:
        if self.path is None:
            return pid in [process.pid for process in leftovers.processes_marked(JOB, job.mark)]
        return str(pid) in (self.path / "cgroup.procs").read_text().split()

    def close(self) -> None:
        if self.path is None:
            return
        path = self.path
        (path / "cgroup.kill").write_text("1")
        wait_for(lambda: not (path / "cgroup.procs").read_text())
        path.rmdir()


@pytest.fixture
def group(home: Path) -> Iterator[ControlGroup]:
    made = ControlGroup()
    yield made
    made.close()


StartJob = Callable[..., Job]


@pytest.fixture
def start_job(home: Path, root: Path, tmp_path: Path) -> Iterator[StartJob]:
    with contextlib.ExitStack() as started:

        def start(how: str, *before: str) -> Job:
            job = Job(root, how, tmp_path, *before)
            started.callback(job.process.wait)
            started.callback(job.process.kill)
            return job

        yield start


def ends(folder: Path) -> list[dict[str, object]]:
    return [row for row in reading.lines(folder / ".dreamlake" / "session.jsonl") if row["op"] == "end"]


def assert_kept(folder: Path, job: Job) -> None:
    """Everything that returned, once and in order, and perhaps the call that was cut off."""
    returned = job.returned()
    wait_for(lambda: len(reading.values(folder)) > returned)
    assert reading.values(folder) == list(range(len(reading.values(folder))))
    wait_for(lambda: reading.view(folder / "session.json")["state"] == "killed")


def test_a_script_with_a_handler_of_its_own_has_all_of_the_grace_and_then_is_killed(
    start_job: StartJob, folder: Path
) -> None:
    job = start_job("checkpoints")
    job.process.terminate()
    wait_for(lambda: "told" in job.words.read_text())
    told = job.returned("told")
    wait_for(lambda: job.returned() > told + 50)  # the grace: 30 s with most schedulers; nothing depends on how long
    assert job.process.poll() is None
    assert ends(folder) == []
    job.process.kill()
    job.process.wait()
    assert_kept(folder, job)


def test_a_script_without_one_says_that_it_was_asked_to_end(start_job: StartJob, folder: Path) -> None:
    job = start_job("plain")
    job.process.terminate()
    assert job.process.wait(timeout=10) == -signal.SIGTERM
    assert_kept(folder, job)
    assert [end["state"] for end in ends(folder)] == ["killed"]
    assert "SIGTERM" in str(ends(folder)[0])


def test_a_process_group_that_has_the_agent_in_it_is_asked_to_end(
    start_job: StartJob, home: Path, folder: Path, dreamlake: Cli
) -> None:
    job = start_job("has an agent")
    os.killpg(job.process.pid, signal.SIGTERM)
    assert job.process.wait(timeout=20) == -signal.SIGTERM
    wait_for(lambda: not leftovers.processes_of(home))  # the agent has drained and gone: nobody started another
    assert dreamlake("agent", "start").returncode == 0
    assert_kept(folder, job)
    assert "SIGTERM" in str(ends(folder)[0])


def test_an_agent_in_a_jobs_control_group_dies_with_it_and_the_next_one_applies_what_is_left(
    start_job: StartJob, group: ControlGroup, home: Path, root: Path, folder: Path
) -> None:
    job = start_job("plain", *group.command())
    with Session("neighbour", "project", local_path=str(root)) as neighbour:
        neighbour.track("loss").append(value=0)
        neighbour.flush()
        pid = agent_pid()
        assert group.has_agent(job, pid)
        group.kill(job)
        neighbour.track("loss").append(value=1)
        neighbour.flush()  # by an agent that this session has started
        assert agent_pid() != pid
        assert reading.values(root / "project" / "neighbour") == [0, 1]
        assert_kept(folder, job)


def test_an_agent_outside_a_jobs_control_group_lives_on(
    agent: Path, start_job: StartJob, group: ControlGroup, folder: Path
) -> None:
    pid = agent_pid()
    job = start_job("plain", *group.command())
    assert not group.has_agent(job, pid)
    group.kill(job)
    assert_kept(folder, job)
    assert agent_pid() == pid


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC])
def test_a_quota_that_is_used_up_for_a_while_costs_what_it_could_not_take(
    number: int, home: Path, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is raised in the place of the client's write(2)."""
    used_up = False
    write = os.write

    def refuses(fd: int, data: bytes) -> int:
        if used_up and b"over" in data:
            raise OSError(number, os.strerror(number))
        return write(fd, data)

    monkeypatch.setattr(type(REAL_DISK), "write", staticmethod(refuses))
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=0)
        used_up = True
        for _ in range(3):
            session.track("loss").append(value="over")
        used_up = False
        session.track("loss").append(value=1)
        session.flush()
        assert session._writer is not None
        assert session._writer.lost == 3
    assert reading.values(folder) == [0, 1]
    assert len([record for record in caplog.records if os.strerror(number) in record.getMessage()]) == 1
