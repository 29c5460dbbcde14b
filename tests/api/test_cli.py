from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from dreamlake import Session
from dreamlake.cli import cli
from tests import leftovers, reading, scripts
from tests.conftest import Cli
from tests.waiting import wait_for

NO_AGENT = 3

FILL = """
import sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1], description="a demo") as session:
    session.log("Training started")
    session.parameters().set(model={"lr": 0.00125}, seed=7)
    for epoch in range(20):
        session.track("train/loss").append(value=1.5 - epoch / 16, epoch=epoch)
"""
LAST_VALUE = "0.3125"  # of the loss


def status(dreamlake: Cli) -> dict[str, Any]:
    done = dreamlake("agent", "status", "--json")
    assert done.returncode == 0, done
    parsed = reading.strict(done.stdout)
    assert isinstance(parsed, dict)
    return parsed


def test_start_returns_when_the_agent_is_ready_and_may_be_called_twice(home: Path, dreamlake: Cli) -> None:
    pids = []
    for _ in range(3):
        started = dreamlake("agent", "start")
        assert started.returncode == 0, started
        pids.append(status(dreamlake)["pid"])
    assert len(set(pids)) == 1
    assert [process.pid for process in leftovers.agents_of(home)] == pids[:1]


def test_the_sockets_folder_is_for_its_owner_alone(agent: Path) -> None:
    sockets = [path for path in agent.rglob("*") if path.is_socket()]
    assert sockets
    for path in sockets:
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_status_without_an_agent_has_an_exit_code_of_its_own(home: Path, dreamlake: Cli) -> None:
    for arguments in (["agent", "status"], ["agent", "status", "--json"]):
        done = dreamlake(*arguments)
        assert done.returncode == NO_AGENT, done
        assert "Traceback" not in done.stderr
    assert leftovers.processes_of(home) == []


def test_status_says_what_there_is_to_know(agent: Path, session: Session, dreamlake: Cli) -> None:
    session.track("loss").append(value=1)
    session.flush()
    known = status(dreamlake)
    assert {"pid", "uptime", "version", "sessions", "queue", "memory"} <= set(known)
    assert isinstance(known["version"], str)
    assert re.match(r"\d+\.\d+", known["version"])
    assert len(known["sessions"]) == 1
    said = [str(leaf) for leaf in reading.leaves(known["sessions"])]
    assert any("run" in text for text in said)
    assert "running" in said
    plain = dreamlake("agent", "status")
    assert plain.returncode == 0, plain
    for part in (str(known["pid"]), known["version"], "run", "running"):
        assert part in plain.stdout, part


def test_stop_ends_the_agent_and_may_be_called_without_one(agent: Path, dreamlake: Cli) -> None:
    assert dreamlake("agent", "stop").returncode == 0
    assert leftovers.processes_of(agent) == []
    assert dreamlake("agent", "status").returncode == NO_AGENT
    again = dreamlake("agent", "stop")
    assert again.returncode in (0, NO_AGENT), again
    assert "Traceback" not in again.stderr


def test_stop_drains_first(agent: Path, root: Path, dreamlake: Cli) -> None:
    """The script ends without flush or close; when `stop` returns, all it wrote is in the files."""
    scripts.run(
        """
        import os, sys
        from dreamlake import Session
        session = Session("run", "project", local_path=sys.argv[1]).open()
        for value in range(20_000):
            session.track("loss").append(value=value)
        os._exit(0)
        """,
        root,
    )
    assert dreamlake("agent", "stop").returncode == 0
    assert reading.values(root / "project" / "run") == list(range(20_000))


def test_restart_gives_a_new_agent_and_the_session_goes_on(
    agent: Path, session: Session, folder: Path, dreamlake: Cli
) -> None:
    before = status(dreamlake)["pid"]
    for value in range(3):
        session.track("loss").append(value=value)
        restarted = dreamlake("agent", "restart")
        assert restarted.returncode == 0, restarted
    assert status(dreamlake)["pid"] != before
    session.flush()
    assert reading.values(folder) == [0, 1, 2]
    reading.assert_consecutive(reading.points(folder))


def test_restart_without_an_agent_starts_one(home: Path, dreamlake: Cli) -> None:
    assert dreamlake("agent", "restart").returncode == 0
    assert status(dreamlake)["pid"]


def test_logs_say_something(agent: Path, dreamlake: Cli) -> None:
    done = dreamlake("agent", "logs")
    assert done.returncode == 0, done
    assert done.stdout.strip()


def test_logs_can_be_read_after_the_agent_has_ended(agent: Path, dreamlake: Cli) -> None:
    dreamlake("agent", "stop")
    done = dreamlake("agent", "logs")
    assert done.returncode == 0, done
    assert done.stdout.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_stays_in_the_foreground_until_it_is_told_to_end(
    number: signal.Signals, home: Path, root: Path, dreamlake: Cli, tmp_path: Path
) -> None:
    with (tmp_path / "output").open("w") as output:
        agent = subprocess.Popen(
            [sys.executable, "-m", "dreamlake.cli", "agent", "run"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            wait_for(lambda: dreamlake("agent", "status").returncode == 0)
            assert status(dreamlake)["pid"] == agent.pid
            scripts.run(FILL, root)
            assert agent.poll() is None
            agent.send_signal(number)
            assert agent.wait(timeout=15) == 0
        finally:
            agent.kill()
            agent.wait()
    assert len(reading.points(root / "project" / "run", "train/loss")) == 20
    assert "Traceback" not in (tmp_path / "output").read_text()


def test_a_second_agent_in_the_foreground_is_refused(agent: Path, dreamlake: Cli) -> None:
    first = status(dreamlake)["pid"]
    second = dreamlake("agent", "run")
    assert second.returncode != 0
    assert str(first) in second.stdout + second.stderr
    assert "Traceback" not in second.stderr
    assert status(dreamlake)["pid"] == first


def assert_shows_everything(text: str) -> None:
    for part in ("run", "project", "model.lr", "0.00125", "seed", "7", "train/loss", LAST_VALUE, "finished"):
        assert part in text, part


@pytest.mark.parametrize("with_agent", [True, False])
def test_show_prints_parameters_last_values_and_state(
    with_agent: bool, home: Path, root: Path, folder: Path, dreamlake: Cli
) -> None:
    """Without an agent everything is still in journals; looking at them changes nothing and starts nobody."""
    scripts.run(FILL, root, env={} if with_agent else {"DREAMLAKE_AGENT": "never"}, flags=())
    if with_agent:
        dreamlake("agent", "stop")
    before = reading.snapshot(root)
    plain = dreamlake("show", folder)
    assert plain.returncode == 0, plain
    assert_shows_everything(plain.stdout)
    parsed = dreamlake("show", folder, "--json")
    assert parsed.returncode == 0, parsed
    said = reading.leaves(reading.strict(parsed.stdout))
    for value in ("run", "project", "finished", 0.00125, 7, float(LAST_VALUE)):
        assert value in said, value
    assert reading.snapshot(root) == before
    assert leftovers.processes_of(home) == []


@pytest.mark.parametrize("with_agent", [True, False])
def test_list_prints_every_session_below_a_root(
    with_agent: bool, home: Path, root: Path, dreamlake: Cli, tmp_path: Path
) -> None:
    env = {} if with_agent else {"DREAMLAKE_AGENT": "never"}
    scripts.run(FILL, root, env=env, flags=())
    scripts.run(FILL.replace('"run"', '"sweep/a"').replace('"project"', '"other"'), root, env=env, flags=())
    if with_agent:
        dreamlake("agent", "stop")
    before = reading.snapshot(root)
    plain = dreamlake("list", root)
    assert plain.returncode == 0, plain
    for part in ("run", "project", "sweep/a", "other", "finished", LAST_VALUE, "0.00125"):
        assert part in plain.stdout, part
    parsed = dreamlake("list", root, "--json")
    said = reading.leaves(reading.strict(parsed.stdout))
    for value in ("run", "sweep/a", "project", "other", "finished", 0.00125, float(LAST_VALUE)):
        assert value in said, value
    assert reading.snapshot(root) == before


def test_show_and_list_find_the_default_root(home: Path, dreamlake: Cli, tmp_path: Path) -> None:
    scripts.run(FILL.replace("local_path=sys.argv[1], ", ""), cwd=tmp_path)
    assert_shows_everything(dreamlake("show", "project/run", cwd=tmp_path).stdout)
    assert "run" in dreamlake("list", cwd=tmp_path).stdout
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {"DREAMLAKE_LOCAL_PATH": str(tmp_path / ".dreamlake")}
    assert_shows_everything(dreamlake("show", "project/run", cwd=elsewhere, env=env).stdout)
    assert "run" in dreamlake("list", cwd=elsewhere, env=env).stdout


def test_show_says_what_is_running_and_what_has_failed(session: Session, root: Path, dreamlake: Cli) -> None:
    session.flush()
    assert "running" in dreamlake("show", root / "project" / "run").stdout
    with pytest.raises(ValueError, match="diverged"), Session("bad", "project", local_path=str(root)):
        raise ValueError("diverged")
    shown = dreamlake("show", root / "project" / "bad").stdout
    assert "failed" in shown
    assert "diverged" in shown


def test_an_empty_root_lists_nothing(home: Path, dreamlake: Cli, tmp_path: Path) -> None:
    done = dreamlake("list", tmp_path)
    assert done.returncode == 0, done
    assert not reading.leaves(reading.strict(dreamlake("list", tmp_path, "--json").stdout))


def empty_folder(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def damaged(tmp_path: Path) -> Path:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "session.json").write_text('{"name": ')
    return tmp_path / "damaged"


MISTAKES: dict[str, Callable[[Path], list[object]]] = {
    "show a path that is not there": lambda path: ["show", path / "nowhere"],
    "show a session that is not there": lambda path: ["show", "nowhere/nobody"],
    "show an empty folder": lambda path: ["show", empty_folder(path)],
    "show a damaged session": lambda path: ["show", damaged(path)],
    "show a file": lambda path: ["show", __file__],
    "show nothing": lambda path: ["show"],
    "list a root that is not there": lambda path: ["list", path / "nowhere"],
    "list a file": lambda path: ["list", __file__],
    "an unknown command": lambda path: ["train"],
    "an unknown agent command": lambda path: ["agent", "feed"],
    "an unknown option": lambda path: ["list", "--loud"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_users_mistake_is_explained_without_a_traceback(
    mistake: str, home: Path, dreamlake: Cli, tmp_path: Path
) -> None:
    done = dreamlake(*MISTAKES[mistake](tmp_path), cwd=tmp_path)
    assert done.returncode not in (0, NO_AGENT), done
    assert done.stderr.strip()
    assert "Traceback" not in done.stdout + done.stderr
    assert leftovers.processes_of(home) == []


def test_a_home_that_cannot_be_used_is_explained(home: Path, dreamlake: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = dreamlake("agent", "start", env={"DREAMLAKE_HOME": str(tmp_path / "file" / "home")})
    assert done.returncode not in (0, NO_AGENT), done
    assert str(tmp_path / "file") in done.stderr
    assert "Traceback" not in done.stderr


KNOWN = [
    *(("agent", verb) for verb in ("start", "stop", "restart", "status", "logs", "run")),
    ("show",),
    ("list",),
]


def commands(command: click.Command, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command without commands of its own."""
    if not isinstance(command, click.Group):
        return [above]
    context = click.Context(command)
    below = ((name, command.get_command(context, name)) for name in command.list_commands(context))
    return [leaf for name, each in below if each is not None for leaf in commands(each, (*above, name))]


def test_every_command_has_help_with_an_example(home: Path) -> None:
    found = commands(cli)
    assert set(KNOWN) <= set(found)
    for command in found:
        done = CliRunner().invoke(cli, [*command, "--help"])
        assert done.exit_code == 0, done
        _, example, text = done.output.lower().partition("example")
        assert example, f"no example for {command}"
        assert " ".join(["dreamlake", *command]) in text, f"an example of something else for {command}"
    assert leftovers.processes_of(home) == []


def test_the_version_is_told(home: Path, dreamlake: Cli) -> None:
    done = dreamlake("--version")
    assert done.returncode == 0, done
    assert re.search(r"\d+\.\d+", done.stdout)
