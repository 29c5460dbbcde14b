"""Meta and Tokens in this process's memory: for a look without a disk, and for tests. Nothing outlives the process.

No method waits for anything, so each is one step for everybody else.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dreamlake_server.stores.meta import Append, Blob, Head, Segment, Session
from dreamlake_server.stores.tokens import Token

_NONE = Head()


@dataclass(frozen=True)
class _Log:
    head: Head = _NONE
    segments: tuple[Segment, ...] = ()  # by first


@dataclass
class _Kept:
    """A session and all that is its own."""

    session: Session
    logs: dict[tuple[str, str], _Log] = field(default_factory=dict)  # (origin, log) → its records
    blobs: set[str] = field(default_factory=set)  # SHA-256 of what it refers to
    purging: bool = False

    def copy(self) -> Session:
        """What may be handed out: summaries can be changed by whoever has them."""
        return copy.deepcopy(self.session)


class MemoryMeta:
    kind = "memory"

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}  # by session id
        self._names: dict[tuple[str, str, str], str] = {}  # (owner, workspace, name) → session id
        self._blobs: dict[tuple[str, str], Blob] = {}  # by (owner, SHA-256)

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    def _of(self, owner: str, session_id: str) -> _Kept | None:
        kept = self._kept.get(session_id)
        return kept if kept and kept.session.owner == owner else None

    # sessions

    async def make_session(self, owner: str, workspace: str, name: str, session_id: str, created: str) -> Session:
        key = owner, workspace, name
        if key not in self._names:
            self._names[key] = session_id
            self._kept[session_id] = _Kept(Session(session_id, owner, workspace, name, created))
        return self._kept[self._names[key]].copy()

    async def find_session(self, owner: str, workspace: str, name: str) -> Session | None:
        session_id = self._names.get((owner, workspace, name))
        return self._kept[session_id].copy() if session_id else None

    async def session(self, owner: str, session_id: str) -> Session | None:
        kept = self._of(owner, session_id)
        return kept.copy() if kept else None

    async def sessions(
        self, owner: str, workspace: str | None, after: tuple[str, str] | None, limit: int
    ) -> list[Session]:
        found = [
            kept
            for kept in self._kept.values()
            if kept.session.owner == owner
            and workspace in (None, kept.session.workspace)
            and kept.session.deleted is None
            and (after is None or (kept.session.created, kept.session.id) < after)
        ]
        found.sort(key=lambda kept: (kept.session.created, kept.session.id), reverse=True)
        return [kept.copy() for kept in found[:limit]]

    async def mark_deleted(self, owner: str, session_id: str, when: str | None) -> bool:
        kept = self._of(owner, session_id)
        if kept is None or kept.purging:
            return False
        kept.session = replace(kept.session, deleted=when)
        return True

    async def deleted_sessions(self, before: str, limit: int) -> list[Session]:
        found = [
            (kept.session.deleted, session_id)
            for session_id, kept in self._kept.items()
            if kept.session.deleted is not None and kept.session.deleted < before
        ]
        return [self._kept[session_id].copy() for _, session_id in sorted(found)[:limit]]

    async def begin_purge(self, owner: str, session_id: str) -> bool:
        kept = self._of(owner, session_id)
        if kept is None or kept.session.deleted is None:
            return False
        kept.purging = True
        return True

    async def purge_session(self, owner: str, session_id: str) -> None:
        kept = self._of(owner, session_id)
        if kept and kept.session.deleted is not None:
            del self._names[owner, kept.session.workspace, kept.session.name]
            del self._kept[session_id]

    # logs

    async def heads(
        self, session_id: str, *, origin: str | None = None, logs: Sequence[str] | None = None
    ) -> dict[tuple[str, str], Head]:
        kept = self._kept.get(session_id)
        wanted = None if logs is None else set(logs)
        return {
            key: log.head
            for key, log in (kept.logs if kept else {}).items()
            if log.head.count and origin in (None, key[0]) and (wanted is None or key[1] in wanted)
        }

    async def append(
        self,
        session_id: str,
        origin: str,
        appends: Sequence[Append],
        *,
        summary: dict[str, Any] | None = None,
        blobs: Sequence[str] = (),
    ) -> bool:
        kept = self._kept.get(session_id)
        if kept is None or kept.session.deleted is not None:
            return False
        changed: dict[tuple[str, str], _Log] = {}
        for each in appends:
            key = origin, each.log
            log = changed.get(key) or kept.logs.get(key) or _Log()
            if log.head != each.before:
                return False
            changed[key] = _Log(each.after, _joined(log.segments, each.segments))
        kept.logs.update(changed)
        kept.blobs.update(blobs)
        if summary is not None:
            origins = {**kept.session.origins, origin: copy.deepcopy(summary)}
            kept.session = replace(kept.session, origins=origins)
        return True

    async def segments(self, session_id: str, origin: str, log: str, first: int, limit: int) -> list[Segment]:
        kept = self._kept.get(session_id)
        found = kept.logs.get((origin, log), _Log()).segments if kept else ()
        at = bisect_right(found, first, key=_first)
        if at and found[at - 1].first + found[at - 1].count > first:
            at -= 1
        return list(found[at : at + limit])

    # blobs

    async def blob(self, owner: str, sha256: str) -> Blob | None:
        return self._blobs.get((owner, sha256))

    async def blobs(self, owner: str, sha256s: Sequence[str]) -> dict[str, Blob]:
        return {sha256: self._blobs[owner, sha256] for sha256 in sha256s if (owner, sha256) in self._blobs}

    async def put_blob(self, blob: Blob) -> None:
        self._blobs.setdefault((blob.owner, blob.sha256), blob)

    async def drop_blob(self, owner: str, sha256: str) -> None:
        self._blobs.pop((owner, sha256), None)

    async def blobs_only_of(self, owner: str, session_id: str) -> list[str]:
        kept = self._of(owner, session_id)
        if kept is None:
            return []
        others = (each.blobs for each in self._kept.values() if each is not kept and each.session.owner == owner)
        return sorted(kept.blobs.difference(*others))


def _first(segment: Segment) -> int:
    return segment.first


def _joined(segments: tuple[Segment, ...], more: tuple[Segment, ...]) -> tuple[Segment, ...]:
    found = list(segments)
    for segment in more:
        at = bisect_left(found, segment.first, key=_first)
        replaced = at < len(found) and found[at].first == segment.first
        found[at : at + replaced] = [segment]
    return tuple(found)


class MemoryTokens:
    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def add(self, token: Token) -> None:
        if self._tokens.setdefault(token.id, token).sha256 != token.sha256:
            raise ValueError(f"there is another token {token.id}: make a new one")

    async def find(self, token_id: str) -> Token | None:
        return self._tokens.get(token_id)

    async def of(self, user: str | None) -> list[Token]:
        found = [token for token in self._tokens.values() if user in (None, token.user)]
        return sorted(found, key=lambda token: (token.created, token.id))

    async def revoke(self, token_id: str, when: str) -> bool:
        token = self._tokens.get(token_id)
        if token and token.revoked is None:
            self._tokens[token_id] = replace(token, revoked=when)
        return token is not None
