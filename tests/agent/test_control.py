"""Asking an agent from a command line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dreamlake.wire import messages
from dreamlake_agent.control import NoAnswer, ask
from tests.conftest import Cli, agent_pid


def test_who_asks_an_agent_that_dies_does_not_wait_for_its_answer(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(NoAnswer, match="died"):
        ask(f"ipc://{tmp_path}/nobody", messages.STOP, 30.0, lambda: False)
    assert time.monotonic() - began < 15.0


def test_restart_starts_an_agent_when_the_one_that_should_stop_is_killed(agent: Path, dreamlake: Cli) -> None:
    """Clients that were told of the stop start none, so it is on the command to do it."""
    pid = agent_pid()
    program = (
        "import os, signal; from dreamlake_agent.cli.agent import agent\n"
        "kill = os.kill\n"
        "os.kill = lambda pid, _number: kill(pid, signal.SIGKILL)\n"
        "agent(['restart'])\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert time.monotonic() - began < 15.0
    assert agent_pid() != pid
