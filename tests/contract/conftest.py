"""What the suites stand on: one event loop for each test, in which its stores are opened, used and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

pytest.register_assert_rewrite(*(f"tests.contract.{suite}" for suite in ("blobs", "logs", "meta", "tokens")))

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a coroutine to its end, in the test's own loop. A task that a store leaves behind fails the test."""
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left)) if left else None
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        assert not left, f"left behind: {left}"
    finally:
        loop.close()
