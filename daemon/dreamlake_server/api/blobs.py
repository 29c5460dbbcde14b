"""Blobs: upload in parts, and read back; docs/push.md, Blobs."""

from __future__ import annotations

import msgspec

from dreamlake_server.api import ranges
from dreamlake_server.blobs import Incomplete, TooLarge, WrongBytes
from dreamlake_server.limits import FILE_BYTES
from dreamlake_server.problem import Problem, bad, conflict, not_found, too_large
from dreamlake_server.route import Call, Response
from dreamlake_server.stores.blobs import SizeMismatch
from dreamlake_server.stores.meta import Blob


class NewBlob(msgspec.Struct):
    sha256: str
    size: int


class Size(msgspec.Struct):
    size: int


class Complete(msgspec.Struct):
    """``parts``: the SHA-256 of every part in order, which tell the bad ones when the whole is wrong."""

    size: int
    parts: list[str] | None = None


class BlobAnswer(msgspec.Struct):
    """``stored``, or ``wanted``: then ``parts`` (number → bytes) are there already, and of those that are missing the
    first may be PUT to ``urls`` (number → URL), where the store has such."""

    state: str
    part_bytes: int
    parts: dict[int, int] = {}
    urls: dict[int, str] = {}


class UrlQuery(msgspec.Struct):
    first: int = 1


class UrlAnswer(msgspec.Struct):
    """Number → URL of that part; none where the store has no URLs: read through the server then."""

    size: int
    part_bytes: int
    urls: dict[int, str]


def _refused(error: ValueError) -> Problem:
    if isinstance(error, Incomplete):
        return conflict(str(error), "incomplete", missing=error.missing[:1000])
    if isinstance(error, WrongBytes):
        return conflict(str(error), "wrong-bytes", bad_parts=error.parts[:1000])
    if isinstance(error, TooLarge):
        return too_large("FILE_BYTES", FILE_BYTES, "the blob")
    if isinstance(error, SizeMismatch):
        return bad(f"the part is not stored: {error}", "size-mismatch")
    return bad(str(error))


def _stored(blob: Blob) -> BlobAnswer:
    return BlobAnswer("stored", blob.part_bytes)


async def begin(call: Call) -> BlobAnswer:
    given: NewBlob = call.body
    try:
        found = await call.server.owned.begin(call.user, given.sha256, given.size)
    except ValueError as error:
        raise _refused(error) from None
    if isinstance(found, Blob):
        return _stored(found)
    return BlobAnswer("wanted", found.layout.part_bytes, found.there, found.urls)


async def put_part(call: Call) -> BlobAnswer:
    number, size = call.path["number"], call.query.size
    if not number.isascii() or not number.isdigit() or len(number) > 9:
        raise bad(f"{number[:20]!r} is no number of a part: they count from 1")
    try:
        await call.server.owned.put_part(call.user, call.path["sha256"], size, int(number), call.stream())
        found = await call.server.owned.find(call.user, call.path["sha256"])
    except ValueError as error:
        raise _refused(error) from None
    return _stored(found) if found else BlobAnswer("wanted", 0)


async def complete(call: Call) -> BlobAnswer:
    given: Complete = call.body
    try:
        blob = await call.server.owned.complete(call.user, call.path["sha256"], given.size, given.parts)
    except ValueError as error:
        raise _refused(error) from None
    call.server.metrics.blobs.inc()
    return _stored(blob)


async def the_blob(call: Call, sha256: str) -> Blob:
    try:
        found = await call.server.owned.find(call.user, sha256)
    except ValueError as error:
        raise _refused(error) from None
    if found is None:
        raise not_found(f"no bytes with SHA-256 {sha256} are stored: upload them first")
    return found


async def read(call: Call) -> Response:
    blob = await the_blob(call, call.path["sha256"])
    return await ranges.answer(call, blob, {"Content-Type": "application/octet-stream"})


async def urls(call: Call) -> UrlAnswer:
    blob = await the_blob(call, call.path["sha256"])
    if call.query.first < 1:
        raise bad("first must be 1 or more: parts count from 1")
    return UrlAnswer(blob.size, blob.part_bytes, await call.server.owned.urls(call.user, blob.sha256, call.query.first))
