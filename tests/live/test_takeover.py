"""One agent takes over from another: what must be true of the one that ends, and of the one that comes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import reading, scripts
from tests.conftest import agent_pid
from tests.live import releases
from tests.waiting import wait_for


def test_a_release_that_is_installed_over_the_one_that_runs_changes_nothing_until_a_restart(
    home: Path, root: Path, tmp_path: Path
) -> None:
    """The agent has all of its code; the uploader, which is started later, says that it is of another release."""
    folder = root / "project" / "run"
    installed = releases.copied(tmp_path / "site")
    releases.agent(installed, "start", tmp_path)
    pid = agent_pid()
    broken = "raise ImportError('half of this is of another release')\n"
    for path in (installed / "dreamlake_agent").rglob("*.py"):
        if path.parent.name != "remote" and path.name != "__init__.py":
            path.write_text(broken)
    (installed / "psutil.py").write_text(broken)
    protocol = installed / "dreamlake_agent" / "remote" / "protocol.py"
    protocol.write_text(protocol.read_text().replace("PROTOCOL = 1", "PROTOCOL = 2"))

    scripts.run(REMOTE, root, tmp_path, cwd=tmp_path)

    def behind() -> str:
        status = reading.strict(releases.cli(None, "agent", "status", "--json", cwd=tmp_path).stdout)
        assert status["pid"] == pid
        (told,) = [each["last_error"] for held in status["sessions"] + status["uploads"] for each in held["uploads"]]
        return str(told)

    wait_for(lambda: "another version of dreamlake is installed" in behind())
    assert reading.values(folder) == [1]
    assert (folder / "files" / "models" / "weights.bin").read_text() == "w"
    releases.agent(None, "stop", tmp_path)


REMOTE = """
import sys
from pathlib import Path
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1], remote="http://127.0.0.1:9", api_key="none") as session:
    session.track("loss").append(value=1)
    Path(sys.argv[2], "weights.bin").write_text("w")
    session.files().upload(Path(sys.argv[2], "weights.bin"), path="/models")
    session.log("x")
"""


SYSTEMCTL = """#!/bin/sh
echo "$@" > {said}
exit {code}
"""


@pytest.mark.parametrize("code", [0, 1])
def test_an_agent_that_systemd_started_is_restarted_by_systemd(code: int, home: Path, tmp_path: Path) -> None:
    """Against a pretend systemctl: who has started the agent is told by what systemd says to the process."""
    said = tmp_path / "said"
    (tmp_path / "systemctl").write_text(SYSTEMCTL.format(said=said, code=code))
    (tmp_path / "systemctl").chmod(0o700)
    agent = "SYSTEMD_EXEC_PID=$$ exec " + shlex.join([sys.executable, "-m", "dreamlake.cli", "agent", "run"])
    with subprocess.Popen(["sh", "-c", agent], cwd=tmp_path) as process:
        try:
            wait_for(lambda: (home / "run" / "agent.sock").is_socket() and agent_pid() == process.pid)
            path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
            done = scripts.run(RESTARTS, env={"PATH": path}, cwd=tmp_path, expect=code)
            assert said.read_text() == "--user restart dreamlake-agent.service\n"
            assert ("systemd has started the agent" in done.stderr) == bool(code)
            assert process.poll() is None
            assert agent_pid() == process.pid
        finally:
            process.terminate()


RESTARTS = """
from dreamlake_agent.cli.agent import agent
agent(["restart"])
"""


@pytest.fixture
def impatient() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Today's `dreamlake agent restart`, by somebody who waits less than a second for anything."""

    def restart(tmp: Path) -> subprocess.CompletedProcess[str]:
        program = (
            "from dreamlake import config; from dreamlake_agent import takeover\n"
            "from dreamlake_agent.cli.agent import agent\n"
            "config.STOP_SECONDS = takeover._ASK_SECONDS = takeover._GONE_SECONDS = 0.5\n"
            "agent(['restart'])\n"
        )
        return subprocess.run(
            [sys.executable, "-c", program], cwd=tmp, capture_output=True, text=True, timeout=60, check=False
        )

    return restart


def test_a_restart_says_what_holds_an_agent_that_does_not_end_and_leaves_it(
    agent: Path, tmp_path: Path, impatient: Callable[..., Any]
) -> None:
    pid = agent_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        done = impatient(tmp_path)
        assert done.returncode == 1
        assert f"the agent (pid {pid}) was told to end and has not" in done.stderr
        assert f"it is stopped: `kill -CONT {pid}`" in done.stderr
        assert "loses nothing" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        os.kill(pid, signal.SIGCONT)
