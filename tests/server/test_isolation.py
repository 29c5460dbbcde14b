"""Two users: whatever of alice's bob names, he is told nothing and changes nothing. Who may only read writes nothing.

Everything here is made from the table of routes, so that a new one is asked, too, or fails until it is said here what
is sent to it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from dreamlake.wire import zstd
from dreamlake.wire.state import FILES_LOG
from dreamlake_server.api import ROUTES, blobs, files, follow, logs, parameters, push, sessions, tracks
from dreamlake_server.route import Route
from dreamlake_server.stores.memory import MemoryMeta
from tests.server.serving import LOSS, RUN, Caller, Directory, Serving, opened, points, said

SECRET = "hunter2"
BYTES = SECRET.encode()
SHA256 = hashlib.sha256(BYTES).hexdigest()
PRIVATE = [route for route in ROUTES if not route.public]
OF_A_SESSION = [route for route in PRIVATE if "{id}" in route.path]

# What is sent to a route that takes a body of this type.
BODIES: dict[Any, Any] = {
    push.Status: {"origin": "a" * 32, "session": RUN, "blobs": [SHA256]},
    push.Push: {"origin": "a" * 32, "session": RUN, "logs": {LOSS: {"from": 3, "prev": "0-00000000"}}},
    follow.Origins: {"session": RUN},
    follow.Records: {"session": RUN, "origin": "a" * 32, "log": LOSS},
    blobs.NewBlob: {"sha256": SHA256, "size": len(BYTES)},
    blobs.Complete: {"size": len(BYTES)},
    sessions.NewSession: {"name": "run", "description": "bob was here"},
    logs.NewLines: {"logs": [{"message": "bob was here"}]},
    parameters.NewParameters: {"data": {"lr": "bob was here"}},
    tracks.NewPoint: {"data": {"value": "bob was here"}},
    tracks.NewPoints: {"dataPoints": [{"value": "bob was here"}]},
    files.FileChange: {"description": "bob was here"},
}
QUERIES: dict[Any, Any] = {blobs.Size: {"size": len(BYTES)}}


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def ask(caller: Caller, route: Route, names: dict[str, str]) -> httpx.Response:
    """A request that would be in order, were it the caller's."""
    url = route.path.replace(":path", "")
    for name, value in names.items():
        url = url.replace(f"{{{name}}}", quote(value, safe=""))
    assert "{" not in url, f"say in Alices what {url} names"
    what: dict[str, Any] = {"params": QUERIES.get(route.query, {})}
    if route.body is not None:
        assert route.body in BODIES, f"say in BODIES what is sent to {name_of(route)}"
        what["json"] = BODIES[route.body]
    elif route.streams and route.method == "POST":
        what["files"] = {"file": ("bob.txt", b"bob was here")}
    elif route.streams:
        what["content"] = BYTES
    return caller.request(route.method, url, **what)


class Alices:
    """What alice has: one of everything that a path can name."""

    def __init__(self, serving: Serving) -> None:
        alice = serving.alice
        self.alice = alice
        directory = Directory(alice, logs={LOSS: points(3, SECRET)})
        session = directory.pushed()
        alice.session(description=SECRET, tags=[SECRET])
        said(alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": SECRET}]}))
        said(alice.post(f"/sessions/{session}/parameters", json={"data": {"key": SECRET}}))
        point = {"data": {"value": SECRET}, "description": SECRET}
        said(alice.post(f"/sessions/{session}/tracks/train/loss/append", json=point))
        record = said(alice.post(f"/sessions/{session}/files", files={"file": (f"{SECRET}.txt", BYTES)}))
        self.names = {
            "id": session,
            "workspace": RUN["workspace"],
            "name": "train/loss",
            "fid": record["id"],
            "sha256": SHA256,
            "number": "1",
        }

    def told(self) -> dict[str, bytes]:
        """All that alice is told by routes that only read."""
        return {name_of(route): self.ask(route).content for route in PRIVATE if not route.writes}

    def ask(self, route: Route) -> httpx.Response:
        return ask(self.alice, route, self.names)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Serving, Alices]]:
    """One for all tests that change nothing."""
    with opened() as serving:
        yield serving, Alices(serving)


@pytest.mark.parametrize("route", PRIVATE, ids=name_of)
def test_what_alice_has_she_is_told(shared: tuple[Serving, Alices], route: Route) -> None:
    """Else nothing were proved by bob being told nothing."""
    if not route.writes:
        found = shared[1].ask(route)
        assert found.status_code == 200, found.text
        if route.path == "/v1/records":
            [piece] = found.json()["pieces"]
            assert SECRET.encode() in zstd.unpack(base64.b64decode(piece["lines"]), piece["size"])
        elif not any(name in route.path for name in ("urls", "status", "origins", "whoami")):
            assert SECRET in found.text


@pytest.mark.parametrize("route", OF_A_SESSION, ids=name_of)
def test_what_is_of_a_session_of_alices_is_not_there_for_bob(shared: tuple[Serving, Alices], route: Route) -> None:
    serving, alices = shared
    before = alices.told()
    found = ask(serving.bob, route, alices.names)
    assert said(found, 404)["error"] == "not-found"
    assert SECRET not in found.text
    # In the very words that are said of what never was.
    never = {**alices.names, "id": "0" * 24}
    assert found.text.replace(alices.names["id"], "") == ask(serving.bob, route, never).text.replace("0" * 24, "")
    # Nor by way of a session of his own.
    mine = {**alices.names, "id": serving.bob.session(name_of(route))}
    assert SECRET not in ask(serving.bob, route, mine).text
    assert alices.told() == before


def nothing(found: Any) -> bool:
    return found in ({"sessions": [], "nextCursor": None},)


# What bob is answered where no session of alice's is named, and why that is nothing of hers.
ELSEWHERE: dict[str, tuple[int, Callable[[Any], bool]]] = {
    "POST /v1/status": (200, lambda found: not found["session"] and not found["logs"] and found["lacking"] == [SHA256]),
    "GET /v1/whoami": (200, lambda found: found["user"] == "bob"),
    "POST /v1/origins": (200, lambda found: not found["session"] and not found["origins"]),
    "POST /v1/records": (200, lambda found: not found["pieces"]),
    "POST /v1/push": (409, lambda found: found["logs"][LOSS]["expected"] == 0),  # a session of his own
    "POST /v1/blobs": (200, lambda found: found["state"] == "wanted" and not found["parts"]),
    "PUT /v1/blobs/{sha256}/parts/{number}": (200, lambda found: found["state"] == "wanted"),
    "POST /v1/blobs/{sha256}/complete": (409, lambda found: found["missing"] == [1]),
    "GET /v1/blobs/{sha256}/urls": (404, lambda found: True),
    "GET /v1/blobs/{sha256}": (404, lambda found: True),
    "POST /workspaces/{workspace:path}/sessions": (200, lambda found: found["session"]["tags"] is None),
    "GET /workspaces/{workspace:path}/sessions": (200, nothing),
    "GET /sessions": (200, nothing),
}


@pytest.mark.parametrize("route", [each for each in PRIVATE if each not in OF_A_SESSION], ids=name_of)
def test_by_names_and_hashes_bob_comes_to_nothing_of_alices(route: Route) -> None:
    with opened() as serving:
        alices = Alices(serving)
        before = alices.told()
        assert name_of(route) in ELSEWHERE, f"say in ELSEWHERE what bob is answered by {name_of(route)}"
        status, is_nothing = ELSEWHERE[name_of(route)]
        found = ask(serving.bob, route, alices.names)
        assert is_nothing(said(found, status)), found.text
        assert SECRET not in found.text
        assert alices.names["id"] not in found.text
        assert alices.told() == before


def test_a_row_that_names_a_hash_opens_no_bytes() -> None:
    """Whoever can push may claim any file; its bytes are his own or none."""
    with opened() as serving:
        Alices(serving)
        row = f'{{"op":"upload","record":{{"id":"f","path":"/","filename":"m","checksum":"{SHA256}"}}}}'
        session = Directory(serving.bob, logs={FILES_LOG: [row.encode()]}).pushed()
        assert said(serving.bob.get(f"/sessions/{session}/files/f"))["checksum"] == SHA256
        assert SECRET not in serving.bob.get(f"/sessions/{session}/files/f/download").text
        said(serving.bob.get(f"/sessions/{session}/files/f/download"), 404)


def test_the_bytes_of_two_users_are_two() -> None:
    """Bob stores the same; alice's stay when his go, and what he deletes is his."""
    with opened() as serving:
        alices = Alices(serving)
        session = serving.bob.session()
        record = said(serving.bob.post(f"/sessions/{session}/files", files={"file": ("x", BYTES)}))
        said(serving.bob.delete(f"/sessions/{session}/files/{record['id']}"))
        serving.run(serving.server.owned.forget("bob", SHA256))
        assert serving.alice.get(f"/v1/blobs/{SHA256}").content == BYTES
        assert SECRET in alices.ask(next(route for route in ROUTES if route.path.endswith("/download"))).text


def test_a_deleted_session_of_alices_is_not_bobs_to_restore() -> None:
    with opened() as serving:
        alices = Alices(serving)
        session = alices.names["id"]
        said(serving.alice.delete(f"/sessions/{session}"))
        for route in OF_A_SESSION:
            said(ask(serving.bob, route, alices.names), 404)
        said(serving.alice.get(f"/sessions/{session}"), 404)
        said(serving.alice.post(f"/sessions/{session}/restore"))


@pytest.mark.parametrize("route", PRIVATE, ids=name_of)
def test_a_token_that_may_only_read_reads_what_the_user_reads_and_writes_nothing(
    shared: tuple[Serving, Alices], route: Route
) -> None:
    serving, alices = shared
    before = alices.told()
    found = ask(serving.reader, route, alices.names)
    if route.writes:
        assert said(found, 403)["error"] == "read-only"
        assert alices.told() == before
    elif route.path == "/v1/whoami":  # which tells of the token itself
        assert (said(found)["user"], said(found)["readOnly"]) == ("alice", True)
    else:
        assert (found.status_code, found.content) == (200, before[name_of(route)])


@pytest.mark.parametrize("route", PRIVATE, ids=name_of)
def test_without_a_token_there_is_a_401(shared: tuple[Serving, Alices], route: Route) -> None:
    serving, alices = shared
    found = ask(serving.nobody, route, alices.names)
    assert said(found, 401)["error"] == "unauthorized"
    assert SECRET not in found.text


WRITES = ("make_session", "mark_deleted", "purge_session", "append", "put_blob", "drop_blob")


@pytest.mark.parametrize("route", PRIVATE, ids=name_of)
def test_routes_that_write_are_those_that_say_so(route: Route) -> None:
    """On what a store is asked for: a route that forgets to say so would let a reading token write."""
    meta = MemoryMeta()
    with opened(meta=meta) as serving:
        alices = Alices(serving)
        written: list[str] = []
        for store, names in ((meta, WRITES), (serving.server.blobs, ("put", "drop"))):
            for name in names:
                setattr(store, name, watched(getattr(store, name), written))
        found = alices.ask(route)
        assert found.status_code in (200, 409), found.text
        assert route.writes or not written
        assert route.writes or route.method in ("GET", "POST")


def watched(method: Callable[..., Any], written: list[str]) -> Callable[..., Any]:
    async def call(*args: Any, **what: Any) -> Any:
        written.append(method.__name__)
        return await method(*args, **what)

    return call
