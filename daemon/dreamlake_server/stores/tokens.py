"""Tokens: the port to who may do what. A token is never kept, only its SHA-256: it has 256 random bits, so a slow hash
would protect nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Token:
    """What is known of a token. ``id`` is its public part (12 hex digits), by which people name it."""

    id: str
    user: str
    sha256: str  # of the whole token, 64 hex digits
    read_only: bool
    created: str  # ISO 8601, UTC
    note: str = ""
    revoked: str | None = None


class Tokens(Protocol):
    """Every method may raise :class:`~dreamlake_server.stores.StoreUnavailable`. What one process has changed, every
    other one sees at its next call: a revoked token opens nothing any more."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def add(self, token: Token) -> None: ...

    async def find(self, token_id: str) -> Token | None: ...

    async def of(self, user: str | None) -> list[Token]:
        """Oldest first, revoked ones too; ``None``: of every user."""
        ...

    async def revoke(self, token_id: str, when: str) -> bool:
        """False when there is no such token; one that is revoked stays as it is, and is True."""
        ...
