"""The stores in memory keep the contracts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dreamlake_server.stores.memory import MemoryMeta, MemoryTokens
from tests.contract.conftest import Run
from tests.contract.meta import MetaSuite
from tests.contract.tokens import TokensSuite


@pytest.fixture
def another() -> None:
    """Nobody else can come to this memory."""


class TestMemoryMeta(MetaSuite):
    @pytest.fixture
    def meta(self, run: Run) -> Iterator[MemoryMeta]:
        store = MemoryMeta()
        run(store.open())
        yield store
        run(store.close())


class TestMemoryTokens(TokensSuite):
    @pytest.fixture
    def tokens(self, run: Run) -> Iterator[MemoryTokens]:
        store = MemoryTokens()
        run(store.open())
        yield store
        run(store.close())
