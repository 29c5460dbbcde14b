"""Scraping: metrics and health are read at a socket, by nobody who should not; whoever misbehaves holds up no one."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dreamlake import config
from dreamlake_agent.observe.scraping import CannotListen, Scraping
from tests.waiting import wait_for

BODY = b"body" * 100_000  # more than a socket takes at once
Begin = Callable[..., Scraping]


def answer(path: str) -> tuple[int, str, bytes] | None:
    return {"/metrics": (200, "text/plain", BODY), "/health": (503, "application/json", b"{}")}.get(path)


@pytest.fixture
def begin() -> Iterator[Begin]:
    with contextlib.ExitStack() as stack:

        def begin(place: str | int = 0) -> Scraping:
            found = Scraping(place, answer)
            stack.callback(found.close)
            return found

        yield begin
    assert not [thread for thread in threading.enumerate() if thread.name == "scraping"]


def port_of(scraping: Scraping) -> int:
    return int(scraping.address.rpartition(":")[2])


def connect(scraping: Scraping) -> socket.socket:
    if scraping.address.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.connect(scraping.address)
        return found
    return socket.create_connection(("127.0.0.1", port_of(scraping)))


def said(scraping: Scraping, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer."""
    with connect(scraping) as line:
        line.settimeout(20)
        line.sendall(request)
        heard = b""
        while chunk := line.recv(1 << 16):
            heard += chunk
    head, _, body = heard.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, body


def get(path: str = "/metrics", host: str = "127.0.0.1", more: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def test_what_there_is_is_read_and_nothing_else(begin: Begin) -> None:
    scraping = begin()
    status, head, body = said(scraping, get())
    assert (status, body) == (200, BODY)
    assert f"Content-Length: {len(BODY)}".encode() in head
    assert b"Connection: close" in head
    assert said(scraping, get("/metrics?debug=1"))[0] == 200
    assert said(scraping, get("/health"))[::2] == (503, b"{}")
    assert said(scraping, get("/"))[0] == 404
    assert said(scraping, get(method="HEAD"))[::2] == (200, b"")
    status, head, _ = said(scraping, get(method="POST"))
    assert status == 405
    assert b"Allow: GET, HEAD" in head


def test_an_ordinary_client_reads_it(begin: Begin) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(begin()))
    for _ in range(3):
        connection.request("GET", "/metrics")
        with connection.getresponse() as response:
            assert response.read() == BODY
    connection.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get(host="evil.example.org"), 421),
        (get(host="127.0.0.1.evil.example.org"), 421),
        (get(host="evil.example.org:127.0.0.1"), 421),
        (get(more="Host: evil.example.org\r\n"), 421),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 421),
        (get(more="Origin: http://evil.example.org\r\n"), 403),
        (get(more="Sec-Fetch-Site: cross-site\r\n"), 403),
        (get(host="localhost:9464"), 200),
        (get(host="[::1]"), 200),
        (get(more="Sec-Fetch-Site: none\r\n"), 200),
    ],
)
def test_a_page_in_a_browser_reads_nothing(begin: Begin, request_: bytes, status: int) -> None:
    assert said(begin(), request_)[0] == status


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET http://127.0.0.1/metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/2\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\nHost: 127.0.0.1\r\n\r\n", 400),
        (get(more="No colon\r\n"), 400),
        (get(more=" folded: x\r\n"), 400),
        (get(more="X: \0\r\n"), 400),
        (os.urandom(512).replace(b"\r", b"r") + b"\r\n\r\n", 400),
        (get(more="X: " + "x" * config.METRICS_HEAD_BYTES + "\r\n"), 431),
        (b"x" * (config.METRICS_HEAD_BYTES + 1), 431),
    ],
)
def test_what_is_no_request_is_told_so(begin: Begin, request_: bytes, status: int) -> None:
    scraping = begin()
    assert said(scraping, request_)[0] == status
    assert said(scraping, get())[0] == 200


def test_those_who_say_nothing_hold_up_no_one_and_are_let_go(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    scraping = begin()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(scraping)) for _ in range(config.METRICS_CONNECTIONS * 4)]
        for line in idle:
            with contextlib.suppress(OSError):  # for one more, the oldest was closed
                line.sendall(b"GET /met")
        assert said(scraping, get())[0] == 200
        assert len(scraping._connections) <= config.METRICS_CONNECTIONS
    monkeypatch.setattr(config, "METRICS_REQUEST_SECONDS", 0.1)
    with connect(scraping) as slow, connect(scraping) as deaf:
        deaf.sendall(get())  # and reads nothing of a body that is larger than what waits in a socket
        slow.settimeout(20)
        assert slow.recv(1) == b""
        wait_for(lambda: not scraping._connections)


def test_one_byte_at_a_time_is_a_request_too(begin: Begin) -> None:
    with connect(begin()) as line:
        line.settimeout(20)
        for byte in get("/health"):
            line.sendall(bytes([byte]))
        assert line.recv(12) == b"HTTP/1.1 503"


# ── places ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "run"
    found.mkdir(mode=0o700)
    return found


def test_a_unix_socket_is_of_its_user_alone_and_gone_afterwards(folder: Path) -> None:
    place = folder / "metrics.sock"
    scraping = Scraping(str(place), answer)
    assert scraping.address == str(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert said(scraping, b"GET /metrics HTTP/1.1\r\n\r\n")[0] == 200  # no name is needed to come here
    assert scraping.is_alive
    place.unlink()
    assert not scraping.is_alive
    scraping.close()
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_missing_is_made_private(folder: Path, begin: Begin) -> None:
    begin(str(folder / "new" / "m.sock"))
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o700


def test_a_socket_that_a_dead_agent_left_is_replaced_and_a_live_one_is_not(folder: Path, begin: Begin) -> None:
    place = str(folder / "metrics.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(place)
    scraping = begin(place)
    with pytest.raises(CannotListen, match="somebody else listens"):
        Scraping(place, answer)
    assert said(scraping, get())[0] == 200


def test_a_file_of_the_user_is_not_overwritten(folder: Path) -> None:
    (folder / "thesis").write_text("mine")
    with pytest.raises(CannotListen, match="no socket"):
        Scraping(str(folder / "thesis"), answer)
    assert (folder / "thesis").read_text() == "mine"


def test_a_folder_in_which_others_may_write_is_refused_and_left_as_it_is(folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(CannotListen, match="not yours alone"):
        Scraping(str(folder / "metrics.sock"), answer)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    assert list(folder.iterdir()) == []


def test_a_port_that_is_taken_is_said(begin: Begin) -> None:
    port = port_of(begin())
    with pytest.raises(CannotListen, match=f"port {port} of 127.0.0.1 cannot be had"):
        Scraping(port, answer)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0:9464", "not on loopback"),
        ("[::]:9464", "not on loopback"),
        ("lake.example.org:80", "not on loopback"),
        (":9464", "not on loopback"),
        ("65536", "neither a port"),
        ("metrics.sock", "neither a port"),
        ("-1", "neither a port"),
        ("٩٤٦٤", "neither a port"),
        ("/" + "x" * 200, "longer than"),
    ],
)
def test_what_others_could_reach_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        config.metrics_place(text)
