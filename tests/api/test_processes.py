"""Many processes, many threads, several agents: every call once, in order, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from dreamlake import Session
from tests import leftovers, reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.waiting import wait_for

PROGRAMS = Path(__file__).parent / "programs"

# DREAMLAKE_TEST_FULL=0 makes the one heavy test light, for a quick round while writing code.
FULL = os.environ.get("DREAMLAKE_TEST_FULL", "1") != "0"

RANK = """
import sys
from dreamlake import Session
sys.stdin.readline()
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.log(f"rank {sys.argv[2]}")
    session.flush()
    print("open", flush=True)
    sys.stdin.readline()
"""

WRITER = """
import sys
from dreamlake import Session
name, points = sys.argv[2], int(sys.argv[3])
with Session("run", "project", local_path=sys.argv[1]) as session:
    for value in range(points):
        session.track("loss").append(value=value, who=name)
        if value % 100 == 0:
            session.parameters().set({name: value})
            print(value, flush=True)
    session.flush(timeout=60)
print("end", flush=True)
"""


def count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def assert_every_point_once_and_in_order(folder: Path, processes: int, threads: int, points: int) -> None:
    path = folder / "tracks" / "loss" / "data.jsonl"
    following: Counter[tuple[int, int]] = Counter()
    with path.open("rb") as file:
        for index, line in enumerate(file):
            record = json.loads(line)
            data = record["data"]
            assert record["index"] == index
            assert data["value"] == following[data["p"], data["t"]], "out of order, twice, or missing"
            following[data["p"], data["t"]] += 1
    writers = {(process, thread): points for process in range(processes) for thread in range(threads)}
    assert {writer: count for writer, count in following.items() if writer[0] >= 0} == writers


def run_writers(method: str, root: Path, processes: int, threads: int, points: int, timeout: float) -> None:
    # Python 3.12 and later warn of any fork beside threads; that is the user's to decide.
    flags = scripts.WARNINGS_ARE_ERRORS if method == "spawn" else ()
    scripts.run(PROGRAMS / "writers.py", method, root, processes, threads, points, flags=flags, timeout=timeout)
    extra = 2 if method == "inherited" else 0
    path = root / "project" / "run" / "tracks" / "loss" / "data.jsonl"
    wait_for(lambda: count_lines(path) == processes * threads * points + extra, timeout=timeout)
    assert_every_point_once_and_in_order(root / "project" / "run", processes, threads, points)


@pytest.mark.timeout(300)
def test_eight_processes_with_four_threads_lose_and_double_nothing(home: Path, root: Path) -> None:
    run_writers("spawn", root, 8, 4, 50_000 if FULL else 1_000, timeout=200)


@pytest.mark.parametrize("method", ["spawn", "fork", "inherited"])
def test_processes_and_threads_share_a_session_however_they_are_started(method: str, home: Path, root: Path) -> None:
    run_writers(method, root, 4, 3, 1_000, timeout=30)


def test_the_state_does_not_change_when_a_forked_child_ends(home: Path, root: Path, folder: Path) -> None:
    scripts.run(
        """
        import json, os, sys
        from dreamlake import Session
        folder = os.path.join(sys.argv[1], "project", "run")
        with Session("run", "project", local_path=sys.argv[1]) as session:
            session.track("loss").append(value=0)
            for value in (1, 2):
                child = os.fork()
                if child == 0:
                    session.track("loss").append(value=value)
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            session.flush()
            with open(os.path.join(folder, "session.json")) as file:
                assert json.load(file)["state"] == "running"
            session.track("loss").append(value=3)
        """,
        root,
        flags=(),
    )
    wait_for(lambda: sorted(reading.values(folder)) == [0, 1, 2, 3])
    assert [value for value in reading.values(folder) if value in (0, 3)] == [0, 3]
    assert reading.view(folder / "session.json")["state"] == "finished"


def test_a_fork_while_threads_log_never_hangs_the_child(home: Path, root: Path, folder: Path) -> None:
    scripts.run(
        """
        import os, sys, threading
        from dreamlake import Session
        with Session("run", "project", local_path=sys.argv[1]) as session:
            stop = threading.Event()
            def work():
                while not stop.is_set():
                    session.track("busy").append(value=0)
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for value in range(30):
                child = os.fork()
                if child == 0:
                    session.track("loss").append(value=value)
                    session.flush()
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
            stop.set()
            for thread in threads:
                thread.join()
        """,
        root,
        flags=(),
    )
    assert sorted(reading.values(folder)) == list(range(30))
    reading.assert_consecutive(reading.points(folder))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_pools_of_threads_and_processes_work(method: str, home: Path, root: Path, folder: Path) -> None:
    scripts.run(PROGRAMS / "pool.py", method, root, flags=())
    expected = [f"{kind} {number}" for kind in ("thread", "process") for number in range(40)]
    wait_for(lambda: len(reading.messages(folder)) == 81)
    assert sorted(reading.messages(folder)) == sorted([*expected, "end"])
    data = reading.view(folder / "parameters.json")["data"]
    assert data == {f"process{number}": number for number in range(40)}


def test_eight_ranks_opening_at_once_get_one_agent(
    home: Path, root: Path, folder: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    ranks = [start_script(RANK, root, rank) for rank in range(8)]
    own = {rank.pid for rank in ranks}

    def go(rank: subprocess.Popen[str]) -> None:
        assert rank.stdin
        rank.stdin.write("\n")
        rank.stdin.flush()

    for rank in ranks:
        go(rank)
    for rank in ranks:
        assert rank.stdout
        assert rank.stdout.readline() == "open\n"
    agents = [process for process in leftovers.agents_of(home) if process.pid not in own]
    assert len(agents) == 1, [process.cmdline() for process in agents]
    assert reading.strict(dreamlake("agent", "status", "--json").stdout)["pid"] == agents[0].pid
    for rank in ranks:
        go(rank)
    assert [rank.wait(timeout=20) for rank in ranks] == [0] * 8
    assert sorted(reading.messages(folder)) == [f"rank {rank}" for rank in range(8)]
    reading.assert_consecutive(
        reading.lines(folder / "logs" / "logs.jsonl"),
        "sequenceNumber",
        reading.lines(folder / "logs" / "logs.jsonl")[0]["sequenceNumber"],
    )


def test_an_agent_killed_in_the_middle_loses_nothing(
    agent: Path, root: Path, folder: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    writers = [start_script(WRITER, root, name, 20_000) for name in ("a", "b")]
    for round_ in range(3):
        for writer in writers:
            assert writer.stdout
            while int(writer.stdout.readline()) < 2_000 * (round_ + 1):
                pass
        os.kill(agent_pid(), signal.SIGKILL)
        dreamlake("agent", "start")
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.read().endswith("end\n")
        assert writer.wait(timeout=30) == 0
    stored = reading.points(folder)
    reading.assert_consecutive(stored)
    for name in ("a", "b"):
        own = [point["data"]["value"] for point in stored if point["data"]["who"] == name]
        assert own == list(range(20_000))
    assert reading.view(folder / "parameters.json")["data"] == {"a": 19_900, "b": 19_900}


def test_a_script_goes_on_by_itself_after_its_agent_was_killed(agent: Path, session: Session, folder: Path) -> None:
    for value in range(5):
        session.track("loss").append(value=value)
        session.flush(timeout=30)
        os.kill(agent_pid(), signal.SIGKILL)
    session.track("loss").append(value=5)
    session.flush(timeout=30)
    assert reading.values(folder) == list(range(6))
    reading.assert_consecutive(reading.points(folder))


def test_an_agent_that_is_stopped_still_lets_training_go_on(agent: Path, session: Session, folder: Path) -> None:
    """SIGSTOP: it is there, it answers nothing; calls must not wait for it."""
    session.track("loss").append(value=-1)
    session.flush()
    pid = agent_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        for value in range(20_000):
            session.track("loss").append(value=value)
    finally:
        os.kill(pid, signal.SIGCONT)
    session.flush(timeout=30)
    assert reading.values(folder) == [-1, *range(20_000)]


@pytest.mark.parametrize("second_path", ["the same", "a link to the root", "a link to the session"])
def test_two_agents_on_one_directory_tear_nothing_and_serve_both(
    second_path: str,
    home: Path,
    other_home: Path,
    root: Path,
    folder: Path,
    tmp_path: Path,
    start_script: StartScript,
) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        session.track("other").append(value=0)
    other_root = root
    if second_path == "a link to the root":
        other_root = tmp_path / "link"
        other_root.symlink_to(root, target_is_directory=True)
    elif second_path == "a link to the session":
        other_root = tmp_path / "elsewhere"
        (other_root / "project").mkdir(parents=True)
        (other_root / "project" / "run").symlink_to(folder, target_is_directory=True)
    writers = [
        start_script(WRITER, root, "a", 5_000),
        start_script(WRITER, other_root, "b", 5_000, env={"DREAMLAKE_HOME": str(other_home)}),
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.read().endswith("end\n")  # so both of them could flush
        assert writer.wait(timeout=30) == 0
    stored = reading.points(folder)
    reading.assert_consecutive(stored)
    for name in ("a", "b"):
        own = [point["data"]["value"] for point in stored if point["data"]["who"] == name]
        assert own == list(range(5_000))
    assert reading.view(folder / "parameters.json")["data"] == {"a": 4_900, "b": 4_900}
    assert len(leftovers.agents_of(home)) <= 1
    assert len(leftovers.agents_of(other_home)) <= 1


def test_the_second_agent_takes_over_when_the_first_is_killed(
    agent: Path, other_home: Path, root: Path, folder: Path
) -> None:
    scripts.run(WRITER, root, "a", 500)
    os.kill(agent_pid(), signal.SIGKILL)
    scripts.run(WRITER, root, "b", 500, env={"DREAMLAKE_HOME": str(other_home)})
    scripts.run(WRITER, root, "c", 500)
    stored = reading.points(folder)
    reading.assert_consecutive(stored)
    assert [point["data"]["who"] for point in stored] == ["a"] * 500 + ["b"] * 500 + ["c"] * 500


def test_a_reader_beside_a_writer_never_sees_half_a_file(
    home: Path, root: Path, folder: Path, start_script: StartScript
) -> None:
    writer = start_script(WRITER, root, "a", 20_000)
    assert writer.stdout
    views = ["session.json", "parameters.json", "tracks/loss/metadata.json"]
    seen = Counter[str]()
    while writer.poll() is None:
        for view in views:
            if (folder / view).exists():
                reading.view(folder / view)
                seen[view] += 1
        log = folder / "tracks" / "loss" / "data.jsonl"
        if log.exists():
            for line in log.read_bytes().split(b"\n")[:-1][-100:]:
                reading.strict(line)
    assert writer.stdout.read().endswith("end\n")
    assert set(seen) == set(views)


def test_a_second_process_reads_what_the_first_has_flushed(session: Session, root: Path) -> None:
    session.track("loss").append(value=1)
    session.parameters().set(a=1)
    session.files().upload(__file__)
    session.flush()
    done = scripts.run(
        """
        import sys
        from dreamlake import Session
        with Session("run", "project", local_path=sys.argv[1]) as session:
            points = session.track("loss").read()["data"]
            print(len(points), session.parameters().get(), len(session.files().list()))
        """,
        root,
    )
    assert done.stdout == "1 {'a': 1} 1\n"
