"""Parts: how they are called in a folder or a bucket, and what comes for one counted."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

from dreamlake.wire.names import DREAMLAKE
from dreamlake_server.stores.blobs import SizeMismatch

_PART = re.compile(r"[0-9]{5}")
# obstore refuses control characters, and to SeaweedFS a backslash is a slash: it would lead to another owner.
_REFUSED = re.compile(r"[\0-\x1f\x7f\\]")


def checked(key: str) -> str:
    """The key as it is; :class:`ValueError` for one that is no place two folders down, is our own, or has
    characters that do not mean the same to every store.

    >>> checked("alice/ab")
    'alice/ab'
    """
    names = key.split("/")
    is_place = len(names) == 2 and not {"", ".", ".."}.intersection(names) and names[0] != DREAMLAKE
    if not is_place or _REFUSED.search(key):
        raise ValueError(f"{key!r} is no key of a blob: an owner's name has no control characters and no backslash")
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
