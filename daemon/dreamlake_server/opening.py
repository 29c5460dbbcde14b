"""Opening: which stores the settings name. A store's library is imported only where its store is used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from dreamlake_server import data
from dreamlake_server.settings import CannotStart, Settings
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.blobs import Blobs
from dreamlake_server.stores.meta import Meta
from dreamlake_server.stores.tokens import Tokens

Found = TypeVar("Found")


def meta_of(settings: Settings, folder: Path) -> Meta:
    if settings.mongo is not None:
        from dreamlake_server.stores.mongodb import MongoMeta

        return MongoMeta(settings.mongo)
    from dreamlake_server.stores.sqlite import SqliteMeta

    return SqliteMeta(folder / data.META)


def tokens_of(settings: Settings, folder: Path) -> Tokens:
    if settings.mongo is not None:
        from dreamlake_server.stores.mongodb_tokens import MongoTokens

        return MongoTokens(settings.mongo)
    from dreamlake_server.stores.sqlite_tokens import SqliteTokens

    return SqliteTokens(folder / data.TOKENS)


def blobs_of(settings: Settings, folder: Path) -> Blobs:
    if settings.s3 is not None:
        from dreamlake_server.stores.s3 import S3Blobs

        try:
            return S3Blobs(settings.s3, endpoint=settings.s3_endpoint)
        except ValueError as error:
            raise CannotStart(f"--s3: {error}") from None
    from dreamlake_server.stores.folder import FolderBlobs

    return FolderBlobs(folder / data.BLOBS)


@contextlib.asynccontextmanager
async def _open(tokens: Tokens) -> AsyncIterator[Tokens]:
    await tokens.open()
    try:
        yield tokens
    finally:
        await tokens.close()


def with_tokens(settings: Settings, do: Callable[[Tokens], Awaitable[Found]], *, make: bool = False) -> Found:
    """What ``do`` finds in the tokens of a server, which may run meanwhile. ``make``: also where there was none yet.
    Raises :class:`CannotStart`."""
    folder = settings.data
    if settings.mongo is None:
        folder = data.make(folder) if make else data.existing(folder)

    async def run() -> Found:
        async with _open(tokens_of(settings, folder)) as tokens:
            return await do(tokens)

    try:
        return asyncio.run(run())
    except StoreUnavailable as error:
        raise CannotStart(str(error)) from None
