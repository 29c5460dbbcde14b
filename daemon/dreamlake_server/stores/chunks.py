"""Chunks: a stream of bytes, worked on in threads, so that a disk or a hash never holds up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import ParamSpec, TypeVar

CHUNK_BYTES = 1 << 20  # enough to make a thread worth its while, few enough to hold several

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As :func:`asyncio.to_thread`, but a caller who is cancelled goes only when the thread has come back: the file
    that it works on may be closed then, and its descriptor may be another file's."""
    running = asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not running.cancelled():
        running.exception()  # looked at, so that nobody is told of it later
        raise cancelled
    return running.result()


async def work_through(chunks: AsyncIterator[bytes], work: Callable[[bytes], object]) -> None:
    """Do ``work`` with all that comes, in order and in threads, while more of it comes. Small chunks are put together
    first: to go to a thread costs more than to write what a web server reads at once. Holds 2 ``CHUNK_BYTES``, or two
    larger chunks."""
    under_way: asyncio.Task[object] | None = None
    gathered, size = [], 0
    try:
        async for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk)
            if size >= CHUNK_BYTES:
                if under_way is not None:
                    await under_way
                under_way = asyncio.ensure_future(in_thread(work, b"".join(gathered)))
                gathered, size = [], 0
        if under_way is not None:
            await under_way
        if size:
            await in_thread(work, b"".join(gathered))
    finally:
        if under_way is not None:
            await asyncio.gather(under_way, return_exceptions=True)
