"""Between HTTP and the routes: what is read of a request, and how everything that is wrong is told."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from dreamlake_server import limits
from dreamlake_server.app import Server, make_app
from dreamlake_server.decode import query as decode_query
from dreamlake_server.problem import bad, conflict
from dreamlake_server.route import Call, ClientDisconnect, Response, Route, StreamingResponse
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.table import Table, pattern
from tests.contract.conftest import Run
from tests.server.conftest import Connect

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MSGPACK = {"Content-Type": "application/msgpack"}
ZSTD = {"Content-Encoding": "zstd"}


class Point(msgspec.Struct):
    x: int
    name: str = ""


class Said(msgspec.Struct, rename="camel"):
    points: list[Point] = []
    all_of_it: bool = False
    rest: Any = None


class Asked(msgspec.Struct, rename="camel"):
    limit: int = 10
    after: str | None = None
    tags: list[str] = []
    only_new: bool = False
    maybe: list[int] | None = None


async def echo(call: Call) -> Said:
    return call.body  # type: ignore[no-any-return]


async def ask(call: Call) -> dict[str, Any]:
    return msgspec.to_builtins(call.query)  # type: ignore[no-any-return]


async def name_of(call: Call) -> dict[str, Any]:
    return {"path": dict(call.path), "method": call.request.method}


async def length_of(call: Call) -> dict[str, int]:
    count = 0
    async for chunk in call.stream():
        count += len(chunk)
    return {"bytes": count}


async def made(call: Call) -> Response:
    return call.answer({"made": True}, 201, {"Location": "/there"})


async def breaks(call: Call) -> dict[str, Any]:
    secret = "hunter2"
    raise RuntimeError(f"the password is {secret}")


async def unavailable(call: Call) -> dict[str, Any]:
    raise StoreUnavailable("mongodb://ann:hunter2@db cannot be reached")


async def forked(call: Call) -> dict[str, Any]:
    raise conflict("the log is another one", "fork", log="tracks/loss", have=3)


async def half(call: Call) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"half"
        raise StoreUnavailable("gone in the middle")

    return StreamingResponse(parts(), media_type="application/octet-stream")


async def gone(call: Call) -> Response:
    raise ClientDisconnect


async def long(call: Call) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        raise AssertionError("nobody wanted the body")
        yield b""

    return StreamingResponse(parts(), headers={"Content-Length": "5000000000"})


def public(method: str, path: str, handler: Any, **rest: Any) -> Route:
    return Route(method, path, handler, "Be tested.", public=True, **rest)


ROUTES = (
    public("POST", "/echo", echo, body=Said, answer=Said),
    public("POST", "/point", echo, body=Point),
    public("GET", "/ask", ask, query=Asked),
    public("PUT", "/length", length_of, streams="application/octet-stream"),
    public("POST", "/made", made),
    public("GET", "/breaks", breaks),
    public("GET", "/unavailable", unavailable),
    public("GET", "/forked", forked, errors=(409,)),
    public("GET", "/half", half),
    public("GET", "/gone", gone),
    public("GET", "/long", long),
    public("GET", "/w/{workspace:path}/sessions", name_of),
    public("GET", "/s/{id}", name_of),
    public("GET", "/s/{id}/tracks/{name:path}/data", name_of),
    public("POST", "/s/{id}/tracks/{name:path}/append", name_of),
    public("DELETE", "/s/{id}", name_of),
)


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    return connect(routes=ROUTES)


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which has the shape that every error has."""
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert isinstance(said["message"], str)
    assert said["message"]
    return answer.status_code, said["error"]


# ── bodies


def test_a_body_in_json_or_msgpack_packed_or_not(run: Run, client: httpx.AsyncClient) -> None:
    value = {"points": [{"x": 1, "name": "ä"}, {"x": 2, "name": ""}], "allOfIt": True, "rest": {"a": [None, 1.5]}}
    as_json, as_msgpack = msgspec.json.encode(value), msgspec.msgpack.encode(value)
    for content, headers in (
        (as_json, {}),
        (as_json, {"Content-Type": "application/json; charset=utf-8"}),
        (as_json, {"Content-Type": "text/plain"}),
        (as_json, {"Content-Encoding": "identity"}),
        (as_msgpack, MSGPACK),
        (as_msgpack, {"Content-Type": "Application/X-MsgPack; v=1"}),
        (zstd.compress(as_json), ZSTD),
        (zstd.compress(as_msgpack), ZSTD | MSGPACK),
        (zstd.compress(as_json[:9]) + zstd.compress(as_json[9:]), ZSTD),
    ):
        answer = run(client.post("/echo", content=content, headers=headers))
        assert (answer.status_code, answer.json()) == (200, value), headers


def test_an_answer_in_msgpack_for_who_asks_for_it(run: Run, client: httpx.AsyncClient) -> None:
    for accept in ("application/msgpack", "application/x-msgpack", "text/html, application/MSGPACK;q=0.9"):
        answer = run(client.post("/echo", json={"points": [{"x": 7}]}, headers={"Accept": accept}))
        assert answer.headers["content-type"] == "application/msgpack"
        assert msgspec.msgpack.decode(answer.content)["points"] == [{"x": 7, "name": ""}]
    answer = run(client.post("/made", headers={"Accept": "application/msgpack"}))
    assert (answer.status_code, answer.headers["location"]) == (201, "/there")
    assert msgspec.msgpack.decode(answer.content) == {"made": True}
    refused = run(client.get("/forked", headers={"Accept": "application/msgpack"}))
    assert problem(refused) == (409, "fork"), "an error is JSON for everybody"


def test_no_body_where_nothing_must_be_said(run: Run, client: httpx.AsyncClient) -> None:
    assert run(client.post("/echo")).json() == {"points": [], "allOfIt": False, "rest": None}
    missing = run(client.post("/point"))
    assert problem(missing) == (400, "bad-body")
    assert "`x`" in missing.json()["message"]


def test_a_field_that_is_not_what_it_should_be_is_named(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.post("/echo", json={"points": [{"x": 1}, {"x": "one"}]}))
    assert problem(answer) == (400, "bad-body")
    assert "$.points[1].x" in answer.json()["message"]
    assert problem(run(client.post("/echo", json=[1]))) == (400, "bad-body")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"{", {}),
        (b"\xff", {}),
        (b'{"rest":"\xff"}', {}),
        (b'{"rest":"\\ud800"}', {}),
        (b'{"rest":' + b"[" * 200_000, {}),
        (b'{"rest":1} x', {}),
        (b"\xc1", MSGPACK),
        (b"", MSGPACK),
        (b"\x81\xa4rest\xa1\xff", MSGPACK),
        (b"\x81\xa4rest" + b"\x91" * 200_000, MSGPACK),
        (b"\x81\xa4rest\xdd\xff\xff\xff\xff", MSGPACK),
        (b"not zstd", ZSTD),
        (zstd.compress(b"{}" * 1000)[:-4], ZSTD),
        (zstd.compress(b"{}") + b"rest", ZSTD),
        (zstd.compress(b"") * 1000, ZSTD),
    ],
)
def test_a_body_that_nobody_can_read(
    run: Run, client: httpx.AsyncClient, content: bytes, headers: dict[str, str]
) -> None:
    assert problem(run(client.post("/echo", content=content, headers=headers))) == (400, "unreadable")


def test_an_encoding_that_is_not_known(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.post("/echo", content=b"{}", headers={"Content-Encoding": "br"}))
    assert problem(answer) == (415, "unknown-encoding")


def test_a_window_larger_than_a_receiver_must_have_is_not_unpacked(run: Run, client: httpx.AsyncClient) -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b" " * 1000) + packer.flush()
    assert problem(run(client.post("/echo", content=packed, headers=ZSTD))) == (400, "unreadable")


def test_a_small_body_that_becomes_a_large_one(run: Run, client: httpx.AsyncClient) -> None:
    for bomb in (
        zstd.compress(b" " * (limits.BODY_BYTES + 1)),
        zstd.compress(b" " * (limits.BODY_BYTES // 2 + 1)) * 2,
        zstd.compress(b" " * (1 << 28)),
    ):
        assert len(bomb) < 16 << 10
        answer = run(client.post("/echo", content=bomb, headers=ZSTD))
        assert problem(answer) == (413, "too-large")
        assert answer.json()["limit"] == "UNPACKED_RATIO"
    noise = random.Random(1).randbytes(limits.BODY_BYTES // 50).hex().encode()  # it packs to a half
    for length, status in ((limits.BODY_BYTES, 200), (limits.BODY_BYTES + 1, 413)):
        packed = zstd.compress(b'{"pad":"%b"}' % noise + b" " * (length - len(noise) - 10))
        answer = run(client.post("/echo", content=packed, headers=ZSTD))
        assert answer.status_code == status
    assert answer.json()["limit"] == "BODY_BYTES"


def chunks(size: int, asked: list[int]) -> AsyncIterator[bytes]:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(0, size, 1 << 20):
            asked.append(1 << 20)
            yield b" " * (1 << 20)

    return parts()


def test_a_body_over_the_limit_is_not_read_on(run: Run, client: httpx.AsyncClient) -> None:
    asked: list[int] = []
    too_long = str(limits.BODY_BYTES + 1)
    answer = run(client.post("/echo", content=chunks(1 << 30, asked), headers={"Content-Length": too_long}))
    assert problem(answer) == (413, "too-large")
    assert (answer.json()["limit"], answer.json()["max"], asked) == ("BODY_BYTES", limits.BODY_BYTES, [])
    answer = run(client.post("/echo", content=chunks(1 << 30, asked)))
    assert problem(answer) == (413, "too-large")
    assert sum(asked) <= limits.BODY_BYTES + (2 << 20)
    for odd in ("9" * 5000, "-1", "²"):
        answer = run(client.post("/echo", content=chunks(1 << 30, []), headers={"Content-Length": odd.encode()}))
        assert problem(answer) == (413, "too-large")


def test_a_route_that_streams_has_its_own_limits(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.put("/length", content=chunks(limits.BODY_BYTES + (1 << 20), [])))
    assert answer.json() == {"bytes": limits.BODY_BYTES + (1 << 20)}


# ── queries


def test_a_query(run: Run, client: httpx.AsyncClient) -> None:
    nothing = {"limit": 10, "after": None, "tags": [], "onlyNew": False, "maybe": None}
    for text, found in (
        ("", {}),
        ("limit=5&unknown=1", {"limit": 5}),
        ("tags=a", {"tags": ["a"]}),
        ("tags=a&tags=b%26c", {"tags": ["a", "b&c"]}),
        ("after=%C3%A4+b", {"after": "ä b"}),
        ("after=", {"after": ""}),
        ("after=17", {"after": "17"}),
        ("after=null", {"after": "null"}),
        ("onlyNew=true", {"onlyNew": True}),
        ("maybe=1&maybe=2", {"maybe": [1, 2]}),
    ):
        answer = run(client.get(f"/ask?{text}"))
        assert (answer.status_code, answer.json()) == (200, nothing | found), text


@pytest.mark.parametrize("text", ["limit=x", "limit=1&limit=2", "onlyNew=perhaps", "maybe=a", "limit=1.5"])
def test_a_query_that_is_not_what_it_should_be(run: Run, client: httpx.AsyncClient, text: str) -> None:
    answer = run(client.get(f"/ask?{text}"))
    assert problem(answer) == (400, "bad-query")
    assert f"$.{text.partition('=')[0]}" in answer.json()["message"]


def test_a_query_that_nobody_can_read(run: Run, client: httpx.AsyncClient) -> None:
    for text in ("after=%ff", "after=%ed%a0%80", "&".join(f"a{index}=1" for index in range(2000))):
        assert problem(run(client.get(f"/ask?{text}"))) == (400, "bad-request"), text[:20]
    for raw in (b"after=\xff", b"\xff=1"):
        with pytest.raises(type(bad(""))):
            decode_query(raw, Asked)


# ── paths


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/w/vision/sessions", {"workspace": "vision"}),
        ("/w/a/b/sessions", {"workspace": "a/b"}),
        ("/w/a%2Fb/sessions", {"workspace": "a/b"}),
        ("/w/a%252Fb/sessions", {"workspace": "a%2Fb"}),
        ("/w/sessions/sessions", {"workspace": "sessions"}),
        ("/w/sessions%2Fsessions/sessions", {"workspace": "sessions/sessions"}),
        ("/w/100%25/sessions", {"workspace": "100%"}),
        ("/w/a+b%20c/sessions", {"workspace": "a+b c"}),
        ("/w/%C3%A4%3F%23/sessions", {"workspace": "ä?#"}),
        ("/w/%2e%2e/sessions", {"workspace": ".."}),
        ("/s/x", {"id": "x"}),
        ("/s/a%2Fb", {"id": "a/b"}),
        ("/s/x/tracks/train/loss/data", {"id": "x", "name": "train/loss"}),
        ("/s/x/tracks/train%2Floss/data", {"id": "x", "name": "train/loss"}),
        ("/s/x/tracks/data/data", {"id": "x", "name": "data"}),
        ("/s/x/tracks/a/tracks/b/data", {"id": "x", "name": "a/tracks/b"}),
        ("/s/x/tracks/a//b/data", {"id": "x", "name": "a//b"}),
    ],
)
def test_names_in_a_path(run: Run, client: httpx.AsyncClient, path: str, names: dict[str, str]) -> None:
    url = httpx.URL("http://127.0.0.1:3000", raw_path=path.encode())
    answer = run(client.get(url))
    assert (answer.status_code, answer.json().get("path")) == (200, names)


@pytest.mark.parametrize("name", ["%ff", "%C3", "%ed%a0%80", "a%00b", "a%0Ab", "%7f", "%C2%9b31m", "%0d%0aX-Y: z"])
def test_names_that_are_no_text(run: Run, client: httpx.AsyncClient, name: str) -> None:
    url = httpx.URL("http://127.0.0.1:3000", raw_path=f"/s/x/tracks/{name}/data".encode())
    assert problem(run(client.get(url))) == (400, "bad-name")


def test_a_path_that_is_none(run: Run, client: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/nope",
        "/s/",
        "/s",
        "/w//sessions/x",
        "/s/a/b",
        "/echo/",
        "//echo",
        "/ECHO",
        "/s/x/tracks//data",
    ):
        url = httpx.URL("http://127.0.0.1:3000", raw_path=path.encode())
        assert problem(run(client.get(url))) == (404, "not-found"), path


def test_a_method_that_is_not_answered(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.put("/s/x"))
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD"
    assert problem(run(client.request("BREW", "/echo"))) == (405, "method-not-allowed")
    assert run(client.delete("/s/x")).json()["method"] == "DELETE"


def test_head_has_the_headers_of_get_and_begins_nothing(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.head("/long"))
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "5000000000", b"")
    got = run(client.get("/ask"))
    assert run(client.head("/ask")).headers == got.headers


def test_no_route_is_hidden_behind_another() -> None:
    with pytest.raises(AssertionError, match="twice"):
        Table((*ROUTES, ROUTES[0]))
    assert pattern("/a.b/{id}").fullmatch("/aXb/1") is None


# ── what goes wrong inside


def test_what_went_wrong_inside_is_logged_and_not_told(
    run: Run, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = run(client.get("/breaks"))
    assert problem(answer) == (500, "internal")
    assert "hunter2" not in answer.text
    [record] = caplog.records
    assert (record.levelno, record.exc_info and str(record.exc_info[1])) == (logging.ERROR, "the password is hunter2")


def test_nobody_writes_lines_of_their_own_into_the_log(
    run: Run, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(routes=[public("GET", "/breaks/{name:path}", breaks)])
    url = httpx.URL("http://127.0.0.1:3000", raw_path=b"/breaks/%0aERROR%20forged")
    assert problem(run(client.get(url))) == (400, "bad-name")
    assert run(client.get("/breaks/a%20b")).status_code == 500
    assert [record.getMessage() for record in caplog.records] == ["GET /breaks/a%20b failed"]


def test_a_store_that_is_away_is_said_to_come_back(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.get("/unavailable"))
    assert problem(answer) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "hunter2" not in answer.text


def test_a_store_of_tokens_that_is_away_lets_nobody_in(run: Run, server: Server, alice: httpx.AsyncClient) -> None:
    async def find(token_id: str) -> None:
        raise StoreUnavailable("no tokens today")

    server.tokens.find = find  # type: ignore[method-assign]
    assert problem(run(alice.get("/sessions"))) == (503, "unavailable")


def test_a_conflict_says_more(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.get("/forked"))
    assert problem(answer) == (409, "fork")
    assert answer.json() == {"error": "fork", "message": "the log is another one", "log": "tracks/loss", "have": 3}


async def answered(app: Any, path: str, spec: str = "2.3") -> list[dict[str, Any]]:
    """What an application sends for a GET; ``spec`` is the version of ASGI that whoever holds the connection speaks."""
    coming = iter([{"type": "http.request", "body": b""}])
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 3000),
    }

    async def receive() -> dict[str, Any]:
        for event in coming:
            return event
        await asyncio.Event().wait()  # the caller waits, too
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
def test_half_an_answer_is_not_made_to_look_whole(
    run: Run, server: Server, caplog: pytest.LogCaptureFixture, spec: str
) -> None:
    sent = run(answered(make_app(server, ROUTES), "/half", spec))
    assert [(each["type"], each.get("body"), each.get("more_body")) for each in sent] == [
        ("http.response.start", None, None),
        ("http.response.body", b"half", True),
    ]
    assert "gone in the middle" in caplog.text


def test_a_caller_who_goes_away_is_no_error(run: Run, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert run(answered(make_app(server, ROUTES), "/gone")) == []
    assert caplog.records == []


def test_who_is_cancelled_by_a_stop_is_told_to_come_again(run: Run, server: Server) -> None:
    began = asyncio.Event()

    async def waits(call: Call) -> dict[str, Any]:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = make_app(server, [public("GET", "/waits", waits)])

    async def cancelled() -> list[dict[str, Any]]:
        task = asyncio.create_task(answered(app, "/waits"))
        await began.wait()
        began.clear()
        task.cancel()
        return await task

    with pytest.raises(asyncio.CancelledError):
        run(cancelled())
    server.stopping = True
    sent = run(cancelled())
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"1") in sent[0]["headers"]


def test_a_web_socket_is_not_opened(run: Run, server: Server) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {"type": "websocket", "path": "/health", "headers": [], "root_path": ""}
    run(make_app(server, ROUTES)(scope, None, send))  # type: ignore[arg-type]
    assert sent == ["websocket.close"]


def test_the_lifespan_opens_and_closes_the_stores(run: Run, server: Server) -> None:
    log = []
    for name in ("meta", "blobs", "tokens"):
        for act in ("open", "close"):

            async def noted(what: str = f"{act} {name}") -> None:
                log.append(what)

            setattr(getattr(server, name), act, noted)
    app = make_app(server, ROUTES)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            log.append("live")

    run(live())
    assert log == ["open meta", "open blobs", "open tokens", "live", "close tokens", "close blobs", "close meta"]
