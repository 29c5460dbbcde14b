"""Bytes, as clients bring and fetch them: this came in, that is there. Parts are small here, so that a few bytes make
several of them."""

from __future__ import annotations

import asyncio
import hashlib
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest

from dreamlake_server import limits
from dreamlake_server.blobs import Incomplete, Layout, OwnedBlobs, TooLarge, Wanted, WrongBytes, part_bytes_of
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.blobs import Blobs, SizeMismatch, key_of
from dreamlake_server.stores.folder import FolderBlobs
from dreamlake_server.stores.memory import MemoryMeta
from dreamlake_server.stores.memory_blobs import MemoryBlobs
from dreamlake_server.stores.meta import Blob
from tests import scripts
from tests.contract.blobs import chunks, pieces
from tests.contract.conftest import Run

PART = 1000
PARTS = 8
NOW = "2026-01-01T00:00:00.000000Z"

# Uploads 256 MiB in every way and reads them back; prints by how many KiB the process grew meanwhile. VmHWM and not
# ru_maxrss: that one begins with what the parent had.
FLAT = """
    import asyncio, hashlib, re, sys
    from pathlib import Path
    from dreamlake_server.blobs import OwnedBlobs
    from dreamlake_server.stores.folder import FolderBlobs
    from dreamlake_server.stores.memory import MemoryMeta

    MIB = 1 << 20

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    async def made(first, count, byte):
        for at in range(first, first + count):
            yield at.to_bytes(8, "big") * (MIB // 8 - 1) + bytes([byte]) * 8

    async def upload(owned, count):
        digest = hashlib.sha256()
        async for chunk in made(0, count, 1):
            digest.update(chunk)
        sha256, size = digest.hexdigest(), count * MIB
        wanted = await owned.begin("alice", sha256, size)
        for number in wanted.missing:
            data = made((number - 1) * 32, wanted.layout.bytes_of(number) // MIB, 1)
            await owned.put_part("alice", sha256, size, number, data)
        await owned.complete("alice", sha256, size)
        stored = await owned.store("alice", made(0, count, 2), Path(sys.argv[1]) / "spool")
        for each in (sha256, stored[0]):
            async for chunk in await owned.read("alice", each):
                size -= len(chunk)
        assert size == -count * MIB

    async def main():
        blobs = FolderBlobs(Path(sys.argv[1]) / "blobs")
        await blobs.open()
        owned = OwnedBlobs(MemoryMeta(), blobs, lambda: "2026-01-01T00:00:00Z")
        await upload(owned, 8)
        before = peak()
        await upload(owned, 256)
        print(peak() - before)

    asyncio.run(main())
"""
GROWTH_KIB_MAX = 16 << 10


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES", PART)
    monkeypatch.setattr(limits, "PARTS", PARTS)


@pytest.fixture(params=["memory", "folder"])
def blobs(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Iterator[Blobs]:
    store: Blobs = MemoryBlobs() if request.param == "memory" else FolderBlobs(tmp_path / "blobs")
    run(store.open())
    yield store
    run(store.close())


@pytest.fixture
def meta() -> MemoryMeta:
    return MemoryMeta()


@pytest.fixture
def owned(meta: MemoryMeta, blobs: Blobs) -> OwnedBlobs:
    return OwnedBlobs(meta, blobs, lambda: NOW)


def made(size: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cut(data: bytes) -> dict[int, bytes]:
    layout = Layout(len(data), part_bytes_of(len(data)))
    return {n: data[(n - 1) * layout.part_bytes :][: layout.bytes_of(n)] for n in layout.numbers}


async def put(owned: OwnedBlobs, of: bytes, number: int, data: bytes | None = None, owner: str = "alice") -> None:
    """Put a part of some bytes; ``data`` when it is to be another one."""
    data = cut(of)[number] if data is None else data
    await owned.put_part(owner, sha(of), len(of), number, chunks(data, 300))


async def upload(owned: OwnedBlobs, data: bytes, owner: str = "alice") -> Blob:
    wanted = await owned.begin(owner, sha(data), len(data))
    if isinstance(wanted, Blob):
        return wanted
    for number in wanted.missing:
        await put(owned, data, number, owner=owner)
    return await owned.complete(owner, sha(data), len(data))


async def read(owned: OwnedBlobs, sha256: str, *span: int, owner: str = "alice") -> bytes:
    return b"".join([chunk async for chunk in await owned.read(owner, sha256, *span)])


async def is_unreadable(owned: OwnedBlobs, sha256: str, owner: str = "alice") -> bool:
    with pytest.raises(FileNotFoundError):
        await owned.read(owner, sha256)
    with pytest.raises(FileNotFoundError):
        await owned.urls(owner, sha256)
    return await owned.find(owner, sha256) is None


# ── the layout ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_parts_are_as_small_as_there_may_be_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    least, most = limits.PART_BYTES, limits.PARTS
    edges = {least * most << doubled for doubled in range(6)} | {0, least, limits.FILE_BYTES}
    for size in sorted({edge + off for edge in edges for off in (-1, 0, 1)} - {-1}):
        layout = Layout(size, part_bytes_of(size))
        assert 1 <= len(layout.numbers) <= most
        assert layout.part_bytes == least or layout.part_bytes // 2 * most < size
        last = layout.bytes_of(layout.numbers[-1])
        assert (len(layout.numbers) - 1) * layout.part_bytes + last == size
        assert 0 < last <= layout.part_bytes or size == 0


# ── an upload ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "size", [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1, PART * PARTS, PART * PARTS + 1]
)
def test_an_upload(run: Run, owned: OwnedBlobs, meta: MemoryMeta, size: int) -> None:
    data = made(size)
    wanted = run(owned.begin("alice", sha(data), size))
    part_bytes = 2 * PART if size > PART * PARTS else PART
    assert wanted == Wanted(Layout(size, part_bytes), there={}, urls={})
    assert wanted.missing == list(range(1, max(1, -(-size // part_bytes)) + 1))
    for number in reversed(wanted.missing):
        assert run(is_unreadable(owned, sha(data)))
        run(put(owned, data, number))
    again = run(owned.begin("alice", sha(data), size))
    assert (again.missing, again.there) == ([], {n: len(part) for n, part in cut(data).items()})
    assert run(is_unreadable(owned, sha(data)))

    blob = run(owned.complete("alice", sha(data), size))
    assert blob == Blob("alice", sha(data), size, part_bytes, NOW) == run(meta.blob("alice", sha(data)))
    assert run(read(owned, sha(data))) == data
    assert run(owned.begin("alice", sha(data), size)) == run(owned.find("alice", sha(data))) == blob
    assert run(owned.complete("alice", sha(data), size)) == blob
    assert run(owned.urls("alice", sha(data))) == {}


@pytest.mark.parametrize("how", ["cut off", "given up"])
def test_an_upload_that_died_in_the_middle_of_a_part_goes_on(
    run: Run, owned: OwnedBlobs, meta: MemoryMeta, blobs: Blobs, how: str
) -> None:
    data = made(3500)

    async def die() -> None:
        stuck = asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            yield cut(data)[3][:500]
            if how == "cut off":
                raise ConnectionResetError
            stuck.set()
            await asyncio.Event().wait()

        putting = asyncio.ensure_future(owned.put_part("alice", sha(data), len(data), 3, half()))
        await asyncio.wait({putting, asyncio.ensure_future(stuck.wait())}, return_when=asyncio.FIRST_COMPLETED)
        stuck.set()
        putting.cancel()
        with pytest.raises((ConnectionResetError, asyncio.CancelledError)):
            await putting

    run(put(owned, data, 1))
    run(put(owned, data, 4))
    run(die())
    another = OwnedBlobs(meta, blobs, lambda: NOW)  # no server remembers anything of an upload
    wanted = run(another.begin("alice", sha(data), len(data)))
    assert (wanted.there, wanted.missing) == ({1: 1000, 4: 500}, [2, 3])
    with pytest.raises(Incomplete, match="parts 2, 3") as raised:
        run(another.complete("alice", sha(data), len(data)))
    assert raised.value.missing == (2, 3)
    run(upload(another, data))
    assert run(read(owned, sha(data))) == data


def test_a_part_of_a_wrong_size_is_refused(run: Run, owned: OwnedBlobs) -> None:
    data = made(2500)
    for number, part in ((1, made(999)), (1, made(1001)), (3, made(1000)), (3, b"")):
        with pytest.raises(SizeMismatch):
            run(put(owned, data, number, part))
    for number in (0, 4, -1, 10**9):
        with pytest.raises(ValueError, match="parts 1 to 3"):
            run(put(owned, data, number, b"x"))
    assert run(owned.begin("alice", sha(data), len(data))).there == {}


def test_a_part_of_a_wrong_size_that_is_there_counts_as_missing(run: Run, owned: OwnedBlobs, blobs: Blobs) -> None:
    data = made(2500)
    for number in (1, 2, 3):
        run(put(owned, data, number))
    for number, size in ((1, 999), (2, 1001), (9, 1000)):
        run(blobs.put(key_of("alice", sha(data)), number, size, chunks(made(size))))
    assert run(owned.begin("alice", sha(data), len(data))).there == {3: 500}
    with pytest.raises(Incomplete, match="parts 1, 2"):
        run(owned.complete("alice", sha(data), len(data)))
    run(upload(owned, data))
    assert run(read(owned, sha(data))) == data


def test_many_missing_parts_are_not_all_named(run: Run, owned: OwnedBlobs) -> None:
    data = made(PART * PARTS)
    with pytest.raises(Incomplete, match=r"parts 1, 2, 3, 4, 5 and 3 more;") as raised:
        run(owned.complete("alice", sha(data), len(data)))
    assert raised.value.missing == tuple(range(1, PARTS + 1))


# ── wrong bytes ─────────────────────────────────────────────────────────────────────────────────────────────────────


def put_with_a_wrong_second(run: Run, owned: OwnedBlobs, data: bytes) -> None:
    for number in cut(data):
        run(put(owned, data, number, made(1000, seed=7) if number == 2 else None))


def test_wrong_bytes_are_never_stored(run: Run, owned: OwnedBlobs) -> None:
    data = made(3500)
    put_with_a_wrong_second(run, owned, data)
    with pytest.raises(WrongBytes, match="parts 1, 2, 3, 4 had to be dropped") as raised:
        run(owned.complete("alice", sha(data), len(data)))
    assert raised.value.parts == (1, 2, 3, 4)
    assert run(is_unreadable(owned, sha(data)))
    assert run(owned.begin("alice", sha(data), len(data))).there == {}
    run(upload(owned, data))
    assert run(read(owned, sha(data))) == data


def test_hashes_of_the_parts_tell_which_is_wrong(run: Run, owned: OwnedBlobs) -> None:
    data = made(3500)
    put_with_a_wrong_second(run, owned, data)
    hashes = [sha(part) for part in cut(data).values()]
    with pytest.raises(WrongBytes, match="part 2 had to be dropped") as raised:
        run(owned.complete("alice", sha(data), len(data), hashes))
    assert raised.value.parts == (2,)
    assert run(is_unreadable(owned, sha(data)))
    wanted = run(owned.begin("alice", sha(data), len(data)))
    assert (wanted.there, wanted.missing) == ({1: 1000, 3: 1000, 4: 500}, [2])
    with pytest.raises(Incomplete):
        run(owned.complete("alice", sha(data), len(data), hashes))
    run(put(owned, data, 2))
    assert run(owned.complete("alice", sha(data), len(data), hashes)).size == 3500
    assert run(read(owned, sha(data))) == data


def test_hashes_of_the_parts_that_tell_nothing(run: Run, owned: OwnedBlobs) -> None:
    data, other = made(3500), made(3500, seed=1)
    hashes = [sha(part) for part in cut(other).values()]
    for number, part in cut(other).items():
        run(put(owned, data, number, part))
    with pytest.raises(WrongBytes, match="parts 1, 2, 3, 4 had"):
        run(owned.complete("alice", sha(data), len(data), hashes))
    assert run(owned.begin("alice", sha(data), len(data))).there == {}


def test_the_empty_blob_under_a_wrong_hash(run: Run, owned: OwnedBlobs) -> None:
    wrong = sha(b"x")
    run(owned.put_part("alice", wrong, 0, 1, pieces()))
    with pytest.raises(WrongBytes, match="part 1 had"):
        run(owned.complete("alice", wrong, 0, [wrong]))
    assert run(owned.begin("alice", wrong, 0)).there == {}
    assert run(is_unreadable(owned, wrong))


def test_what_is_refused(run: Run, owned: OwnedBlobs) -> None:
    good = sha(b"x")
    for wrong in (
        "",
        "x",
        good[1:],
        good + "0",
        good.upper(),
        good[:-1] + "g",
        good + "\n",
        "../" + good[3:],
        "é" * 64,
    ):
        with pytest.raises(ValueError, match="SHA-256"):
            run(owned.begin("alice", wrong, 1))
        with pytest.raises(ValueError, match="SHA-256"):
            run(owned.put_part("alice", wrong, 1, 1, pieces(b"x")))
        for call in (owned.find, owned.read, owned.urls, owned.forget):
            with pytest.raises(ValueError, match="SHA-256"):
                run(call("alice", wrong))
        with pytest.raises(ValueError, match="SHA-256"):
            run(owned.complete("alice", good, 1, [wrong]))
    with pytest.raises(ValueError, match="-1 bytes"):
        run(owned.begin("alice", good, -1))
    with pytest.raises(TooLarge, match="FILE_BYTES"):
        run(owned.begin("alice", good, limits.FILE_BYTES + 1))
    assert isinstance(run(owned.begin("alice", good, limits.FILE_BYTES)), Wanted)
    with pytest.raises(ValueError, match="2 parts, not 1"):
        run(owned.complete("alice", good, PART + 1, [good]))
    for owner in ("", "..", "a\n", "alice\\"):
        with pytest.raises(ValueError, match=r"user|owner"):
            run(owned.begin(owner, good, 1))

    run(upload(owned, b"x"))
    for call in (owned.begin, owned.complete):
        with pytest.raises(ValueError, match="1 bytes, not 2"):
            run(call("alice", good, 2))


# ── more than one ───────────────────────────────────────────────────────────────────────────────────────────────────


class CountedBlobs(MemoryBlobs):
    """Remembers what was read, and waits with it while ``gate`` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads: list[int] = []

    async def read(self, key: str, number: int, start: int, end: int) -> AsyncGenerator[bytes, None]:
        self.reads.append(number)
        await self.gate.wait()
        async for chunk in super().read(key, number, start, end):
            yield chunk


def test_two_uploaders_of_one_blob_at_once(run: Run, owned: OwnedBlobs) -> None:
    data = made(5500)

    async def both() -> list[Blob]:
        return await asyncio.gather(*(upload(owned, data) for _ in range(2)))

    assert run(both()) == [Blob("alice", sha(data), 5500, PART, NOW)] * 2
    assert run(read(owned, sha(data))) == data


def test_every_part_is_read_once_however_often_it_is_completed(run: Run, meta: MemoryMeta) -> None:
    data, blobs = made(3500), CountedBlobs()
    owned = OwnedBlobs(meta, blobs, lambda: NOW)

    async def all_at_once() -> list[Blob]:
        return await asyncio.gather(*(owned.complete("alice", sha(data), len(data)) for _ in range(5)))

    for number in cut(data):
        run(put(owned, data, number))
    assert len(set(run(all_at_once()))) == 1
    assert blobs.reads == [1, 2, 3, 4]


def test_a_part_for_a_stored_blob_is_not_taken(run: Run, owned: OwnedBlobs) -> None:
    data = made(2500)

    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("nobody asks for these")
        yield b""

    run(upload(owned, data))
    run(owned.put_part("alice", sha(data), len(data), 2, untouched()))
    assert run(read(owned, sha(data))) == data


def test_a_wrong_part_that_comes_late_changes_nothing(run: Run, owned: OwnedBlobs) -> None:
    """Its uploader began before the blob was complete, and his file changes under him."""
    data = made(2500)

    async def late() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield made(500, seed=9)
            begun.set()
            await go_on.wait()
            yield made(500, seed=9)

        putting = asyncio.ensure_future(owned.put_part("alice", sha(data), len(data), 2, slowly()))
        await begun.wait()
        await upload(owned, data)  # nor is this held up by one who is stuck
        go_on.set()
        await putting

    run(late())
    assert run(read(owned, sha(data))) == data


def test_a_wrong_part_that_comes_while_the_blob_is_verified_changes_nothing(run: Run, meta: MemoryMeta) -> None:
    data, blobs = made(2500), CountedBlobs()
    owned = OwnedBlobs(meta, blobs, lambda: NOW)

    async def meanwhile() -> None:
        blobs.gate.clear()
        completing = asyncio.ensure_future(owned.complete("alice", sha(data), len(data)))
        while not blobs.reads:
            await asyncio.sleep(0)
        putting = asyncio.ensure_future(put(owned, data, 1, made(1000, seed=9)))
        for _ in range(100):  # turns of the loop, of which it needs a few
            await asyncio.sleep(0)
        assert not putting.done()
        blobs.gate.set()
        await asyncio.gather(completing, putting)

    for number in cut(data):
        run(put(owned, data, number))
    run(meanwhile())
    assert run(read(owned, sha(data))) == data


def test_a_hash_opens_nothing_of_another_owner(run: Run, owned: OwnedBlobs) -> None:
    data = made(2500)
    run(upload(owned, data))
    wanted = run(owned.begin("bob", sha(data), len(data)))
    assert (wanted.there, wanted.missing) == ({}, [1, 2, 3])
    assert run(is_unreadable(owned, sha(data), "bob"))
    with pytest.raises(Incomplete):
        run(owned.complete("bob", sha(data), len(data)))
    # Nor does he learn that there is something to compare with.
    assert isinstance(run(owned.begin("bob", sha(data), 7)), Wanted)
    run(put(owned, data, 1, made(1000, seed=3), owner="bob"))
    run(owned.forget("bob", sha(data)))
    assert run(read(owned, sha(data))) == data
    run(upload(owned, data, "bob"))
    run(owned.forget("alice", sha(data)))
    assert run(read(owned, sha(data), owner="bob")) == data


# ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ranges(run: Run, owned: OwnedBlobs) -> None:
    data = made(3500)
    run(upload(owned, data))
    edges = (0, 1, 999, 1000, 1001, 2000, 3499, 3500)
    for start in edges:
        assert run(read(owned, sha(data), start)) == data[start:]
        for end in edges:
            if start <= end:
                assert run(read(owned, sha(data), start, end)) == data[start:end]
            else:
                with pytest.raises(ValueError, match="there are no bytes"):
                    run(owned.read("alice", sha(data), start, end))
    for span in ((-1, 5), (0, 3501), (3501, 3501)):
        with pytest.raises(ValueError, match="there are no bytes"):
            run(owned.read("alice", sha(data), *span))


def test_a_reader_may_stop_early(run: Run, owned: OwnedBlobs) -> None:
    async def look() -> bytes:
        reading = await owned.read("alice", sha(data))
        begun = await reading.__anext__()
        await reading.aclose()
        return begun

    data = made(3500)
    run(upload(owned, data))
    assert run(look()) == data[:1000]


def test_a_part_that_was_lost_is_no_short_file(run: Run, owned: OwnedBlobs, blobs: Blobs) -> None:
    data = made(3500)
    run(upload(owned, data))
    run(blobs.put(key_of("alice", sha(data)), 3, 10, chunks(made(10))))
    with pytest.raises(StoreUnavailable, match="is gone"):
        run(read(owned, sha(data)))
    run(blobs.drop(key_of("alice", sha(data))))
    with pytest.raises(StoreUnavailable, match="is gone"):
        run(read(owned, sha(data)))


def test_forgotten(run: Run, owned: OwnedBlobs, blobs: Blobs) -> None:
    stored, half = made(2500), made(2500, seed=1)
    run(upload(owned, stored))
    run(put(owned, half, 2))
    for data in (stored, half):
        for _ in range(2):
            run(owned.forget("alice", sha(data)))
            assert run(blobs.parts(key_of("alice", sha(data)))) == {}
            assert run(is_unreadable(owned, sha(data)))
    run(upload(owned, stored))
    assert run(read(owned, sha(stored))) == stored


def test_a_meta_that_is_away_when_all_is_verified(run: Run, blobs: Blobs) -> None:
    class Away(MemoryMeta):
        away = True

        async def put_blob(self, blob: Blob) -> None:
            if self.away:
                raise StoreUnavailable("away")
            await super().put_blob(blob)

    meta, data = Away(), made(2500)
    owned = OwnedBlobs(meta, blobs, lambda: NOW)
    with pytest.raises(StoreUnavailable, match="away"):
        run(upload(owned, data))
    assert run(is_unreadable(owned, sha(data)))
    meta.away = False
    run(owned.complete("alice", sha(data), len(data)))
    assert run(read(owned, sha(data))) == data


# ── bytes whose hash nobody knows ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 2 * PART, PART * PARTS + 1])
def test_stored_without_a_hash(run: Run, owned: OwnedBlobs, tmp_path: Path, size: int) -> None:
    data, spool = made(size), tmp_path / "spool"
    seen: list[list[Path]] = []

    async def watched() -> AsyncIterator[bytes]:
        async for chunk in chunks(data, 300):
            yield chunk
            seen.append(list(spool.iterdir()))

    for _ in range(2):
        assert run(owned.store("alice", watched(), spool)) == (sha(data), size)
        assert run(read(owned, sha(data))) == data
    assert not any(seen)  # a file without a name: no death leaves it behind
    assert list(spool.iterdir()) == []


def test_what_is_not_whole_is_not_stored(run: Run, owned: OwnedBlobs, tmp_path: Path) -> None:
    for error in (KeyError("mine"), ConnectionResetError("gone")):
        with pytest.raises(type(error)) as raised:
            run(owned.store("alice", pieces(made(500), made(700), then=error), tmp_path / "spool"))
        assert raised.value is error
    assert run(is_unreadable(owned, sha(made(500) + made(700))))
    assert list((tmp_path / "spool").iterdir()) == []


def test_too_much_is_refused_as_soon_as_it_has_come(
    run: Run, owned: OwnedBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILE_BYTES", 1000)
    come: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            come.append(300)
            yield made(300)

    with pytest.raises(TooLarge, match="FILE_BYTES"):
        run(owned.store("alice", endless(), tmp_path))
    assert sum(come) == 1200
    assert run(owned.store("alice", chunks(made(1000)), tmp_path)) == (sha(made(1000)), 1000)


def test_a_full_disk_under_the_spool(run: Run, owned: OwnedBlobs, tmp_path: Path) -> None:
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most[1]))
    try:
        with pytest.raises(StoreUnavailable, match=r"cannot keep an upload in .*File too large"):
            run(owned.store("alice", chunks(made(1500), 300), tmp_path / "spool"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot keep an upload in"):
        run(owned.store("alice", chunks(made(1500), 300), tmp_path / "file"))


def test_memory_stays_flat(tmp_path: Path) -> None:
    done = scripts.run(FLAT, tmp_path)
    assert int(done.stdout) < GROWTH_KIB_MAX
