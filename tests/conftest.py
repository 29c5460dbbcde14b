"""What every test stands on: a home of its own for the agent, and nobody left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import leftovers, reading, scripts
from tests.waiting import wait_for

Cli = Callable[..., subprocess.CompletedProcess[str]]
StartScript = Callable[..., "subprocess.Popen[str]"]

MARK = "DREAMLAKE_TEST_RUN"
CLI_SECONDS = 60
LEAVE_SECONDS = 15


def run_cli(
    *args: object, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dreamlake.cli", *map(str, args)],
        cwd=cwd,
        env=scripts.environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CLI_SECONDS,
        check=False,
    )


def agent_pid() -> int:
    """The live agent of this test's home; tests send it signals, so a pid that is not ours is an error."""
    pid = int(reading.strict(run_cli("agent", "status", "--json").stdout)["pid"])
    ours = [process.pid for process in leftovers.processes_of(Path(os.environ["DREAMLAKE_HOME"]))]
    assert pid in ours, f"status names {pid}, which is not of this home: {ours}"
    return pid


@contextlib.contextmanager
def fresh_home() -> Iterator[Path]:
    """A short folder (a socket's path must fit in 100 bytes), whose agent is stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="dl", dir="/tmp"))
    home.chmod(0o700)
    try:
        yield home
    finally:
        stopped = None
        if leftovers.processes_of(home) or any(path.is_socket() for path in home.rglob("*")):
            with contextlib.suppress(subprocess.TimeoutExpired):
                stopped = run_cli("agent", "stop", env={"DREAMLAKE_HOME": str(home)})
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not leftovers.processes_of(home), timeout=LEAVE_SECONDS)
        left = leftovers.end(leftovers.processes_of(home))
        shutil.rmtree(home, ignore_errors=True)
        assert not left, f"left behind: {left}; `agent stop` said {stopped}"


@pytest.fixture(scope="session", autouse=True)
def nobody_left_behind() -> Iterator[None]:
    """Every process that a test starts inherits a mark; at the end nobody may carry it any more."""
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark
    yield
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not leftovers.processes_marked(MARK, mark), timeout=5)
    left = leftovers.end(leftovers.processes_marked(MARK, mark))
    del os.environ[MARK]
    assert not left, f"the tests left processes behind: {left}"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_agent: the sessions below `root` are nobody's but the test's")
    config.addinivalue_line("markers", "home(whose): 'own' (the default), or 'shared' by one worker's tests")


@pytest.fixture(scope="session")
def shared_home(nobody_left_behind: None) -> Iterator[Path]:
    """One home, so one agent, for all tests of a worker that ask for no more than an agent that works."""
    with fresh_home() as path:
        yield path


@pytest.fixture
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's agent lives. Fresh, unless the test's nearest mark is `home("shared")`."""
    for name in [name for name in os.environ if name.startswith("DREAMLAKE_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)
    mark = request.node.get_closest_marker("home")
    with contextlib.ExitStack() as stack:
        if mark and mark.args == ("shared",):
            path = request.getfixturevalue("shared_home")
        else:
            path = stack.enter_context(fresh_home())
        monkeypatch.setenv("DREAMLAKE_HOME", str(path))
        yield path


@pytest.fixture
def other_home(home: Path) -> Iterator[Path]:
    """A second home, of which the environment says nothing."""
    with fresh_home() as path:
        yield path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "experiments"


@pytest.fixture
def dreamlake(home: Path) -> Cli:
    return run_cli


@pytest.fixture
def agent(home: Path, dreamlake: Cli) -> Path:
    """The home, with an agent live in it."""
    started = dreamlake("agent", "start")
    assert started.returncode == 0, started
    return home


@pytest.fixture
def start_script(home: Path, tmp_path: Path) -> Iterator[StartScript]:
    """Start a script and go on; at the end it is killed, and what it complained of is shown."""
    with contextlib.ExitStack() as started:

        def finish(process: subprocess.Popen[str], complaints: Path) -> None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):  # what was still buffered for a dead script
                    if pipe:
                        pipe.close()
            process.wait()
            sys.stderr.write(complaints.read_text())

        def start(
            script: str | Path,
            *args: object,
            cwd: Path = tmp_path,
            env: dict[str, str] | None = None,
            flags: tuple[str, ...] = scripts.WARNINGS_ARE_ERRORS,
        ) -> subprocess.Popen[str]:
            # stderr goes to a file: a pipe nobody reads would stop the script when it is full.
            complaints = tmp_path / f"stderr-{uuid.uuid4().hex}"
            with complaints.open("w") as stderr:
                process = subprocess.Popen(
                    scripts.command(script, *args, flags=flags),
                    cwd=cwd,
                    env=scripts.environment(env),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            started.callback(finish, process, complaints)
            return process

        yield start


def pytest_collection_finish(session: pytest.Session) -> None:
    """Thousands of tests stay until the end. Each world of the simulation ends with a whole collection, which looked at
    all of them: three quarters of its time."""
    gc.collect()
    gc.freeze()
