"""App: the shell between HTTP and the routes. What a request meets, in order: whether a browser sends it on behalf of
another site, whether there is such a route, whose token it carries, what it says, the route's handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from dreamlake.wire.times import time_text
from dreamlake_server import browsers, decode, limits
from dreamlake_server.auth import Auth, who
from dreamlake_server.blobs import OwnedBlobs
from dreamlake_server.health import Doctor
from dreamlake_server.metrics import Metrics
from dreamlake_server.problem import Problem
from dreamlake_server.projections import Projections
from dreamlake_server.route import JSON, Call, ClientDisconnect, Request, Response, Route
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.blobs import Blobs
from dreamlake_server.stores.meta import Meta
from dreamlake_server.stores.tokens import Tokens
from dreamlake_server.table import Table

_RETRY_SECONDS = 1
_UNMATCHED = "unmatched"

# Nobody's browser is to keep, guess at, frame or run what users have stored here. A handler may say otherwise.
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_log = logging.getLogger("dreamlake.server")


@dataclass
class Server:
    """What handlers stand on: one of each port, and who may call."""

    meta: Meta
    blobs: Blobs
    tokens: Tokens
    auth: Auth
    spool: str = field(default_factory=tempfile.gettempdir)  # a folder for bytes on their way; use nameless files
    loopback: bool = True  # whether it listens for this machine only
    allow_hosts: tuple[str, ...] = ()  # further names that it goes by, in lower case
    purge_days: int = limits.PURGE_DAYS  # a deleted session can be restored for so long
    clock: Callable[[], int] = time.time_ns
    metrics: Metrics = field(default_factory=Metrics)
    stopping: bool = False  # requests that are cancelled now are told to come again
    doctor: Doctor = field(init=False)
    projections: Projections = field(init=False)
    owned: OwnedBlobs = field(init=False)

    def __post_init__(self) -> None:
        self.doctor = Doctor(self.meta, self.blobs, self.tokens)
        self.projections = Projections(self.meta)
        self.owned = OwnedBlobs(self.meta, self.blobs, self.now)

    def now(self) -> str:
        """ISO 8601, UTC."""
        return time_text(self.clock())

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """With its stores open. Raises :class:`StoreUnavailable`."""
        async with contextlib.AsyncExitStack() as stores:
            for store in (self.meta, self.blobs, self.tokens):
                await store.open()
                stores.push_async_callback(store.close)
            yield


def make_app(server: Server, routes: Sequence[Route]) -> Starlette:
    """The application, for whatever speaks ASGI. Its lifespan opens and closes the stores."""
    app = Starlette(lifespan=lambda _app: server.opened())
    # Whatever the path: a Starlette route has it decoded as a whole, and none of them takes a line feed.
    app.router.default = Shell(server, Table(routes))
    return app


class Exchange:
    """One request and its answer, as they pass: what is counted of them, and whether the answer has begun."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.method: str = scope["method"]
        self.route = _UNMATCHED
        self.received = 0
        self.sent = 0
        self.status = 0  # until the answer begins

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)
        self.sent += len(message.get("body", b""))


class Shell:
    """Every answer goes through here, so that every error is JSON and nothing is told of what went wrong inside."""

    def __init__(self, server: Server, table: Table) -> None:
        self._server = server
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        began = time.monotonic()
        exchange = Exchange(scope, receive, send)
        try:
            await self._exchange(scope, exchange)
        finally:
            # 499 as nginx has it: the caller went away before there was an answer.
            self._server.metrics.request(
                exchange.route,
                exchange.method,
                exchange.status or 499,
                time.monotonic() - began,
                exchange.received,
                exchange.sent,
            )

    async def _exchange(self, scope: Scope, exchange: Exchange) -> None:
        request = Request(scope, exchange.receive)
        try:
            response = await self._answer(request, exchange)
            if exchange.method == "HEAD":
                # Not even begun, what may be long: its headers are all that is wanted.
                start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
                await exchange.send(start)
                await exchange.send({"type": "http.response.body", "body": b""})
                return
            await response(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if not self._server.stopping:
                raise
            await self._fail(request, exchange, _come_again("the server stops"))
        except Exception as error:
            await self._fail(request, exchange, self._problem(request, error))

    async def _answer(self, request: Request, exchange: Exchange) -> Response:
        server, headers = self._server, request.headers
        browsers.check(
            request.scope["scheme"],
            headers.getlist("host"),
            headers.getlist("origin"),
            headers.getlist("sec-fetch-site"),
            loopback=server.loopback,
            allowed=server.allow_hosts,
        )
        route, path = self._table.find(exchange.method, _path(request))
        exchange.route = route.path
        user = ""
        if not route.public:
            caller = await who(server.auth, request)
            if caller.read_only and route.writes:
                raise Problem(403, "read-only", "this token may only read: use one that was made without --read-only")
            user = caller.user
        query = None if route.query is None else decode.query(request.scope["query_string"], route.query)
        body = None if route.body is None or route.streams else await decode.body(request, route.body, route.body_limit)
        call = Call(server, route, self._table.routes, user, path, query, body, request)
        found = await route.handler(call)
        return found if isinstance(found, Response) else call.answer(found)

    def _problem(self, request: Request, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        if isinstance(error, StoreUnavailable):
            _log.warning("%s %s: %s", request.method, _path(request), error)
            return _come_again("a store behind this server does not answer")
        _log.error("%s %s failed", request.method, _path(request), exc_info=error)
        return Problem(500, "internal", "the server failed at this, and its log says how: tell whoever runs it")

    async def _fail(self, request: Request, exchange: Exchange, problem: Problem) -> None:
        if exchange.status:
            # Half an answer is out, and it is never ended: whoever holds the connection cuts it off, which is how the
            # caller learns that it is not whole.
            return
        response = Response(msgspec.json.encode(problem.body()), problem.status, problem.headers, JSON)
        await response(request.scope, exchange.receive, exchange.send)


def _path(request: Request) -> str:
    """As it came: percent-encoded, so that it is also fit for a log."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.decode("latin-1")


def _come_again(why: str) -> Problem:
    # A push may come again as it is; of a point that was posted, nobody knows whether it is there.
    text = f"{why}: nothing that was acked is lost; whether this was kept is not known; try again in {_RETRY_SECONDS} s"
    return Problem(503, "unavailable", text, headers={"Retry-After": str(_RETRY_SECONDS)})
