"""Endpoints: which socket is taken for an agent of ours."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake.world.endpoints import find_agent, is_believed
from dreamlake.world.sockets import answers, listening_socket

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")


@pytest.fixture
def run(home: Path) -> Iterator[Path]:
    made = home / "run"
    made.mkdir(mode=0o700)
    yield made
    for left in home.glob("*/agent.sock"):
        left.unlink()


def test_a_socket_in_a_folder_of_ours_is_believed(run: Path) -> None:
    assert is_believed(f"ipc://{run}/agent.sock")
    assert not is_believed(f"ipc://{run / 'nowhere'}/agent.sock")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_none_in_a_folder_where_others_may_put_theirs(run: Path, mode: int) -> None:
    with listening_socket(str(run / "agent.sock")):
        assert find_agent() == f"ipc://{run}/agent.sock"
        run.chmod(mode)
        assert find_agent() is None
        assert not is_believed(f"ipc://{run}/agent.sock")


@needs_root
def test_none_in_a_folder_of_somebody_elses(run: Path) -> None:
    with listening_socket(str(run / "agent.sock")):
        os.chown(run, 65534, 65534)
        assert find_agent() is None
        assert not is_believed(f"ipc://{run}/agent.sock")


def test_none_behind_a_link(run: Path) -> None:
    with listening_socket(str(run / "agent.sock")):
        run.rename(run.parent / "moved")
        run.symlink_to("moved")
        assert find_agent() is None
        assert not is_believed(f"ipc://{run}/agent.sock")


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1:{port}",
        "ipc://@abstract",
        "ipc://agent.sock",
        "inproc://agent",
        "{run}/agent.sock",
        "ipc://{run}/\0agent.sock",
        "ipc://{run}\0/agent.sock",
        "ipc://{run}/{deep}agent.sock",
        "",
        "ipc://",
        "ipc:///",
        "\udcff",
    ],
)
def test_nothing_else_is_believed(run: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these would be a connection to somebody else, or an error at every turn of the link."""
    monkeypatch.chdir(run)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_believed(endpoint.format(port=port, run=run, deep="./" * 100))


def test_a_dead_agents_socket_answers_nothing(run: Path) -> None:
    path = str(run / "agent.sock")
    with listening_socket(path):
        assert answers(path)
    assert os.path.exists(path)
    assert not answers(path)
