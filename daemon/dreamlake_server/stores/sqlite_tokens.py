"""Tokens in an SQLite file of their own.

The command line changes it while the server reads it. A rollback journal keeps two processes apart by locks alone;
a write-ahead log would bring them to the bug that :mod:`~dreamlake_server.stores.sqlite_file` keeps away from.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.sqlite_file import Answer, Schema, Work, connect, translated
from dreamlake_server.stores.tokens import Token

SCHEMA = Schema(
    int.from_bytes(b"DLto", "big"),
    (
        (
            """CREATE TABLE tokens (
                id TEXT NOT NULL PRIMARY KEY,
                user TEXT NOT NULL,
                sha256 TEXT NOT NULL,
                read_only INTEGER NOT NULL,
                created TEXT NOT NULL,
                note TEXT NOT NULL,
                revoked TEXT
            ) WITHOUT ROWID""",
        ),
    ),
)

TOKEN = "id, user, sha256, read_only, created, note, revoked"


class SqliteTokens:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_open = False

    async def open(self) -> None:
        # One thread, so that a lock of another process holds up nobody but those who ask for a token.
        self._thread = ThreadPoolExecutor(1, "sqlite-tokens")
        try:
            await self._in_thread(self._open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        self._is_open = True

    def _open(self) -> None:
        # Not FULL: power loss could bring back a journal that was removed, and undo with it what was answered.
        self._connection = connect(self._path, SCHEMA, "DELETE", "EXTRA")

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._in_thread(self._connection.close)
            self._thread.shutdown()

    async def _in_thread(self, call: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._translated, call)

    def _translated(self, call: Callable[[], Answer]) -> Answer:
        with translated(self._path):
            return call()

    async def _ask(self, work: Work[Answer]) -> Answer:
        if not self._is_open:
            raise StoreUnavailable(f"the database {self._path} is closed")
        return await self._in_thread(lambda: work(self._connection))

    # Each of these changes what it does in one statement, which is whole or nothing.

    async def add(self, token: Token) -> None:
        def add(connection: sqlite3.Connection) -> bool:
            values = dataclasses.astuple(token)
            connection.execute(f"INSERT OR IGNORE INTO tokens ({TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            (there,) = _tokens(connection, "WHERE id = ?", token.id)
            return there.sha256 == token.sha256

        if not await self._ask(add):
            raise ValueError(f"there is another token {token.id}: make a new one")

    async def find(self, token_id: str) -> Token | None:
        found = await self._ask(lambda connection: _tokens(connection, "WHERE id = ?", token_id))
        return found[0] if found else None

    async def of(self, user: str | None) -> list[Token]:
        if user is None:
            return await self._ask(lambda connection: _tokens(connection, "ORDER BY created, id"))
        return await self._ask(lambda connection: _tokens(connection, "WHERE user = ? ORDER BY created, id", user))

    async def revoke(self, token_id: str, when: str) -> bool:
        def revoke(connection: sqlite3.Connection) -> bool:
            connection.execute("UPDATE tokens SET revoked = ? WHERE id = ? AND revoked IS NULL", (when, token_id))
            return bool(_tokens(connection, "WHERE id = ?", token_id))

        return await self._ask(revoke)


def _tokens(connection: sqlite3.Connection, which: str, *values: str) -> list[Token]:
    rows = connection.execute(f"SELECT {TOKEN} FROM tokens {which}", values).fetchall()
    return [dataclasses.replace(Token(*row), read_only=bool(row[3])) for row in rows]
