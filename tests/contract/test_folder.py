"""Blobs in a folder keep the contract, and what was put is on stable storage."""

from __future__ import annotations

import os
import resource
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.blobs import SizeMismatch
from dreamlake_server.stores.folder import ABANDONED_SECONDS, FolderBlobs
from tests.contract.blobs import KEY, LARGE, BlobsSuite, pieces, put, read
from tests.contract.conftest import Run
from tests.waiting import wait_for

# Puts half a part into a folder, and waits to be killed.
HALF_A_PART = """
    import asyncio, sys
    from pathlib import Path
    from dreamlake_server.stores.folder import FolderBlobs

    async def half():
        yield bytes(3 << 20)
        yield bytes(3 << 20)
        await asyncio.Event().wait()

    async def main():
        blobs = FolderBlobs(Path(sys.argv[1]))
        await blobs.open()
        await blobs.put(sys.argv[2], 1, 12 << 20, half())

    asyncio.run(main())
"""


@pytest.fixture
def blobs(run: Run, tmp_path: Path) -> Iterator[FolderBlobs]:
    store = FolderBlobs(tmp_path / "new" / "blobs")
    run(store.open())
    yield store
    run(store.close())
    assert incoming(store) == []


def incoming(blobs: FolderBlobs) -> list[Path]:
    return list((blobs.root / ".dreamlake" / "incoming").iterdir())


class TestFolderBlobs(BlobsSuite):
    pass


def test_a_part_is_durable_before_it_has_its_name_and_both_before_put_returns(
    run: Run, blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        seen.append(("fsync", "part" if "incoming" in path else os.path.relpath(path, blobs.root)))
        fsync(fd)

    def watched_rename(source: Any, target: Any) -> None:
        seen.append(("rename", os.path.relpath(target, blobs.root)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    folders = [("fsync", KEY), ("fsync", "alice"), ("fsync", ".")]
    for _ in range(2):  # also when the folders were there: whoever made them may not have come so far
        seen.clear()
        run(put(blobs, LARGE, 3))
        assert seen == [("fsync", "part"), ("rename", f"{KEY}/00003"), *folders]
    seen.clear()
    assert run(blobs.parts(KEY)) == {3: len(LARGE)}
    assert seen == folders  # whoever put it may have died right after the move


def test_nobody_else_may_look(run: Run, blobs: FolderBlobs) -> None:
    run(put(blobs, LARGE))
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (blobs.root, *blobs.root.rglob("*"))}
    assert len(modes) == 6
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_what_did_not_come_whole_leaves_nothing(run: Run, blobs: FolderBlobs) -> None:
    with pytest.raises(SizeMismatch):
        run(blobs.put(KEY, 1, 10, pieces(b"short")))
    with pytest.raises(KeyError):
        run(blobs.put(KEY, 1, 10, pieces(b"short", then=KeyError("mine"))))
    assert incoming(blobs) == []
    assert not (blobs.root / "alice").exists()


def test_a_writer_that_is_killed_leaves_what_is_cleared_a_day_later(
    run: Run, blobs: FolderBlobs, start_script: Any
) -> None:
    run(put(blobs, b"before"))
    writer = start_script(HALF_A_PART, blobs.root, KEY)
    # The last chunk is held back until it is known to be the last.
    wait_for(lambda: [path.stat().st_size for path in incoming(blobs)] == [3 << 20])
    writer.kill()
    writer.wait()
    assert run(blobs.parts(KEY)) == {1: 6}
    (left,) = incoming(blobs)

    another = FolderBlobs(blobs.root)
    run(another.open())
    assert incoming(blobs) == [left]  # another server may still write to it
    long_ago = time.time() - ABANDONED_SECONDS - 60
    os.utime(left, (long_ago, long_ago))
    run(another.open())
    assert incoming(blobs) == []
    assert run(read(another, 1, 0, 6)) == b"before"


def test_a_full_disk(run: Run, blobs: FolderBlobs) -> None:
    """A limit on the size of files is as near as one comes to it without a disk of one's own."""
    run(put(blobs, b"before"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(StoreUnavailable, match=r"File too large: look at its disk"):
            run(put(blobs, LARGE))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run(blobs.parts(KEY)) == {1: 6}
    run(put(blobs, LARGE))
    assert run(blobs.parts(KEY)) == {1: len(LARGE)}


def test_a_folder_that_is_none(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot use the folder"):
        run(FolderBlobs(tmp_path / "file" / "blobs").open())


def test_a_folder_that_went_away(run: Run, tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    run(blobs.open())
    run(put(blobs, b"x"))
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="No such file"):
        run(blobs.ping())
    with pytest.raises(StoreUnavailable, match="No such file"):
        run(put(blobs, b"x"))
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    run(blobs.ping())
    assert run(read(blobs, 1, 0, 1)) == b"x"


def test_what_others_put_there_is_no_part(run: Run, blobs: FolderBlobs) -> None:
    run(put(blobs, b"x"))
    for name in ("1", "000001", "00001~", "notes.txt"):
        (blobs.root / KEY / name).write_text("")
    assert run(blobs.parts(KEY)) == {1: 1}


def test_a_part_is_read_to_its_end_after_it_was_dropped(run: Run, blobs: FolderBlobs) -> None:
    async def read_while_it_is_dropped() -> bytes:
        reading = blobs.read(KEY, 1, 0, len(LARGE))
        begun = await reading.__anext__()
        await blobs.drop(KEY)
        return begun + b"".join([chunk async for chunk in reading])

    run(put(blobs, LARGE))
    assert run(read_while_it_is_dropped()) == LARGE


def test_two_servers_on_one_folder(run: Run, blobs: FolderBlobs) -> None:
    """As much as two objects can be two servers: they share nothing but the folder."""
    another = FolderBlobs(blobs.root)
    run(another.open())
    run(put(another, b"theirs", 2))
    run(put(blobs, b"ours", 1))
    assert run(blobs.parts(KEY)) == run(another.parts(KEY)) == {1: 4, 2: 6}
    run(another.drop(KEY))
    assert run(blobs.parts(KEY)) == {}
