"""The store of logins: for this user alone, whole whatever dies, and nothing of it is ever shown."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dreamlake.remote.credentials import (
    Credentials,
    CredentialsUnusable,
    Login,
    is_sendable,
    public_part,
    token_for,
    word_token,
)
from dreamlake.remote.lake import Lake, Unreachable
from dreamlake.remote.reach import Reach
from dreamlake.wire.remotes import Remote
from dreamlake_server.auth import ByWord, Caller
from tests.contract.conftest import Run, run
from tests.waiting import wait_for

URL, OTHER = "https://lake.example.org", "https://other.example.org"
RUN_DIRECTORY = "/data/project/run"

__all__ = ["run"]


def token(number: int = 0) -> str:
    return f"dlk_{number:012x}_" + "s" * 43


ALICE, BOB, ANYBODY = Login(token(1)), Login(token(2)), Login(token(3))


@pytest.fixture
def store(home: Path) -> Credentials:
    return Credentials()


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_what_is_stored_is_found_again(store: Credentials, home: Path) -> None:
    way = Reach("http://alice:hunter2@proxy:3128", "/ca.pem", "/cert.pem", "/key.pem", 512_000)
    store.store("HTTPS://Lake.Example.org:443/", "zoë", Login(token(), way))
    assert store.all() == [(Remote(URL, "zoë"), Login(token(), way))]
    assert Credentials().find(URL, "zoë") == Login(token(), way)
    assert store.path == str(home / "credentials.json"), "and not below a folder of this host"
    store.store(URL, "zoë", ALICE)
    assert store.all() == [(Remote(URL, "zoë"), ALICE)]
    assert (store.remove(URL, "zoë"), store.remove(URL, "zoë"), store.all()) == (True, False, [])


def test_of_several_logins_the_nearest(store: Credentials) -> None:
    assert store.find(URL, "alice") is None
    store.store(OTHER, None, ANYBODY)
    store.store(URL, "bob", BOB)
    assert store.find(URL, None) == BOB, "the only one"
    assert store.find(URL, "alice") is None, "nobody writes under another's name"
    store.store(URL, "alice", ALICE)
    assert store.find(URL, "alice") == ALICE
    assert store.find(URL, "carol") is None
    assert store.find(URL, None) is None
    store.store(URL, None, ANYBODY)
    assert store.find(URL, "carol") == store.find(URL, None) == ANYBODY
    assert store.find(URL, "bob") == BOB


def test_the_order_of_tokens(store: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_for(URL, None) is None
    assert token_for(URL, "alice") is not None, "a word"
    store.store(URL, None, ANYBODY)
    assert token_for(URL, "alice") == ANYBODY.token
    store.store(URL, "alice", ALICE)
    assert token_for(URL, "alice") == ALICE.token
    monkeypatch.setenv("DREAMLAKE_API_KEY", f" {token(8)}\n")
    assert token_for(URL, "alice") == token(8)
    assert token_for(URL, "alice", token(9)) == token(9)
    monkeypatch.setenv("DREAMLAKE_API_KEY", "")
    assert token_for(URL, "alice", "") == ALICE.token


@pytest.mark.parametrize("name", ["alice", "zoë", 'a "quoted" one'])
def test_a_word_is_believed_by_a_server_without_tokens(name: str, run: Run) -> None:
    text = word_token(name)
    assert run(ByWord().caller(f"Bearer {text}", "127.0.0.1", 0)) == Caller(name)
    head, claims, _ = (base64.urlsafe_b64decode(part + "==") for part in text.split("."))
    assert json.loads(head) == {"alg": "HS256", "typ": "JWT"}
    said = json.loads(claims)
    assert (said["userId"], said["userName"], said["exp"] > said["iat"]) == (name, name, True)


# ── for nobody else ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_and_folders_are_ours_alone(store: Credentials, home: Path) -> None:
    home.chmod(0o755)
    before = os.umask(0)
    try:
        store.store(URL, None, ALICE)
        store.keep_key(RUN_DIRECTORY, URL, None, token())
    finally:
        os.umask(before)
    for path in (home, *home.rglob("*")):
        assert mode(path) & 0o077 == 0, path
    before = os.umask(0o777)
    try:
        store.store(URL, "bob", BOB)
    finally:
        os.umask(before)
    assert (mode(store.path), len(store.all())) == (0o600, 2)


def test_a_file_that_others_may_read_is_refused(store: Credentials, home: Path) -> None:
    store.store(URL, None, ALICE)
    os.chmod(store.path, 0o640)
    for call in (store.all, lambda: store.find(URL, None), lambda: store.store(URL, None, BOB)):
        with pytest.raises(CredentialsUnusable, match="can be read by others"):
            call()
    with pytest.raises(Unreachable, match="can be read by others"):
        Lake.open(URL)
    os.chmod(store.path, 0o600)
    assert store.find(URL, None) == ALICE


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_file_of_ours(kind: str, store: Credentials, home: Path, tmp_path: Path) -> None:
    if kind == "link":
        (tmp_path / "planted").write_text('{"v": 1, "logins": []}')
        (tmp_path / "planted").chmod(0o600)
        os.symlink(tmp_path / "planted", store.path)
    elif kind == "folder":
        os.mkdir(store.path)
    else:
        os.mkfifo(store.path, 0o600)
    with pytest.raises(CredentialsUnusable):
        store.all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret-in-garbage",
        "[]",
        "{}",
        '{"v": 2, "logins": []}',
        '{"v": 1, "logins": [{"url": "https://a", "user": null, "token": "secret word"}]}',
        '{"v": 1, "logins": [{"url": "https://a:secret@b", "user": null, "token": "secret"}]}',
        '{"v": 1, "logins": [{"url": "https://a", "user": 5, "token": "secret"}]}',
        '{"v": 1, "logins": [{"url": "https://a", "user": null, "token": "secret", "limit_rate": "fast"}]}',
        '{"v": 1, "logins": [{"url": "https://a", "user": null, "token": "secret", "proxy": ["secret"]}]}',
        '{"v": 1, "logins": ["secret"]}',
    ],
)
def test_a_file_that_holds_something_else(text: str, store: Credentials) -> None:
    fd = os.open(store.path, os.O_WRONLY | os.O_CREAT, 0o600)
    with open(fd, "w") as file:
        file.write(text)
    with pytest.raises(CredentialsUnusable) as error:
        store.all()
    assert "secret" not in str(error.value)
    with pytest.raises(CredentialsUnusable):
        store.store(URL, None, ALICE)
    assert Path(store.path).read_text() == text, "nothing is overwritten that could not be read"


def test_nothing_is_shown(store: Credentials) -> None:
    login = Login(token(), Reach(proxy="http://alice:hunter2@proxy:3128"))
    store.store(URL, None, login)
    shown = f"{login!r} {login} {store.all()!r} {store!r} {Lake(URL, token())!r}"
    assert token() not in shown
    assert "hunter2" not in shown
    assert login.public == token()[:16]
    assert (public_part("eyJ.a.b"), public_part("dlk_short_x")) == (None, None)


def test_what_no_header_can_carry_is_not_stored(store: Credentials) -> None:
    for text in ("", "two words", "line\n", "é", "\x00", "x" * 10_000):
        assert not is_sendable(text)
        for call in (
            lambda text=text: store.store(URL, None, Login(text)),
            lambda text=text: store.keep_key(RUN_DIRECTORY, URL, None, text),
        ):
            with pytest.raises(ValueError, match="spaces and accents"):
                call()
    assert store.all() == []


# ── many at once, and deaths ────────────────────────────────────────────────────────────────────────────────────────

LOGINS = """
import sys
from dreamlake.remote.credentials import Credentials, Login
store, first, count = Credentials(), int(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for number in range(first, first + count):
    store.store("https://lake.example.org", f"user-{number}", Login(f"token-{number}"))
    store.keep_key(f"/run-{number}", "https://lake.example.org", None, f"key-{number}")
"""


def logins(first: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", LOGINS, str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_many_logins_at_once_lose_nothing(store: Credentials) -> None:
    started = [logins(first, 10) for first in (0, 10, 20, 30)]
    for process in started:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert {remote.user for remote, _ in store.all()} == {f"user-{number}" for number in range(40)}
    assert all(store.key_of(f"/run-{number}", URL, None) == f"key-{number}" for number in range(40))


def test_killed_at_any_moment_it_is_whole(store: Credentials, home: Path) -> None:
    store.store(URL, None, ALICE)
    for turn in range(3):
        process = logins(1000 * turn, 1000)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        before = len(store.all())
        wait_for(lambda before=before: len(store.all()) > before + 3)  # every look is at a whole file
        process.send_signal(signal.SIGKILL)
        process.communicate()
    count = len(store.all())
    assert store.find(URL, None) == ALICE
    store.store(URL, "another", BOB)
    assert len(store.all()) == count + 1
    assert len(list(home.glob("credentials.json*"))) == 1, "what the dead one left is gone"


# ── keys of sessions ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_of_a_session_until_it_is_done(store: Credentials, home: Path) -> None:
    odd = os.fsdecode(b"/data/\xff")
    for path, user, number in ((RUN_DIRECTORY, None, 1), (RUN_DIRECTORY, "alice", 2), (odd, None, 3)):
        store.keep_key(path, URL, user, token(number))
    store.keep_key(RUN_DIRECTORY, URL + "/", None, token(4))
    again = Credentials()
    assert again.key_of(RUN_DIRECTORY, URL, None) == token(4)
    assert again.key_of(RUN_DIRECTORY, URL, "alice") == token(2)
    assert again.key_of(odd, URL, None) == token(3)
    assert again.key_of(RUN_DIRECTORY, OTHER, None) is None
    assert store.forget_key(RUN_DIRECTORY, URL, None)
    assert not store.forget_key(RUN_DIRECTORY, URL, None)
    assert again.key_of(RUN_DIRECTORY, URL, None) is None
    assert len(list((home / "keys").iterdir())) == 2
    for file in (home / "keys").iterdir():
        file.chmod(0o644)
    with pytest.raises(CredentialsUnusable, match="can be read by others"):
        store.key_of(odd, URL, None)
