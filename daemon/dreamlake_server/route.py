"""Route: one line of the table of what the server answers. Call: what the one who answers is given.

A handler is ``async def handler(call: Call)`` and gives back a ``msgspec.Struct`` or a dict (200; JSON, or msgpack
where the caller accepts that), or a :class:`Response` of its own. What cannot be done it raises as a
:class:`~dreamlake_server.problem.Problem`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

if TYPE_CHECKING:
    from dreamlake_server.app import Server

JSON = "application/json"
MSGPACK = ("application/msgpack", "application/x-msgpack")

Answer: TypeAlias = "msgspec.Struct | dict[str, Any] | Response"
Handler: TypeAlias = "Callable[[Call], Awaitable[Answer]]"


@dataclass(frozen=True)
class Route:
    """What is answered at one method and path.

    ``path`` names its parameters as ``{id}`` (no "/" in it unless it came percent-encoded) or ``{name:path}`` (any).
    """

    method: str
    path: str
    handler: Handler
    does: str  # the one sentence that /openapi.json and /docs say of it
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    answer: type[msgspec.Struct] | None = None
    writes: bool = False  # refused to a read-only token
    public: bool = False  # asks for no token
    streams: str = ""  # the media type of a body that the handler reads itself, and holds to limits of its own
    body_limit: str = "BODY_BYTES"  # of limits.py
    errors: tuple[int, ...] = ()  # statuses it may answer with besides those that follow from the above


@dataclass(frozen=True)
class Call:
    """One request, as its handler sees it: who asks, and what was said, decoded into the types that the route names."""

    server: Server
    route: Route
    routes: tuple[Route, ...]  # the whole table
    user: str  # the owner's namespace; "" where the route is public
    path: Mapping[str, str]  # parameters, decoded
    query: Any  # a ``route.query``, or None
    body: Any  # a ``route.body``, or None
    request: Request

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        return self.request.headers

    def stream(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises :class:`ClientDisconnect` when the caller goes away; let it through."""
        return self.request.stream()

    def answer(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """``value`` as the caller likes it, where it takes another status than 200 or a header."""
        if wants_msgpack(self.headers.get("accept", "")):
            try:
                return Response(msgspec.msgpack.encode(value), status, headers, MSGPACK[0])
            except OverflowError:  # an integer beyond 64 bits, which JSON can say and msgpack cannot
                pass
        return Response(msgspec.json.encode(value), status, headers, JSON)


def wants_msgpack(accept: str) -> bool:
    """Whether an Accept header names msgpack.

    >>> wants_msgpack("application/msgpack"), wants_msgpack("application/json, */*")
    (True, False)
    """
    return any(kind.partition(";")[0].strip().lower() in MSGPACK for kind in accept.split(","))


__all__ = [
    "JSON",
    "MSGPACK",
    "Answer",
    "Call",
    "ClientDisconnect",
    "Handler",
    "Request",
    "Response",
    "Route",
    "StreamingResponse",
]
