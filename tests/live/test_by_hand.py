"""`dreamlake agent takeover`: what it says, when it does nothing, and that a paused owner's calls stay."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from dreamlake.reader.commits import read_checkpoint
from dreamlake.reader.owners import epoch_of, last_word
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.byhand import FREE, HELD, NO_LOCKS, Case
from dreamlake_agent.cli.takeover import sentences
from tests import reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.waiting import wait_for

WRITES = """
import sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    for line in sys.stdin:
        for _ in range(100):
            session.track("loss").append(value=0, who=sys.argv[2])
        if "flush" in line:
            session.flush()
        print("done", flush=True)
"""


@pytest.fixture
def folder(home: Path, root: Path) -> Path:
    return root / "project" / "run"


@pytest.fixture
def open_session(home: Path, root: Path, folder: Path) -> Iterator[Session]:
    session = Session("run", "project", local_path=str(root)).open()
    session.track("loss").append(value=0)
    session.flush()
    yield session
    session.close()


@pytest.fixture
def paused(open_session: Session) -> Iterator[int]:
    """The pid of the owner, which is stopped."""
    pid = agent_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def epoch(folder: Path) -> int:
    at = REAL_DISK.root(str(folder))
    try:
        return epoch_of(last_word(REAL_DISK, at))
    finally:
        REAL_DISK.close(at)


def at_a_terminal(answer: str, *words: object) -> tuple[int, str]:
    """The command line with a terminal, at which somebody types."""
    command = [sys.executable, "-m", "dreamlake.cli", *map(str, words)]
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=scripts.environment(None))
        os.close(theirs)
        said = b""
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    said += os.read(ours, 4096)
                except OSError:
                    break  # nobody has the other end any more
            if b"[y/N]" in said and answer:
                os.write(ours, answer.encode() + b"\n")
                answer = ""
        return process.wait(30), said.decode()
    finally:
        os.close(ours)


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_no_session_is_wrong_use(home: Path, tmp_path: Path, dreamlake: Cli, where: str) -> None:
    (tmp_path / "empty").mkdir()
    done = dreamlake("agent", "takeover", tmp_path / where, "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no session directory" in done.stderr
    assert os.listdir(tmp_path / "empty") == []


def test_without_a_terminal_and_a_yes_nothing_is_done(open_session: Session, folder: Path, dreamlake: Cli) -> None:
    before = epoch(folder)
    done = dreamlake("agent", "takeover", folder)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert epoch(folder) == before


@pytest.mark.parametrize("how", ["let go", "killed"])
def test_where_the_owner_is_gone_for_certain_no_takeover_is_needed(
    open_session: Session, folder: Path, dreamlake: Cli, how: str
) -> None:
    if how == "let go":
        open_session.close()
        assert dreamlake("agent", "stop").returncode == 0
    else:
        pid = agent_pid()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: processes.start_time(pid) is None)
    before = epoch(folder)
    done = dreamlake("agent", "takeover", folder, "--yes", "--json")
    told = reading.strict(done.stdout)
    assert (done.returncode, told["needed"], told["done"], told["epoch"]) == (0, False, False, None)
    assert "No takeover is needed" in done.stderr
    assert epoch(folder) == before


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_it_watches_says_and_asks(
    paused: int, folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setenv("DREAMLAKE_GONE", "2")
    before = epoch(folder)
    ended, said = at_a_terminal(answer, "agent", "takeover", folder)
    assert ended == code, said
    assert f"pid {paused} on {processes.host()} (epoch {before})" in said
    assert f"kill -CONT {paused}" in said
    assert "its lock is held" in said
    assert "no sign of life within 1 s" in said
    assert f"begins epoch {before + 1} and copies" in said
    assert epoch(folder) == before + (code == 0)
    assert ("taken over in epoch" in said) == (code == 0)


def test_an_owner_that_beats_is_said_to_live(
    home: Path, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, start_script: StartScript
) -> None:
    monkeypatch.setenv("DREAMLAKE_GONE", "6")  # of the agent, too: it beats every second
    script = start_script(WRITES, root, "a")
    step(script, "flush")
    ended, said = at_a_terminal("n", "agent", "takeover", folder)
    assert ended == 1
    assert "IT LIVES" in said


def step(script: subprocess.Popen[str], line: str) -> None:
    assert script.stdin is not None
    assert script.stdout is not None
    script.stdin.write(line + "\n")
    script.stdin.flush()
    assert script.stdout.readline() == "done\n"


def counts(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for point in reading.lines(folder / "tracks" / "loss" / "data.jsonl"):
        who = point["data"].get("who", "")
        found[who] = found.get(who, 0) + 1
    return found


def test_a_paused_owner_is_replaced_and_no_call_is_lost_or_doubled(
    home: Path, other_home: Path, root: Path, folder: Path, dreamlake: Cli, start_script: StartScript
) -> None:
    one = start_script(WRITES, root, "a")
    step(one, "flush")
    before, pid = epoch(folder), agent_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        step(one, "write")
        elsewhere = {"DREAMLAKE_HOME": str(other_home)}
        assert dreamlake("agent", "start", env=elsewhere).returncode == 0
        done = dreamlake("agent", "takeover", folder, "--yes", "--json", env=elsewhere)
        told = reading.strict(done.stdout)
        assert (done.returncode, told["epoch"], told["agent_asked"]) == (0, before + 1, True), done
        assert told["lock"] == "held"
        assert told["log_bytes"] > 0
        other = start_script(WRITES, root, "b", env=elsewhere)
        step(other, "flush")
        wait_for(lambda: counts(folder) == {"a": 200, "b": 100})
    finally:
        os.kill(pid, signal.SIGCONT)
    step(one, "flush")
    for script in (one, other):
        step(script, "flush")
        assert script.stdin is not None
        script.stdin.close()
        assert script.wait(30) == 0
    wait_for(lambda: counts(folder) == {"a": 400, "b": 200})
    for where in (elsewhere, {}):
        assert dreamlake("agent", "stop", env=where).returncode == 0
    assert dreamlake("verify", folder).returncode == 0
    assert [point["index"] for point in reading.lines(folder / "tracks" / "loss" / "data.jsonl")] == list(range(600))


def test_logs_that_are_not_what_the_checkpoint_says_are_taken_only_when_it_is_said(
    open_session: Session, folder: Path, dreamlake: Cli
) -> None:
    log = folder / "tracks" / "loss" / "data.jsonl"
    wait_for(lambda: (folder / ".dreamlake" / "checkpoint").stat().st_size > 0 and covers(folder))
    pid = agent_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        log.write_bytes(log.read_bytes().replace(b"value", b"VALUE"))
        for _ in range(2):  # what was begun is begun anew
            done = dreamlake("agent", "takeover", folder, "--yes")
            assert done.returncode == 1
            assert "is not what the checkpoint says" in done.stderr
            assert "--whatever" in done.stderr
        assert dreamlake("agent", "takeover", folder, "--yes", "--whatever").returncode == 0
    finally:
        os.kill(pid, signal.SIGCONT)


def covers(folder: Path) -> bool:
    at = REAL_DISK.root(str(folder))
    try:
        checkpoint = read_checkpoint(REAL_DISK, at)
    finally:
        REAL_DISK.close(at)
    return checkpoint is not None and checkpoint.logs["tracks/loss/data.jsonl"].size > 0


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────────

ELSEWHERE: dict[str, Any] = {"host": "node9", "pid": 4000, "epoch": 3, "beat": 7}


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case("/s", {}, FREE, "gone", True, 0), "has no owner"),
        (Case("/s", {**ELSEWHERE, "released": True}, FREE, "unknown", False, 0), "has no owner"),
        (Case("/s", ELSEWHERE, FREE, "gone", True, 0), "No takeover is needed"),
        (Case("/s", ELSEWHERE, HELD, "unknown", False, 2048), "copies 2.0 KiB"),
        (Case("/s", ELSEWHERE, FREE, "unknown", False, 0), "free as seen from here"),
        (Case("/s", ELSEWHERE, NO_LOCKS, "unknown", False, 0), "this file system has none"),
        (Case("/s", ELSEWHERE, FREE, "unknown", False, 0, has_beaten=True), "IT LIVES"),
        (
            Case("/s", ELSEWHERE, FREE, "unknown", False, 0, silent=25.0),
            "no sign of life within 25 s (one comes",
        ),
        (Case("/s", {"epoch": 4}, FREE, "unknown", False, 0), "one that has not said who it is (epoch 4)"),
        (Case("/s", {**ELSEWHERE, "renews": True}, FREE, "gone", True, 0), "has begun to take it over"),
    ],
)
def test_a_person_is_told_what_is_known(home: Path, case: Case, words: str) -> None:
    assert words in "\n".join(sentences(case))
