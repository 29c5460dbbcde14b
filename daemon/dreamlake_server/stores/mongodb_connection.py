"""What both stores on MongoDB stand on: one client, how safely it writes, and what its errors are to others.

Everything is written with ``w: majority, j: true`` and read with ``readConcern: majority`` from the primary: less than
that loses acknowledged documents when a server is killed. Whatever the URI says of these is overruled.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    ConfigurationError,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern

from dreamlake_server.stores import StoreUnavailable

Document = dict[str, Any]
Collection = AsyncCollection[Document]
Answer = TypeVar("Answer")

FIND_SECONDS = 5  # until a server that can be written is found
COMMAND_SECONDS = 30  # until it has answered one command; the largest, an append to 20,000 logs, takes 9
TRANSACTION_SECONDS = 45  # its retries included; MongoDB itself ends one after 60
PING_SECONDS = 5
REASON_CHARACTERS = 300
TRANSACTION_TOO_LARGE = 388  # MongoDB's TransactionTooLargeForCache: for more than about a tenth of its cache
UPSERT_TRIES = 5  # two that insert one key at once: the second finds it at the next try

ON_STABLE_STORAGE = WriteConcern("majority", j=True)
NO_SET = (
    "MongoDB runs as a standalone server, which has no transactions. Make it a replica set; one node is enough: start "
    "mongod with --replSet rs0 and run rs.initiate() in mongosh once"
)


class Connection:
    def __init__(self, uri: str, database: str) -> None:
        self._uri, self._name = uri, database
        self._client: AsyncMongoClient[Document] | None = None

    async def open(self) -> None:
        try:
            self._client = AsyncMongoClient(
                self._uri,
                appname="dreamlake-server",
                serverSelectionTimeoutMS=int(FIND_SECONDS * 1000),
                connectTimeoutMS=int(FIND_SECONDS * 1000),
                socketTimeoutMS=int(COMMAND_SECONDS * 1000),
            )
        except (InvalidURI, ValueError):
            # Their words quote the URI, and what they take for a port may be half of a password.
            raise StoreUnavailable(
                "MongoDB's URI cannot be read: it is like mongodb://USER:PASSWORD@HOST:PORT/?replicaSet=NAME, with "
                "every special character of user and password percent-encoded"
            ) from None
        except ConfigurationError as error:
            raise StoreUnavailable(f"MongoDB's URI asks for something that cannot be had: {error}") from None
        try:
            await self.ping()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ping(self) -> None:
        with asked():
            hello = await within(self.client.admin.command("hello"), PING_SECONDS)
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreUnavailable(NO_SET)
        if not hello["isWritablePrimary"]:
            raise StoreUnavailable("MongoDB has no primary just now, which alone takes writes; it is choosing one")

    @property
    def client(self) -> AsyncMongoClient[Document]:
        assert self._client is not None, "not open"
        return self._client

    def collection(self, name: str) -> Collection:
        database = self.client.get_database(
            self._name,
            write_concern=ON_STABLE_STORAGE,
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        return database[name]

    async def transaction(self, attempt: Callable[[AsyncClientSession], Awaitable[bool]]) -> bool:
        """Run ``attempt``, again when MongoDB says so, and commit what it wrote. True: committed, once. ``attempt``
        says False before it writes anything; what made it say so is seen by whoever reads afterwards.

        A commit of which no answer came may have been done. It is asked for again until there is an answer; if that is
        "no such transaction", there is a new attempt. Should that one say False, it may be our own commit that it has
        met: then nobody knows, and that is what is said.
        """
        committing = False

        async def once(session: AsyncClientSession) -> bool:
            nonlocal committing
            try:
                if await attempt(session):
                    committing = True
                    return True
            except ServerSelectionTimeoutError as error:
                # FIND_SECONDS are over. To MongoDB's driver this is one more reason to begin anew.
                raise unavailable(error) from error
            # What it has seen may not be on a majority yet: then whoever asks after this would not see it, and would
            # try the same again. A commit waits for that, also one of nothing.
            await session.commit_transaction()
            if committing:
                raise StoreUnavailable("MongoDB did not say whether it has committed; ask again what is there")
            return False

        async def all_of_it() -> bool:
            async with self.client.start_session() as session:
                done: bool = await session.with_transaction(
                    once, ReadConcern("snapshot"), ON_STABLE_STORAGE, ReadPreference.PRIMARY
                )
                return done

        with asked():
            return await within(all_of_it(), TRANSACTION_SECONDS)


async def within(work: Coroutine[Any, Any, Answer], seconds: float) -> Answer:
    """``asyncio.wait_for`` that keeps its word: that one also waits until the driver has heeded the cancellation, which
    with a server that hangs may take as long as its own timeouts. What is cancelled ends by itself."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody asks for it any more
        task.cancel()
        raise asyncio.TimeoutError
    return task.result()


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """Around every use of the client: its errors are ours."""
    try:
        yield
    except PyMongoError as error:
        raise unavailable(error) from error
    except asyncio.TimeoutError:
        raise StoreUnavailable("MongoDB did not answer in time") from None


def unavailable(error: PyMongoError) -> StoreUnavailable:
    """What was the matter, without all that comes with it: the state of the whole cluster, the documents written."""
    details = (error.details if isinstance(error, OperationFailure) else None) or {}
    details = (details.get("writeErrors") or [details])[0]
    if details.get("code") == TRANSACTION_TOO_LARGE:
        return StoreUnavailable(
            "MongoDB's cache is too small for so much at once: give it more memory (storage.wiredTiger.engineConfig."
            "cacheSizeGB), or send less in one request"
        )
    why = re.split(r", Timeout: | \(configured timeouts: ", str(details.get("errmsg") or error))[0][:REASON_CHARACTERS]
    return StoreUnavailable(f"MongoDB cannot be used just now: {why} ({type(error).__name__})")


async def upserted(upsert: Callable[[], Awaitable[Answer]]) -> Answer:
    """Of several that upsert the same key at once, all but one may be told that it is there: then it is found."""
    for _ in range(UPSERT_TRIES - 1):
        try:
            return await upsert()
        except DuplicateKeyError:
            continue
    return await upsert()
