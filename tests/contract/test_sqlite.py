"""The stores in SQLite files keep the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake_server.stores.sqlite import SqliteMeta
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
