"""The stores in SQLite files keep the contracts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dreamlake_server.stores.meta import Head
from dreamlake_server.stores.sqlite import SCHEMA, SqliteMeta
from dreamlake_server.stores.sqlite_file import connect
from dreamlake_server.stores.sqlite_tokens import SqliteTokens
from tests.contract.conftest import Run
from tests.contract.meta import MetaSuite
from tests.contract.tokens import TokensSuite


class TestSqliteMeta(MetaSuite):
    @pytest.fixture
    def meta(self, run: Run, tmp_path: Path) -> Iterator[SqliteMeta]:
        store = SqliteMeta(tmp_path / "meta.db")
        run(store.open())
        yield store
        run(store.close())

    @pytest.fixture
    def another(self) -> None:
        """One process writes, with one object."""


def test_a_file_of_before_there_were_bases(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    connect(path, replace(SCHEMA, versions=SCHEMA.versions[:1]), "WAL", "FULL").close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("INSERT INTO sessions (id, owner, workspace, name, created) VALUES ('1', 'a', 'w', 'n', '')")
        connection.execute(
            "INSERT INTO logs (session, origin, log, count, size, checksum, sealed) VALUES (1, 'o', 'l', 3, 30, 7, 0)"
        )
    connection.close()
    store = SqliteMeta(path)
    run(store.open())
    assert run(store.heads("1")) == {("o", "l"): Head(3, 30, 7)}
    run(store.close())


class TestSqliteTokens(TokensSuite):
    @pytest.fixture
    def tokens(self, run: Run, tmp_path: Path) -> Iterator[SqliteTokens]:
        store = SqliteTokens(tmp_path / "tokens.db")
        run(store.open())
        yield store
        run(store.close())

    @pytest.fixture
    def another(self, run: Run, tmp_path: Path, tokens: SqliteTokens) -> Iterator[SqliteTokens]:
        store = SqliteTokens(tmp_path / "tokens.db")
        run(store.open())
        yield store
        run(store.close())
