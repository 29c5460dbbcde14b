"""A server in this process, as a sender's HTTP client meets it; and a network that loses requests and answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

import httpx

from dreamlake.remote.lake import Lake
from tests.server.serving import HERE, Caller, Serving

Transport = Callable[[httpx.Request], httpx.Response]

_TURN = threading.Lock()  # one event loop is behind all threads


class Wire(httpx.BaseTransport):
    """Carries a sender's requests to ``caller``, and keeps a list of them. ``fault`` may raise, or answer, before a
    request arrives, or (with the answer at hand) after."""

    def __init__(self, caller: Caller, fault: Callable[[httpx.Request, httpx.Response | None], object] | None) -> None:
        self.caller, self._fault = caller, fault
        self.requests: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(f"{request.method} {request.url.path}")
        if self._fault is not None and (said := self._fault(request, None)) is not None:
            assert isinstance(said, httpx.Response)
            return said
        kept = ("content-type", "content-encoding", "accept", "range")
        headers = {name: value for name, value in request.headers.items() if name in kept}
        data = request.read()
        with _TURN:
            answer = self.caller.request(
                request.method, str(request.url).removeprefix(HERE), content=data, headers=headers
            )
        if self._fault is not None:
            self._fault(request, answer)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=httpx.ByteStream(answer.content))


def lake_of(
    serving: Serving, fault: Callable[[httpx.Request, httpx.Response | None], object] | None = None
) -> tuple[Lake, Wire]:
    wire = Wire(serving.alice, fault)
    return Lake(HERE, None, sleep=lambda _seconds: None, transport=wire), wire


def lossy(random: Random) -> Callable[[httpx.Request, httpx.Response | None], httpx.Response | None]:
    """Now and then a request is lost, or its answer, or a store of the server's is away; never so often that a sender
    gives up."""
    in_a_row = 0

    def fault(_request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        nonlocal in_a_row
        if in_a_row >= 4 or random.random() < 0.75:
            in_a_row = in_a_row if answer is None else 0
            return None
        in_a_row += 1
        if answer is None and random.random() < 0.3:
            return httpx.Response(random.choice((429, 500, 503)), headers={"Retry-After": "7"}, content=b"away")
        raise httpx.ConnectError("lost") if answer is None else httpx.ReadError("lost")

    return fault
