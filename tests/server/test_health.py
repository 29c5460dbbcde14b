"""What the server says of itself."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import dreamlake
from dreamlake_server import docs, health, openapi
from dreamlake_server.api import ROUTES
from dreamlake_server.app import Server
from dreamlake_server.route import Call, Response, Route
from dreamlake_server.stores import StoreUnavailable
from tests.contract.conftest import Run
from tests.server.conftest import Connect, Serve
from tests.waiting import wait_for

STORES = ("meta", "blobs", "tokens")


def test_well(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.get("/health"))
    assert answer.status_code == 200
    well = {"kind": "memory", "state": "ok"}
    assert answer.json() == {
        "status": "ok",
        "version": dreamlake.__version__,
        "stores": {"meta": well, "blobs": well, "tokens": well},
    }


def break_it(server: Server, name: str, error: Exception) -> Any:
    """Make asking that store fail; gives back what mends it."""
    store, method = getattr(server, name), "find" if name == "tokens" else "ping"

    async def fails(*_: object) -> None:
        raise error

    setattr(store, method, fails)
    return lambda: delattr(store, method)


@pytest.mark.parametrize("name", STORES)
def test_each_store_by_itself(run: Run, server: Server, client: httpx.AsyncClient, name: str) -> None:
    mend = break_it(server, name, StoreUnavailable("mongodb://ann:hunter2@db:27017/?authSource=x does not answer"))
    answer = run(client.get("/health"))
    said = answer.json()
    assert (answer.status_code, said["status"]) == (503, "degraded")
    assert {each: said["stores"][each]["state"] for each in STORES} == {
        each: "unavailable" if each == name else "ok" for each in STORES
    }
    assert "db:27017" in said["stores"][name]["error"]
    assert "hunter2" not in answer.text
    assert "ann" not in said["stores"][name]["error"]
    mend()
    assert run(client.get("/health")).status_code == 200


def test_a_store_that_fails_in_its_own_way_is_logged_and_not_told(
    run: Run, server: Server, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    break_it(server, "blobs", RuntimeError("hunter2"))
    answer = run(client.get("/health"))
    assert answer.status_code == 503
    assert "hunter2" not in answer.text
    assert "hunter2" in caplog.text


def test_a_store_that_says_nothing(
    run: Run, server: Server, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PING_SECONDS", 0.01)

    async def forever() -> None:
        await asyncio.Event().wait()

    server.meta.ping = forever  # type: ignore[method-assign]
    answer = run(client.get("/health"))
    assert answer.status_code == 503
    assert "no answer" in answer.json()["stores"]["meta"]["error"]


def test_many_who_ask_at_once_make_one_ping(run: Run, server: Server, client: httpx.AsyncClient) -> None:
    pings = []
    let = asyncio.Event()

    async def ping() -> None:
        pings.append(1)
        await let.wait()

    server.meta.ping = ping  # type: ignore[method-assign]

    async def many() -> list[httpx.Response]:
        asking = [asyncio.create_task(client.get("/health")) for _ in range(50)]
        while not pings:
            await asyncio.sleep(0)
        asking[0].cancel()
        await asyncio.wait(asking[:1])
        let.set()
        return await asyncio.gather(*asking[1:])

    assert {answer.status_code for answer in run(many())} == {200}
    assert len(pings) == 1
    assert run(client.get("/health")).status_code == 200
    assert len(pings) == 2


def test_a_folder_that_cannot_be_written_is_seen_and_seen_to_be_mended(serve: Serve) -> None:
    served = serve()
    client = served.client()
    assert client.get("/health").json()["status"] == "ok"
    blobs = served.data / "blobs"
    away = served.data / "away"
    blobs.rename(away)
    Path(blobs).write_text("in the way")
    found = wait_for(lambda: (answer := client.get("/health")).status_code == 503 and answer).json()
    assert {name: store["state"] for name, store in found["stores"].items()} == {
        "meta": "ok",
        "blobs": "unavailable",
        "tokens": "ok",
    }
    blobs.unlink()
    away.rename(blobs)
    assert wait_for(lambda: client.get("/health").status_code == 200)


# ── metrics


def metric(text: str, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_what_was_done_is_counted(run: Run, server: Server, alice: httpx.AsyncClient) -> None:
    made = run(alice.post("/workspaces/w/sessions", content=b'{"name": "run"}'))
    assert run(alice.get("/no/such/path")).status_code == 404
    assert run(alice.request("BREW", "/health")).status_code == 405
    server.metrics.records.inc(3)
    server.metrics.blobs.inc()
    server.metrics.forks.inc(2)
    answer = run(alice.get("/metrics"))
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    route = 'route="/workspaces/{workspace:path}/sessions"'
    for line, value in (
        (f'dreamlake_requests_total{{method="POST",{route},status="{made.status_code}"}}', 1),
        (f'dreamlake_request_seconds_count{{method="POST",{route}}}', 1),
        ('dreamlake_requests_total{method="GET",route="unmatched",status="404"}', 1),
        ('dreamlake_requests_total{method="other",route="unmatched",status="405"}', 1),
        ("dreamlake_blobs_total", 1),
        ("dreamlake_forks_total", 2),
        ("dreamlake_received_bytes_total", 15),
    ):
        assert metric(answer.text, line) == value, line
    assert metric(answer.text, "dreamlake_records_total") >= 3
    assert metric(answer.text, "dreamlake_sent_bytes_total") >= len(made.content)
    assert "/no/such/path" not in answer.text


def test_metrics_of_a_server_that_others_reach_need_a_token(
    run: Run, server: Server, client: httpx.AsyncClient, bob: httpx.AsyncClient
) -> None:
    assert run(client.get("/metrics")).status_code == 200
    for server.loopback, server.allow_hosts in ((False, ()), (True, ("lake.example",))):
        assert run(client.get("/metrics")).status_code == 401
        assert run(bob.get("/metrics")).status_code == 200
        assert run(client.get("/health")).status_code == 200


def test_two_servers_in_one_process_count_apart(run: Run, server: Server) -> None:
    other = Server(server.meta, server.blobs, server.tokens, server.auth)
    other.metrics.records.inc()
    assert metric(other.metrics.text().decode(), "dreamlake_records_total") == 1
    assert metric(server.metrics.text().decode(), "dreamlake_records_total") == 0


# ── the table as a document


class Inner(msgspec.Struct):
    x: int


class Body(msgspec.Struct, rename="camel"):
    some_thing: Inner
    others: list[Inner] = []


class Query(msgspec.Struct, rename="camel"):
    start_index: int
    tags: list[str] = []


async def nothing(call: Call) -> Response:
    return Response()


def test_a_route_as_it_is_described() -> None:
    route = Route(
        "POST",
        "/a/{id}/b/{name:path}",
        nothing,
        "Do it.",
        query=Query,
        body=Body,
        answer=Inner,
        writes=True,
        errors=(404, 409),
    )
    document = openapi.document((route,))
    found = document["paths"]["/a/{id}/b/{name}"]["post"]
    assert found["summary"] == "Do it."
    assert [(each["in"], each["name"], each["required"]) for each in found["parameters"]] == [
        ("path", "id", True),
        ("path", "name", True),
        ("query", "startIndex", True),
        ("query", "tags", False),
    ]
    assert found["requestBody"]["required"] is True
    assert set(found["requestBody"]["content"]) == {"application/json", "application/msgpack"}
    assert found["security"] == [{"token": []}]
    assert list(found["responses"]) == ["200", *map(str, (400, 401, 403, 404, 409, 413, 415, 421, 429, 500, 503))]
    schemas = document["components"]["schemas"]
    assert set(schemas) == {"Body", "Inner", "Error"}
    assert schemas["Body"]["properties"]["someThing"] == {"$ref": "#/components/schemas/Inner"}


def test_the_whole_table_is_described(run: Run, client: httpx.AsyncClient) -> None:
    document = run(client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    found = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert found == {(route.method, route.path.replace(":path", "")) for route in ROUTES}
    operations = [each for methods in document["paths"].values() for each in methods.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all(each["summary"].endswith(".") for each in operations)
    known = set(document["components"]["schemas"])
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', run(client.get("/openapi.json")).text))
    assert used <= known
    assert known - used == set(), "a type that nobody names"


def test_the_page_loads_and_runs_nothing(run: Run, client: httpx.AsyncClient) -> None:
    answer = run(client.get("/docs"))
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "unsafe" not in policy
    for word in ("<script", "src=", "http://", "https://", "@import", "url(", "style="):
        assert word not in answer.text
    for route in ROUTES:
        assert f"<code>{route.method} {route.path.replace(':path', '')}</code>" in answer.text


def test_what_a_route_says_cannot_become_markup(run: Run, connect: Connect) -> None:
    page = docs.page(openapi.document((Route("GET", "/<b>", nothing, "<script>alert(1)</script>"),)))
    assert "<script>" not in page
    assert "<b>" not in page
