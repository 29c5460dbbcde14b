"""``Session(remote=…)`` and the agent that sends: to a real server, which is away, killed, or does not let in."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from dreamlake.errors import NotSynced
from dreamlake.session import OperationMode
from tests import leftovers, reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.remote import mirror
from tests.server_live.lake import Lake, lake, new_token
from tests.waiting import wait_for


@pytest.fixture
def server(home: Path, tmp_path: Path) -> Iterator[Lake]:
    """Believes who somebody says he is."""
    folder = tmp_path / "server"
    folder.mkdir()
    with lake(folder, "--data", folder / "data", "--auth", "none") as found:
        yield found
        found.assert_no_complaints()


@pytest.fixture
def strict(home: Path, tmp_path: Path) -> Iterator[Lake]:
    """Wants tokens."""
    folder = tmp_path / "strict"
    folder.mkdir()
    with lake(folder, "--data", folder / "data") as found:
        yield found
        found.assert_no_complaints()


def status(dreamlake: Cli) -> dict[str, Any]:
    return dict(reading.strict(dreamlake("agent", "status", "--json").stdout))


def word(user: str = "alice") -> str:
    from dreamlake.remote.credentials import word_token

    return word_token(user)


def uploader_pids(home: Path) -> list[int]:
    return [each.pid for each in leftovers.processes_of(home) if "remote.main" in " ".join(each.cmdline())]


# ── what a call says ────────────────────────────────────────────────────────────────────────────────────────────────


def test_modes_and_places(home: Path, root: Path) -> None:
    url = "https://Your-Server.com/"
    assert Session("run", "project", local_path=root).mode is OperationMode.LOCAL
    remote = Session("run", "project", remote=url, user_name="alice")
    assert remote.mode is OperationMode.REMOTE
    assert Path(remote.path).is_relative_to(home)
    both = Session("run", "project", remote=url, user_name="alice", local_path=root)
    assert both.mode is OperationMode.HYBRID
    assert both.path == str(root / "project" / "run")
    others = [
        Session("run", "project", remote="https://your-server.com", user_name=user).path for user in ("alice", "bob")
    ]
    assert others[0] == remote.path != others[1]


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"remote": "your-server.com"}, ValueError),
        ({"remote": "https://alice:secret@your-server.com"}, ValueError),
        ({"remote": "https://your-server.com", "user_name": ""}, TypeError),
        ({"remote": "https://your-server.com", "api_key": 7}, TypeError),
        ({"remote": "ftp://your-server.com"}, ValueError),
    ],
)
def test_wrong_calls_raise_at_the_call_and_say_no_secret(given: dict[str, Any], wrong: type[Exception]) -> None:
    with pytest.raises(wrong) as raised:
        Session("run", "project", **given)
    assert "secret" not in str(raised.value)


def test_sync_without_a_remote_is_flush(agent: Path, root: Path) -> None:
    with Session("run", "project", local_path=root) as session:
        session.track("loss").append(value=1)
        session.sync(timeout=30)
        assert (root / "project/run/tracks/loss/data.jsonl").read_bytes().count(b"\n") == 1


# ── it goes on ──────────────────────────────────────────────────────────────────────────────────────────────────────

TRAIN = """
    import sys
    from dreamlake import Session
    url, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with Session("run", "project", remote=url, user_name="alice", local_path=root) as session:
        session.log("Using remote server")
        session.parameters().set(lr=0.1)
        for value in range(count):
            session.track("loss").append(value=value)
        with open("model.pth", "wb") as file:
            file.write(bytes(range(256)) * 100)
        session.files().upload("model.pth", path="/models")
"""


def test_a_server_that_is_away_is_nobodys_business_and_gets_everything_later(
    server: Lake, home: Path, root: Path, tmp_path: Path, dreamlake: Cli
) -> None:
    """Through a script that ended, an uploader and an agent that were killed, and a server that comes back."""
    server.kill()
    path = root / "project" / "run"
    done = scripts.run(TRAIN, server.url, root, 1000, cwd=tmp_path)
    assert done.stderr == ""  # nobody waits, and nothing is wrong yet

    def waits() -> dict[str, Any]:
        found = mirror.uploads_of(status(dreamlake), path)
        assert found["state"] == "waiting"
        assert found["pending_operations"] > 1000
        return found

    found = wait_for(waits)
    assert found["pending_bytes"] > 50_000
    assert found["lag"] > 0
    assert "cannot be reached" in found["last_error"]
    assert found["next_attempt"] is None or found["next_attempt"] <= 60
    assert server.url in dreamlake("agent", "status").stdout
    for pid in wait_for(lambda: uploader_pids(home)):
        os.kill(pid, signal.SIGKILL)
    os.kill(agent_pid(), signal.SIGKILL)
    wait_for(lambda: not leftovers.processes_of(home))  # the uploader does not outlive its agent
    assert dreamlake("agent", "start").returncode == 0
    server.start()
    wait_for(lambda: mirror.is_same(server.url, word(), path))
    data = bytes(range(256)) * 100
    wait_for(lambda: mirror.blob(server.url, word(), mirror.sha256(data)) == data)
    # All is done, so nothing is remembered for the next agent.
    wait_for(lambda: not list(home.glob("*/directories/*")))
    assert status(dreamlake)["uploads"] == []


def test_sync_waits_until_it_is_there(server: Lake, home: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"weights")
    with Session("run", "project", remote=server.url, user_name="alice") as session:
        session.track("loss").append(value=1)
        session.files().upload(tmp_path / "model.pth")
        session.sync(timeout=60)
        mirror.assert_same(server.url, word(), Path(session.path))
        assert mirror.blob(server.url, word(), mirror.sha256(b"weights")) == b"weights"
        server.kill()
        session.track("loss").append(value=2)
        with pytest.raises(NotSynced, match="cannot be reached"):
            session.sync(timeout=4)
        server.start()
        session.sync(timeout=60)
        mirror.assert_same(server.url, word(), Path(session.path))


def test_replaced_files_arrive_from_where_they_are_kept_and_go_then(
    server: Lake, home: Path, root: Path, tmp_path: Path
) -> None:
    server.kill()
    versions = [f"version {number}".encode() for number in range(3)]
    path = root / "project" / "run"
    with Session("run", "project", remote=server.url, user_name="alice", local_path=root) as session:
        for version in versions:
            (tmp_path / "model.pth").write_bytes(version)
            session.files().upload(tmp_path / "model.pth")
            # Known by its checksum before it is replaced.
            wait_for(lambda version=version: mirror.sha256(version) in (path / ".dreamlake/files.jsonl").read_text())  # type: ignore[misc]
        session.flush(durable=True)
        assert len(list((path / ".dreamlake" / "superseded").iterdir())) == 2
        server.start()
        session.sync(timeout=60)
        for version in versions:
            assert mirror.blob(server.url, word(), mirror.sha256(version)) == version
        wait_for(lambda: not list((path / ".dreamlake" / "superseded").iterdir()))


def test_what_was_replaced_since_the_directory_was_opened_again_is_kept_until_it_is_sent(
    server: Lake, home: Path, root: Path, tmp_path: Path, dreamlake: Cli
) -> None:
    """Superseded files are numbered from 1 again then; what was sent before says nothing of them."""
    path = root / "project" / "run"

    def upload(session: Session, version: bytes) -> None:
        (tmp_path / "model.pth").write_bytes(version)
        session.files().upload(tmp_path / "model.pth")
        wait_for(lambda: mirror.sha256(version) in (path / ".dreamlake/files.jsonl").read_text())

    with Session("run", "project", remote=server.url, user_name="alice", local_path=root) as session:
        for number in range(3):
            upload(session, b"version %d" % number)
        session.sync(timeout=60)
        wait_for(lambda: not list((path / ".dreamlake" / "superseded").iterdir()))
        server.kill()
    wait_for(lambda: not status(dreamlake)["sessions"])  # and its end is still to be sent
    with Session("run", "project", remote=server.url, user_name="alice", local_path=root) as session:
        upload(session, b"old")
        upload(session, b"new")
        session.flush(durable=True)
        server.start()
        session.sync(timeout=60)
        for version in (b"old", b"new"):
            assert mirror.blob(server.url, word(), mirror.sha256(version)) == version


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PAUSED = """
    import sys
    from dreamlake import Session
    url, root = sys.argv[1:3]
    with Session("run", "project", remote=url, user_name="alice", local_path=root) as session:
        session.track("loss").append(value=1)
        print("ready", flush=True)
        sys.stdin.readline()
        session.sync(timeout=60)
    print("sent", flush=True)
"""


def test_a_token_that_comes_later_is_enough(
    strict: Lake, home: Path, root: Path, tmp_path: Path, dreamlake: Cli, start_script: StartScript
) -> None:
    script = start_script(PAUSED, strict.url, root)
    assert script.stdin is not None
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    path = root / "project" / "run"
    wait_for(lambda: mirror.uploads_of(status(dreamlake), path)["state"] == "paused")
    assert f"dreamlake login {strict.url}" in "".join(each.read_text() for each in tmp_path.glob("stderr-*"))
    token = new_token("alice", "--data", tmp_path / "strict" / "data")
    done = subprocess.run(
        scripts.command("from dreamlake.cli import main; main()", "login", strict.url, flags=()),
        input=token + "\n",
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done
    script.stdin.write("\n")
    script.stdin.flush()
    assert script.stdout.readline() == "sent\n"
    wait_for(lambda: mirror.is_same(strict.url, token, path))  # and the end of the session, which came after


def test_a_key_that_a_script_gives_is_nowhere_but_in_its_own_file(
    strict: Lake, home: Path, root: Path, tmp_path: Path, dreamlake: Cli
) -> None:
    token = new_token("alice", "--data", tmp_path / "strict" / "data")
    strict.kill()
    path = root / "project" / "run"
    with Session("run", "project", remote=strict.url, api_key=token, local_path=root) as session:
        session.track("loss").append(value=1)
        session.flush()
        (kept,) = wait_for(lambda: list(home.rglob("keys/*")))
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
        wait_for(lambda: mirror.uploads_of(status(dreamlake), path)["state"] == "waiting")
        assert token not in json.dumps(status(dreamlake))
        assert token not in repr(session)
        told = [each.cmdline() + list(each.environ().values()) for each in leftovers.processes_of(home)]
        assert token not in json.dumps(told)
    strict.start()
    wait_for(lambda: mirror.is_same(strict.url, token, path))
    wait_for(lambda: not list(home.rglob("keys/*")))  # the session is done
    for folder in (home, root):
        for file in folder.rglob("*"):
            assert not file.is_file() or token.encode() not in file.read_bytes(), file


def test_the_key_of_the_environment_goes_with_the_script_and_not_with_the_agent(
    strict: Lake, agent: Path, root: Path, tmp_path: Path, dreamlake: Cli
) -> None:
    """The agent was started without it."""
    token = new_token("alice", "--data", tmp_path / "strict" / "data")
    scripts.run(TRAIN, strict.url, root, 10, cwd=tmp_path, env={"DREAMLAKE_API_KEY": token})
    wait_for(lambda: mirror.is_same(strict.url, token, root / "project" / "run"))
