"""Purge: deleted sessions are forgotten after a time, with the bytes that nothing else refers to."""

from __future__ import annotations

from dreamlake_server.blobs import OwnedBlobs
from dreamlake_server.stores.meta import Meta

_AT_ONCE = 100


async def purge(meta: Meta, owned: OwnedBlobs, before: str) -> int:
    """Forget every session that was deleted before that time; returns how many. A death in between leaves the rest for
    the next purge."""
    count = 0
    while sessions := await meta.deleted_sessions(before, _AT_ONCE):
        for session in sessions:
            if not await meta.begin_purge(session.owner, session.id):
                continue  # it was taken back meanwhile
            for sha256 in await meta.blobs_only_of(session.owner, session.id):
                await owned.forget(session.owner, sha256, only_of=session.id)
            await meta.purge_session(session.owner, session.id)
            count += 1
    return count
