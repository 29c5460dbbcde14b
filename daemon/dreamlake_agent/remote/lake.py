"""Lake: one server, as whoever uploads speaks to it over HTTP. The only file that names httpx here.

::

    Trouble
    ├── Unreachable     the network, a store of the server's, or too many requests: later, the same again
    ├── NotLetIn        the token: nothing goes on before there is another one
    └── Refused         what was asked for cannot be: not again as it is
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx

from dreamlake.errors import DreamlakeError
from dreamlake.wire import codec, jsons, zstd

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0  # of each read and write, and not of the whole
TRIES = 8  # of one request; between them full jitter, which doubles up to WAIT_SECONDS
WAIT_SECONDS = 20.0
_PACK_BYTES = 4096  # a body below this goes as it is
_RATIO = 50  # and one that packs better than this: servers refuse a hundredfold (docs/push.md)
_MSGPACK = "application/msgpack"


class Trouble(DreamlakeError):
    """The message says what could not be done, why, and what to try."""


class Unreachable(Trouble): ...


class NotLetIn(Trouble): ...


class Refused(Trouble):
    def __init__(self, text: str, status: int, said: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.status, self.said = status, said


class Lake:
    """A server at ``url``. ``say`` is told when something has to be waited for. Close it, or use it in a ``with``."""

    def __init__(
        self,
        url: str,
        token: str | None,
        say: Callable[[str], None] = lambda _text: None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is no address of a server: it begins with https:// or http://")
        self._say, self._sleep = say, sleep
        self._client = httpx.Client(
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            transport=transport,
        )
        # A URL that a server hands out is signed by itself, and our token is not for whoever answers there.
        self._elsewhere = httpx.Client(timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS))

    def __enter__(self) -> Lake:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()
        self._elsewhere.close()

    def ask(self, path: str, body: Mapping[str, Any], *, accept: tuple[int, ...] = (200,)) -> dict[str, Any]:
        """POST a body and give back what is answered, when its status is one of ``accept``."""
        data = codec.packer().pack(body)
        headers = {"Content-Type": _MSGPACK}
        if len(data) > _PACK_BYTES and len(packed := zstd.pack(data)) * _RATIO > len(data):
            data, headers["Content-Encoding"] = packed, "zstd"
        answer = self._tried(
            lambda: self._client.post(f"{self.url}{path}", content=data, headers=headers), f"POST {path}", accept
        )
        found = jsons.loads(answer.content)
        if not isinstance(found, dict):
            raise Unreachable(f"{self.url}{path} answered something that is no object: is it a Dreamlake server?")
        return found

    def put(self, where: str, size: int, chunks: Callable[[], Iterator[bytes]]) -> None:
        """PUT bytes to a path of the server, or to a URL that it gave. ``chunks`` is asked again for each try."""
        here = where.startswith("/")
        client, url = (self._client, f"{self.url}{where}") if here else (self._elsewhere, where)
        headers = {"Content-Length": str(size)}
        name = where.partition("?")[0] if here else "the bytes' own store"  # a signed URL is as good as a key
        self._tried(lambda: client.put(url, content=chunks(), headers=headers), f"PUT {name}", (200, 201, 204))

    def _tried(self, request: Callable[[], httpx.Response], what: str, accept: tuple[int, ...]) -> httpx.Response:
        wait = 0.5
        for left in reversed(range(TRIES)):
            least = 0.0
            try:
                answer = request()
                if answer.status_code in accept:
                    return answer
                trouble = self._trouble(answer, what)
                if not isinstance(trouble, Unreachable):
                    raise trouble
                least = _seconds(answer.headers.get("retry-after"))
            except httpx.TransportError as error:
                trouble = Unreachable(f"{self.url} cannot be reached ({what}): {error or type(error).__name__}")
            if not left:
                raise trouble from None
            seconds = max(least, random.uniform(0, wait))
            self._say(f"{trouble}; again in {seconds:.1f} s")
            self._sleep(seconds)
            wait = min(WAIT_SECONDS, wait * 2)
        raise AssertionError("unreachable")

    def _trouble(self, answer: httpx.Response, what: str) -> Trouble:
        status = answer.status_code
        try:
            said = jsons.loads(answer.content)
        except ValueError:
            said = None
        said = said if isinstance(said, dict) else {}
        why = str(said.get("message") or f"it answered {status}")
        if status in (401, 403):
            return NotLetIn(f"{self.url} does not let this token do that ({what}): {why}")
        if status == 429 or status >= 500:
            return Unreachable(f"{self.url} cannot do that now ({what}): {why}")
        return Refused(f"{self.url} refused {what}: {why}", status, said)


def _seconds(text: str | None) -> float:
    """A Retry-After in seconds; a date is passed over."""
    return min(3600.0, float(text)) if text and text.isascii() and text.isdigit() else 0.0
