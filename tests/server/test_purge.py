"""Deleted sessions are purged with the bytes that nothing else refers to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG
from dreamlake_server.blobs import OwnedBlobs
from dreamlake_server.purge import purge
from dreamlake_server.push import push
from dreamlake_server.records import Batch
from dreamlake_server.stores.memory import MemoryMeta
from dreamlake_server.stores.memory_blobs import MemoryBlobs
from dreamlake_server.stores.meta import Session

Run = Callable[[Coroutine[Any, Any, Any]], Any]
NOW = "2026-01-05T00:00:00.000000Z"
DATA = b"weights"
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def run() -> Iterator[Run]:
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


class World:
    """Alice's sessions, and one blob of hers."""

    def __init__(self, run: Run) -> None:
        self.run, self.meta, self.blobs = run, MemoryMeta(), MemoryBlobs()
        run(self.meta.open())
        run(self.blobs.open())
        self.owned = OwnedBlobs(self.meta, self.blobs, lambda: NOW)

        async def data() -> AsyncIterator[bytes]:
            yield DATA

        async def upload() -> None:
            await self.owned.put_part("alice", SHA256, len(DATA), 1, data())
            await self.owned.complete("alice", SHA256, len(DATA))

        run(upload())

    def session(self, name: str) -> Session:
        return self.run(self.meta.make_session("alice", "project", name, name.ljust(24, "0"), NOW))  # type: ignore[no-any-return]

    async def refer(self, session: Session) -> None:
        row = b'{"op":"hashed","time":"%b","id":"f","checksum":"%b"}' % (NOW.encode(), SHA256.encode())
        await push(self.meta, session, "a" * 32, {FILES_LOG: Batch(0, Mark(), [row])})

    def delete(self, session: Session, when: str) -> None:
        assert self.run(self.meta.mark_deleted("alice", session.id, when))

    def has_the_bytes(self) -> bool:
        blob, parts = self.run(self.owned.find("alice", SHA256)), self.run(self.blobs.parts(f"alice/{SHA256}"))
        assert (blob is None) == (parts == {}), "half of it is there"
        return blob is not None


@pytest.fixture
def world(run: Run) -> World:
    return World(run)


def test_what_was_deleted_before_goes_with_its_bytes(world: World) -> None:
    session = world.session("run")
    world.run(world.refer(session))
    world.delete(session, "2026-01-01T00:00:00.000000Z")
    assert world.run(purge(world.meta, world.owned, "2026-01-01T00:00:00.000000Z")) == 0
    assert world.has_the_bytes()
    assert world.run(purge(world.meta, world.owned, "2026-01-02T00:00:00.000000Z")) == 1
    assert not world.has_the_bytes()
    assert world.run(world.meta.session("alice", session.id)) is None
    assert world.session("run").deleted is None, "its name is not free again"


def test_bytes_that_another_session_has_stay(world: World) -> None:
    session, other = world.session("run"), world.session("other")
    world.run(world.refer(session))
    world.run(world.refer(other))
    world.delete(session, "2026-01-01T00:00:00.000000Z")
    assert world.run(purge(world.meta, world.owned, NOW)) == 1
    assert world.has_the_bytes()


@pytest.mark.parametrize("moment", ["before the blob is dropped", "after it"])
def test_a_push_in_the_middle_keeps_the_bytes_or_hears_that_they_are_lacking(
    world: World, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes its reference and then looks for the blob; the purge drops the blob and then looks for references."""
    session, other = world.session("run"), world.session("other")
    world.run(world.refer(session))
    world.delete(session, "2026-01-01T00:00:00.000000Z")
    name = "drop_blob" if moment.startswith("before") else "blobs_only_of"
    shipped = getattr(world.meta, name)
    calls = 0

    async def in_between(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        found = None if name == "drop_blob" else await shipped(*given)
        if calls == (1 if name == "drop_blob" else 2):
            await world.refer(other)
        return await shipped(*given) if name == "drop_blob" else found

    monkeypatch.setattr(world.meta, name, in_between)
    world.run(purge(world.meta, world.owned, NOW))
    monkeypatch.undo()
    lacking = not world.run(world.meta.blobs("alice", [SHA256]))
    assert lacking == (not world.has_the_bytes())
    assert lacking == (moment == "after it")
