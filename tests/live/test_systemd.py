"""The agent as a service with a socket: started by the first message, replaced under its clients, heard by whoever
started it. Part of it under systemd's own tools; what systemd itself does is in `test_systemd_manager.py`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake import Session, config
from dreamlake.systemd import Notifier
from dreamlake.world.sockets import answers
from dreamlake_agent.main import IS_RUNNING, WRONG_SOCKET
from dreamlake_agent.systemd import Service
from tests import leftovers, reading
from tests.conftest import MARK, Cli, agent_pid
from tests.live import activation
from tests.waiting import wait_for

WATCHDOG_SECONDS = 1


def needed(program: str) -> str:
    """Where it is. Nothing here is skipped for the want of it: what is said of systemd would go untested."""
    found = shutil.which(program)
    assert found, f"{program} is missing: apt-get install systemd (Debian, Ubuntu), dnf install systemd (Fedora)"
    return found


@pytest.fixture
def place(home: Path) -> Path:
    return home / "run" / config.AGENT_SOCKET


@pytest.fixture
def heard(home: Path) -> Iterator[activation.Heard]:
    heard = activation.Heard(str(home / "notify"))
    yield heard
    heard.close()


@pytest.fixture
def held(place: Path) -> Iterator[activation.Held]:
    with activation.held(place) as holder:
        yield holder


def trains(root: Path, name: str = "run", points: int = 10) -> None:
    with Session(name, "project", local_path=str(root)) as session:
        for value in range(points):
            session.track("loss").append(value=value)
        session.flush()


def test_the_first_message_starts_the_agent_and_is_answered(
    place: Path, heard: activation.Heard, root: Path, dreamlake: Cli
) -> None:
    place.parent.mkdir(mode=0o700)
    given = {
        "DREAMLAKE_HOME": os.environ["DREAMLAKE_HOME"],
        "HOME": os.environ.get("HOME", "/"),
        "NOTIFY_SOCKET": heard.address,
        "WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000),
        MARK: os.environ[MARK],
    }
    service = subprocess.Popen(
        [needed("systemd-socket-activate"), f"--listen={place}"]
        + [f"--setenv={name}={text}" for name, text in given.items()]
        + [sys.executable, "-m", "dreamlake.cli", "agent", "run"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(place.is_socket)
        trains(root)
        assert reading.values(root / "project" / "run") == list(range(10))
        assert agent_pid() == service.pid
        heard.wait_for("STATUS=keeps 1 session")
        heard.wait_for("WATCHDOG=1", times=3)
        before = heard.all().index
        assert before("READY=1") < before("WATCHDOG=1")
        assert "STOPPING=1" not in heard.all()
        assert "systemd listens in its place" in dreamlake("agent", "stop").stdout
        assert service.wait(timeout=20) == 0
        heard.wait_for("STOPPING=1")
        assert place.is_socket()  # whoever listens goes on
    finally:
        service.kill()
        service.communicate()
        place.unlink(missing_ok=True)


def test_an_agent_that_ends_is_followed_by_another_and_nothing_is_lost(held: activation.Held, root: Path) -> None:
    before = held.path.stat().st_ino
    with Session("run", "project", local_path=str(root)) as session:
        for value, end in enumerate((signal.SIGKILL, signal.SIGTERM)):
            session.track("loss").append(value=value)
            session.flush()
            assert len(held.started) == value + 1
            assert agent_pid() == held.started[value].pid
            held.started[value].send_signal(end)
            held.started[value].wait(timeout=30)
        session.track("loss").append(value=2)
        session.flush()
        assert agent_pid() == held.started[2].pid
    assert reading.values(root / "project" / "run") == [0, 1, 2]
    assert held.path.stat().st_ino == before
    assert len(leftovers.agents_of(held.path.parent.parent)) == 1


def test_who_opens_while_the_agent_starts_waits_for_it(
    held: activation.Held, root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the silence after which an agent is looked for anew, as on a file system that is slow."""
    monkeypatch.setattr(config, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(config, "OPEN_SECONDS", 60.0)
    held.program = f"import time; time.sleep(1); {activation.AGENT}"
    trains(root)
    assert reading.values(root / "project" / "run") == list(range(10))
    assert [each.pid for each in leftovers.agents_of(held.path.parent.parent)] == [held.started[0].pid]
    assert len(held.started) == 1
    assert caplog.records == []


def test_an_agent_whose_place_systemd_takes_makes_room(agent: Path, place: Path, root: Path) -> None:
    """`systemctl --user enable --now dreamlake-agent.socket` while an agent runs: systemd unlinks its socket."""
    before = agent_pid()
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=0)
        session.flush()
        with activation.held(place) as held:
            inode = place.stat().st_ino
            # It looks whether it is still the one that listens, and that is the first to come.
            wait_for(lambda: before not in [each.pid for each in leftovers.processes_of(agent)])
            session.track("loss").append(value=1)
            session.flush()
            assert agent_pid() == held.started[0].pid
            assert place.stat().st_ino == inode
            session.close()
    assert reading.values(root / "project" / "run") == [0, 1]


def test_a_socket_that_has_lost_its_name_is_made_anew(held: activation.Held, root: Path) -> None:
    """Somebody has removed the folder: the descriptor that is handed over leads nobody here any more."""
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=0)
        session.flush()
        first = held.started[0]
        shutil.rmtree(held.path.parent)
        wait_for(lambda: answers(str(held.path)))
        assert agent_pid() == first.pid
        first.kill()
        first.wait()
        assert held.path.is_socket()  # the dead agent's: it refuses
        held.started.append(activation.start(held.listener))  # Restart=always
        wait_for(lambda: answers(str(held.path)))
        session.track("loss").append(value=1)
        session.flush()
        assert agent_pid() == held.started[1].pid
    assert reading.values(root / "project" / "run") == [0, 1]


def datagrams(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(folder / "dgram"))
    return made


def one_that_does_not_listen(folder: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(folder / "mute"))
    return made


def of_another_place(folder: Path) -> socket.socket:
    return activation.listening(folder / "other")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (datagrams, "no stream on this machine"),
        (one_that_does_not_listen, "does not listen"),
        (of_another_place, "scripts look at"),
    ],
)
def test_another_socket_than_the_agents_is_refused(make: object, said: str, home: Path, place: Path) -> None:
    assert callable(make)
    with make(home) as given:
        agent = activation.start(given)
        _, complaint = agent.communicate(timeout=60)
    assert agent.returncode == WRONG_SOCKET
    assert said in complaint
    assert "dreamlake agent install" in complaint
    assert "Traceback" not in complaint
    assert not place.exists()


def test_an_agent_that_cannot_have_the_folder_says_who_has_it_and_turns_the_waiting_away(
    agent: Path, place: Path
) -> None:
    """What waits in the socket would make systemd start the next one at once, and that one would fail, too."""
    at_once = "from dreamlake import config; config.HANDOVER_SECONDS = 0.0; " + activation.AGENT
    with activation.listening(agent / "other") as given, socket.socket(socket.AF_UNIX) as waits:
        waits.connect(str(agent / "other"))
        second = activation.start(given, program=at_once)
        _, complaint = second.communicate(timeout=60)
        assert second.returncode == IS_RUNNING
        assert f"pid {agent_pid()}" in complaint
        assert "Traceback" not in complaint
        waits.settimeout(10)
        assert waits.recv(1) == b""


def test_what_systemd_gives_an_agent_is_not_for_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "NOTIFY_SOCKET": str(tmp_path / "nobody"),
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "1",
        "LISTEN_PID": "1",  # meant for somebody else
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "agent.sock",
    }
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    service = Service.taken()
    assert not set(given) & set(os.environ)
    assert not service.is_activated
    assert service.listener("/anything") is None
    service.ready()  # nobody hears it, and nobody minds
    service.beat(0.0, 0)
    service.stopping()


@pytest.mark.parametrize("abstract", ["", "@"])
def test_a_beat_that_was_not_heard_is_tried_again(abstract: str, tmp_path: Path) -> None:
    address = f"{abstract}{tmp_path}/notify"
    service = Service(Notifier(address), watchdog_seconds=20)
    service.beat(100.0, 0)
    heard = activation.Heard(address)
    try:
        service.beat(100.1, 0)
        service.beat(100.2, 2)
        service.beat(110.0, 2)
        service.beat(110.1, 2)
        assert heard.all() == ["WATCHDOG=1", "STATUS=keeps 0 sessions", "STATUS=keeps 2 sessions", "WATCHDOG=1"]
    finally:
        heard.close()
