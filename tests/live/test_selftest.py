"""`dreamlake agent selftest` between two pretend nodes, on one folder of this machine and on a bad file system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dreamlake_agent.selftest import listing
from dreamlake_agent.selftest.meeting import PREFIX, Side
from dreamlake_agent.selftest.post import Post
from tests import reading, scripts
from tests.live.nodes import Cluster, cluster
from tests.live.volume import CannotMount
from tests.services.stale import mounted
from tests.waiting import wait_for

SETTLE_SECONDS = "0.5"
RUN_SECONDS = 110
NEEDED = (
    "rename over a file is atomic",
    "a full folder renamed to one name",
    "a removed folder refuses whoever has it open",
    "whoever changes a folder sees all that is in it",
    "a growing file shows what was written, sooner or later",
    "owner",
    "follow",
    "takeover",
)


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dls", dir="/tmp") as folder:
        yield Path(folder)


def both_run(made: Cluster, *words: str) -> list[subprocess.CompletedProcess[str]]:
    """The command on both nodes at once."""
    command = ("agent", "selftest", str(made.shared), "--settle", SETTLE_SECONDS, "--wait", "40", *words)
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda node: node.dreamlake(*command, timeout=RUN_SECONDS), made.nodes))


@pytest.fixture
def two_nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(cluster(world=1, gone_seconds=10))
            for node in [made.node(*request.param, plain=not request.param) for _ in range(2)]:
                node.ready()
        except CannotMount as reason:
            pytest.skip(f"no pretend cluster: {reason}")
        yield made


def findings(told: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in reading.strict(told.stdout)["findings"]}


def agreed(made: Cluster) -> tuple[int, dict[str, dict[str, Any]]]:
    """What both nodes come to, and that nothing is left of it."""
    one, other = both_run(made, "--json")
    assert one.returncode == other.returncode, (one, other)
    assert one.stdout == other.stdout != "", (one, other)
    assert reading.strict(one.stdout)["two_nodes"] is True
    assert not [name for name in os.listdir(made.backing) if name.startswith(PREFIX)]
    return one.returncode, findings(one)


BAD = ("--stale", 0.6, "--late", 0.4, "--zeros", "--locks", "local")


@pytest.mark.parametrize("two_nodes", [BAD], indirect=True, ids=["stale"])
def test_two_nodes_on_a_bad_disk_find_what_holds_and_what_does_not(two_nodes: Cluster) -> None:
    code, found = agreed(two_nodes)
    assert code == 0, found
    assert {found[name]["verdict"] for name in NEEDED} == {"holds"}, found
    assert found["a lock (flock) is seen by the other node"]["verdict"] == "does not hold"
    assert found["the tail of a growing file has no zeros"]["verdict"] == "not to be had"
    assert (
        found["who has a replaced file open cannot write into the new one"]["figures"]["answers"].count("ESTALE") >= 2
    )


def test_a_disk_that_lacks_what_is_needed_is_told(place: Path) -> None:
    """Who changes a folder goes on to believe what he saw in it before."""
    server, views = place / "server", [place / "one", place / "other"]
    server.mkdir()
    with ExitStack() as stack:
        try:
            for view in views:
                stack.enter_context(mounted(server, view, "--stale", 1, "--deaf"))
        except CannotMount as reason:
            pytest.skip(f"no bad file system: {reason}")
        for name in ("first", "second"):
            (server / name).mkdir()
        sides = [
            Side(str(views[0]), Post(str(server), "1", "2"), True, {}),  # the talk itself is quick
            Side(str(views[1]), Post(str(server), "2", "1"), False, {}),
        ]
        with ThreadPoolExecutor(2) as pool:
            raws = list(pool.map(listing.measure, sides))
    [told] = listing.judge(*raws)
    assert told.is_bad, told


# ── one node, and its end in the middle ─────────────────────────────────────────────────────────────────────────────


def start(place: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dreamlake.cli", "agent", "selftest", str(place), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=scripts.environment(env),
    )


def test_alone_says_that_it_tells_nothing_of_two_nodes(home: Path, place: Path) -> None:
    process = start(place, "--alone", "--settle", "0")
    said, complained = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 0, said + complained
    assert "tells nothing about two nodes" in complained
    assert said.endswith("all that Dreamlake needs holds here\n")
    assert os.listdir(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_waits_and_is_interrupted_leaves_nothing(home: Path, place: Path, number: int) -> None:
    process = start(place)
    wait_for(lambda: any(os.listdir(place / name) for name in os.listdir(place)))
    process.send_signal(number)
    assert process.communicate(timeout=20)[1].endswith("interrupted\n")
    assert process.returncode == 130
    assert os.listdir(place) == []


def _has_agents(pid: int) -> bool:
    """Whether it has come as far as the real thing."""
    for child in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "dreamlake_agent.main" in " ".join(child.cmdline()):
                return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_one_that_is_ended_in_the_middle_ends_whom_it_started(
    home: Path, place: Path, tmp_path: Path, number: int, code: int
) -> None:
    process = start(place, "--alone", "--settle", "0", TMPDIR=str(tmp_path))
    try:
        wait_for(lambda: _has_agents(process.pid), 60)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        process.communicate(timeout=40)
        assert process.returncode == code
        assert not psutil.wait_procs(started, timeout=40)[1]
        assert os.listdir(place) == []
    finally:
        process.kill()
        process.communicate()


def test_when_one_side_is_killed_the_other_ends_and_clears_away(home: Path, place: Path) -> None:
    one = start(place, "--settle", "60")
    wait_for(lambda: any(os.listdir(place / name) for name in os.listdir(place)))
    other = start(place, "--settle", "60")
    try:
        wait_for(lambda: list(place.glob("*/second/sight")), 60)
        other.kill()
        other.communicate()
        one.send_signal(signal.SIGINT)
        one.communicate(timeout=40)
        assert one.returncode == 130
        assert os.listdir(place) == []
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


def test_when_one_side_is_interrupted_the_other_hears_it(home: Path, place: Path) -> None:
    one = start(place, "--settle", "60")
    wait_for(lambda: any(os.listdir(place / name) for name in os.listdir(place)))
    other = start(place, "--settle", "1")
    try:
        wait_for(lambda: list(place.glob("*/second/lock")), 60)
        one.send_signal(signal.SIGINT)
        one.communicate(timeout=40)
        said = other.communicate(timeout=100)[1]
        assert other.returncode == 1
        assert "could not go on" in said
        assert "Traceback" not in said
        assert os.listdir(place) == []
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("where", ["nowhere", "a_file"])
def test_wrong_use_is_told_as_such(home: Path, place: Path, where: str) -> None:
    (place / "a_file").touch()
    process = start(place / where)
    assert "no folder that can be written to" in process.communicate(timeout=20)[1]
    assert process.returncode == 2


def test_nobody_comes_and_it_says_so(home: Path, place: Path) -> None:
    process = start(place, "--wait", "1")
    assert "no other node came" in process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert os.listdir(place) == []
