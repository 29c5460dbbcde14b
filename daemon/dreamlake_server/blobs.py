"""Blobs: what a client asks of bytes, over Meta and the store of blobs.

An upload has no state of its own: how a size is cut into parts is a rule (:class:`Layout`), and which parts are there
is asked of the store. So whoever comes again goes on, at any server. Bytes are deduplicated within one owner: to know a
hash opens nothing of anybody else's. Only what :meth:`OwnedBlobs.complete` has read back and found right is a blob.

An owner who was given URLs to PUT parts can change those parts until the URLs end, even when the blob is complete by
then: his own bytes, nobody else's. Who reads knows the hash.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from weakref import WeakValueDictionary

from dreamlake.wire.names import is_sha256
from dreamlake_server import limits
from dreamlake_server.spool import spooled
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.blobs import Blobs, key_of
from dreamlake_server.stores.chunks import work_through
from dreamlake_server.stores.meta import Blob, Meta

_NAMED_PARTS = 5  # in a message; all of them are in the error's attribute

# ValueError
# ├── TooLarge     over limits.FILE_BYTES
# ├── Incomplete   parts are missing: put them, and complete again
# └── WrongBytes   the parts make other bytes than was said: put the bad ones again, and complete again


class TooLarge(ValueError):
    """More bytes than one blob may have."""


class Incomplete(ValueError):
    """Parts are missing, or of a wrong size; nothing has changed."""

    def __init__(self, missing: Sequence[int]) -> None:
        super().__init__(f"the blob is not complete: {_named(missing)}; put what is missing, then complete it again")
        self.missing = tuple(missing)


class WrongBytes(ValueError):
    """What was put has another SHA-256; the bad parts were dropped, or all where it is not known which are bad."""

    def __init__(self, parts: Sequence[int]) -> None:
        what = f"what was put has another SHA-256 than was said: {_named(parts)} had to be dropped"
        super().__init__(f"{what}; put what is missing again, of bytes that do not change meanwhile")
        self.parts = tuple(parts)


class _StoredMeanwhile(Exception):
    """A part has come for a blob that somebody else has completed."""


def part_bytes_of(size: int) -> int:
    """How long the parts of a blob are: all but the last one, which may be shorter.

    >>> part_bytes_of(1000) >> 20
    32
    >>> part_bytes_of(5 << 40) >> 20
    1024
    """
    part_bytes = limits.PART_BYTES
    while part_bytes * limits.PARTS < size:
        part_bytes *= 2
    return part_bytes


@dataclass(frozen=True)
class Layout:
    """How ``size`` bytes lie in parts, which are numbered from 1. No bytes at all are one empty part.

    >>> layout = Layout(70, 32)
    >>> [(number, layout.bytes_of(number)) for number in layout.numbers]
    [(1, 32), (2, 32), (3, 6)]
    """

    size: int
    part_bytes: int

    @property
    def numbers(self) -> range:
        return range(1, max(1, -(-self.size // self.part_bytes)) + 1)

    def bytes_of(self, number: int) -> int:
        return min(self.part_bytes, self.size - (number - 1) * self.part_bytes)

    def pieces(self, start: int, end: int) -> Iterable[tuple[int, int, int]]:
        """(number, start, end within the part) of what makes the bytes [start, end)."""
        while start < end:
            at, offset = divmod(start, self.part_bytes)
            length = min(self.part_bytes - offset, end - start)
            yield at + 1, offset, offset + length
            start += length


@dataclass(frozen=True)
class Wanted:
    """A blob that is not stored: its layout, what is there of it, and where next parts may be put directly."""

    layout: Layout
    there: dict[int, int]  # number → bytes, of whole parts
    urls: dict[int, str] = field(default_factory=dict, repr=False)  # number → URL; each is as good as a key

    @property
    def missing(self) -> list[int]:
        return [number for number in self.layout.numbers if number not in self.there]


class OwnedBlobs:
    """The blobs of every owner. ``now`` tells the time as ISO 8601, UTC."""

    def __init__(self, meta: Meta, blobs: Blobs, now: Callable[[], str]) -> None:
        self._meta, self._blobs, self._now = meta, blobs, now
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def _turn(self, key: str) -> asyncio.Lock:
        """Within this process either one part of a blob takes its place, or the whole is being verified: what was
        verified is what stands there."""
        return self._turns.setdefault(key, asyncio.Lock())

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def find(self, owner: str, sha256: str) -> Blob | None:
        """The blob, if this owner has it."""
        return await self._meta.blob(owner, _checked(sha256))

    async def begin(self, owner: str, sha256: str, size: int) -> Blob | Wanted:
        """The blob when it is stored, else what an upload has to do. Raises :class:`ValueError`."""
        layout = _layout(sha256, size)
        if blob := await self._stored(owner, sha256, size):
            return blob
        key = key_of(owner, sha256)
        wanted = Wanted(layout, await self._there(key, layout))
        if self._blobs.direct:
            for number in wanted.missing[: limits.URLS]:
                wanted.urls[number] = await self._blobs.url("PUT", key, number, limits.URL_SECONDS)
        return wanted

    async def _stored(self, owner: str, sha256: str, size: int) -> Blob | None:
        blob = await self._meta.blob(owner, sha256)
        if blob and blob.size != size:
            raise ValueError(f"what has that SHA-256 has {blob.size} bytes, not {size}: hash and measure it again")
        return blob

    async def _there(self, key: str, layout: Layout) -> dict[int, int]:
        """Whole parts only: one of a wrong size is as good as none."""
        found = await self._blobs.parts(key)
        sizes = ((number, layout.bytes_of(number)) for number in layout.numbers)
        return {number: size for number, size in sizes if found.get(number) == size}

    # ── uploading ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_part(self, owner: str, sha256: str, size: int, number: int, data: AsyncIterator[bytes]) -> None:
        """Put one part through the server. When the blob is stored already, ``data`` is left, or let go.

        Raises :class:`ValueError`, or :class:`~dreamlake_server.stores.blobs.SizeMismatch` for a part that is not as
        long as the layout says. What ``data`` raises goes through.
        """
        layout = _layout(sha256, size)
        if number not in layout.numbers:
            raise ValueError(f"a blob of {size} bytes has parts 1 to {len(layout.numbers)}, and no part {number}")
        if await self._stored(owner, sha256, size):
            return
        key = key_of(owner, sha256)

        async def until_it_lands() -> AsyncGenerator[bytes, None]:
            async for chunk in data:
                yield chunk
            # All has come: from here on it cannot take long. Waiting for data, we would hold up everybody else.
            await landing.enter_async_context(self._turn(key))
            if await self._meta.blob(owner, sha256):
                raise _StoredMeanwhile

        try:
            async with AsyncExitStack() as landing, aclosing(until_it_lands()) as chunks:
                await self._blobs.put(key, number, layout.bytes_of(number), chunks)
        except _StoredMeanwhile:
            pass

    async def complete(self, owner: str, sha256: str, size: int, part_sha256s: Sequence[str] | None = None) -> Blob:
        """Read every part back, and store the blob when they have the SHA-256 that was said. Again: at once.

        ``part_sha256s``, of every part in order, tell which parts are bad when the whole is. Raises
        :class:`Incomplete`, :class:`WrongBytes` or another :class:`ValueError`.
        """
        layout = _layout(sha256, size)
        if part_sha256s is not None and len(part_sha256s) != len(layout.numbers):
            raise ValueError(f"a blob of {size} bytes has {len(layout.numbers)} parts, not {len(part_sha256s)}")
        for each in part_sha256s or ():
            _checked(each)
        key = key_of(owner, sha256)
        async with self._turn(key):
            if blob := await self._stored(owner, sha256, size):
                return blob
            there = await self._there(key, layout)
            if missing := [number for number in layout.numbers if number not in there]:
                raise Incomplete(missing)
            try:
                if await self._sha256(key, layout, 0, size) != sha256:
                    bad = [] if part_sha256s is None else await self._bad(key, layout, part_sha256s)
                    await self._drop(key, layout, bad or layout.numbers)
                    raise WrongBytes(bad or layout.numbers)
            except FileNotFoundError:  # dropped by another server, which found it bad
                raise Incomplete(layout.numbers) from None
            blob = Blob(owner, sha256, size, layout.part_bytes, self._now())
            await self._meta.put_blob(blob)
            return blob

    async def _sha256(self, key: str, layout: Layout, start: int, end: int) -> str:
        digest = hashlib.sha256()
        async with aclosing(self._bytes(key, layout, start, end)) as chunks:
            await work_through(chunks, digest.update)
        return digest.hexdigest()

    async def _bad(self, key: str, layout: Layout, part_sha256s: Sequence[str]) -> list[int]:
        """Read once more: rarely needed, and to hash all twice at the first reading would cost every upload."""
        bad, start = [], 0
        for number, expected in zip(layout.numbers, part_sha256s, strict=True):
            end = start + layout.bytes_of(number)
            if await self._sha256(key, layout, start, end) != expected:
                bad.append(number)
            start = end
        return bad

    async def _drop(self, key: str, layout: Layout, numbers: Sequence[int]) -> None:
        if len(numbers) == len(layout.numbers):
            await self._blobs.drop(key)
            return
        for number in numbers:  # of several, so none of them is empty when it is whole
            await self._blobs.put(key, number, 0, _nothing())

    async def store(self, owner: str, data: AsyncIterator[bytes], spool_folder: Path) -> tuple[str, int]:
        """Store bytes whose hash nobody knows yet; returns (SHA-256, bytes). They wait on the disk of ``spool_folder``.

        Raises :class:`TooLarge`. What ``data`` raises goes through.
        """

        async def limited() -> AsyncGenerator[bytes, None]:
            size = 0
            async for chunk in data:
                size += len(chunk)
                _check_size(size)
                yield chunk

        async with aclosing(limited()) as chunks, spooled(chunks, spool_folder) as spool:
            sha256, size = spool.sha256, spool.size
            layout, start = _layout(sha256, size), 0
            for number in layout.numbers:
                end = start + layout.bytes_of(number)
                async with aclosing(spool.read(start, end)) as part:
                    await self.put_part(owner, sha256, size, number, part)
                start = end
            await self.complete(owner, sha256, size)
        return sha256, size

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(
        self, owner: str, sha256: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The bytes [start, end), in chunks. ``await`` it, so that :class:`FileNotFoundError` (no such blob of this
        owner's) and :class:`ValueError` (no such range) come before the first chunk; then iterate, and ``aclose`` it
        when not all is wanted."""
        blob = await self.find(owner, sha256)
        if blob is None:
            raise FileNotFoundError(f"no bytes with SHA-256 {sha256} are stored: upload them first")
        end = blob.size if end is None else end
        if not 0 <= start <= end <= blob.size:
            raise ValueError(f"there are no bytes {start} to {end} of {blob.size}")
        return self._verified(key_of(owner, sha256), Layout(blob.size, blob.part_bytes), start, end)

    async def _verified(self, key: str, layout: Layout, start: int, end: int) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._bytes(key, layout, start, end)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except FileNotFoundError as error:
            raise StoreUnavailable(f"a part of {key} was stored and is gone: bring it back from a backup") from error

    async def _bytes(self, key: str, layout: Layout, start: int, end: int) -> AsyncGenerator[bytes, None]:
        for number, begin, stop in layout.pieces(start, end):
            part = cast("AsyncGenerator[bytes, None]", self._blobs.read(key, number, begin, stop))
            async with aclosing(part):
                async for chunk in part:
                    yield chunk

    async def urls(self, owner: str, sha256: str, first: int = 1) -> dict[int, str]:
        """number → URL where a client may GET that part without us, of ``limits.URLS`` parts from ``first`` on; none
        when the store has no URLs. Raises :class:`FileNotFoundError`."""
        blob = await self.find(owner, sha256)
        if blob is None:
            raise FileNotFoundError(f"no bytes with SHA-256 {sha256} are stored: upload them first")
        if not self._blobs.direct:
            return {}
        key, numbers = key_of(owner, sha256), Layout(blob.size, blob.part_bytes).numbers
        first = max(1, first)
        asked = range(first, min(first + limits.URLS, numbers.stop))
        return {number: await self._blobs.url("GET", key, number, limits.URL_SECONDS) for number in asked}

    # ── forgetting ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def forget(self, owner: str, sha256: str, *, only_of: str | None = None) -> None:
        """Drop a blob, stored or half uploaded; nothing when there is none. ``only_of``: unless another session than
        that one refers to it. A death in between leaves parts that nobody can read, and that this drops when it is
        asked again.

        First it is not stored any more, then it is asked who refers to it: a push writes its reference first and looks
        for the blob afterwards. So either we hear of the reference, or the push hears that the blob is lacking.
        """
        key = key_of(owner, _checked(sha256))
        async with self._turn(key):
            blob = await self._meta.blob(owner, sha256)
            await self._meta.drop_blob(owner, sha256)
            if only_of is None or sha256 in await self._meta.blobs_only_of(owner, only_of):
                await self._blobs.drop(key)
            elif blob is not None:
                await self._meta.put_blob(blob)


def _checked(sha256: str) -> str:
    if not is_sha256(sha256):
        raise ValueError(f"{sha256[:80]!r} is no SHA-256: write it as 64 hex digits in lower case")
    return sha256


def _check_size(size: int) -> None:
    if size > limits.FILE_BYTES:
        raise TooLarge(
            f"a file may have {limits.FILE_BYTES} bytes at most (FILE_BYTES), and this one has more: split it"
        )


def _layout(sha256: str, size: int) -> Layout:
    _checked(sha256)
    if size < 0:
        raise ValueError(f"a size of {size} bytes cannot be: say how many there are")
    _check_size(size)
    return Layout(size, part_bytes_of(size))


def _named(parts: Sequence[int]) -> str:
    shown = ", ".join(map(str, parts[:_NAMED_PARTS]))
    more = f" and {len(parts) - _NAMED_PARTS} more" if len(parts) > _NAMED_PARTS else ""
    return f"part{'s' if len(parts) != 1 else ''} {shown}{more}"


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield b""
