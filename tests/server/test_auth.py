"""Who may call, and as whom."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from dreamlake_server import limits
from dreamlake_server.api import ROUTES as ALL
from dreamlake_server.app import Server
from dreamlake_server.auth import ByToken, ByWord, check_user, new_token
from dreamlake_server.failures import Failures
from dreamlake_server.problem import Problem
from dreamlake_server.route import Call, Route
from tests.contract.conftest import Run
from tests.server.conftest import Connect

WRONG = "dlk_0123456789ab_" + "A" * 43


async def who_am_i(call: Call) -> dict[str, Any]:
    return {"user": call.user}


ROUTES = (
    Route("GET", "/who", who_am_i, "Tell who calls."),
    Route("POST", "/who", who_am_i, "Change who calls.", writes=True),
)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def jwt(claims: object) -> str:
    """As the old client makes them; nobody looks at how it is signed."""
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps(claims), "signature")
    return ".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in parts)


def test_two_users_each_as_themselves(run: Run, connect: Connect) -> None:
    for name in ("alice", "bob"):
        assert run(connect(name, routes=ROUTES).get("/who")).json() == {"user": name}


def test_a_token_looks_as_it_is_said_to(server: Server) -> None:
    text, token = new_token("alice", server.now())
    prefix, known_as, secret = text.split("_", 2)
    assert (prefix, known_as, len(known_as), len(secret)) == ("dlk", token.id, 12, 43)
    assert secret not in repr(token)


def test_without_a_token(run: Run, connect: Connect) -> None:
    answer = run(connect(routes=ROUTES).get("/who"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"] == "unauthorized"


def test_wrong_tokens(run: Run, connect: Connect, server: Server) -> None:
    client = connect(routes=ROUTES)
    text, token = new_token("alice", server.now())
    run(server.tokens.add(token))
    right = f"Bearer {text}"
    for wrong in (
        right[:-1],
        right + "A",
        right[:-1] + ("A" if right[-1] != "A" else "B"),
        right.replace("dlk_", "DLK_"),
        f"Bearer {WRONG}",
        f"Basic {text}",
        text,
        "Bearer",
        "Bearer ",
        f"Bearer {right}",
        "Bearer " + "é" * 10,
        "Bearer " + "a" * 100_000,
    ):
        answer = run(client.get("/who", headers={"Authorization": wrong.encode()}))
        assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert text not in answer.text
    assert run(client.get("/who", headers={"Authorization": f"bearer  {text} "})).json() == {"user": "alice"}


def test_a_revoked_token_opens_nothing_and_others_do(run: Run, connect: Connect, server: Server) -> None:
    alice, again = connect("alice", routes=ROUTES), connect("alice", routes=ROUTES)
    first, _ = run(server.tokens.of("alice"))
    assert run(server.tokens.revoke(first.id, server.now()))
    answer = run(alice.get("/who"))
    assert (answer.status_code, "revoked" in answer.json()["message"]) == (401, True)
    assert run(again.get("/who")).status_code == 200


def test_a_read_only_token(run: Run, connect: Connect) -> None:
    reader = connect("alice", read_only=True, routes=ROUTES)
    assert run(reader.get("/who")).status_code == 200
    refused = run(reader.post("/who"))
    assert (refused.status_code, refused.json()["error"]) == (403, "read-only")
    assert run(connect("alice", routes=ROUTES).post("/who")).status_code == 200


def test_a_read_only_token_changes_nothing_by_any_route(run: Run, connect: Connect) -> None:
    reader = connect("alice", read_only=True)
    assert run(reader.post("/workspaces/w/sessions", json={"name": "run"})).status_code == 403
    assert run(reader.get("/sessions")).json()["sessions"] == []


def test_who_guesses_is_slowed_down_and_who_knows_is_not(run: Run, connect: Connect) -> None:
    alice, guesser = connect("alice", routes=ROUTES), connect(routes=ROUTES)
    got = [run(guesser.get("/who", headers=bearer(WRONG))).status_code for _ in range(limits.TOKEN_FAILURES + 1)]
    assert got == [401] * limits.TOKEN_FAILURES + [429]
    refused = run(guesser.get("/who", headers=bearer(WRONG)))
    assert 1 <= int(refused.headers["retry-after"]) <= limits.TOKEN_FAILURE_SECONDS
    assert run(alice.get("/who")).status_code == 200, "the same address"
    assert run(guesser.get("/who")).status_code == 401, "no token is no guess"


def test_failures_are_counted_where_they_come_from(run: Run) -> None:
    class NoTokens:
        async def find(self, token_id: str) -> None:
            return None

    auth = ByToken(NoTokens())  # type: ignore[arg-type]

    def refused(address: str, now: float) -> int:
        with pytest.raises(Problem) as caught:
            run(auth.caller(f"Bearer {WRONG}", address, now))
        return caught.value.status

    for second in range(limits.TOKEN_FAILURES):
        assert refused("10.0.0.1", second) == 401
    assert refused("10.0.0.1", limits.TOKEN_FAILURES) == 429
    assert refused("10.0.0.2", limits.TOKEN_FAILURES) == 401
    assert refused("10.0.0.1", limits.TOKEN_FAILURE_SECONDS - 0.1) == 429
    assert refused("10.0.0.1", limits.TOKEN_FAILURE_SECONDS) == 401


def test_one_who_has_a_whole_ipv6_network_is_one() -> None:
    failures = Failures()
    waits = [failures.count(f"2001:db8::{index:x}", 0) for index in range(limits.TOKEN_FAILURES + 1)]
    assert waits == [0] * limits.TOKEN_FAILURES + [limits.TOKEN_FAILURE_SECONDS]
    assert failures.count("2001:db8:0:1::1", 0) == 0
    assert failures.count("::ffff:10.0.0.1", 0) == failures.count("::ffff:10.0.0.2", 0) == 0


def test_what_is_remembered_of_failures_is_bounded() -> None:
    failures = Failures()
    for index in range(20_000):
        failures.count(f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", index)
    assert len(failures) == 10_000


# ── --auth none


def test_by_word_the_users_are_who_they_say(run: Run, connect: Connect) -> None:
    client = connect(routes=ROUTES, auth=ByWord())
    for claims, user in (
        ({"userName": "alice", "userId": "1"}, "alice"),
        ({"userId": "bob"}, "bob"),
        ({"userName": "", "userId": "bob"}, "bob"),
        ({"userName": "zoë"}, "zoë"),
    ):
        assert run(client.get("/who", headers=bearer(jwt(claims)))).json() == {"user": user}
    assert run(client.get("/who")).json() == {"user": "anonymous"}


@pytest.mark.parametrize(
    "text",
    [jwt({}), jwt({"userName": 5}), jwt({"userName": ["alice"]}), jwt(["alice"]), "a.b", "a.b.c", "..", "é.é.é", WRONG],
)
def test_by_word_a_token_that_names_nobody(run: Run, text: str) -> None:
    with pytest.raises(Problem) as caught:
        run(ByWord().caller(f"Bearer {text}", "127.0.0.1", 0))
    assert caught.value.status == 401


@pytest.mark.parametrize("name", ["..", "/etc", "a/../b", "a\0b", "a\nb", "\x9b1m", "a" * 1025, ".dreamlake", "\ud800"])
def test_a_user_that_no_folder_can_be_named_after(run: Run, name: str) -> None:
    with pytest.raises(ValueError, match=r"user|longer"):
        check_user(name)
    with pytest.raises(Problem) as caught:
        run(ByWord().caller(f"Bearer {jwt({'userName': name})}", "127.0.0.1", 0))
    assert caught.value.status in (400, 401)
    with pytest.raises(ValueError, match=r"user|longer"):
        new_token(name, "2026-01-01T00:00:00Z")


def test_by_word_a_deep_token_is_no_trouble(run: Run) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode()
    with pytest.raises(Problem):
        run(ByWord().caller(f"Bearer a.{deep}.c", "127.0.0.1", 0))


def test_whoami(run: Run, connect: Connect, server: Server) -> None:
    text, token = new_token("zoë", server.now(), read_only=True, note="laptop")
    run(server.tokens.add(token))
    assert run(connect().get("/v1/whoami", headers=bearer(text))).json() == {
        "user": "zoë",
        "auth": "token",
        "readOnly": True,
        "token": {"id": token.id, "note": "laptop"},
    }
    said = {"auth": "none", "readOnly": False, "token": None}
    by_word = connect(auth=ByWord())
    assert run(by_word.get("/v1/whoami")).json() == {"user": "anonymous", **said}
    assert run(by_word.get("/v1/whoami", headers=bearer(jwt({"userName": "bob"})))).json() == {"user": "bob", **said}


def test_public_routes_ask_for_no_token_and_no_others(run: Run, client: httpx.AsyncClient) -> None:
    assert [route.path for route in ALL if route.public] == ["/health", "/metrics", "/openapi.json", "/docs"]
    for route in ALL:
        path = route.path.replace(":path", "").replace("{", "").replace("}", "")
        answer = run(client.request(route.method, path))
        assert answer.status_code == (200 if route.public else 401), route
