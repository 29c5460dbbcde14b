"""Meta: the port to documents and log segments. What was answered is on stable storage.

A session belongs to an owner (a user's namespace) and has logs, each written by one *origin* (a directory's identity).
A log of an origin has one :class:`Head`, and its records lie in :class:`Segment` s, each below
``limits.SEGMENT_BYTES`` or one record long. Head and segments change together or not at all, and only when the head is
what the caller believed: that is all that exactly-once needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Head:
    """How far one log of one origin has come. A log without records has none, which is as ``Head()``."""

    count: int = 0  # records
    size: int = 0  # bytes of those, with their newlines, as the origin has them
    checksum: int = 0  # running CRC-32 of those bytes
    time_first: str | None = None  # of the first record that has a time
    time_max: str | None = None  # the latest time in any record (ISO 8601, UTC; they compare as text)
    sealed: int = 0  # records before this one lie in sealed segments; 0 until there are such
    base: int = 0  # records before this one are another origin's: they are counted in ``count``, and lie in no segment


@dataclass(frozen=True)
class Segment:
    """Consecutive records of one log of one origin."""

    first: int  # index of its first record
    count: int  # ≥ 1
    size: int  # bytes of its records, uncompressed
    size_before: int  # of the log before it, as in Head
    checksum_before: int  # running CRC-32 of the log before it
    time_before: str | None  # Head.time_max before it
    time_max: str | None  # Head.time_max after it
    data: bytes = b""  # opaque here; empty in a tombstone
    refused: str | None = None  # a tombstone (count is 1): why the record that was here could not be taken


@dataclass(frozen=True)
class Append:
    """One log's part of an append. A segment replaces the one with the same ``first``, if there is one (that is how a
    small last segment grows); all others are new."""

    log: str
    before: Head
    after: Head
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Session:
    """One session. ``origins`` holds for each origin a summary (JSON) of what its histories say of the session."""

    id: str  # 24 hex digits
    owner: str
    workspace: str
    name: str
    created: str  # ISO 8601, UTC
    deleted: str | None = None
    origins: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Blob:
    """Bytes that are stored and verified: ``ceil(size / part_bytes)`` parts in the store of blobs (one when empty)."""

    owner: str
    sha256: str  # 64 hex digits
    size: int
    part_bytes: int
    stored: str  # ISO 8601, UTC


class Meta(Protocol):
    """Every method may raise :class:`~dreamlake_server.stores.StoreUnavailable`; a write that raised it may or may not
    have been kept. An ``owner`` never sees anything of another one."""

    kind: str  # "memory", "sqlite", "mongodb": as /health calls it

    async def open(self) -> None:
        """Connect, make tables and indexes. Before anything else."""
        ...

    async def close(self) -> None: ...

    async def ping(self) -> None:
        """Return when the store can be written now; else raise. Bounded: 5 seconds at most."""
        ...

    # sessions

    async def make_session(self, owner: str, workspace: str, name: str, session_id: str, created: str) -> Session:
        """The session of that name, made with ``session_id`` and ``created`` when there is none. Two callers at once
        get the same one. A deleted one is found too (``deleted`` says so)."""
        ...

    async def find_session(self, owner: str, workspace: str, name: str) -> Session | None: ...

    async def session(self, owner: str, session_id: str) -> Session | None:
        """By id; None when it is another owner's."""
        ...

    async def sessions(
        self, owner: str, workspace: str | None, after: tuple[str, str] | None, limit: int
    ) -> list[Session]:
        """Sessions that are not deleted, newest first by (created, id); ``after`` is the (created, id) of the last one
        of the page before. ``workspace`` None: of all."""
        ...

    async def mark_deleted(self, owner: str, session_id: str, when: str | None) -> bool:
        """Set or take back ``deleted``; False when there is no such session."""
        ...

    async def deleted_sessions(self, before: str, limit: int) -> list[Session]:
        """Of every owner, those with ``deleted`` < ``before``, oldest first: to be purged."""
        ...

    async def begin_purge(self, owner: str, session_id: str) -> bool:
        """From here on nobody can take the deletion back, and the session refers to its blobs until it is purged; False
        when it is not deleted or not there."""
        ...

    async def purge_session(self, owner: str, session_id: str) -> None:
        """Forget a deleted session, its heads, segments and references to blobs; nothing when it is not deleted or not
        there. A death in between leaves it deleted and purgeable again; it must never come back half."""
        ...

    # logs

    async def heads(
        self, session_id: str, *, origin: str | None = None, logs: Sequence[str] | None = None
    ) -> dict[tuple[str, str], Head]:
        """(origin, log) → head, of those logs that have records or a base; of one origin, or of some logs
        only. ``logs`` may name 20,000."""
        ...

    async def append(
        self,
        session_id: str,
        origin: str,
        appends: Sequence[Append],
        *,
        summary: dict[str, Any] | None = None,
        blobs: Sequence[str] = (),
    ) -> bool:
        """All of it or nothing: for each append, the head must be ``before`` and becomes ``after``, and its segments
        are stored. ``summary``, when given, becomes ``Session.origins[origin]``. ``blobs`` are the SHA-256 of bytes
        that the session now refers to (idempotent). False, with nothing changed, when a head is another one, or the
        session is deleted or not there. True: on stable storage."""
        ...

    async def segments(self, session_id: str, origin: str, log: str, first: int, limit: int) -> list[Segment]:
        """At most ``limit`` segments, in order, from the one that holds record ``first`` on (or from the first one
        after it); takes as long at record 9,000,000 as at 0."""
        ...

    # blobs

    async def blob(self, owner: str, sha256: str) -> Blob | None: ...

    async def blobs(self, owner: str, sha256s: Sequence[str]) -> dict[str, Blob]:
        """Those of them that are stored."""
        ...

    async def put_blob(self, blob: Blob) -> None:
        """Remember it; one that is there already stays as it is."""
        ...

    async def drop_blob(self, owner: str, sha256: str) -> None: ...

    async def blobs_only_of(self, owner: str, session_id: str) -> list[str]:
        """The SHA-256 of what this session refers to and no other session of the owner."""
        ...
