"""What another user of the machine can do to one's sessions: tried as that user. docs/security.md names each test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake import Session
from dreamlake.remote.credentials import Credentials, Login
from tests import leftovers, reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.live.another import AS_ANOTHER, OTHER, needs_root
from tests.waiting import wait_for

pytestmark = needs_root

TOKEN = "dlk_0123456789ab_" + "s3cret" * 7
NOWHERE = "http://127.0.0.1:9"


@contextlib.contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


# ── looking and taking ──────────────────────────────────────────────────────────────────────────────────────────────

TRIES = """
def connect(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)
ways = {
    "list": os.listdir,
    "read": lambda path: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)),
    "write": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)),
    "connect": connect,
    "rename": lambda path: os.rename(path, path + ".taken"),
    "chmod": lambda path: os.chmod(path, 0o777),
}
done = []
for path in json.load(sys.stdin):
    for way, call in ways.items():
        try:
            call(path)
            done.append([way, path])
        except OSError:
            pass
json.dump(done, sys.stdout)
"""


def what_another_can(paths: list[Path]) -> list[list[str]]:
    command = scripts.command(AS_ANOTHER + TRIES)
    said = json.dumps([str(path) for path in paths])
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=60, check=True)
    found: list[list[str]] = reading.strict(done.stdout)
    return found


def test_nothing_of_the_agents_or_of_a_private_session_is_open_to_another(agent: Path, commons: Path) -> None:
    """The agent was started with umask 022, the session with 077: its folder keeps what the agent puts into it."""
    Credentials().store(NOWHERE, "alice", Login(TOKEN))
    (commons / "alice").mkdir()
    root = commons / "alice" / "experiments"
    with (
        umask(0o077),
        Session("run", "project", local_path=str(root), remote=NOWHERE, user_name="alice", api_key=TOKEN) as session,
    ):
        session.track("loss").append(value=0.5)
        session.flush()
        Session("far", "project", remote=NOWHERE, user_name="alice", api_key=TOKEN).open().close()
        keys = wait_for(lambda: list((agent / "keys").iterdir()))
        agent.chmod(0o755)  # its own modes are to hold, not its parent's
        inside = [path for top in (agent, root) for path in (top, *top.rglob("*"))]
        for name in ("agent.sock", "agent.lock", "agent.log", "credentials.json", "data.jsonl", "journals", "sessions"):
            assert any(path.name == name for path in inside), name
        assert set(keys) <= set(inside)
        assert what_another_can(inside) == [["list", str(agent)], ["read", str(agent)]]
    control = commons / "control"
    control.touch()
    control.chmod(0o666)
    assert {way for way, _path in what_another_can([control])} == {"read", "write", "rename"}


def test_no_list_of_processes_shows_a_token(agent: Path, root: Path) -> None:
    with Session("run", "project", local_path=str(root), remote=NOWHERE, user_name="alice", api_key=TOKEN) as session:
        session.log("hello")
        session.flush()
        wait_for(lambda: len(leftovers.processes_of(agent)) >= 2)  # the agent, and the uploader that has the token
        pids = [process.pid for process in leftovers.processes_of(agent)]
        shown = [Path(f"/proc/{pid}/cmdline") for pid in pids]
        assert not any(TOKEN.encode() in path.read_bytes() for path in shown)
        hidden = [Path(f"/proc/{pid}/{name}") for pid in pids for name in ("environ", "mem", "fd")]
        assert {way for way, _path in what_another_can(shown)} == {"read"}  # as anybody may
        assert what_another_can(hidden) == []
    for folder in (root, agent):
        holding = [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
        assert all(path.parent == agent / "keys" for path in holding)


MAKES = """
import os, sys
from dreamlake import Session
os.umask(int(sys.argv[2]))
open(sys.argv[1] + ".csv", "w").close()
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.track("loss").append(value=0.5)
    session.files().upload(sys.argv[1] + ".csv", path="/data")
    session.parameters().set(lr=0.1)
    session.flush(durable=True)
"""


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_session_has_the_modes_of_the_umask_and_the_agents_own_are_private(mask: int, home: Path, root: Path) -> None:
    scripts.run(MAKES, root, mask)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*"))}
    assert len(found) > 15
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o777 & ~mask}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o666 & ~mask}
    own = {path: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
    assert {path.name for path in own} >= {"agent.sock", "agent.lock", "agent.log", "run"}
    assert [str(path) for path, mode in own.items() if mode & 0o077] == []


# ── standing in the agent's place ───────────────────────────────────────────────────────────────────────────────────

SQUATS = """
place, kind = sys.argv[1:3]
if kind == "file":
    open(place, "w").close()
elif kind == "link":
    os.symlink(sys.argv[3], place)
else:
    os.mkdir(place, 0o755)
listener = socket.socket(socket.AF_UNIX)
if kind == "folder":
    listener.bind(place + "/agent.sock")
    os.chmod(place + "/agent.sock", 0o666)
    listener.listen()
print("squatting", flush=True)
sys.stdin.readline()
print(len(select.select([listener], [], [], 0)[0]) if kind == "folder" else 0, flush=True)
"""

# The victim has no XDG_RUNTIME_DIR and no /run/user/UID, as in many a batch job. What it will need is imported by a
# session that it has as root: as another user it may not be able to read this interpreter's library.
TRAINS_AS = (
    AS_ANOTHER.replace(f"become({OTHER})\n", "")
    + """
from dreamlake import Session
root, uid, home = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.environ.update(DREAMLAKE_HOME=home, DREAMLAKE_AGENT="never")
with Session("first", "project", local_path=root + "/roots") as session:
    session.track("loss").append(value=0)
del os.environ["DREAMLAKE_HOME"], os.environ["DREAMLAKE_AGENT"]
os.environ.pop("XDG_RUNTIME_DIR", None)
become(uid)
os.environ["HOME"] = home
with Session("run", "project", local_path=root + "/users") as session:
    for value in range(100):
        session.track("loss").append(value=value)
print("trained")
"""
)


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_who_takes_the_place_in_tmp_takes_no_data_and_stops_no_training(
    kind: str, home: Path, commons: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    """The agent cannot be there, which is said with what to try; everything is in the session's journal."""
    uid = 100_000 + os.getpid()  # nobody's
    mine = commons / "mine"
    mine.mkdir(mode=0o755)
    os.chown(mine, uid, uid)
    place = Path(f"/tmp/dreamlake-{uid}")
    squatter = start_script(AS_ANOTHER + SQUATS, place, kind, mine)
    try:
        assert squatter.stdin is not None
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "squatting\n"
        done = scripts.run(TRAINS_AS, commons, uid, mine, flags=())
        print("leave", file=squatter.stdin, flush=True)
        assert squatter.stdout.readline() == "0\n"
    finally:
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(missing_ok=True)
    assert done.stdout == "trained\n"
    assert "Traceback" not in done.stderr
    assert f"{place} is not a folder of yours: remove it, or set DREAMLAKE_HOME to another place" in done.stderr
    assert stat.S_IMODE(mine.stat().st_mode) == 0o755  # what the link leads to is let alone
    assert [path for path in mine.rglob("*") if path.is_socket()] == []
    folder = commons / "users" / "project" / "run"
    assert "100 points" in dreamlake("show", folder).stdout


LISTENS = """
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen()
print("listening", flush=True)
sys.stdin.readline()
heard = 0
while select.select([listener], [], [], 0)[0]:
    with listener.accept()[0] as made:
        made.settimeout(1)
        try:
            while chunk := made.recv(4096):
                heard += len(chunk)
        except OSError:
            pass
print(heard, flush=True)
"""


def test_a_socket_from_before_the_folder_was_private_is_not_the_agents(
    home: Path, root: Path, start_script: StartScript
) -> None:
    """It is in a folder that is ours, and has been made ours alone since."""
    home.chmod(0o755)
    (home / "run").mkdir()
    (home / "run").chmod(0o777)
    other = start_script(AS_ANOTHER + LISTENS, home / "run" / "agent.sock")
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "listening\n"
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=1)
        session.flush()
    assert agent_pid()
    print("leave", file=other.stdin, flush=True)
    assert other.stdout.readline() == "0\n"
    assert reading.values(root / "project" / "run") == [1]
