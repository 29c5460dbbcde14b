"""Serving: a whole server in this process, users who speak HTTP to it, and directories whose logs they push."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from dreamlake.wire.marks import Mark
from dreamlake_server.api import ROUTES
from dreamlake_server.app import Server, make_app
from dreamlake_server.auth import ByToken, new_token
from dreamlake_server.records import joined
from dreamlake_server.stores.folder import FolderBlobs
from dreamlake_server.stores.memory import MemoryMeta, MemoryTokens
from dreamlake_server.stores.memory_blobs import MemoryBlobs
from dreamlake_server.stores.meta import Meta
from dreamlake_server.stores.sqlite import SqliteMeta
from dreamlake_server.stores.sqlite_tokens import SqliteTokens
from tests.reading import strict

HERE = "http://127.0.0.1:3000"
MSGPACK = "application/msgpack"
LOSS = "tracks/train/loss/data.jsonl"
RUN = {"workspace": "project", "name": "run"}


def said(response: httpx.Response, status: int = 200) -> Any:
    """What an answer says, strictly JSON, when it has that status."""
    assert response.status_code == status, (response.status_code, response.text[:500])
    return strict(response.content)


class Caller:
    """A user. Every call is one HTTP request and its whole answer."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], client: httpx.AsyncClient) -> None:
        self._run, self._client = run, client

    def request(self, method: str, url: str, **what: Any) -> httpx.Response:
        return self._run(self._client.request(method, url, **what))  # type: ignore[no-any-return]

    def get(self, url: str, **what: Any) -> httpx.Response:
        return self.request("GET", url, **what)

    def post(self, url: str, **what: Any) -> httpx.Response:
        return self.request("POST", url, **what)

    def put(self, url: str, **what: Any) -> httpx.Response:
        return self.request("PUT", url, **what)

    def patch(self, url: str, **what: Any) -> httpx.Response:
        return self.request("PATCH", url, **what)

    def delete(self, url: str, **what: Any) -> httpx.Response:
        return self.request("DELETE", url, **what)

    def at_once(self, requests: Sequence[tuple[str, str, dict[str, Any]]]) -> list[httpx.Response]:
        """Requests (method, URL, and what else), all under way together."""

        async def every() -> list[httpx.Response]:
            return await asyncio.gather(*(self._client.request(method, url, **what) for method, url, what in requests))

        return self._run(every())  # type: ignore[no-any-return]

    def session(self, name: str = "run", workspace: str = "project", **what: Any) -> str:
        """Make a session; its id."""
        found = said(self.post(f"/workspaces/{workspace}/sessions", json={"name": name, **what}))
        return str(found["session"]["id"])


@dataclass
class Serving:
    """A server, and three who have tokens for it: ``reader`` is alice with one that may only read."""

    server: Server
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    alice: Caller
    bob: Caller
    reader: Caller
    nobody: Caller


@contextlib.contextmanager
def opened(folder: Path | None = None, meta: Meta | None = None) -> Iterator[Serving]:
    """A server with an event loop of its own, over SQLite and a folder; without ``folder`` over memory."""
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    try:
        if folder is None:
            tokens = MemoryTokens()
            server = Server(meta or MemoryMeta(), MemoryBlobs(), tokens, ByToken(tokens))
        else:
            on_disk = SqliteTokens(folder / "tokens.sqlite")
            parts = SqliteMeta(folder / "meta.sqlite"), FolderBlobs(folder / "blobs")
            server = Server(*parts, on_disk, ByToken(on_disk), spool=str(folder / "spool"))
        app = make_app(server, ROUTES)
        with contextlib.ExitStack() as end:
            stores = server.opened()
            run(stores.__aenter__())
            end.callback(lambda: run(stores.__aexit__(None, None, None)))

            def caller(user: str | None, read_only: bool = False) -> Caller:
                headers = {}
                if user is not None:
                    text, token = new_token(user, server.now(), read_only=read_only)
                    run(server.tokens.add(token))
                    headers["Authorization"] = f"Bearer {text}"
                client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE, headers=headers)
                end.callback(lambda: run(client.aclose()))
                return Caller(run, client)

            yield Serving(server, run, caller("alice"), caller("bob"), caller("alice", True), caller(None))
        left = asyncio.all_tasks(loop)
        run(loop.shutdown_asyncgens())
        run(loop.shutdown_default_executor())
        assert not left, f"left behind: {left}"
    finally:
        loop.close()


# Test files import these two, under names that are no arguments of their tests.


@pytest.fixture(name="serving", params=["memory", "sqlite"])
def over_each_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    with opened(tmp_path if request.param == "sqlite" else None) as found:
        yield found


@pytest.fixture(name="in_memory")
def over_memory() -> Iterator[Serving]:
    """Where what is tested is not the stores'."""
    with opened() as found:
        yield found


def points(count: int, say: str = "a", minutes: int = 0) -> list[bytes]:
    """Rows of a track, one a second."""
    return [
        b'{"index":%d,"data":{"value":"%b%d"},"createdAt":"2026-01-01T%02d:%02d:%02d.000000Z"}'
        % (index, say.encode(), index, *_clock(60 * minutes + index))
        for index in range(count)
    ]


def _clock(seconds: int) -> tuple[int, int, int]:
    return seconds // 3600, seconds // 60 % 60, seconds % 60


def mark(lines: Sequence[bytes]) -> str:
    return Mark().after(joined(lines)).text


@dataclass
class Directory:
    """A directory of a session, as far as a server cares: an identity, and logs of lines."""

    caller: Caller
    origin: str = "a" * 32
    session: Mapping[str, str] = field(default_factory=lambda: RUN)
    logs: dict[str, list[bytes]] = field(default_factory=dict)

    def piece(self, log: str, first: int = 0, end: int | None = None) -> dict[str, Any]:
        """What is pushed of records [first, end)."""
        lines = self.logs[log]
        return {"from": first, "prev": mark(lines[:first]), "records": [each.decode() for each in lines[first:end]]}

    def body(self, **logs: Any) -> dict[str, Any]:
        return {"origin": self.origin, "session": dict(self.session), "logs": logs}

    def push(self, pieces: Mapping[str, Any] | None = None) -> httpx.Response:
        """Push pieces, by log; all that there is when there are none."""
        found = {log: self.piece(log) for log in self.logs} if pieces is None else pieces
        return self.caller.post("/v1/push", json=self.body(**found))

    def pushed(self) -> str:
        """Push everything; the session's id."""
        return str(said(self.push())["session"]["id"])


def as_bytes(piece: Mapping[str, Any]) -> dict[str, Any]:
    """A piece with its lines as bytes of the file, for msgpack."""
    lines = [each.encode() for each in piece["records"]]
    return {"from": piece["from"], "prev": piece["prev"], "lines": joined(lines)}


def as_base64(piece: Mapping[str, Any]) -> dict[str, Any]:
    """The same for JSON."""
    found = as_bytes(piece)
    return {**found, "lines": base64.b64encode(found["lines"]).decode()}


def msgpack(body: Any) -> dict[str, Any]:
    """What a request in msgpack is made of."""
    return {"content": msgspec.msgpack.encode(body), "headers": {"Content-Type": MSGPACK}}
