"""The server as a process: started, stopped, killed, and who may be in its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from dreamlake_server import limits
from dreamlake_server.cli import server
from tests.server.conftest import END_SECONDS, Serve, Served, said, token_for
from tests.waiting import wait_for

SOCKET_SECONDS = 20


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DREAMLAKE_SERVER_")]:
        monkeypatch.delenv(name)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What a command says that cannot do its work: one sentence."""
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def test_a_life(served: Served) -> None:
    assert re.fullmatch(
        r"dreamlake server listening on http://127\.0\.0\.1:\d+ \(sqlite, folder\)\n", served.out.read_text()
    )
    wait_for(lambda: "dreamlake server token create" in served.err.read_text())
    alice, bob = served.client("alice"), served.client("bob")
    made = alice.post("/workspaces/w/sessions", json={"name": "run"})
    assert made.status_code == 200, made.text
    assert [each["name"] for each in alice.get("/sessions").json()["sessions"]] == ["run"]
    assert bob.get("/sessions").json()["sessions"] == []
    assert "server" not in made.headers
    assert served.end() == 0
    assert served.out.read_text().count("\n") == 1


def test_the_folder_is_its_users_alone(served: Served) -> None:
    served.client("alice").post("/workspaces/w/sessions", json={"name": "run"})
    for place in [served.data, *served.data.rglob("*")]:
        assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0, place


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_as_if_nothing_had_happened(serve: Serve, number: signal.Signals) -> None:
    assert serve().end(number) == 0


def test_killed_and_started_again_it_has_what_it_answered(serve: Serve) -> None:
    first = serve()
    text = token_for("alice", first.data)
    headers = {"Authorization": f"Bearer {text}"}
    client = first.client()
    for name in ("one", "two"):
        assert client.post("/workspaces/w/sessions", json={"name": name}, headers=headers).status_code == 200
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = serve()
    sessions = second.client().get("/sessions", headers=headers).json()["sessions"]
    assert {each["name"] for each in sessions} == {"one", "two"}
    assert "token create" not in second.err.read_text(), "there is one"
    assert second.end() == 0


def test_a_second_one_stays_out_of_the_folder(served: Served) -> None:
    reason = refused(said("start", "--port", 0, "--data", served.data))
    assert f"pid {served.process.pid}" in reason
    assert str(served.data) in reason
    assert "pid" in refused(said("purge", "--data", served.data))
    assert served.client().get("/health").status_code == 200
    served.end()
    assert said("purge", "--data", served.data).stdout == "0 sessions purged\n"


def half_a_request(served: Served, token: str) -> socket.socket:
    """A push of which the second half is still to come."""
    wire = socket.create_connection(("127.0.0.1", served.port), SOCKET_SECONDS)
    head = (
        f"POST /workspaces/w/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 15\r\nExpect: 100-continue\r\n\r\n"
    )
    wire.sendall(head.encode())
    assert wire.recv(100).startswith(b"HTTP/1.1 100 "), "the server waits for the body"
    wire.sendall(b'{"name"')
    return wire


def test_a_request_under_way_is_answered_before_it_stops(served: Served) -> None:
    token = token_for("alice", served.data)
    with half_a_request(served, token) as wire, socket.create_connection(("127.0.0.1", served.port)) as idle:
        served.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b"", "it has begun to stop"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port))
        wire.sendall(b': "run"}')
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert served.process.wait(END_SECONDS) == 0
    again = said("token", "list", "--data", served.data)
    assert "alice" in again.stdout


def test_a_request_that_does_not_end_is_told_to_come_again(serve: Serve) -> None:
    served = serve(stop_seconds=1)
    with half_a_request(served, token_for("alice", served.data)) as wire:
        served.process.send_signal(signal.SIGTERM)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in answer
        assert served.process.wait(END_SECONDS) == 0


def test_a_caller_who_goes_away_is_not_worth_a_word(served: Served) -> None:
    half_a_request(served, token_for("alice", served.data)).close()
    client = served.client()
    wait_for(lambda: 'status="499"} 1.0' in client.get("/metrics").text)
    assert served.end() == 0
    assert "Traceback" not in served.err.read_text()


def test_over_a_real_connection_a_body_too_large_is_told(served: Served) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range((limits.BODY_BYTES >> 20) + 8):
            yield b" " * (1 << 20)

    client = served.client("alice")
    answer = client.post("/workspaces/w/sessions", content=parts())
    assert (answer.status_code, answer.json()["limit"]) == (413, "BODY_BYTES")
    assert client.get("/sessions").status_code == 200


def test_names_over_a_real_connection(served: Served) -> None:
    client = served.client("alice")
    for raw, status in ((b"/workspaces/a%2Fb/sessions", 200), (b"/workspaces/%ff/sessions", 400)):
        assert client.get(httpx.URL(served.url, raw_path=raw)).status_code == status


# ── TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One for 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    assert openssl, "this test makes a certificate with openssl: install it"
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=dreamlake test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([openssl, "req", *kind, *name, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def test_with_tls(serve: Serve, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    served = serve("--tls-cert", cert, "--tls-key", key, cafile=cert)
    assert served.url.startswith("https://127.0.0.1:")
    client = served.client("alice")
    assert client.get("/health", headers={"Origin": served.url}).status_code == 200
    assert client.get("/health", headers={"Origin": served.url.replace("https", "http")}).status_code == 403
    assert client.post("/workspaces/w/sessions", json={"name": "run"}).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(served.url.replace("https", "http") + "/health", trust_env=False)
    assert served.end() == 0


def test_a_certificate_that_is_none(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    data = tmp_path / "data"
    for wrong in ((cert, cert), (key, key), (tmp_path / "none.pem", key), (cert, tmp_path / "none.pem")):
        options = ("--tls-cert", wrong[0], "--tls-key", wrong[1])
        assert "PEM" in refused(said("start", "--port", 0, "--data", data, *options))
    assert said("start", "--data", data, "--tls-cert", cert).returncode == 2


# ── what cannot be started


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reason = refused(said("start", "--port", port, "--data", tmp_path / "data"))
    assert f"port {port}" in reason
    assert "in use" in reason


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--host", "no.such.host.invalid"), "--host"),
        (("--host", "192.0.2.1"), "192.0.2.1"),
        (("--host", "a" * 300), "--host"),
        (("--auth", "none", "--host", "0.0.0.0"), "--auth none"),
        (("--auth", "none", "--host", "::"), "--auth none"),
        (("--mongo", "mongodb://ann:hunter2@:bad:/"), "MongoDB"),
        (("--mongo", "http://ann:hunter2@db"), "MongoDB"),
        (("--mongo", "mongodb://ann:hunter2@127.0.0.1:1/"), "MongoDB"),
        (("--s3", "http://bucket"), "s3://"),
        (("--s3", "s3://"), "s3://"),
    ],
)
def test_what_it_cannot_start_with(tmp_path: Path, options: tuple[str, ...], word: str) -> None:
    if options[-1] == "::" and not socket.has_ipv6:
        options = (*options[:-1], "0.0.0.0")
    reason = refused(said("start", "--port", 0, "--data", tmp_path / "data", *options))
    assert word in reason
    assert "hunter2" not in reason


def test_a_folder_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refused(said("start", "--port", 0, "--data", tmp_path / "file" / "data"))
    assert said("start", "--port", 0, "--data", tmp_path / "file").returncode == 2


def test_a_folder_of_somebody_elses_things_is_left_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    (home / "thesis.tex").write_text("")
    assert "other things" in refused(said("start", "--port", 0, "--data", home))
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert os.listdir(home) == ["thesis.tex"]


def test_a_database_that_is_none(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "meta.sqlite").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    assert "meta.sqlite" in refused(said("start", "--port", 0, "--data", data))


@pytest.mark.parametrize(
    "options",
    [
        ("--s3-endpoint", "http://127.0.0.1:1"),
        ("--allow-host", "http://lake.example"),
        ("--allow-host", "lake.example:443"),
        ("--auth", "maybe"),
        ("--port", "70000"),
        ("--purge-days", "0"),
    ],
)
def test_wrong_use(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert said("start", "--data", tmp_path / "data", *options).returncode == 2
    assert not (tmp_path / "data").exists()


# ── where it listens, and for whom


def test_by_word_on_this_machine(serve: Serve) -> None:
    served = serve("--auth", "none")
    assert served.client().get("/sessions").json()["sessions"] == []
    served.end()
    assert served.err.read_text() == ""


def test_by_word_under_another_name_it_warns(serve: Serve) -> None:
    served = serve("--auth", "none", "--allow-host", "lake.example")
    wait_for(lambda: "reaches this server as lake.example" in served.err.read_text())


def test_beyond_this_machine_it_warns_and_metrics_need_a_token(serve: Serve) -> None:
    served = serve("--host", "0.0.0.0", "--allow-host", "lake.example")
    served.url = f"http://127.0.0.1:{served.port}"
    wait_for(lambda: "without TLS" in served.err.read_text())
    client, alice = served.client(), served.client("alice")
    there = {"Host": "lake.example"}
    assert client.get("/health").status_code == 421
    assert client.get("/health", headers=there).status_code == 200
    assert client.get("/metrics", headers=there).status_code == 401
    assert alice.get("/metrics", headers=there).status_code == 200


def test_a_name_in_capitals_is_the_same_name(serve: Serve) -> None:
    client = serve("--allow-host", "Lake.Example").client()
    assert client.get("/health", headers={"Host": "lake.example"}).status_code == 200
    assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421


def test_settings_from_the_environment(tmp_path: Path) -> None:
    env = {"DREAMLAKE_SERVER_DATA": str(tmp_path / "there")}
    made = said("token", "create", "alice", env=env, cwd=tmp_path)
    assert made.returncode == 0
    assert (tmp_path / "there" / "tokens.sqlite").is_file()
    secret = {"DREAMLAKE_SERVER_MONGO": "http://ann:hunter2@db"}
    assert "hunter2" not in refused(said("token", "list", env=secret, cwd=tmp_path))


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from dreamlake_server.cli import server; server(['start', '--data', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "data"], capture_output=True, text=True, check=False
    )
    assert "pip install 'dreamlake[server]'" in refused(done)


def test_the_command_line_is_light() -> None:
    heavy = ["asyncio", "httpx", "msgspec", "obstore", "prometheus_client", "pymongo", "starlette", "uvicorn"]
    program = f"import sys, dreamlake_server.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# ── tokens


def test_tokens_while_the_server_runs(served: Served) -> None:
    made = said("token", "create", "alice", "--note", "laptop", "--data", served.data)
    assert made.returncode == 0
    assert re.fullmatch(r"dlk_[0-9a-f]{12}_[\w-]{43}\n", made.stdout)
    text = made.stdout.strip()
    assert text not in made.stderr
    reader = said("token", "create", "bob", "--read-only", "--data", served.data).stdout.strip()
    client = served.client()

    def status(token: str, method: str = "GET") -> int:
        path = "/sessions" if method == "GET" else "/workspaces/w/sessions"
        json = None if method == "GET" else {"name": "run"}
        return client.request(method, path, json=json, headers={"Authorization": f"Bearer {token}"}).status_code

    assert (status(text), status(text, "POST"), status(reader), status(reader, "POST")) == (200, 200, 200, 403)
    known_as = text.split("_")[1]
    assert said("token", "revoke", known_as, "--data", served.data).stdout == f"token {known_as} is revoked\n"
    assert (status(text), status(reader)) == (401, 200)
    assert said("token", "revoke", reader, "--data", served.data).returncode == 0, "the whole of it will do"
    assert status(reader) == 401


def test_tokens_as_they_are_listed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    text = token_for("alice", data)
    said("token", "create", "bob", "--read-only", "--note", "dashboard", "--data", data)
    said("token", "revoke", text.split("_")[1], "--data", data)
    one, other = json.loads(said("token", "list", "--json", "--data", data).stdout)
    assert (one["user"], one["readOnly"], one["note"]) == ("alice", False, "")
    assert (other["user"], other["readOnly"], other["note"], other["revoked"]) == ("bob", True, "dashboard", None)
    assert one["revoked"] > one["created"]
    [line] = said("token", "list", "bob", "--data", data).stdout.splitlines()
    assert line.split("  ")[:3] == [other["id"], "bob", "read"]
    whole = said("token", "list", "--data", data).stdout
    assert "revoked" in whole
    assert text not in whole
    kept = [path for path in data.rglob("*") if path.is_file()]
    assert kept
    assert not [path for path in kept if text.encode() in path.read_bytes()]


def test_tokens_that_cannot_be(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for command in (("list",), ("revoke", "0123456789ab")):
        assert "no server keeps its data" in refused(said("token", *command, "--data", data))
    assert not data.exists()
    assert "user" in refused(said("token", "create", "../alice", "--data", data))
    assert said("token", "create", "alice", "--note", "n" * 2000, "--data", data).returncode == 2
    assert not data.exists()
    token_for("alice", data)
    assert "no token" in refused(said("token", "revoke", "0123456789ab", "--data", data))


def test_every_command_shows_an_example() -> None:
    def help_of(command: str) -> str:
        done = CliRunner().invoke(server, [*command.split(), "--help"])
        assert done.exit_code == 0
        return done.output

    for command in ("", "start", "purge", "token", "token create", "token list", "token revoke"):
        assert "Example" in help_of(command), command
    assert "use the variable" in " ".join(help_of("start").split())
