"""What both stores on MongoDB stand on, as far as it needs no MongoDB: those tests are in tests/contract."""

from __future__ import annotations

import asyncio

import pytest

from dreamlake_server.stores.mongodb_connection import within


def test_what_does_not_heed_its_cancellation_is_not_waited_for() -> None:
    async def scene() -> None:
        freed, ended = asyncio.Event(), asyncio.Event()

        async def stubborn() -> None:
            try:
                await freed.wait()
            except asyncio.CancelledError:
                await freed.wait()
                ended.set()
                raise

        with pytest.raises(asyncio.TimeoutError):
            await within(stubborn(), 0.01)
        assert not ended.is_set()
        freed.set()
        await ended.wait()

    asyncio.run(scene())


def test_what_is_in_time_is_answered_and_raised() -> None:
    async def answers() -> int:
        return 7

    async def refuses() -> int:
        raise ValueError("no")

    assert asyncio.run(within(answers(), 60)) == 7
    with pytest.raises(ValueError, match="no"):
        asyncio.run(within(refuses(), 60))


def test_whoever_is_cancelled_takes_its_work_along() -> None:
    async def scene() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        waiting = asyncio.ensure_future(within(work(), 60))
        await begun.wait()
        waiting.cancel()
        await cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scene())
