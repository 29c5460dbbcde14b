"""``dreamlake login``, ``logout`` and ``whoami`` at a real server, and what of a token they never show."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dreamlake.remote import reach
from dreamlake.remote.credentials import Credentials, Login
from dreamlake.remote.reach import Reach
from dreamlake.wire.remotes import Remote
from dreamlake_agent.cli.login import login, logout, whoami
from tests.conftest import Cli
from tests.server_live.lake import lake, new_token

AWAY = "http://127.0.0.1:1"
UNKNOWN = "dlk_0123456789ab_" + "x" * 43
END_SECONDS = 30

Type = Callable[..., Result]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Its URL, a token of alice's, and one of hers that may only read."""
    folder = tmp_path_factory.mktemp("server")
    where = ("--data", folder / "data")
    with lake(folder, *where) as found:
        yield (
            found.url,
            new_token("alice", *where),
            new_token("alice", "--read-only", "--note", "dashboard", *where),
        )
        found.assert_no_complaints()


@pytest.fixture
def command(home: Path, server: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Type a command; the first line of its input is a token. Nothing that it says has a token in it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def run(command: object, *args: str, typed: str = "") -> Result:
        done = CliRunner().invoke(command, args, input=f"{typed}\n")  # type: ignore[arg-type]
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        for secret in (*server[1:], UNKNOWN, "hunter2"):
            assert secret not in done.output
            assert secret.rpartition("_")[2] not in done.output
        return done

    return run


def stored() -> list[tuple[Remote, Login]]:
    return Credentials().all()


def test_login_whoami_logout(command: Type, server: tuple[str, str, str], home: Path) -> None:
    url, token, _ = server
    done = command(login, f"{url}/", typed=f"  {token} ")
    assert (done.exit_code, done.output) == (0, f"logged in at {url} as alice; kept in {home}/credentials.json\n")
    assert stored() == [(Remote(url), Login(token))]
    done = command(whoami)
    assert (done.exit_code, done.output) == (
        0,
        f"{url}: alice, may read and write, token {token[:16]}; from login\n",
    )
    done = command(logout, url)
    assert (done.exit_code, done.output) == (
        0,
        f"logged out of {url}; `dreamlake server token revoke {token[4:16]}` ends the token itself\n",
    )
    assert stored() == []
    assert command(logout, url).exit_code == 1
    assert command(whoami).exit_code == 1


def test_a_token_that_the_server_does_not_know_is_not_stored(command: Type, server: tuple[str, str, str]) -> None:
    done = command(login, server[0], typed=UNKNOWN)
    assert (done.exit_code, "not known here" in done.output) == (1, True), done.output
    assert stored() == []
    assert command(login, server[0], "--no-check", typed=UNKNOWN).exit_code == 0
    done = command(whoami)
    assert (done.exit_code, "not known here" in done.output) == (1, True), done.output


def test_a_server_that_is_away(command: Type, server: tuple[str, str, str]) -> None:
    done = command(login, AWAY, typed=server[1])
    assert (done.exit_code, "--no-check" in done.output) == (1, True), done.output
    assert stored() == []
    assert command(login, AWAY, "--no-check", typed=server[1]).exit_code == 0
    assert [remote for remote, _ in stored()] == [Remote(AWAY)]


def test_whose_token_it_is(command: Type, server: tuple[str, str, str]) -> None:
    url, token, read_only = server
    done = command(login, url, "--user", "bob", typed=token)
    assert (done.exit_code, "this token is alice's" in done.output) == (1, True), done.output
    assert stored() == []
    done = command(login, url, "--user", "alice", typed=read_only)
    assert (done.exit_code, "as alice, to read only" in done.output) == (0, True), done.output
    [told] = json.loads(command(whoami, url, "--user", "alice", "--json").output)
    assert (told["token"], told["from"], told["error"]) == (read_only[:16], "login", None)
    assert told["server"] == {
        "user": "alice",
        "auth": "token",
        "readOnly": True,
        "token": {"id": read_only[4:16], "note": "dashboard"},
    }
    done = command(logout, url, "--user", "carol")
    assert (done.exit_code, "--user alice" in done.output) == (1, True), done.output
    assert command(logout, url).exit_code == 0, "there is but one"


def test_the_variable_goes_first(command: Type, server: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    url, token, read_only = server
    monkeypatch.setenv("DREAMLAKE_API_KEY", read_only)
    done = command(login, url, typed=token)
    assert (done.exit_code, "DREAMLAKE_API_KEY is set here" in done.output) == (0, True), done.output
    [used] = json.loads(command(whoami, url, "--json").output)
    [kept] = json.loads(command(whoami, "--json").output)
    assert (used["from"], used["token"]) == ("DREAMLAKE_API_KEY", read_only[:16])
    assert (kept["from"], kept["token"]) == ("login", token[:16])
    monkeypatch.delenv("DREAMLAKE_API_KEY")
    assert command(logout, url).exit_code == 0
    [nobody] = json.loads(command(whoami, url, "--json").output)
    assert (nobody["from"], nobody["token"], nobody["server"]) == (None, None, None)
    assert "needs a token" in nobody["error"]


def test_how_it_is_reached_is_kept(
    command: Type, server: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    ways = ("--ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem", "--limit-rate", "1.5M")
    proxy = ("--proxy", "http://alice@proxy.example.org:3128")
    done = command(login, AWAY, "--no-check", *proxy, *ways, typed=f"{UNKNOWN}\nhunter2/@")
    assert done.exit_code == 0, done.output
    files = [str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    way = Reach("http://alice:hunter2%2F%40@proxy.example.org:3128", *files, 3 << 19)
    assert stored() == [(Remote(AWAY), Login(UNKNOWN, way))]
    [told] = json.loads(command(whoami, "--json").output)
    assert (told["proxy"], told["ca"], told["limit_rate"]) == ("http://proxy.example.org:3128", files[0], 3 << 19)
    assert "it is no PEM" in told["error"] or "cannot be reached" in told["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        ("lake.example.org",),
        ("https://alice:hunter2@lake.example.org",),
        ("https://lake.example.org?token=x",),
        (AWAY, "--proxy", "http://alice:hunter2@proxy:3128"),
        (AWAY, "--proxy", "nonsense"),
        (AWAY, "--ca", "/nowhere.pem"),
        (AWAY, "--key", __file__),
        (AWAY, "--limit-rate", "fast"),
        (AWAY, "--no-check"),  # and no token
    ],
)
def test_wrong_use(command: Type, wrong: tuple[str, ...]) -> None:
    done = command(login, *wrong)
    assert (done.exit_code, stored()) == (2, []), done.output
    assert command(whoami, "--user", "alice").exit_code == 2


def test_a_store_that_cannot_be_used_is_a_sentence(command: Type, server: tuple[str, str, str], home: Path) -> None:
    file = home / "credentials.json"
    file.write_text('{"v": 1, "logins": []}')
    file.chmod(0o644)
    for done in (command(login, server[0], typed=server[1]), command(logout, server[0]), command(whoami)):
        assert (done.exit_code, "can be read by others" in done.output) == (1, True), done.output


def test_the_page_names_every_option_and_variable() -> None:
    page = (Path(__file__).parents[2] / "docs" / "login.md").read_text("utf-8")
    options = [option for each in login.params if isinstance(each, click.Option) for option in each.opts]
    assert [name for name in [*options, *re.findall(r"``([A-Z_]+)``", reach.__doc__ or "")] if name not in page] == []
    assert len(options) == 7


def test_as_a_program(dreamlake: Cli, server: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    done = dreamlake("login", server[0])  # standard input is empty
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done
    assert dreamlake("whoami").returncode == 1


def test_at_a_terminal_nothing_is_echoed(
    home: Path, server: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", "dreamlake.cli", "login", server[0]]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        shown = b""
        while b"Token for" not in shown or not shown.endswith(b": "):
            shown += os.read(ours, 1024)
        os.write(ours, server[1].encode() + b"\n")
        while b"credentials.json" not in shown:
            shown += os.read(ours, 1024)
        assert process.wait(END_SECONDS) == 0
    finally:
        os.close(ours)
    assert b"logged in" in shown
    assert server[1].encode() not in shown
    assert stored() == [(Remote(server[0]), Login(server[1]))]
