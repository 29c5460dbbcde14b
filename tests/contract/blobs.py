"""What every store of blobs must do. Subclass :class:`BlobsSuite` in a test file and give it a fixture ``blobs``: a
store, opened and empty, used and closed in the loop of the fixture ``run``.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from dreamlake_server.stores.blobs import Blobs, SizeMismatch, key_of
from tests.contract.conftest import Run

SHA = "ab" * 32
KEY = key_of("alice", SHA)
CHUNK_BYTES = 64 << 10  # as a web server hands them on
READ_BYTES_MAX = 4 << 20
LARGE = bytes(range(251)) * 20_001  # 5 MB, and no two places of it alike for long
ONE_PAGE = 1000  # of a listing of S3

OWNERS = ("alice", "ALICE", "alice ", "a.b", ".hidden", "-", "~", "a/b", "a%2Fb", "a%b", "100%", "a+b", "a b?c#d&e=f")
OWNERS += ('"', "'", "[x]*?", "$HOME", "a:b", "ü", "日本", "👩‍🔬", "ab" * 127)

ELSEWHERE = (
    "",
    "a",
    "a/",
    "/a",
    "a/b/c",
    "/a/b",
    "a/b/",
    "../a",
    "a/..",
    "./a",
    "a/.",
    "a/\0",
    "a\n/b",
    "\x7f/b",
    ".dreamlake/incoming",
)


async def chunks(data: bytes, size: int = CHUNK_BYTES) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def pieces(*data: bytes, then: BaseException | None = None) -> AsyncIterator[bytes]:
    for each in data:
        await asyncio.sleep(0)
        yield each
    if then is not None:
        raise then


async def put(blobs: Blobs, data: bytes, number: int = 1, key: str = KEY) -> None:
    await blobs.put(key, number, len(data), chunks(data))


async def read(blobs: Blobs, number: int, start: int, end: int, key: str = KEY) -> bytes:
    found = [chunk async for chunk in blobs.read(key, number, start, end)]
    assert all(type(chunk) is bytes and 0 < len(chunk) <= READ_BYTES_MAX for chunk in found)
    return b"".join(found)


async def together(*work: Awaitable[object]) -> list[object]:
    return list(await asyncio.gather(*work))


class BlobsSuite:
    racers = 20

    def test_it_says_what_it_is_and_can_be_written(self, run: Run, blobs: Blobs) -> None:
        assert blobs.kind in ("memory", "folder", "s3")
        assert blobs.direct == (blobs.kind == "s3")
        run(blobs.ping())
        assert run(blobs.parts(KEY)) == {}

    def test_a_part_comes_back(self, run: Run, blobs: Blobs) -> None:
        run(put(blobs, b"hello"))
        assert run(blobs.parts(KEY)) == {1: 5}
        assert run(read(blobs, 1, 0, 5)) == b"hello"

    def test_a_large_part_comes_back(self, run: Run, blobs: Blobs) -> None:
        run(put(blobs, LARGE, 7))
        assert run(blobs.parts(KEY)) == {7: len(LARGE)}
        assert run(read(blobs, 7, 0, len(LARGE))) == LARGE

    @pytest.mark.parametrize("size", [1, 3, CHUNK_BYTES + 1, len(LARGE)])
    def test_chunks_of_any_size(self, run: Run, blobs: Blobs, size: int) -> None:
        data = LARGE if size > 3 else LARGE[:1000]
        run(blobs.put(KEY, 1, len(data), chunks(data, size)))
        assert run(read(blobs, 1, 0, len(data))) == data

    def test_chunks_of_nothing_are_nothing(self, run: Run, blobs: Blobs) -> None:
        run(blobs.put(KEY, 1, 4, pieces(b"", b"ab", b"", b"", b"cd", b"")))
        assert run(read(blobs, 1, 0, 4)) == b"abcd"

    def test_an_empty_part(self, run: Run, blobs: Blobs) -> None:
        run(put(blobs, b""))
        assert run(blobs.parts(KEY)) == {1: 0}
        assert run(read(blobs, 1, 0, 0)) == b""

    def test_ranges(self, run: Run, blobs: Blobs) -> None:
        run(put(blobs, LARGE))
        edges = (0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, len(LARGE) - 1, len(LARGE))
        for start, end in itertools.combinations_with_replacement(edges, 2):
            assert run(read(blobs, 1, start, end)) == LARGE[start:end]

    def test_what_is_not_there_cannot_be_read(self, run: Run, blobs: Blobs) -> None:
        run(put(blobs, b"hello"))
        for number, start, end in ((2, 0, 1), (2, 0, 0), (1, 0, 6), (1, 4, 6), (1, 5, 6), (1, 9, 12), (1, 6, 6)):
            with pytest.raises(FileNotFoundError):
                run(read(blobs, number, start, end))
        with pytest.raises(FileNotFoundError):
            run(read(blobs, 1, 0, 5, key_of("bob", SHA)))

    def test_a_part_is_replaced(self, run: Run, blobs: Blobs) -> None:
        for data in (b"first", LARGE, b"", LARGE[::-1], b"last"):
            run(put(blobs, data))
            assert run(blobs.parts(KEY)) == {1: len(data)}
            assert run(read(blobs, 1, 0, len(data))) == data

    def test_part_numbers(self, run: Run, blobs: Blobs) -> None:
        numbers = (0, 1, 9, 10, 9_999, 10_000, 99_999)
        for number in numbers:
            run(put(blobs, str(number).encode(), number))
        assert run(blobs.parts(KEY)) == {number: len(str(number)) for number in numbers}
        for number in numbers:
            assert run(read(blobs, number, 0, len(str(number)))) == str(number).encode()
        for number in (-1, 100_000):
            with pytest.raises(ValueError, match="number"):
                run(put(blobs, b"x", number))

    def test_more_parts_than_a_page_has(self, run: Run, blobs: Blobs) -> None:
        count = ONE_PAGE + 5
        for first in range(1, count + 1, 50):
            run(together(*(put(blobs, b"x", number) for number in range(first, min(first + 50, count + 1)))))
        assert run(blobs.parts(KEY)) == dict.fromkeys(range(1, count + 1), 1)
        run(blobs.drop(KEY))
        assert run(blobs.parts(KEY)) == {}

    # ── what does not come whole ────────────────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("before", [None, b"what was there before"], ids=["new", "again"])
    @pytest.mark.parametrize("data", [b"a few", LARGE], ids=["small", "large"])
    def test_a_part_of_a_wrong_size_is_not_stored(
        self, run: Run, blobs: Blobs, data: bytes, before: bytes | None
    ) -> None:
        if before is not None:
            run(put(blobs, before))
        half = len(data) // 2
        wrong = (
            (len(data) + 1, [data]),
            (len(data) - 1, [data]),
            (len(data), [data, b"x"]),
            (len(data), [data[:half], data[half:], b"", b"x"]),
            (len(data), [data[:half]]),
            (len(data), []),
            (0, [b"x"]),
        )
        for size, come in wrong:
            with pytest.raises(SizeMismatch):
                run(blobs.put(KEY, 1, size, pieces(*come)))
            self.is_as_before(run, blobs, before)

    @pytest.mark.parametrize("before", [None, b"what was there before"], ids=["new", "again"])
    @pytest.mark.parametrize("error", [KeyError("mine"), ConnectionResetError("gone"), FileNotFoundError("mine")])
    @pytest.mark.parametrize("data", [b"a few", LARGE], ids=["small", "large"])
    def test_what_the_data_raise_goes_through(
        self, run: Run, blobs: Blobs, data: bytes, error: Exception, before: bytes | None
    ) -> None:
        if before is not None:
            run(put(blobs, before))
        half = len(data) // 2
        for come in ([], [data[:half]], [data], [data[:half], data[half:]]):
            with pytest.raises(type(error)) as raised:
                run(blobs.put(KEY, 1, len(data), pieces(*come, then=error)))
            assert raised.value is error
            self.is_as_before(run, blobs, before)

    @pytest.mark.parametrize("data", [b"a few", LARGE], ids=["small", "large"])
    def test_a_part_that_is_given_up_is_not_stored(self, run: Run, blobs: Blobs, data: bytes) -> None:
        async def give_up(come: bytes) -> None:
            stuck = asyncio.Event()

            async def until_stuck() -> AsyncIterator[bytes]:
                async for chunk in chunks(come):
                    yield chunk
                stuck.set()
                await asyncio.Event().wait()

            putting = asyncio.ensure_future(blobs.put(KEY, 1, len(data), until_stuck()))
            await stuck.wait()
            putting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await putting

        for come in (b"", data[: len(data) // 2], data):
            run(give_up(come))
            self.is_as_before(run, blobs, None)
        run(put(blobs, data))
        assert run(read(blobs, 1, 0, len(data))) == data

    def is_as_before(self, run: Run, blobs: Blobs, before: bytes | None) -> None:
        if before is None:
            assert run(blobs.parts(KEY)) == {}
        else:
            assert run(blobs.parts(KEY)) == {1: len(before)}
            assert run(read(blobs, 1, 0, len(before))) == before

    # ── more than one ───────────────────────────────────────────────────────────────────────────────────────────────

    def test_parts_put_at_once(self, run: Run, blobs: Blobs) -> None:
        parts = {number: LARGE[number:] for number in range(1, 7)}
        run(together(*(put(blobs, data, number) for number, data in parts.items())))
        assert run(blobs.parts(KEY)) == {number: len(data) for number, data in parts.items()}
        for number, data in parts.items():
            assert run(read(blobs, number, 0, len(data))) == data

    def test_of_two_that_put_a_part_at_once_one_is_whole(self, run: Run, blobs: Blobs) -> None:
        versions = (LARGE, LARGE[::-1], LARGE[1:] + b"x")
        run(together(*(put(blobs, data) for data in versions * 2)))
        assert run(blobs.parts(KEY)) == {1: len(LARGE)}
        assert run(read(blobs, 1, 0, len(LARGE))) in versions

    def test_a_reader_gets_the_old_part_or_the_new_one(self, run: Run, blobs: Blobs) -> None:
        async def read_while_it_is_replaced() -> bytes:
            reading = blobs.read(KEY, 1, 0, len(LARGE))
            begun = await reading.__anext__()
            await put(blobs, LARGE)
            return begun + b"".join([chunk async for chunk in reading])

        run(put(blobs, LARGE))
        assert run(read_while_it_is_replaced()) == LARGE

    def test_a_reader_may_stop_early(self, run: Run, blobs: Blobs) -> None:
        async def look() -> bytes:
            reading = blobs.read(KEY, 1, 0, len(LARGE))
            begun = await reading.__anext__()
            await reading.aclose()  # type: ignore[attr-defined]
            return begun

        run(put(blobs, LARGE))
        begun = run(look())
        assert begun == LARGE[: len(begun)]

    def test_dropped(self, run: Run, blobs: Blobs) -> None:
        others = [key_of("alice", "ab" * 31 + "ac"), key_of("alice2", SHA), key_of("alic", SHA)]
        for key in (KEY, *others):
            run(together(*(put(blobs, b"x", number, key) for number in (1, 2, 3))))
        run(blobs.drop(KEY))
        assert run(blobs.parts(KEY)) == {}
        with pytest.raises(FileNotFoundError):
            run(read(blobs, 1, 0, 1))
        for key in others:
            assert run(blobs.parts(key)) == {1: 1, 2: 1, 3: 1}
        run(blobs.drop(KEY))
        run(put(blobs, b"again", 2))
        assert run(blobs.parts(KEY)) == {2: 5}

    def test_dropped_while_it_is_put(self, run: Run, blobs: Blobs) -> None:
        async def both() -> None:
            await together(
                *(put(blobs, b"x", number) for number in range(self.racers)),
                *(blobs.drop(KEY) for _ in range(self.racers)),
            )

        run(both())
        run(blobs.drop(KEY))
        assert run(blobs.parts(KEY)) == {}

    # ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def test_owners_by_any_name(self, run: Run, blobs: Blobs) -> None:
        for at, owner in enumerate(OWNERS):
            run(put(blobs, owner.encode(), at, key_of(owner, SHA)))
        for at, owner in enumerate(OWNERS):
            data, key = owner.encode(), key_of(owner, SHA)
            assert run(blobs.parts(key)) == {at: len(data)}
            assert run(read(blobs, at, 0, len(data), key)) == data
        run(blobs.drop(key_of(OWNERS[0], SHA)))
        left = [run(blobs.parts(key_of(owner, SHA))) for owner in OWNERS]
        assert left == [{}, *({at: len(owner.encode())} for at, owner in enumerate(OWNERS) if at)]

    @pytest.mark.parametrize("key", ELSEWHERE)
    def test_a_key_that_leads_elsewhere_is_refused(self, run: Run, blobs: Blobs, key: str) -> None:
        calls: tuple[Callable[[], Coroutine[Any, Any, object]], ...] = (
            lambda: put(blobs, b"x", 1, key),
            lambda: read(blobs, 1, 0, 1, key),
            lambda: blobs.parts(key),
            lambda: blobs.drop(key),
        )
        for call in calls:
            with pytest.raises(ValueError, match="no key"):
                run(call())
