"""Another version takes over while sessions are open: nothing that had returned is lost, whoever came before whom."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import dreamlake as installed_here
from tests import reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.live import releases
from tests.live.ledger import (
    Ledger,
    assert_all_there_once,
    assert_files_are_whole,
    assert_indexes_as_told,
    assert_views_agree,
)
from tests.waiting import wait_for

SCRIBE = Path(__file__).parent / "programs" / "scribe.py"
TODAY = installed_here.__version__


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return releases.unpacked(releases.FIRST, tmp_path_factory.mktemp("released"))


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


class Ranks:
    """Writers of one session, each a rank, of whatever version."""

    def __init__(self, root: Path, tmp: Path) -> None:
        self.root, self.folder, self.scratch = root, root / "project" / "run", tmp / "scratch"
        self.scratch.mkdir()
        self.enough, self.words, self.complaints = tmp / "enough", tmp / "words", tmp / "complaints"
        self.words.touch()
        self.writers: list[subprocess.Popen[bytes]] = []

    def start(self, count: int, world: int, installed: Path | None, **env: str) -> None:
        for rank in range(len(self.writers), len(self.writers) + count):
            ranked = {
                "RANK": str(rank),
                "WORLD_SIZE": str(world),
                "DREAMLAKE_AGENT": "never",
                "DREAMLAKE_TEST_PACE": "0.05",
                **env,
            }
            with self.words.open("ab") as words, self.complaints.open("ab") as complaints:
                self.writers.append(
                    subprocess.Popen(
                        scripts.command(SCRIBE, self.root, "run", f"w{rank}", self.enough, self.scratch),
                        env={**os.environ, **releases.environment(installed), **ranked},
                        stdout=words,
                        stderr=complaints,
                    )
                )

    def write(self, calls: int) -> None:
        """Until each writer has made so many calls more."""
        before = {name: len(each) for name, each in Ledger(self.words).calls.items()}

        def all_have() -> bool:
            if any(writer.poll() is not None for writer in self.writers):
                raise RuntimeError(self.complaints.read_text())
            now = Ledger(self.words).calls
            return len(now) == len(self.writers) and all(
                len(each) >= before.get(name, 0) + calls for name, each in now.items()
            )

        wait_for(all_have, timeout=60)

    def end(self) -> Ledger:
        self.enough.touch()
        for writer in self.writers:
            assert writer.wait(timeout=60) == 0, self.complaints.read_text()
        assert "Traceback" not in self.complaints.read_text()
        return Ledger(self.words)

    def kill(self) -> None:
        for writer in self.writers:
            writer.kill()
            writer.wait()


@pytest.fixture
def ranks(home: Path, root: Path, tmp_path: Path) -> Iterator[Ranks]:
    found = Ranks(root, tmp_path)
    yield found
    found.kill()


def assert_nothing_is_missing(folder: Path, ledger: Ledger) -> None:
    assert assert_all_there_once(folder, ledger) > 0
    assert_indexes_as_told(folder, ledger)
    assert_views_agree(folder)
    assert_files_are_whole(folder)


def ranks_of_rows(folder: Path) -> list[tuple[int | None, str]]:
    """(rank, writer) of every point, as they stand in the logs."""
    tracks = folder / "tracks"
    return [
        (point.get("rank"), point["data"]["writer"])
        for log in sorted(tracks.rglob("data.jsonl"))
        for point in reading.lines(log)
    ]


def test_today_takes_over_twice_while_8_ranks_of_the_released_client_write(
    ranks: Ranks, released: Path, tmp_path: Path
) -> None:
    assert releases.FIRST in releases.agent(released, "start", tmp_path)
    ranks.start(8, 8, released)
    ranks.write(20)
    assert f"version {TODAY}" in releases.agent(None, "restart", tmp_path)
    ranks.write(20)
    assert f"version {TODAY}" in releases.agent(None, "restart", tmp_path)
    ranks.write(20)
    assert_nothing_is_missing(ranks.folder, ranks.end())
    said = ranks_of_rows(ranks.folder)
    assert None in dict(said)  # of the released agent
    assert all(rank is None or writer == f"w{rank}" for rank, writer in said)
    assert {rank for rank, _ in said if rank is not None} == set(range(8))
    assert reading.view(ranks.folder / "session.json")["state"] == "finished"


def test_agents_of_both_versions_go_on_with_what_the_other_left(ranks: Ranks, released: Path, tmp_path: Path) -> None:
    """Up and down, told to end and killed in the middle of what no checkpoint covers, with clients of both versions."""
    releases.agent(released, "start", tmp_path)
    ranks.start(2, 4, released)
    ranks.start(1, 4, None)
    ranks.start(1, 4, None, DREAMLAKE_SPOOL=str(ranks.scratch))
    for next_one in (None, released):
        ranks.write(20)
        os.kill(agent_pid(), signal.SIGKILL)
        releases.agent(next_one, "start", tmp_path)
    for next_one in (None, released):
        ranks.write(20)
        releases.agent(next_one, "restart", tmp_path)
    ranks.write(20)
    ledger = ranks.end()
    assert_nothing_is_missing(ranks.folder, ledger)
    said = dict.fromkeys(ranks_of_rows(ranks.folder))
    assert {rank for rank, _ in said} == {None, 0, 1, 2, 3}  # each agent wrote as it does
    assert all(rank is None or writer == f"w{rank}" for rank, writer in said)
    # The older agent went on in a commits.log that says today's rules, and verify believes that. Today's agent takes
    # what stands there as it is.
    releases.agent(None, "restart", tmp_path)
    shown = releases.cli(None, "verify", str(ranks.folder), cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr


OLD_CLIENT = """
import sys
import dreamlake
from dreamlake import Session
assert dreamlake.__version__ == "0.3.0", dreamlake.__file__
with Session("run", "project", local_path=sys.argv[1], tags=["old"]) as session:
    session.log("hello", metadata={"step": 1})
    session.parameters().set(lr=0.1)
    track = session.track("train/loss")
    receipts = [track.append(value=value) for value in range(100)]
    session.files().upload(sys.argv[2], path="/models")
    assert [int(receipt["index"]) for receipt in receipts] == list(range(100))
    assert [point["data"]["value"] for point in track.read(start_index=90, limit=10)["data"]] == list(range(90, 100))
    assert session.parameters().get() == {"lr": 0.1}
    assert [file["filename"] for file in session.files().list()] == ["weights.bin"]
    assert [each["name"] for each in track.list_all()] == ["train/loss"]
    session.flush(durable=True)
    print("read", flush=True)
    sys.stdin.readline()
print("closed", flush=True)
"""


def test_the_released_client_works_with_todays_agent_reads_included(
    agent: Path, root: Path, folder: Path, released: Path, tmp_path: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"w" * 1000)
    script = start_script(OLD_CLIENT, root, tmp_path / "weights.bin", env=releases.environment(released))
    assert script.stdout
    assert script.stdin
    assert script.stdout.readline() == "read\n"
    (session,) = reading.strict(dreamlake("agent", "status", "--json").stdout)["sessions"]
    assert session["versions"] == [{"version": None, "can": None, "clients": 1}]
    script.stdin.write("\n")
    script.stdin.flush()
    assert script.stdout.readline() == "closed\n"
    assert script.wait(timeout=20) == 0
    assert reading.values(folder, "train/loss") == list(range(100))


NEW_CLIENT = """
import sys
from dreamlake import Session
sessions = [Session(name, "project", local_path=sys.argv[1]).open() for name in ("run", "other")]
for value in range(3):
    for session in sessions:
        session.track("loss").append(value=value)
        session.flush()
    print("written", flush=True)
    sys.stdin.readline()
for session in sessions:
    session.close()
"""


def test_an_older_agent_works_with_todays_client_which_says_once_how_to_restart_it(
    home: Path, root: Path, folder: Path, released: Path, tmp_path: Path
) -> None:
    """Of all that it lacks, in one sentence: ranks, and journals in a spool, which come into the directory instead."""
    (tmp_path / "spool").mkdir()
    releases.agent(released, "start", tmp_path)
    with subprocess.Popen(
        scripts.command(NEW_CLIENT, root),
        env={**os.environ, "RANK": "1", "WORLD_SIZE": "2", "DREAMLAKE_SPOOL": str(tmp_path / "spool")},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdin
        assert script.stdout
        assert script.stdout.readline() == "written\n"
        shown = releases.cli(None, "agent", "status", cwd=tmp_path)
        assert shown.returncode == 0, shown
        assert f"this command is of version {TODAY}" in shown.stdout
        assert "records do not say which rank" in shown.stdout
        assert ranks_of_values(folder) == [(0, None)]
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.readline() == "written\n"
        releases.agent(None, "restart", tmp_path)
        script.stdin.write("\n")
        script.stdin.flush()
        assert script.stdout.readline() == "written\n"
        status = reading.strict(releases.cli(None, "agent", "status", "--json", cwd=tmp_path).stdout)
        assert [each["versions"] for each in status["sessions"]] == [
            [{"version": TODAY, "can": status["can"], "clients": 1}]
        ] * 2
        assert "this command is of" not in releases.cli(None, "agent", "status", cwd=tmp_path).stdout
        _, complaints = script.communicate("\n", timeout=20)
    assert script.returncode == 0, complaints
    assert complaints.count("agent restart") == 1, complaints
    assert f"this process of dreamlake {TODAY}" in complaints
    assert "records do not say which rank" in complaints
    assert "DREAMLAKE_SPOOL is not used" in complaints
    assert "Nothing is lost" in complaints
    assert ranks_of_values(folder) == [(0, None), (1, None), (2, 1)]


def ranks_of_values(folder: Path) -> list[tuple[int, int | None]]:
    return [(point["data"]["value"], point.get("rank")) for point in reading.points(folder)]


ANOTHER_PROTOCOL = """
import sys
from dreamlake.wire import messages
messages.VERSION = 2
from dreamlake_agent.main import main
sys.exit(main(["--detach"]))
"""

WRITES = """
import sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.track("loss").append(value=1)
"""


@pytest.mark.parametrize("version", [releases.FIRST, TODAY])
def test_where_the_whole_protocol_is_another_calls_are_kept_and_a_restart_takes_over(
    version: str, home: Path, root: Path, folder: Path, released: Path, tmp_path: Path
) -> None:
    scripts.run(ANOTHER_PROTOCOL, cwd=tmp_path)
    installed = released if version == releases.FIRST else None
    done = scripts.run(WRITES, root, env=releases.environment(installed), cwd=tmp_path)
    assert "agent restart" in done.stderr
    assert "journal" in done.stderr
    assert "Traceback" not in done.stderr
    releases.agent(None, "restart", tmp_path)
    wait_for(lambda: reading.values(folder) == [1])
