"""Blobs: the port to bytes. A blob is a row of parts, each an object of its own, written whole or not at all.

Parts are never put together: so an upload is resumed by asking which parts are there, no unfinished multipart upload is
ever left over, and every store behaves the same. Which parts make a blob, and whether it was verified, is Meta's to
know. ``key`` is ``<owner>/<sha256>``, made by :func:`key_of`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from dreamlake.wire.names import folder_of


def key_of(owner: str, sha256: str) -> str:
    """Where an owner's bytes lie. An owner's name never leaves its own folder.

    >>> key_of("alice", "ab" * 32)[:14]
    'alice/abababab'
    """
    return f"{folder_of('user', owner)}/{sha256}"


class SizeMismatch(ValueError):
    """What came is shorter or longer than was said; nothing was stored."""


class Blobs(Protocol):
    """Every method may raise :class:`~dreamlake_server.stores.StoreUnavailable`."""

    kind: str  # "memory", "folder", "s3": as /health calls it
    direct: bool  # whether clients can be sent to it by URL

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Return when the store can be written now; else raise. Bounded: 5 seconds at most."""
        ...

    async def parts(self, key: str) -> dict[int, int]:
        """number → bytes, of the parts that are there, whole."""
        ...

    async def put(self, key: str, number: int, size: int, data: AsyncIterator[bytes]) -> None:
        """Store a part of exactly ``size`` bytes, on stable storage; replaces the part that was there. Holds a few MiB
        at most. Raises :class:`SizeMismatch`; whatever ``data`` raises goes through; nothing is stored then."""
        ...

    def read(self, key: str, number: int, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes [start, end) of a part, in chunks of at most 4 MiB. Raises :class:`FileNotFoundError`."""
        ...

    async def url(self, method: str, key: str, number: int, seconds: int) -> str:
        """Where a client may ``GET`` or ``PUT`` the part without us, for so long; only when ``direct``."""
        ...

    async def drop(self, key: str) -> None:
        """Remove every part; nothing when there is none."""
        ...
