"""Lake: one server, as this machine speaks to it over HTTP.

::

    Trouble
    ├── Unreachable     the network, a proxy, a store of the server's, or too many requests: later, the same again
    ├── NotLetIn        the token: nothing goes on before there is another one
    └── Refused         what was asked for cannot be: not again as it is
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from dreamlake.errors import DreamlakeError
from dreamlake.remote.credentials import Credentials, CredentialsUnusable, is_sendable, token_for
from dreamlake.remote.rate import Throttle
from dreamlake.remote.reach import Reach
from dreamlake.remote.ways import Ways, unlogged, why
from dreamlake.wire import codec, jsons, zstd
from dreamlake.wire.remotes import address

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0  # of each read and write, and not of the whole
TRIES = 8  # of one request; between them full jitter, which doubles up to WAIT_SECONDS
WAIT_SECONDS = 20.0
RETRY_AFTER_SECONDS_MAX = 3600.0
ANSWER_BYTES = 256 << 20  # unpacked: what a Dreamlake server says at once is far below it
_PACK_BYTES = 4096  # a body below this goes as it is
_RATIO = 50  # and one that packs better than this: servers refuse a hundredfold (docs/push.md)
_MSGPACK = "application/msgpack"
_STORE = "the bytes' own store"
# Said by whoever stands before a server that is away, or by it when it cannot at all; another 5xx is about one request.
_WHOLE = (429, 502, 503, 504)

_T = TypeVar("_T")
Body = Callable[[], Iterable[bytes]]


class Trouble(DreamlakeError):
    """The message says what could not be done, why, and what to try."""


class Unreachable(Trouble):
    """``retry_after``: the seconds that were asked for, or 0. ``whole``: no request would do better now."""

    def __init__(self, text: str, *, retry_after: float = 0.0, whole: bool = True) -> None:
        super().__init__(text)
        self.retry_after, self.whole = retry_after, whole


class NotLetIn(Trouble): ...


class Refused(Trouble):
    def __init__(self, text: str, status: int, said: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.status, self.said = status, said


@dataclass(frozen=True)
class Packed:
    """A body as it goes over the wire."""

    data: bytes
    headers: Mapping[str, str]


def pack(body: Mapping[str, Any]) -> Packed:
    """As msgpack, and by Zstandard where that helps."""
    data = codec.packer().pack(body)
    headers = {"Content-Type": _MSGPACK}
    if len(data) > _PACK_BYTES and len(packed := zstd.pack(data)) * _RATIO > len(data):
        return Packed(packed, {**headers, "Content-Encoding": "zstd"})
    return Packed(data, headers)


class Lake:
    """A server at ``url``. ``say`` is told when something has to be waited for; with ``tries=1`` nothing is. Any number
    of threads may use it. Close it, or use it in a ``with``. :class:`ValueError` when ``url`` is none.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        say: Callable[[str], None] = lambda _text: None,
        *,
        reach: Reach | None = None,
        tries: int = TRIES,
        connect_seconds: float = CONNECT_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        whole_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = address(url)
        if token is not None and not is_sendable(token):
            raise NotLetIn(f"the token for {self.url} holds what no token does (spaces, accents): is it complete?")
        reach = Reach() if reach is None else reach
        self._say, self._tries, self._sleep = say, tries, sleep
        self.answers = 0  # how often the server has answered, whatever it said
        self._whole_seconds, self._clock = whole_seconds, clock  # of one answer, however slowly it trickles
        self._throttle = Throttle(reach.limit_rate) if reach.limit_rate else None
        timeout = httpx.Timeout(answer_seconds, connect=connect_seconds)
        self._client = httpx.Client(
            timeout=timeout,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            transport=transport or Ways(reach, as_client=True),
            trust_env=False,
        )
        # A URL that a server hands out is signed by itself: token and certificate are not for whoever answers there.
        self._elsewhere = httpx.Client(timeout=timeout, transport=Ways(reach, as_client=False), trust_env=False)

    @classmethod
    def open(
        cls,
        url: str,
        user: str | None = None,
        api_key: str | None = None,
        say: Callable[[str], None] = lambda _text: None,
        tries: int = TRIES,
        *,
        limit_rate: int | None = None,
        credentials: Credentials | None = None,
        **more: Any,
    ) -> Lake:
        """A server with what this user has for it: a token, in the order of
        :func:`~dreamlake.remote.credentials.token_for`, and the way there: what the environment says, else what
        ``dreamlake login`` has stored. ``limit_rate`` (bytes a second) goes before both; ``more`` is the constructor's.

        Raises :class:`ValueError` for a URL that is none, :class:`Unreachable` when settings cannot be used, and
        :class:`NotLetIn` for a token that cannot be one.
        """
        url = address(url)
        credentials = Credentials() if credentials is None else credentials
        try:
            login = credentials.find(url, user)
            token = token_for(url, user, api_key, credentials)
        except CredentialsUnusable as error:
            raise Unreachable(f"{url} cannot be spoken to: {error}") from None
        try:
            reach = (login.reach if login else Reach()).here(limit_rate)
        except ValueError as error:
            raise Unreachable(f"{url} cannot be spoken to: {error}") from None
        return cls(url, token, say, reach=reach, tries=tries, **more)

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()
        self._elsewhere.close()

    # ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, path: str, body: Mapping[str, Any] | Packed, *, accept: tuple[int, ...] = (200,)) -> dict[str, Any]:
        """POST a body and give back what is answered, when its status is one of ``accept``."""
        packed = body if isinstance(body, Packed) else pack(body)
        return self._told("POST", path, accept, lambda: [packed.data], len(packed.data), packed.headers)

    def get(self, path: str, method: str = "GET") -> dict[str, Any]:
        """What is answered to a request without a body: a GET, or a DELETE."""
        return self._told(method, path, (200,))

    def whoami(self) -> dict[str, Any]:
        """Who this token makes us there: ``{"user", "auth", "readOnly", "token": {"id", "note"} or None}``."""
        return self.get("/v1/whoami")

    def put(self, where: str, size: int, chunks: Body) -> None:
        """PUT bytes to a path of the server, or to a URL that it gave. ``chunks`` is asked again for each try.

        Whoever answers at a URL is not the server: it never raises :class:`NotLetIn`, nor is the server ``whole`` away.
        """
        here = where.startswith("/")
        client, url = (self._client, f"{self.url}{where}") if here else (self._elsewhere, where)
        name = where.partition("?")[0] if here else "to a URL that the server gave"  # which is as good as a key
        self._persist(lambda: self._once(client, "PUT", url, f"PUT {name}", (200, 201, 204), chunks, size))

    def read(self, path: str, first: int = 0) -> Iterator[bytes]:
        """The bytes at a path from byte ``first`` on, as they come; where the network breaks off, it goes on from
        there. Whether they are the right ones is for the caller to say.
        """
        at, left, what = first, self._tries, f"GET {path}"
        while True:
            headers = (
                {"Range": f"bytes={at}-", "Accept-Encoding": "identity"} if at else {"Accept-Encoding": "identity"}
            )
            try:
                with self._opened(self._client, "GET", f"{self.url}{path}", what, headers=headers) as answer:
                    if at and answer.status_code == 416:  # there is no more
                        return
                    if answer.status_code != (206 if at else 200):
                        raise self._trouble(answer, _bounded(answer, ANSWER_BYTES), what)
                    for chunk in answer.iter_raw():
                        at, left = at + len(chunk), self._tries
                        yield chunk
                return
            except Unreachable as trouble:
                left -= 1
                if left <= 0:
                    raise
                self._wait(trouble, 0.5 * 2 ** (self._tries - left - 1))

    # ── trying ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _told(
        self,
        method: str,
        path: str,
        accept: tuple[int, ...],
        body: Body | None = None,
        size: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        what = f"{method} {path}"

        def once() -> dict[str, Any]:
            data = self._once(self._client, method, f"{self.url}{path}", what, accept, body, size, headers)
            found = jsons.object_of(data)
            if found is None:
                raise self._stranger(what, "it answered something that is no JSON object")
            return found

        return self._persist(once)

    def _persist(self, once: Callable[[], _T]) -> _T:
        wait = 0.5
        for left in reversed(range(self._tries)):
            try:
                return once()
            except Unreachable as trouble:
                if not left:
                    raise
                self._wait(trouble, wait)
            wait *= 2
        raise ValueError("tries is at least 1")

    def _wait(self, trouble: Unreachable, most: float) -> None:
        seconds = max(trouble.retry_after, random.uniform(0, min(WAIT_SECONDS, most)))
        self._say(f"{trouble}; again in {seconds:.1f} s")
        self._sleep(seconds)

    def _once(
        self,
        client: httpx.Client,
        method: str,
        url: str,
        what: str,
        accept: tuple[int, ...],
        body: Body | None = None,
        size: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        headers = {**(headers or {}), **({} if body is None else {"Content-Length": str(size)})}
        content = None if body is None else self._slowed(body())
        end = self._clock() + self._whole_seconds
        with self._opened(client, method, url, what, headers=headers, content=content) as answer:
            data = _bounded(answer, ANSWER_BYTES, lambda: self._clock() > end)
            self.answers += client is self._client and answer.status_code not in _WHOLE
            if answer.status_code in accept:
                return data
            raise self._trouble(answer, data, what) if client is self._client else _store_trouble(answer, what)

    @contextlib.contextmanager
    def _opened(self, client: httpx.Client, method: str, url: str, what: str, **more: Any) -> Iterator[httpx.Response]:
        """An answer whose body is still to come. What the network does wrong meanwhile is :class:`Unreachable`."""
        try:
            with contextlib.ExitStack() as open_answer:
                with unlogged():
                    answer = open_answer.enter_context(client.stream(method, url, **more))
                yield answer
        except (httpx.RequestError, httpx.InvalidURL) as error:
            here = client is self._client
            text = f"{self.url if here else _STORE} cannot be reached ({what}): {why(error)}"
            raise Unreachable(text, whole=here) from None

    def _slowed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        if self._throttle is None:
            yield from chunks
            return
        for chunk in chunks:
            for start in range(0, len(chunk), self._throttle.piece_bytes):
                piece = chunk[start : start + self._throttle.piece_bytes]
                self._throttle.take(len(piece))
                yield piece

    # ── what went wrong ─────────────────────────────────────────────────────────────────────────────────────────────

    def _trouble(self, answer: httpx.Response, data: bytes, what: str) -> Trouble:
        status, said = answer.status_code, jsons.object_of(data) or {}
        message = said.get("message")
        why = message if isinstance(message, str) else f"it answered {status}"
        if status == 429 or status >= 500:
            return Unreachable(
                f"{self.url} cannot do that now ({what}): {why}",
                retry_after=_seconds(answer.headers.get("retry-after")),
                whole=status in _WHOLE,
            )
        if status == 407:
            return Unreachable(f"{self.url} cannot be reached ({what}): the proxy wants a user and a password (407)")
        if message is None and status != 413:  # which is also said by whoever stands before the server
            place = urlsplit(answer.headers.get("location", ""))
            return self._stranger(what, f"{why}, and sends us to {place.netloc}" if place.netloc else why)
        if status in (401, 403):
            return NotLetIn(f"{self.url} does not let this token do that ({what}): {why}")
        return Refused(f"{self.url} refused {what}: {why}", status, said)

    def _stranger(self, what: str, why: str) -> Unreachable:
        """Nothing that such a one says is believed: least of all that a record could never be taken."""
        return Unreachable(
            f"{self.url} does not answer as a Dreamlake server does ({what}): {why}; is the address right, and does a "
            "proxy or a login page stand before it?"
        )


def _store_trouble(answer: httpx.Response, what: str) -> Trouble:
    status = answer.status_code
    if status == 429 or status >= 500:
        wait = _seconds(answer.headers.get("retry-after"))
        return Unreachable(f"{_STORE} cannot do that now ({what}): it answered {status}", retry_after=wait, whole=False)
    return Refused(f"{_STORE} refused {what}: it answered {status}", status, {})


def _bounded(answer: httpx.Response, limit: int, is_late: Callable[[], bool] = lambda: False) -> bytes:
    found, size = [], 0
    for chunk in answer.iter_bytes():
        size += len(chunk)
        if is_late():
            raise httpx.ReadTimeout("its answer comes too slowly", request=answer.request)
        if size > limit:
            raise httpx.DecodingError(f"its answer is larger than {limit} bytes", request=answer.request)
        found.append(chunk)
    return b"".join(found)


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds; a date is passed over."""
    return min(RETRY_AFTER_SECONDS_MAX, float(text)) if text and text.isascii() and text.isdigit() else 0.0
