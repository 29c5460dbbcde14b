"""Work in threads: nobody goes on while a thread is still at what he asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from dreamlake_server.stores.chunks import CHUNK_BYTES, in_thread, work_through
from tests.contract.blobs import pieces
from tests.contract.conftest import Run


class Gate:
    """Work that waits in its thread until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.done = threading.Event(), threading.Event(), False

    def __call__(self, chunk: bytes = b"") -> None:
        self.begun.set()
        assert self.may_end.wait(20)
        self.done = True
        if chunk == b"bad":
            raise KeyError("bad")


async def begun(gate: Gate) -> None:
    await asyncio.to_thread(gate.begun.wait, 20)


@pytest.mark.parametrize("chunk", [b"good", b"bad"])
def test_a_cancelled_caller_goes_when_the_thread_has_come_back(run: Run, chunk: bytes) -> None:
    async def cancelled() -> None:
        gate = Gate()
        working = asyncio.ensure_future(in_thread(gate, chunk))
        await begun(gate)
        for _ in range(3):
            working.cancel()
            await asyncio.wait({working}, timeout=0.02)
            assert not working.done()
        gate.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert gate.done

    run(cancelled())


def test_results_and_errors_come_back(run: Run) -> None:
    assert run(in_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        run(in_thread(divmod, 7, 0))


FULL = bytes(CHUNK_BYTES)  # a chunk that is not put together with others
BAD = b"bad".ljust(CHUNK_BYTES)


@pytest.mark.parametrize("error", [KeyError("mine"), asyncio.CancelledError()])
def test_work_ends_before_an_error_of_the_chunks_goes_on(run: Run, error: BaseException) -> None:
    async def broken() -> None:
        gate = Gate()

        async def chunks() -> AsyncIterator[bytes]:
            yield FULL
            await begun(gate)
            asyncio.get_running_loop().call_later(0.02, gate.may_end.set)
            raise error

        with pytest.raises(type(error)):
            await work_through(chunks(), gate)
        assert gate.done

    run(broken())


@pytest.mark.parametrize("chunks", [(FULL, BAD, FULL, FULL), (FULL, BAD), (FULL, b"bad")])
def test_an_error_of_the_work_ends_it(run: Run, chunks: tuple[bytes, ...]) -> None:
    seen: list[bytes] = []

    def work(chunk: bytes) -> None:
        seen.append(chunk)
        if chunk.startswith(b"bad"):
            raise KeyError("bad")

    with pytest.raises(KeyError):
        run(work_through(pieces(*chunks), work))
    assert seen == list(chunks[:2])


def test_chunks_are_worked_on_in_order_while_the_next_one_comes(run: Run) -> None:
    seen: list[str] = []

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(3):
            seen.append(f"come {at}")
            yield bytes([at]) * CHUNK_BYTES

    run(work_through(chunks(), lambda chunk: seen.append(f"done {chunk[0]}")))
    assert [each for each in seen if each.startswith("done")] == ["done 0", "done 1", "done 2"]
    assert seen.index("come 1") < seen.index("done 0")


def test_small_chunks_are_put_together(run: Run) -> None:
    data = bytes(range(256)) * (CHUNK_BYTES * 5 // 2 // 256)
    for size in (1000, 64 << 10, CHUNK_BYTES, len(data)):
        seen: list[bytes] = []
        run(work_through(pieces(*(data[at : at + size] for at in range(0, len(data), size)), b""), seen.append))
        assert b"".join(seen) == data
        assert all(len(chunk) >= CHUNK_BYTES for chunk in seen[:-1])
        assert len(seen) == {len(data): 1}.get(size, 3)
    for nothing in ((), (b"",), (b"", b"")):
        seen = []
        run(work_through(pieces(*nothing), seen.append))
        assert seen == []
