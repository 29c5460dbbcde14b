"""What a browser sends on behalf of another site is not answered, whoever is logged in."""

from __future__ import annotations

import httpx
import pytest

from dreamlake_server import browsers
from dreamlake_server.app import Server
from dreamlake_server.problem import Problem
from tests.contract.conftest import Run
from tests.server.conftest import Connect


def status(
    host: str | list[str],
    *,
    origin: str | None = None,
    site: str | None = None,
    scheme: str = "http",
    loopback: bool = True,
    allowed: tuple[str, ...] = (),
) -> int:
    """200, or what it is refused with."""
    hosts = [host] if isinstance(host, str) else host
    origins = [] if origin is None else [origin]
    sites = [] if site is None else [site]
    try:
        browsers.check(scheme, hosts, origins, sites, loopback=loopback, allowed=allowed)
    except Problem as problem:
        return problem.status
    return 200


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:3000", "127.0.0.1:80", "127.9.9.9", "[::1]:3000", "[::1]", "localhost."]
)
def test_this_machine_by_its_own_names(host: str) -> None:
    assert status(host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil.example:3000",
        "127.0.0.1@evil.example",
        "evil.example#localhost",
        "127.0.0.1:3000:80",
        "localhost:",
        "127.0.0.1:999999",
        "[::1",
        "[::1]evil.example",
        "[::ffff:10.0.0.1]",
        "::1",
        "0.0.0.0",
        "0x7f.0.0.1",
        "10.0.0.1",
        " localhost",
        "localhost\n",
        "",
    ],
)
def test_a_name_that_somebody_made_resolve_to_this_machine(host: str) -> None:
    assert status(host) == 421


def test_one_host_no_more_and_no_less() -> None:
    assert status([]) == 421
    assert status(["localhost", "localhost"]) == 421
    assert status([], loopback=False) == 421


def test_a_name_that_was_allowed() -> None:
    allowed = ("lake.example",)
    assert status("Lake.Example:443", allowed=allowed) == 200
    assert status("localhost", allowed=allowed) == 200
    assert status("other.example", allowed=allowed) == 421
    assert status("x.lake.example", allowed=allowed) == 421


def test_on_other_addresses_any_name_until_one_is_allowed() -> None:
    assert status("any.example", loopback=False) == 200
    assert status("any.example", loopback=False, allowed=("lake.example",)) == 421
    assert status("localhost", loopback=False, allowed=("lake.example",)) == 421
    assert status("lake.example", loopback=False, allowed=("lake.example",)) == 200


@pytest.mark.parametrize(
    ("host", "origin", "scheme"),
    [
        ("localhost:3000", "http://localhost:3000", "http"),
        ("LOCALHOST:3000", "http://localhost:3000", "http"),
        ("localhost", "http://localhost", "http"),
        ("localhost:80", "http://localhost", "http"),
        ("localhost", "https://localhost:443", "https"),
        ("[::1]:3000", "http://[::1]:3000", "http"),
    ],
)
def test_a_page_of_this_very_server(host: str, origin: str, scheme: str) -> None:
    assert status(host, origin=origin, scheme=scheme) == 200


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.example",
        "http://localhost",
        "http://localhost:3001",
        "https://localhost:3000",
        "http://127.0.0.1:3000",
        "http://localhost:3000/",
        "http://localhost:3000.evil.example",
        "http://evil@localhost:3000",
        "http://localhost:3000 http://evil.example",
        "localhost:3000",
        "file://",
        "chrome-extension://abcdef",
    ],
)
def test_a_page_of_anywhere_else(origin: str) -> None:
    assert status("localhost:3000", origin=origin) == 403


def test_one_good_origin_does_not_excuse_another() -> None:
    with pytest.raises(Problem):
        browsers.check(
            "http", ["localhost"], ["http://localhost", "http://evil.example"], [], loopback=True, allowed=()
        )


def test_a_request_that_the_browser_calls_cross_site() -> None:
    assert status("localhost", site="cross-site") == 403
    assert status("localhost", site=" Cross-Site ") == 403
    assert status("localhost", site="same-origin") == 200
    assert status("localhost", site="none") == 200


def test_all_of_it_before_any_token_is_looked_at(run: Run, server: Server, alice: httpx.AsyncClient) -> None:
    seen = []
    find = server.tokens.find

    async def noted(token_id: str) -> object:
        seen.append(token_id)
        return await find(token_id)

    server.tokens.find = noted  # type: ignore[method-assign,assignment]
    for headers, code in (
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ):
        answer = run(alice.get("/sessions", headers=headers))
        assert (answer.status_code, set(answer.json())) == (code, {"error", "message"})
    assert seen == []
    assert run(alice.get("/sessions")).status_code == 200
    assert len(seen) == 1


def test_a_preflight_gets_no_leave(run: Run, alice: httpx.AsyncClient, connect: Connect) -> None:
    asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    own = {"Origin": "http://127.0.0.1:3000", "Access-Control-Request-Method": "POST"}
    for headers, code in ((asks, 403), (own, 405)):
        answer = run(alice.options("/v1/push", headers=headers))
        assert answer.status_code == code
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_what_users_stored_neither_runs_nor_frames_here(run: Run, alice: httpx.AsyncClient) -> None:
    for path in ("/sessions", "/health", "/nowhere"):
        headers = run(alice.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
