"""Meta in one SQLite file: what a server keeps that stands alone. One process writes it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dreamlake.wire import jsons
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.meta import Append, Blob, Head, Segment, Session
from dreamlake_server.stores.sqlite_file import Schema, SqliteFile

PING_SECONDS = 5
NAMED_AT_ONCE = 900  # SQLite takes 999 values in a statement, and 32,766 since 3.32
PURGED_AT_ONCE = 64  # segments and logs in one write, so that appends come in between

# Sessions and logs have integer keys, so that a segment's key is two integers. Data stand last in a row: whoever wants
# only what is before them does not read them. A log's row may have no records (count is 0): then it has no head.
SCHEMA = Schema(
    int.from_bytes(b"DLme", "big"),
    (
        (
            """CREATE TABLE sessions (
                key INTEGER PRIMARY KEY,
                id TEXT NOT NULL UNIQUE,
                owner TEXT NOT NULL,
                workspace TEXT NOT NULL,
                name TEXT NOT NULL,
                created TEXT NOT NULL,
                deleted TEXT,
                purging INTEGER NOT NULL DEFAULT 0,
                UNIQUE (owner, workspace, name)
            )""",
            "CREATE INDEX sessions_of_owner ON sessions (owner, created, id) WHERE deleted IS NULL",
            "CREATE INDEX sessions_of_workspace ON sessions (owner, workspace, created, id) WHERE deleted IS NULL",
            "CREATE INDEX sessions_deleted ON sessions (deleted, id) WHERE deleted IS NOT NULL",
            """CREATE TABLE origins (
                session INTEGER NOT NULL REFERENCES sessions,
                origin TEXT NOT NULL,
                summary TEXT NOT NULL,
                PRIMARY KEY (session, origin)
            )""",
            """CREATE TABLE logs (
                key INTEGER PRIMARY KEY,
                session INTEGER NOT NULL REFERENCES sessions,
                origin TEXT NOT NULL,
                log TEXT NOT NULL,
                count INTEGER NOT NULL,
                size INTEGER NOT NULL,
                checksum INTEGER NOT NULL,
                time_first TEXT,
                time_max TEXT,
                sealed INTEGER NOT NULL,
                UNIQUE (session, origin, log)
            )""",
            "CREATE INDEX logs_of_name ON logs (session, log)",
            """CREATE TABLE segments (
                log INTEGER NOT NULL REFERENCES logs,
                first INTEGER NOT NULL,
                count INTEGER NOT NULL,
                size INTEGER NOT NULL,
                size_before INTEGER NOT NULL,
                checksum_before INTEGER NOT NULL,
                time_before TEXT,
                time_max TEXT,
                refused TEXT,
                data BLOB NOT NULL,
                PRIMARY KEY (log, first)
            )""",
            """CREATE TABLE blobs (
                owner TEXT NOT NULL,
                sha256 TEXT NOT NULL,
                size INTEGER NOT NULL,
                part_bytes INTEGER NOT NULL,
                stored TEXT NOT NULL,
                PRIMARY KEY (owner, sha256)
            ) WITHOUT ROWID""",
            """CREATE TABLE uses (
                session INTEGER NOT NULL REFERENCES sessions,
                sha256 TEXT NOT NULL,
                PRIMARY KEY (session, sha256)
            ) WITHOUT ROWID""",
            "CREATE INDEX uses_of_blob ON uses (sha256, session)",
        ),
        ("ALTER TABLE logs ADD COLUMN base INTEGER NOT NULL DEFAULT 0",),
    ),
)

SESSION = "key, id, owner, workspace, name, created, deleted"
HEAD = "count, size, checksum, time_first, time_max, sealed, base"
SEGMENT = "first, count, size, size_before, checksum_before, time_before, time_max, data, refused"
BLOB = "owner, sha256, size, part_bytes, stored"


class _OtherHead(Exception):
    """A head is not the one that the caller believed. Raised, so that what was written before it goes, too."""


class SqliteMeta:
    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA)

    async def open(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()

    async def ping(self) -> None:
        try:
            await asyncio.wait_for(self._file.write(_touch), PING_SECONDS)
        except asyncio.TimeoutError:
            raise StoreUnavailable(
                f"the database {self._file.path} has written nothing for {PING_SECONDS} seconds: look at its disk"
            ) from None

    # sessions

    async def make_session(self, owner: str, workspace: str, name: str, session_id: str, created: str) -> Session:
        if found := await self.find_session(owner, workspace, name):
            return found

        def make(connection: sqlite3.Connection) -> Session:
            connection.execute(
                "INSERT INTO sessions (id, owner, workspace, name, created) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (owner, workspace, name) DO NOTHING",
                (session_id, owner, workspace, name, created),
            )
            (made,) = _sessions(connection, "owner = ? AND workspace = ? AND name = ?", owner, workspace, name)
            return made

        return await self._file.write(make)

    async def find_session(self, owner: str, workspace: str, name: str) -> Session | None:
        found = await self._find("owner = ? AND workspace = ? AND name = ?", owner, workspace, name)
        return found[0] if found else None

    async def session(self, owner: str, session_id: str) -> Session | None:
        found = await self._find("id = ? AND owner = ?", session_id, owner)
        return found[0] if found else None

    async def sessions(
        self, owner: str, workspace: str | None, after: tuple[str, str] | None, limit: int
    ) -> list[Session]:
        which, values = "deleted IS NULL AND owner = ?", [owner]
        if workspace is not None:
            which, values = f"{which} AND workspace = ?", [*values, workspace]
        if after is not None:
            which, values = f"{which} AND (created, id) < (?, ?)", [*values, *after]
        return await self._find(f"{which} ORDER BY created DESC, id DESC LIMIT ?", *values, limit)

    async def mark_deleted(self, owner: str, session_id: str, when: str | None) -> bool:
        def mark(connection: sqlite3.Connection) -> bool:
            # One that is being purged is not there any more.
            marked = connection.execute(
                "UPDATE sessions SET deleted = ? WHERE id = ? AND owner = ? AND NOT purging", (when, session_id, owner)
            )
            return marked.rowcount == 1

        return await self._file.write(mark)

    async def deleted_sessions(self, before: str, limit: int) -> list[Session]:
        return await self._find("deleted < ? ORDER BY deleted, id LIMIT ?", before, limit)

    async def begin_purge(self, owner: str, session_id: str) -> bool:
        return await self._begin_purge(owner, session_id) > 0

    async def _begin_purge(self, owner: str, session_id: str) -> int:
        """The key of the session, or 0: keys begin at 1."""

        def begin(connection: sqlite3.Connection) -> int:
            which = "WHERE id = ? AND owner = ? AND deleted IS NOT NULL"
            connection.execute(f"UPDATE sessions SET purging = 1 {which}", (session_id, owner))
            row = connection.execute(f"SELECT key FROM sessions {which}", (session_id, owner)).fetchone()
            return int(row[0]) if row else 0

        return await self._file.write(begin)

    async def purge_session(self, owner: str, session_id: str) -> None:
        key = await self._begin_purge(owner, session_id)
        while key and await self._file.write(lambda connection: _purge_some(connection, key)):
            pass

    async def _find(self, which: str, *values: object) -> list[Session]:
        return await self._file.read(lambda connection: _sessions(connection, which, *values))

    # logs

    async def heads(
        self, session_id: str, *, origin: str | None = None, logs: Sequence[str] | None = None
    ) -> dict[tuple[str, str], Head]:
        which, values = "session = (SELECT key FROM sessions WHERE id = ?) AND count > 0", [session_id]
        if origin is not None:
            which, values = f"{which} AND origin = ?", [*values, origin]

        def find(connection: sqlite3.Connection) -> dict[tuple[str, str], Head]:
            select = f"SELECT origin, log, {HEAD} FROM logs WHERE {which}"
            if logs is None:
                rows = connection.execute(select, values).fetchall()
            else:
                rows = [
                    row
                    for some in _in_turns(logs)
                    for row in connection.execute(f"{select} AND log IN ({_marks(some)})", (*values, *some))
                ]
            return {(row[0], row[1]): Head(*row[2:]) for row in rows}

        return await self._file.read(find)

    async def append(
        self,
        session_id: str,
        origin: str,
        appends: Sequence[Append],
        *,
        summary: dict[str, Any] | None = None,
        blobs: Sequence[str] = (),
    ) -> bool:
        said = None if summary is None else jsons.encode(summary).decode()

        def write(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "SELECT key FROM sessions WHERE id = ? AND deleted IS NULL", (session_id,)
            ).fetchone()
            if row is None:
                return False
            (key,) = row
            for each in appends:
                _append(connection, key, origin, each)
            if said is not None:
                connection.execute(
                    "INSERT INTO origins (session, origin, summary) VALUES (?, ?, ?) "
                    "ON CONFLICT (session, origin) DO UPDATE SET summary = excluded.summary",
                    (key, origin, said),
                )
            uses = [(key, sha256) for sha256 in blobs]
            connection.executemany("INSERT OR IGNORE INTO uses (session, sha256) VALUES (?, ?)", uses)
            return True

        try:
            return await self._file.write(write)
        except _OtherHead:
            return False

    async def segments(self, session_id: str, origin: str, log: str, first: int, limit: int) -> list[Segment]:
        def find(connection: sqlite3.Connection) -> list[Segment]:
            row = connection.execute(
                "SELECT logs.key FROM logs JOIN sessions ON sessions.key = logs.session "
                "WHERE sessions.id = ? AND logs.origin = ? AND logs.log = ?",
                (session_id, origin, log),
            ).fetchone()
            if row is None:
                return []
            (key,) = row
            holding = connection.execute(
                "SELECT first, count FROM segments WHERE log = ? AND first <= ? ORDER BY first DESC LIMIT 1",
                (key, first),
            ).fetchone()
            begin = holding[0] if holding and sum(holding) > first else first
            rows = connection.execute(
                f"SELECT {SEGMENT} FROM segments WHERE log = ? AND first >= ? ORDER BY first LIMIT ?",
                (key, begin, limit),
            )
            return [Segment(*row) for row in rows]

        return await self._file.read(find)

    # blobs

    async def blob(self, owner: str, sha256: str) -> Blob | None:
        return (await self.blobs(owner, [sha256])).get(sha256)

    async def blobs(self, owner: str, sha256s: Sequence[str]) -> dict[str, Blob]:
        def find(connection: sqlite3.Connection) -> dict[str, Blob]:
            select = f"SELECT {BLOB} FROM blobs WHERE owner = ? AND sha256 IN"
            return {
                row[1]: Blob(*row)
                for some in _in_turns(sha256s)
                for row in connection.execute(f"{select} ({_marks(some)})", (owner, *some))
            }

        return await self._file.read(find)

    async def put_blob(self, blob: Blob) -> None:
        values = (blob.owner, blob.sha256, blob.size, blob.part_bytes, blob.stored)
        await self._file.write(
            lambda connection: connection.execute(
                f"INSERT OR IGNORE INTO blobs ({BLOB}) VALUES (?, ?, ?, ?, ?)", values
            )
        )

    async def drop_blob(self, owner: str, sha256: str) -> None:
        await self._file.write(
            lambda connection: connection.execute("DELETE FROM blobs WHERE owner = ? AND sha256 = ?", (owner, sha256))
        )

    async def blobs_only_of(self, owner: str, session_id: str) -> list[str]:
        select = (
            "SELECT uses.sha256 FROM uses JOIN sessions AS mine ON mine.key = uses.session "
            "WHERE mine.id = ? AND mine.owner = ? AND NOT EXISTS ("
            "SELECT 1 FROM uses AS others JOIN sessions ON sessions.key = others.session "
            "WHERE others.sha256 = uses.sha256 AND others.session <> uses.session AND sessions.owner = mine.owner) "
            "ORDER BY uses.sha256"
        )
        return await self._file.read(
            lambda connection: [sha256 for (sha256,) in connection.execute(select, (session_id, owner))]
        )


def _touch(connection: sqlite3.Connection) -> None:
    """Write the version anew: as small a write as there is, and it goes all the way to the disk."""
    connection.execute(f"PRAGMA user_version = {len(SCHEMA.versions)}")


def _sessions(connection: sqlite3.Connection, which: str, *values: object) -> list[Session]:
    rows = connection.execute(f"SELECT {SESSION} FROM sessions WHERE {which}", values).fetchall()
    return [replace(Session(*row[1:]), origins=_summaries(connection, row[0])) for row in rows]


def _summaries(connection: sqlite3.Connection, key: int) -> dict[str, dict[str, Any]]:
    rows = connection.execute("SELECT origin, summary FROM origins WHERE session = ? ORDER BY origin", (key,))
    return {origin: jsons.loads(summary) for origin, summary in rows}


def _append(connection: sqlite3.Connection, session: int, origin: str, append: Append) -> None:
    row = connection.execute(
        f"SELECT key, {HEAD} FROM logs WHERE session = ? AND origin = ? AND log = ?", (session, origin, append.log)
    ).fetchone()
    if append.before != (Head(*row[1:]) if row else Head()):
        raise _OtherHead
    head = append.after
    values = (head.count, head.size, head.checksum, head.time_first, head.time_max, head.sealed, head.base)
    if row:
        key = row[0]
        connection.execute(f"UPDATE logs SET ({HEAD}) = (?, ?, ?, ?, ?, ?, ?) WHERE key = ?", (*values, key))
    else:
        key = connection.execute(
            f"INSERT INTO logs (session, origin, log, {HEAD}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (session, origin, append.log, *values),
        ).lastrowid
    connection.executemany(
        f"INSERT OR REPLACE INTO segments (log, {SEGMENT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (
                key,
                each.first,
                each.count,
                each.size,
                each.size_before,
                each.checksum_before,
                each.time_before,
                each.time_max,
                each.data,
                each.refused,
            )
            for each in append.segments
        ),
    )


def _purge_some(connection: sqlite3.Connection, session: int) -> bool:
    """Remove a part of what a session has; False when it is gone itself."""
    left = PURGED_AT_ONCE
    logs = connection.execute("SELECT key FROM logs WHERE session = ? LIMIT ?", (session, left)).fetchall()
    for (log,) in logs:
        left -= connection.execute(
            "DELETE FROM segments WHERE rowid IN (SELECT rowid FROM segments WHERE log = ? LIMIT ?)", (log, left)
        ).rowcount
        if left <= 0:
            return True
        connection.execute("DELETE FROM logs WHERE key = ?", (log,))
        left -= 1
    if left <= 0:
        return True
    for table in ("origins", "uses"):
        connection.execute(f"DELETE FROM {table} WHERE session = ?", (session,))
    connection.execute("DELETE FROM sessions WHERE key = ?", (session,))
    return False


def _in_turns(names: Sequence[str]) -> Iterator[list[str]]:
    """Each name once, as many at a time as a statement takes."""
    once = list(dict.fromkeys(names))
    return (once[at : at + NAMED_AT_ONCE] for at in range(0, len(once), NAMED_AT_ONCE))


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
