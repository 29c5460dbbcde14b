"""Blobs in memory keep the contract."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dreamlake_server.stores.memory_blobs import MemoryBlobs
from tests.contract.blobs import BlobsSuite
from tests.contract.conftest import Run


class TestMemoryBlobs(BlobsSuite):
    @pytest.fixture
    def blobs(self, run: Run) -> Iterator[MemoryBlobs]:
        store = MemoryBlobs()
        run(store.open())
        yield store
        run(store.close())
