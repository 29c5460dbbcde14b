"""One SQLite file and its threads: one that writes, a few that read, so that no disk ever holds up the event loop.

The writer takes everything that waits for it into one transaction, a savepoint each: one fsync answers many. Only its
connection can write or checkpoint; the readers' are read-only. So the bug of SQLite's write-ahead logs before 3.51.3,
which needs two that do, is out of reach, as long as no other process writes the file.

Nothing here needs more than SQLite 3.24: the one that Python has can be as old as the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dreamlake_server.stores import StoreUnavailable

Answer = TypeVar("Answer")
Work = Callable[[sqlite3.Connection], Answer]

BUSY_SECONDS = 5  # that SQLite waits for another process's lock
BATCH_WRITES = 256  # in one transaction: the first of them does not wait for ever
READERS = 4
WAL_BYTES = 64 << 20  # that the write-ahead log may keep on the disk once it was larger


@dataclass(frozen=True)
class Schema:
    """What a file holds: ``versions[n]`` are the statements that bring version n to n + 1."""

    application: int  # PRAGMA application_id: whose file it is
    versions: tuple[tuple[str, ...], ...]


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise unavailable(path, error) from error


def unavailable(path: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database {path} cannot be used: {error}; see that its disk has room, that this user may write it and its "
        "folder, and that no other process holds it"
    )


def connect(path: Path, schema: Schema, journal: str, synchronous: str) -> sqlite3.Connection:
    """A connection that writes. A new file is made, for its user alone; an older one is brought to this version."""
    # SQLite would give a new file, and those that it puts beside it, what the umask leaves.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        pass
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        _bring_up(connection, path, schema)
        (found,) = connection.execute(f"PRAGMA journal_mode = {journal}").fetchone()
        if found.lower() != journal.lower():
            raise StoreUnavailable(
                f"the database {path} cannot be used: SQLite keeps no {journal} journal on this file system; "
                "put it on a local disk"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_up(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    connection.execute("BEGIN IMMEDIATE")  # two processes may meet at a new file
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != schema.application and (application or version or objects):
            raise StoreUnavailable(f"{path} is a database, but not the one expected here: give another path")
        if version > len(schema.versions):
            raise StoreUnavailable(
                f"the database {path} is of version {version} and this Dreamlake knows {len(schema.versions)}: "
                "a newer one has used it; upgrade, or give another path"
            )
        if version < len(schema.versions):
            for statement in [each for statements in schema.versions[version:] for each in statements]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {schema.application}")
            connection.execute(f"PRAGMA user_version = {len(schema.versions)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@dataclass(frozen=True)
class _Write:
    work: Work[Any]
    done: Future[Any]


class SqliteFile:
    """Open, write, read and close belong to one event loop. ``write`` and ``read`` run what they are given in a thread;
    it must use nothing but the connection and what it was made with."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path, self._schema = path, schema
        self._is_open = False

    async def open(self) -> None:
        await asyncio.to_thread(self._open)
        self._is_open = True

    def _open(self) -> None:
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._idle: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()  # as many as there are readers
        with translated(self.path), contextlib.ExitStack() as opened:
            self._connection = connect(self.path, self._schema, "WAL", "FULL")
            opened.callback(self._connection.close)
            self._connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            where = f"{self.path.absolute().as_uri()}?mode=ro"
            for _ in range(READERS):
                reader = sqlite3.connect(
                    where, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
                )
                opened.callback(reader.close)
                self._idle.put(reader)
            self._opened = opened.pop_all()
        self._readers = ThreadPoolExecutor(READERS, "sqlite-reader")
        self._writer = threading.Thread(target=self._work, name="sqlite-writer", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """What waits is still written; nothing more is taken."""
        if self._is_open:
            self._is_open = False
            self._waiting.put(None)
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        with translated(self.path):
            self._opened.close()  # the writer's connection last: it folds the log into the file

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, work: Work[Answer]) -> Answer:
        """What ``work`` finds, in one snapshot."""
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreUnavailable(f"the database {self.path} is closed")

    def _read(self, work: Work[Answer]) -> Answer:
        connection = self._idle.get()
        try:
            with translated(self.path):
                connection.execute("BEGIN")
                try:
                    return work(connection)
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        finally:
            self._idle.put(connection)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def write(self, work: Work[Answer]) -> Answer:
        """What ``work`` answers, once what it wrote is on stable storage. Nothing of it is kept when it raises.

        Whoever is cancelled before its turn writes nothing; after that, all of it.
        """
        self._check_open()
        done: Future[Answer] = Future()
        self._waiting.put(_Write(work, done))
        return await asyncio.wrap_future(done)

    def _work(self) -> None:
        while batch := self._batch():
            self._commit(batch)

    def _batch(self) -> list[_Write]:
        """The next write, once there is one, and those that wait behind it; none when there will be no more."""
        batch: list[_Write] = []
        while not batch or (len(batch) < BATCH_WRITES and not self._waiting.empty()):
            write = self._waiting.get()
            if write is None:
                self._waiting.put(None)  # for the next call
                break
            if write.done.set_running_or_notify_cancel():
                batch.append(write)
        return batch

    def _commit(self, batch: list[_Write]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers = [self._attempt(write.work) for write in batch]
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # the next BEGIN says so
                    self._connection.execute("ROLLBACK")
            for write in batch:
                write.done.set_exception(self._named(error))
            return
        for write, (answer, failure) in zip(batch, answers, strict=True):
            if failure is None:
                write.done.set_result(answer)
            else:
                write.done.set_exception(self._named(failure))

    def _attempt(self, work: Work[Any]) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT write")
        try:
            answer, failure = work(self._connection), None
        except BaseException as error:
            if not self._connection.in_transaction:
                raise  # SQLite took back the whole transaction, as it does when the disk is full
            self._connection.execute("ROLLBACK TO write")
            answer, failure = None, error
        self._connection.execute("RELEASE write")
        return answer, failure

    def _named(self, error: BaseException) -> BaseException:
        if not isinstance(error, sqlite3.Error):
            return error
        named = unavailable(self.path, error)
        named.__cause__ = error
        return named
