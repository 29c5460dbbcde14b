"""How a server is reached: proxies, private authorities, client certificates, a limit; and what is said when not."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamlake.remote import lake as module
from dreamlake.remote.credentials import Credentials, Login
from dreamlake.remote.lake import Lake, NotLetIn, Refused, Trouble, Unreachable
from dreamlake.remote.rate import Throttle, bytes_per_second
from dreamlake.remote.reach import Reach, check_proxy
from tests.server_live.lake import lake, new_token
from tests.services import ports
from tests.services.authority import Authority
from tests.services.gateway import YOUR_SERVER, Gateway, terminator, your_server

URL = f"https://{YOUR_SERVER}"
SECRET = "dlk_0123456789ab_" + "x" * 43
REACHING = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The port of a real server that goes by the name of your-server.com, and a token of alice's."""
    folder = tmp_path_factory.mktemp("server")
    with lake(folder, "--data", folder / "data", "--allow-host", YOUR_SERVER) as found:
        yield found.port, new_token("alice", "--data", folder / "data")
        found.assert_no_complaints()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls(server: tuple[int, str], authority: Authority) -> Iterator[int]:
    """TLS before the server."""
    with terminator(server[0], authority.context(YOUR_SERVER, "localhost")) as port:
        yield port


@pytest.fixture
def gateway(tls: int) -> Iterator[Gateway]:
    with Gateway({f"{YOUR_SERVER}:443": tls}).opened() as found:
        yield found


@pytest.fixture(autouse=True)
def _nothing_is_set(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in REACHING:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def who(token: str, reach: Reach | None = None, url: str = URL) -> str:
    with Lake(url, token, reach=(reach or Reach()).here(), tries=1) as there:
        return str(there.whoami()["user"])


def trouble(token: str = SECRET, reach: Reach | None = None, url: str = URL) -> Trouble:
    with pytest.raises(Trouble) as raised:
        who(token, reach, url)
    assert token not in f"{raised.value!r} {raised.value}"
    return raised.value


# ── the real thing ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_through_a_proxy_with_a_private_authority_by_the_usual_variables(
    server: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, token = server
    with your_server(port, tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert who(token) == "alice"


def test_by_what_login_has_stored(server: tuple[int, str], gateway: Gateway, authority: Authority) -> None:
    _, token = server
    Credentials().store(URL, None, Login(token, Reach(proxy=gateway.url, ca=str(authority.pem))))
    with Lake.open(URL, tries=1) as there:
        assert there.whoami() == {
            "user": "alice",
            "auth": "token",
            "readOnly": False,
            "token": {"id": token[4:16], "note": ""},
        }
    assert gateway.asked == [f"{YOUR_SERVER}:443"]


def test_a_certificate_of_an_unknown_authority(gateway: Gateway) -> None:
    error = trouble(reach=Reach(proxy=gateway.url))
    assert isinstance(error, Unreachable)
    assert "SSL_CERT_FILE" in str(error)
    assert error.whole


def test_the_environment_goes_before_what_is_stored(
    server: tuple[int, str], gateway: Gateway, authority: Authority, tls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = server
    stored = Reach(proxy="http://127.0.0.1:1", ca="/nowhere.pem", cert="/nowhere.pem", limit_rate=1)
    monkeypatch.setenv("DREAMLAKE_CA", str(authority.pem))
    cert, key = authority.certificate("alice@example.org")
    monkeypatch.setenv("DREAMLAKE_CLIENT_CERT", str(cert))
    monkeypatch.setenv("DREAMLAKE_CLIENT_KEY", str(key))
    monkeypatch.setenv("DREAMLAKE_LIMIT_RATE", "10M")
    assert stored.here() == Reach("http://127.0.0.1:1", str(authority.pem), str(cert), str(key), 10 << 20)
    assert stored.here(7).limit_rate == 7
    monkeypatch.setenv("https_proxy", gateway.url)
    assert who(token, stored) == "alice"
    # Past the stored proxy, which leads nowhere.
    monkeypatch.setenv("NO_PROXY", "example.org,localhost")
    assert who(token, stored, f"https://localhost:{tls}") == "alice"
    assert gateway.asked == [f"{YOUR_SERVER}:443"]


def test_a_server_that_demands_a_certificate(server: tuple[int, str], authority: Authority) -> None:
    port, token = server
    cert, key = authority.certificate("bob@example.org")
    with terminator(port, authority.context("localhost", demand=True)) as strict:
        url, ca = f"https://localhost:{strict}", str(authority.pem)
        assert who(token, Reach(ca=ca, cert=str(cert), key=str(key)), url) == "alice"
        refused = trouble(token, Reach(ca=ca), url)
        assert isinstance(refused, Unreachable)
        _, other = authority.certificate("carol@example.org")
        wrong = Reach(ca=ca, cert=str(cert), key=str(other))
        assert "the key is another certificate's" in str(trouble(token, wrong, url))


def test_who_lacks_a_certificate_is_told(authority: Authority) -> None:
    """By the alert that most servers send (asyncio, above, just hangs up)."""
    context = authority.context("localhost", demand=True)

    def meet(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)

    with socket.create_server((ports.LOOPBACK, 0)) as listening, ThreadPoolExecutor(1) as pool:
        met = pool.submit(meet, listening)
        error = trouble(reach=Reach(ca=str(authority.pem)), url=f"https://localhost:{listening.getsockname()[1]}")
        met.result()
    assert "DREAMLAKE_CLIENT_CERT" in str(error)


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        (Reach(ca="/nowhere.pem"), "authority /nowhere.pem cannot be used: No such file"),
        (Reach(ca=__file__), "it is no PEM"),
        (Reach(cert=__file__), "it is no PEM"),
        (Reach(proxy="socks5://alice:hunter2@127.0.0.1:1"), "pip install 'httpx[socks]'"),
        (Reach(proxy="ftp://127.0.0.1:1"), "ftp://127.0.0.1:1 cannot be used"),
        (Reach(proxy="http://alice:hunter2@127.0.0.1:1"), "through the proxy http://127.0.0.1:1: "),
    ],
)
def test_what_cannot_be_used_is_named(reach: Reach, said: str) -> None:
    error = trouble(reach=reach)
    assert said in str(error)
    assert "hunter2" not in f"{error} {reach!r}"


def test_a_variable_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLAKE_LIMIT_RATE", "fast")
    with pytest.raises(Unreachable, match=r"DREAMLAKE_LIMIT_RATE .* 'fast' is no rate"):
        Lake.open(URL)
    monkeypatch.delenv("DREAMLAKE_LIMIT_RATE")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    assert "SSL_CERT_FILE" in str(trouble(url="https://localhost:1"))


def test_a_proxy_that_says_no_is_named(server: tuple[int, str], tls: int, authority: Authority) -> None:
    _, token = server
    ca = str(authority.pem)
    with Gateway({f"{YOUR_SERVER}:443": tls}, user="alice:hunter 2").opened() as guarded:
        error = trouble(token, Reach(proxy=guarded.url, ca=ca))
        assert f"the proxy {guarded.url} refused: 407" in str(error)
        assert "USER:PASSWORD@" in str(error)
        with_password = guarded.url.replace("//", "//alice:hunter%202@")
        assert who(token, Reach(proxy=with_password, ca=ca)) == "alice"
        error = trouble(token, Reach(proxy=with_password, ca=ca), "https://elsewhere.example.org")
        assert f"the proxy {guarded.url} refused: 403" in str(error)
        assert "hunter" not in str(error)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_http_through_a_proxy(name: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, gateway.url.removeprefix("http://"))
    trouble(url="http://lake.example.org")
    assert gateway.asked == ["GET http://lake.example.org/v1/whoami"]


def test_no_proxy_in_its_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    reach = Reach(proxy="http://proxy:3128")
    for text, url, proxy in (
        ("", "https://a.example.org", "http://proxy:3128"),
        ("example.org", "https://a.example.org:8443", None),
        (".example.org", "https://a.example.org", None),
        ("ample.org", "https://a.example.org", "http://proxy:3128"),
        ("a.example.org:8443", "https://a.example.org:8443", None),
        ("a.example.org:8443", "https://a.example.org", "http://proxy:3128"),
        ("::1", "http://[::1]:3000", None),
        ("*", "https://a.example.org", None),
    ):
        monkeypatch.setenv("NO_PROXY", text)
        assert reach.proxy_for(url) == proxy, (text, url)


@pytest.mark.parametrize("text", ["proxy:3128", "http://", "http://:80", "file:///etc", "http://a b", "http://a:port"])
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(ValueError, match="such as http://"):
        check_proxy(text)


# ── what is answered ────────────────────────────────────────────────────────────────────────────────────────────────


def answered(answer: Callable[[httpx.Request], httpx.Response], tries: int = 1) -> Lake:
    return Lake(URL, SECRET, tries=tries, sleep=lambda _seconds: None, transport=httpx.MockTransport(answer))


def raised(status: int, **what: Any) -> Trouble:
    with answered(lambda _request: httpx.Response(status, **what)) as there, pytest.raises(Trouble) as error:
        there.ask("/v1/status", {})
    return error.value


@pytest.mark.parametrize(
    ("status", "whole"), [(429, True), (500, False), (501, False), (502, True), (503, True), (504, True), (507, False)]
)
def test_who_is_away_and_what_failed(status: int, whole: bool) -> None:
    error = raised(status, json={"message": "not now"}, headers={"Retry-After": "9"})
    assert isinstance(error, Unreachable)
    assert (error.whole, error.retry_after) == (whole, 9.0)


@pytest.mark.parametrize(("text", "seconds"), [("99999999", 3600), ("-1", 0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0)])
def test_retry_after_is_bounded(text: str, seconds: float) -> None:
    error = raised(503, headers={"Retry-After": text})
    assert isinstance(error, Unreachable)
    assert error.retry_after == seconds


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 422])
def test_a_login_page_is_not_the_server(status: int) -> None:
    """Nothing may come of it that would set a record aside, or pause until another token arrives."""
    error = raised(status, text="<html>please log in</html>", headers={"Location": "https://portal.example.org/?u=1"})
    assert isinstance(error, Unreachable)
    assert "does not answer as a Dreamlake server does" in str(error)
    assert ("portal.example.org" in str(error)) == (status != 200)


def test_what_the_server_says_itself() -> None:
    for status in (401, 403):
        assert isinstance(raised(status, json={"error": "unauthorized", "message": "who?"}), NotLetIn)
    refused = raised(409, json={"error": "fork", "message": "no"})
    assert isinstance(refused, Refused)
    assert (refused.status, refused.said["error"]) == (409, "fork")
    assert isinstance(raised(413, text="<html>too large for this gateway</html>"), Refused)


def test_a_redirect_gets_no_token() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"Location": "https://elsewhere.example.org/"})

    with answered(answer) as there, pytest.raises(Unreachable, match=r"elsewhere\.example\.org"):
        there.ask("/v1/status", {})
    assert asked == [YOUR_SERVER]


def test_one_who_answers_at_another_url_is_not_the_server() -> None:
    for status, kind in ((403, Refused), (404, Refused), (401, Refused), (503, Unreachable), (429, Unreachable)):
        there = answered(lambda _request: httpx.Response(500))
        there._elsewhere = httpx.Client(
            transport=httpx.MockTransport(lambda _request, code=status: httpx.Response(code))
        )
        with there, pytest.raises(kind) as error:
            there.put("https://bucket.example.org/part?signature=x", 1, lambda: [b"x"])
        assert "signature" not in str(error.value)
        assert not getattr(error.value, "whole", False)


def test_an_answer_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES", 1000)
    error = raised(200, content=iter([b"x" * 600] * 100))
    assert "larger than 1000 bytes" in str(error)


def test_a_token_that_no_header_can_carry_is_not_shown() -> None:
    for token in ("dlk_geheim\n", "dlk_gehéim", "dlk geheim", "", "x" * 10_000):
        with pytest.raises(NotLetIn) as error:
            Lake(URL, token)
        assert not token or token.strip() not in str(error.value)


def test_the_log_has_no_url_and_no_token(server: tuple[int, str], caplog: pytest.LogCaptureFixture) -> None:
    port, token = server
    url = f"http://{ports.LOOPBACK}:{port}"
    with caplog.at_level(logging.DEBUG), Lake(url, token, tries=1) as there:
        assert there.whoami()["user"] == "alice"
        with pytest.raises(Refused):
            there.put(f"{url}/health?signature=geheim", 1, lambda: [b"x"])
        httpx.get(f"{url}/health?mine")  # whoever else uses httpx goes on seeing what it logs
    assert "?mine" in caplog.text
    assert "geheim" not in caplog.text
    assert token not in caplog.text
    assert "whoami" not in caplog.text


# ── reading bytes ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_reading_goes_on_where_it_broke_off() -> None:
    data, ranges = os.urandom(5000), []

    def breaking(chunks: bytes) -> Iterator[bytes]:
        yield chunks[:1000]
        if len(chunks) > 1000:
            raise httpx.ReadError("lost")

    def answer(request: httpx.Request) -> httpx.Response:
        ranges.append(request.headers.get("range"))
        first = int(ranges[-1][6:-1]) if ranges[-1] else 0
        return httpx.Response(206 if first else 200, content=breaking(data[first:]))

    with answered(answer, tries=2) as there:
        assert b"".join(there.read("/v1/blobs/x")) == data
    assert ranges == [None, *(f"bytes={first}-" for first in range(1000, 5000, 1000))]


def test_reading_from_the_end_and_from_one_who_knows_no_ranges() -> None:
    with answered(lambda _request: httpx.Response(416, json={"message": "no such range"})) as there:
        assert list(there.read("/v1/blobs/x", 7)) == []
    with answered(lambda _request: httpx.Response(200, content=b"all of it")) as there, pytest.raises(Trouble):
        list(there.read("/v1/blobs/x", 7))


# ── a limit ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_limit_holds_for_all_that_leaves() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def answer(request: httpx.Request) -> httpx.Response:
        assert len(request.read()) == int(request.headers["content-length"])
        return httpx.Response(200, json={})

    there = answered(answer)
    there._throttle = Throttle(1000, lambda: now[0], sleep)
    with there:
        there.put("/part", 5000, lambda: [b"x" * 5000])
        there.ask("/v1/push", {"lines": os.urandom(2000)})
    assert now[0] == pytest.approx(7, abs=0.2)
    assert max(slept) <= 0.126, "a trickle, and no silence"


@pytest.mark.parametrize("text", ["", "0", "-1", "10X", "1e9", "K", "10 MB", "0.1", "nan"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        bytes_per_second(text)
