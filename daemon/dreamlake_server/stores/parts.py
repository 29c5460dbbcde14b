"""Parts: how they are called in a folder or a bucket, and what comes for one counted."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

from dreamlake.wire.names import DREAMLAKE
from dreamlake_server.stores.blobs import SizeMismatch

_PART = re.compile(r"[0-9]{5}")


def checked(key: str) -> str:
    """The key as it is; :class:`ValueError` for one that does not name a place two folders down, and our own.

    >>> checked("alice/ab")
    'alice/ab'
    """
    names = key.split("/")
    if len(names) != 2 or names[0] == DREAMLAKE or "\0" in key or any(name in ("", ".", "..") for name in names):
        raise ValueError(f"{key!r} is no key of a blob: make it with key_of")
    return key


def path_of(key: str, number: int) -> str:
    """Where a part lies.

    >>> path_of("alice/ab", 7)
    'alice/ab/00007'
    """
    name = f"{number:05}"
    if not _PART.fullmatch(name):
        raise ValueError(f"{number} is no part's number: they have 5 digits at most")
    return f"{checked(key)}/{name}"


def number_of(name: str) -> int | None:
    """The part's number, or None for what somebody else has put there."""
    return int(name) if _PART.fullmatch(name) else None


async def sized(data: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """The chunks of ``data``, together of exactly ``size`` bytes, or :class:`SizeMismatch`. The last one is held back
    until ``data`` has ended well: for some stores the part is there with its last byte."""
    arrived, held = 0, b""
    async for chunk in data:
        arrived += len(chunk)
        if arrived > size:
            raise SizeMismatch(f"the part is longer than the {size} bytes that were announced")
        if held and chunk:
            yield held
        held = chunk or held
    if arrived < size:
        raise SizeMismatch(f"the part ended after {arrived} of {size} bytes")
    if held:
        yield held
