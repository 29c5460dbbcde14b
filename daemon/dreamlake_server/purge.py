"""Purge: deleted sessions are forgotten after a time, with the bytes that nothing else refers to."""

from __future__ import annotations

from dreamlake_server.stores.blobs import Blobs, key_of
from dreamlake_server.stores.meta import Meta

_AT_ONCE = 100


async def purge(meta: Meta, blobs: Blobs, before: str) -> int:
    """Forget every session that was deleted before that time; returns how many. A death in between leaves the rest for
    the next purge.

    Of a blob the record goes first: whoever asks for it again in that moment sends it again.
    """
    count = 0
    while sessions := await meta.deleted_sessions(before, _AT_ONCE):
        for session in sessions:
            for sha256 in await meta.blobs_only_of(session.owner, session.id):
                await meta.drop_blob(session.owner, sha256)
                await blobs.drop(key_of(session.owner, sha256))
            await meta.purge_session(session.owner, session.id)
            count += 1
    return count
