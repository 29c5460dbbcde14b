"""System: the routes that are about the server itself."""

from __future__ import annotations

from typing import Literal

import msgspec

from dreamlake_server import docs, metrics, openapi
from dreamlake_server.auth import who
from dreamlake_server.health import Health
from dreamlake_server.route import Call, Response, Route


async def health(call: Call) -> Response:
    found = await call.server.doctor.health()
    return call.answer(found, 200 if found.status == "ok" else 503)


async def show_metrics(call: Call) -> Response:
    # Nobody but this machine reaches a server on loopback, and Prometheus there has no token. One that goes by another
    # name, too, is most likely reached through a proxy.
    if not call.server.loopback or call.server.allow_hosts:
        await who(call.server.auth, call.request)
    return Response(call.server.metrics.text(), media_type=metrics.TYPE)


class WhoamiToken(msgspec.Struct):
    """``id`` is the public part of a token, by which ``dreamlake server token`` names it."""

    id: str
    note: str


class Whoami(msgspec.Struct, rename="camel"):
    """``auth`` is the server's: users are who their tokens say, or (none) who they say themselves."""

    user: str
    auth: Literal["token", "none"]
    read_only: bool
    token: WhoamiToken | None


async def whoami(call: Call) -> Whoami:
    caller = await who(call.server.auth, call.request)
    token = None if caller.token is None else WhoamiToken(caller.token.id, caller.token.note)
    return Whoami(caller.user, call.server.auth.kind, caller.read_only, token)


async def show_openapi(call: Call) -> Response:
    return call.answer(openapi.document(call.routes))


async def show_docs(call: Call) -> Response:
    page = docs.page(openapi.document(call.routes))
    return Response(page, headers={"Content-Security-Policy": docs.POLICY}, media_type="text/html")


SYSTEM_ROUTES: tuple[Route, ...] = (
    Route("GET", "/health", health, "Tell whether each store can be written to now.", answer=Health, public=True),
    Route(
        "GET",
        "/metrics",
        show_metrics,
        "Tell what this server has done since it started, as Prometheus reads it; needs a token unless the server "
        "listens on loopback only.",
        public=True,
        errors=(401, 429),
    ),
    Route("GET", "/openapi.json", show_openapi, "Describe every route, for programs.", public=True),
    Route("GET", "/docs", show_docs, "Describe every route, for people.", public=True),
    Route("GET", "/v1/whoami", whoami, "Tell who a token makes its caller, and what it may.", answer=Whoami),
)
