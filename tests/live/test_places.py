"""Runtime folders in every bad state: training goes on, what is wrong is said, and there is never a second agent."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamlake import Session, config
from dreamlake.world.sockets import answers, listening_socket
from tests import leftovers, reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.waiting import wait_for

POINTS = 100
SUN_PATH_BYTES = 107  # on Linux, without the NUL

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away, or mount")

TRAINS = """
import sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    for value in range(100):
        session.track("loss").append(value=value)
    session.flush(durable=True)
print("trained")
"""


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


@pytest.fixture
def session(home: Path, root: Path) -> Iterator[Session]:
    opened = Session("run", "project", local_path=str(root)).open()
    yield opened
    opened.close()


@pytest.fixture
def place(home: Path) -> Path:
    """The runtime folder, made as a client makes it."""
    made = home / "run"
    made.mkdir(mode=0o700)
    return made


def trains(root: Path, **env: str) -> str:
    """Train to the end; gives back what was said on standard error."""
    done = scripts.run(TRAINS, root, env=env, flags=())
    assert done.stdout == "trained\n"
    assert "Traceback" not in done.stderr
    return done.stderr


def assert_only_the_journal_has_it(folder: Path, said: str, reason: str) -> None:
    assert reason in said
    assert "kept in its journal" in said
    assert reading.values(folder) == []
    assert list((folder / ".dreamlake" / "journals").iterdir())


def assert_nothing_is_lost(root: Path, folder: Path) -> None:
    """The next session in the directory brings everything back."""
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=-1)
        session.flush(timeout=30)
    assert reading.values(folder) == [*range(POINTS), -1]
    reading.assert_consecutive(reading.points(folder))


def started(home: Path) -> list[str]:
    """What the agents of this home said when they started."""
    (log,) = home.glob("*/agent.log")
    return [line for line in log.read_text().splitlines() if " started, pid " in line]


AT_ONCE = """
import os, sys
from dreamlake import Session
import dreamlake.link, dreamlake.world.sockets
root, many = sys.argv[1], int(sys.argv[2])
gate, opener = os.pipe()
children = []
for number in range(many):
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.read(gate, 1)
        with Session(f"run{number}", "project", local_path=root) as session:
            session.track("loss").append(value=number)
            session.flush()
        os._exit(0)
    children.append(child)
os.close(opener)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("many", [32, 96])
def test_processes_that_open_at_once_start_one_agent_and_lose_nothing(many: int, home: Path, root: Path) -> None:
    done = scripts.run(AT_ONCE, root, many, flags=())
    assert "Traceback" not in done.stderr
    if many == 32:  # of more, a machine with few processors may need longer than open() waits, and say so
        assert "no agent" not in done.stderr
    assert len(leftovers.agents_of(home)) == 1
    assert len(started(home)) == 1
    for number in range(many):
        assert reading.values(root / "project" / f"run{number}") == [number]


def test_what_a_dead_agent_left_behind_is_in_nobodys_way(place: Path, home: Path, root: Path, folder: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(place / config.AGENT_SOCKET))
    dead.close()
    (place / "agent.lock").write_text("1")  # a pid that lives
    (place / "start.lock").write_text("")
    assert not answers(str(place / config.AGENT_SOCKET))
    trains(root)
    assert reading.values(folder) == list(range(POINTS))
    assert (place / "agent.lock").read_text() == str(agent_pid())


def foreign_file(at: Path) -> None:
    at.write_text("not a socket")


def dangling_link(at: Path) -> None:
    at.symlink_to(at.parent / "nowhere")


def link_to_a_file(at: Path) -> None:
    (at.parent / "target").write_text("precious")
    at.symlink_to(at.parent / "target")


@pytest.mark.parametrize("put", [foreign_file, dangling_link, link_to_a_file])
def test_what_stands_in_the_sockets_place_makes_way(
    put: Callable[[Path], None], place: Path, root: Path, folder: Path
) -> None:
    put(place / config.AGENT_SOCKET)
    trains(root)
    assert reading.values(folder) == list(range(POINTS))
    assert (place / config.AGENT_SOCKET).is_socket()
    assert not (place / config.AGENT_SOCKET).is_symlink()
    if put is link_to_a_file:
        assert (place / "target").read_text() == "precious"


@pytest.mark.parametrize("name", [config.AGENT_SOCKET, "agent.lock", "start.lock"])
def test_a_folder_in_a_files_place_is_said_and_training_goes_on(
    name: str, place: Path, root: Path, folder: Path
) -> None:
    (place / name).mkdir()
    (place / name / "inside").write_text("precious")
    said = trains(root)
    assert_only_the_journal_has_it(folder, said, "Is a directory")
    assert (place / name / "inside").read_text() == "precious"
    assert not [path for path in place.iterdir() if path.is_socket()]  # nothing half-made is left
    shutil.rmtree(place / name)
    assert_nothing_is_lost(root, folder)


@needs_root
def test_a_folder_of_somebody_elses_is_refused(place: Path, root: Path, folder: Path) -> None:
    """Whoever owns it could listen in the agent's place."""
    os.chown(place, 65534, 65534)
    said = trains(root)
    assert_only_the_journal_has_it(folder, said, f"{place} is not a folder of yours")
    assert list(place.iterdir()) == []
    os.chown(place, os.getuid(), os.getgid())
    assert_nothing_is_lost(root, folder)


def test_a_linked_folder_is_refused(home: Path, root: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (home / "run").symlink_to(tmp_path / "elsewhere")
    said = trains(root)
    assert_only_the_journal_has_it(folder, said, "is not a folder of yours")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_home_too_deep_for_a_socket_works_all_the_same(
    home: Path, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, dreamlake: Cli
) -> None:
    deep = home / ("d" * 60) / ("e" * 60)
    monkeypatch.setenv("DREAMLAKE_HOME", str(deep))
    short = Path(config.socket_path(str(deep / "run")))
    assert len(str(deep / "run" / config.AGENT_SOCKET)) > SUN_PATH_BYTES > len(str(short))
    try:
        trains(root)
        assert reading.values(folder) == list(range(POINTS))
        assert short.is_socket()
    finally:
        dreamlake("agent", "stop")
    assert not short.exists()
    with contextlib.suppress(OSError):  # somebody else's agent may be in it
        short.parent.rmdir()


def test_a_socket_may_have_the_longest_name_there_is(home: Path) -> None:
    """It is made under another name first, which must not be longer."""
    pad = SUN_PATH_BYTES - len(str(home)) - len(config.AGENT_SOCKET) - 2
    (home / ("x" * pad)).mkdir()
    path = str(home / ("x" * pad) / config.AGENT_SOCKET)
    assert len(path) == SUN_PATH_BYTES
    listening_socket(path).close()


def test_a_folder_that_vanishes_under_a_live_agent_gives_no_second_one(agent: Path, root: Path, folder: Path) -> None:
    """New clients come before the agent has noticed: the two used to take the socket from each other for ever."""
    with Session("run", "project", local_path=str(root)) as session:
        track = session.track("loss")
        for value in range(3):
            track.append(value=value)
            session.flush()
            shutil.rmtree(agent / "run")
            scripts.run(TRAINS.replace('"run"', f'"other{value}"'), root, flags=())
            track.append(value=100 + value)
            session.flush()
            wait_for(lambda: len(leftovers.agents_of(agent)) == 1)
    assert reading.values(folder) == [0, 100, 1, 101, 2, 102]
    for value in range(3):
        assert reading.values(root / "project" / f"other{value}") == list(range(POINTS))
    assert Path(agent / "run" / "agent.lock").read_text() == str(agent_pid())


def test_an_agent_makes_its_folder_again(agent: Path, session: Session, folder: Path) -> None:
    session.track("loss").append(value=0)
    session.flush()
    pid = agent_pid()
    shutil.rmtree(agent / "run")
    wait_for(lambda: answers(str(agent / "run" / config.AGENT_SOCKET)))
    session.track("loss").append(value=1)
    session.flush()
    assert agent_pid() == pid
    assert (agent / "run" / "agent.lock").read_text() == str(pid)
    assert reading.values(folder) == [0, 1]


# In a mount namespace of its own: what is mounted there is gone with its last process.
IN_A_FULL_HOME = """
mount -t tmpfs -o size=64k,$1 tmpfs "$DREAMLAKE_HOME" || exit 99
mkdir -m 700 "$DREAMLAKE_HOME/run"
if test "$1" = nr_inodes=0; then head -c 1m /dev/zero > "$DREAMLAKE_HOME/filler" 2>/dev/null; fi
"$2" "$3" "$4"
status=$?
"$2" -m dreamlake.cli agent stop >&2
exit $status
"""


@needs_root
@pytest.mark.parametrize("full_of", ["bytes", "files"])
def test_a_full_tmp_stops_no_training(full_of: str, home: Path, root: Path, folder: Path, tmp_path: Path) -> None:
    """Where a file can be made, though nothing be written into it, there is an agent; else the journal has it all."""
    program = tmp_path / "train.py"
    program.write_text(TRAINS)
    nodes = "nr_inodes=0" if full_of == "bytes" else "nr_inodes=2"  # 0: no limit
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", IN_A_FULL_HOME, "sh", nodes, sys.executable, program, root],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n"
    assert "Traceback" not in done.stderr
    if full_of == "bytes":
        assert "no agent" not in done.stderr
        assert reading.values(folder) == list(range(POINTS))
    else:
        assert_only_the_journal_has_it(folder, done.stderr, "No space left on device")
    assert_nothing_is_lost(root, folder)


IN_A_READ_ONLY_HOME = """
mount --bind "$HOME" "$HOME" && mount -o remount,ro,bind "$HOME" || exit 99
touch "$HOME/x" 2>/dev/null && exit 98
"$1" "$2" "$3"
status=$?
"$1" -m dreamlake.cli agent stop >&2
exit $status
"""


@needs_root
@pytest.mark.parametrize("runtime", ["writable", "read-only"])
def test_a_read_only_home_stops_no_training(runtime: str, home: Path, root: Path, folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text(TRAINS)
    for name in ("mine", "runtime"):
        (home / name).mkdir()
    env = {**os.environ, "HOME": str(home / "mine")}
    if runtime == "writable":  # as on a cluster: no state folder, but a runtime folder
        del env["DREAMLAKE_HOME"]
        env["XDG_RUNTIME_DIR"] = str(home / "runtime")
    else:
        env["DREAMLAKE_HOME"] = str(home / "mine")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", IN_A_READ_ONLY_HOME, "sh", sys.executable, program, root],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained\n"
    assert "Traceback" not in done.stderr
    if runtime == "writable":
        assert "no agent" not in done.stderr
        assert reading.values(folder) == list(range(POINTS))
    else:
        assert_only_the_journal_has_it(folder, done.stderr, "Read-only file system")
    assert_nothing_is_lost(root, folder)


OF_ANOTHER_VERSION = """
import sys, msgpack
from dreamlake.world.sockets import ZmqHub
hub = ZmqHub(sys.argv[1])
print("listening", flush=True)
while True:
    hub.wait(10)
    while (heard := hub.receive()) is not None:
        head = msgpack.unpackb(heard[1][0])
        if sys.argv[2] == "newer":  # it does not speak ours, and says so in ours
            hub.send(heard[0], [msgpack.packb([1, "version", [2, 3]])])
        elif sys.argv[2] == "stranger":  # it answers in its own
            hub.send(heard[0], [msgpack.packb([7, "welcome", head[2], 0, 0, 0, 0, "x" * 32, b"incarnat"])])
        else:
            hub.send(heard[0], [b"what?", b"who?", b"why?"])
"""


@pytest.mark.parametrize("kind", ["newer", "stranger"])
def test_an_agent_of_another_version_is_said_once_and_training_goes_on(
    kind: str, place: Path, root: Path, folder: Path, start_script: StartScript
) -> None:
    other = start_script(OF_ANOTHER_VERSION, place / config.AGENT_SOCKET, kind)
    assert other.stdout
    assert other.stdout.readline() == "listening\n"
    said = trains(root)
    assert said.count("another protocol than this dreamlake") == 1
    assert "agent restart; every call is kept in its journal" in said
    assert_only_the_journal_has_it(folder, said, "another protocol")
    other.kill()
    other.wait()
    assert_nothing_is_lost(root, folder)
