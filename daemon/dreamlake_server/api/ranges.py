"""Ranges: bytes as an answer, whole or the one piece that was asked for (RFC 9110, section 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dreamlake_server.problem import Problem
from dreamlake_server.route import Call, Response, StreamingResponse
from dreamlake_server.stores.meta import Blob

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})\Z")


def asked(header: str | None, size: int) -> tuple[int, int] | None:
    """[start, end) of what a Range header asks for; None for all: also where it asks for several pieces or is no range,
    which may be passed over. Raises :class:`ValueError` when there are no such bytes.

    >>> asked("bytes=2-5", 10), asked("bytes=-3", 10), asked("bytes=7-", 10), asked("lines=1-2", 10)
    ((2, 6), (7, 10), (7, 10), None)
    """
    found = _RANGE.match(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start = int(found[1])
        end = min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= end:
        raise ValueError(f"bytes {header} of {size}")
    return start, end


async def answer(call: Call, blob: Blob, headers: Mapping[str, str]) -> Response:
    """The bytes of a blob of this user, streamed."""
    try:
        piece = asked(call.headers.get("range"), blob.size)
    except ValueError as error:
        raise Problem(
            416, "no-such-range", f"there are no {error}", headers={"Content-Range": f"bytes */{blob.size}"}
        ) from None
    start, end = piece or (0, blob.size)
    said = {"Accept-Ranges": "bytes", "Content-Length": str(end - start), "ETag": f'"{blob.sha256}"', **headers}
    if piece is not None:
        said["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
    chunks = await call.server.owned.read(call.user, blob.sha256, start, end)
    return StreamingResponse(chunks, 206 if piece is not None else 200, said)
