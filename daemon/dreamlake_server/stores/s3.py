"""Blobs in a bucket of S3, or of anything that speaks it: ``<prefix>/<owner>/<sha256>/<number as 5 digits>``.

Clients can be sent to it with signed URLs. What comes through the server is streamed to such a URL, too: obstore would
hold a part whole, or make a multipart upload of it, which a death leaves behind in the bucket.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

import httpx
import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from dreamlake_server.limits import URL_SECONDS
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.chunks import CHUNK_BYTES
from dreamlake_server.stores.parts import checked, number_of, path_of, sized

if TYPE_CHECKING:
    from obstore import HTTP_METHOD
    from obstore.store import ClientConfig, S3Config

REQUEST_SECONDS = 30  # that one request, its retries, or a wait within a stream may take
CONNECT_SECONDS = 5
PING_SECONDS = 5
WHOLE_BYTES = 1 << 20  # a part up to this is held, and sent again when the first try fails
RETRIES = 5
SETTLE_SECONDS = 0.1
ANSWER_CHARS = 4096
LINE_CHARS = 300
LIST_ROWS = 1000
TAKE, GIVE = "take a part", "give a part"

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

T = TypeVar("T")


class S3Blobs:
    """``S3Blobs("s3://bucket/prefix")``. What is not given comes from the usual ``AWS_*`` environment, or from the
    machine's role. Plain HTTP is spoken only to an endpoint that says ``http://``."""

    kind = "s3"
    direct = True

    def __init__(
        self,
        place: str,
        *,
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
    ) -> None:
        url = urlsplit(place)
        if url.scheme != "s3" or not url.netloc or "@" in url.netloc or url.query or url.fragment:
            raise ValueError("a bucket is named as s3://bucket or s3://bucket/prefix")
        if (access_key is None) != (secret_key is None):
            raise ValueError(
                "an access key and a secret key come together: give both, or leave both to the environment"
            )
        endpoint = endpoint or next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        if endpoint is not None:
            parts = urlsplit(endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
                raise ValueError(
                    "an endpoint of S3 is http://host:port or https://host, without a name or password in it"
                )
        self._bucket, self._prefix = url.netloc, url.path.strip("/")
        self._endpoint = endpoint
        config: S3Config = {"virtual_hosted_style_request": False}
        if endpoint is not None:
            config["endpoint"] = endpoint
        if region is not None:
            config["region"] = region
        if access_key is not None and secret_key is not None:
            config["access_key_id"], config["secret_access_key"] = access_key, secret_key
        self._config = config
        self._opened: S3Store | None = None
        self._tls = ssl.create_default_context()

    def __repr__(self) -> str:
        return f"S3Blobs('s3://{'/'.join(filter(None, (self._bucket, self._prefix)))}')"

    async def open(self) -> None:
        client: ClientConfig = {
            "allow_http": self._endpoint is not None and self._endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            # Of each read, and not of the whole: a part may be streamed for as long as its reader takes.
            "read_timeout": timedelta(seconds=REQUEST_SECONDS),
            "timeout": timedelta(days=1),
        }
        try:
            self._opened = S3Store(
                self._bucket,
                prefix=self._prefix or None,
                config=self._config,
                client_options=client,
                retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
            )
        except BaseError as error:
            raise ValueError(f"cannot use {self!r}: {_told(str(error))}") from None
        await self.ping()

    async def close(self) -> None:
        self._opened = None
        # obstore's threads may still be on their way out of Python, and nothing tells when they are: a process that
        # ends meanwhile is aborted.
        await asyncio.sleep(SETTLE_SECONDS)

    @property
    def _store(self) -> S3Store:
        assert self._opened is not None, "open() comes first"
        return self._opened

    async def ping(self) -> None:
        # `.dreamlake` is no owner's: key_of refuses it.
        await self._within(obstore.put_async(self._store, ".dreamlake/ping", b""), "be written", PING_SECONDS)

    async def parts(self, key: str) -> dict[int, int]:
        found: dict[int, int] = {}
        rows = aiter(obstore.list(self._store, checked(key), chunk_size=LIST_ROWS))
        while page := await self._within(anext(rows, None), "list parts"):
            for row in page:
                number = number_of(row["path"].rpartition("/")[2])
                if number is not None:
                    found[number] = row["size"]
        return found

    async def put(self, key: str, number: int, size: int, data: AsyncIterator[bytes]) -> None:
        path = path_of(key, number)
        async with aclosing(sized(data, size)) as chunks:
            if size <= WHOLE_BYTES:
                whole = b"".join([chunk async for chunk in chunks])
                await self._within(obstore.put_async(self._store, path, whole, use_multipart=False), TAKE)
            else:
                await self._stream(await self.url("PUT", key, number, URL_SECONDS), size, chunks)

    async def _stream(self, url: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        # Nothing is begun before there is something to send: SeaweedFS takes a request that ends after its head for an
        # empty object, which would replace the part that is there.
        first = await anext(chunks)

        async def body() -> AsyncIterator[bytes]:
            yield first
            async for chunk in chunks:
                yield chunk

        # Of each read and write, and not of the whole: a part takes as long as its data.
        bounds = httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with httpx.AsyncClient(verify=self._tls, timeout=bounds) as client:
                answer = await client.put(url, content=body(), headers={"Content-Length": str(size)})
        except httpx.TimeoutException:
            raise self._unavailable(TAKE, f"no answer within {REQUEST_SECONDS} s") from None
        except httpx.HTTPError as error:
            raise self._unavailable(TAKE, _told(str(error)) or type(error).__name__) from None
        if answer.status_code != 200:
            raise self._unavailable(TAKE, _told(f"{answer.status_code} {answer.text[:ANSWER_CHARS]}"))

    async def read(self, key: str, number: int, start: int, end: int) -> AsyncIterator[bytes]:
        path = path_of(key, number)
        if start == end:
            await self._reaches(path, end)
            return
        request = obstore.get_async(self._store, path, options={"range": (start, end)})
        try:
            answer = await self._within(request, GIVE, known=FileNotFoundError)
        except StoreUnavailable:  # maybe only because the part ends before `start`
            await self._reaches(path, end)
            raise
        if answer.meta["size"] < end:
            raise FileNotFoundError(f"{path} ends before byte {end}")
        stream = answer.stream(min_chunk_size=CHUNK_BYTES)
        while start < end:
            chunk = await self._within(anext(stream, b""), GIVE)
            if not chunk:
                raise self._unavailable(GIVE, f"the part ended before byte {end}")
            yield chunk
            start += len(chunk)

    async def _reaches(self, path: str, end: int) -> None:
        head = await self._within(obstore.head_async(self._store, path), GIVE, known=FileNotFoundError)
        if head["size"] < end:
            raise FileNotFoundError(f"{path} ends before byte {end}")

    async def url(self, method: str, key: str, number: int, seconds: int) -> str:
        if method not in ("GET", "PUT"):
            raise ValueError(f"a URL is to GET or PUT a part, not to {method} it")
        signed = obstore.sign_async(
            self._store, cast("HTTP_METHOD", method), path_of(key, number), timedelta(seconds=seconds)
        )
        return await self._within(signed, "be signed for")

    async def drop(self, key: str) -> None:
        paths = [path_of(key, number) for number in await self.parts(key)]
        for first in range(0, len(paths), LIST_ROWS):
            await self._within(obstore.delete_async(self._store, paths[first : first + LIST_ROWS]), "drop parts")

    async def _within(
        self,
        request: Awaitable[T],
        what: str,
        seconds: float | None = None,
        known: type[Exception] | tuple[()] = (),
    ) -> T:
        seconds = REQUEST_SECONDS if seconds is None else seconds
        try:
            return await asyncio.wait_for(request, seconds)
        except known:
            raise
        except asyncio.TimeoutError:
            raise self._unavailable(what, f"no answer within {seconds} s") from None
        except (BaseError, OSError) as error:
            # Without the cause: it tells of the whole request, and of the key it was signed with.
            raise self._unavailable(what, _told(str(error))) from None

    def _unavailable(self, what: str, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"{self!r} cannot {what}: {why}: look at its endpoint, its bucket and its credentials")


def _told(answer: str) -> str:
    """What is worth repeating of an error or an answer: its first line, and S3's own name of the fault."""
    line = answer.partition("\n")[0].partition("<")[0].strip(" :\r")[:LINE_CHARS]
    code = _CODE.search(answer)
    return f"{line} ({code[1]})" if code else line
