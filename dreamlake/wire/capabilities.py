"""Capabilities: what a client or an agent can do that one of another release may not. PURE.

Both sides name theirs when they meet, and each goes by the names that the other said: versions are for people, and are
compared by nobody. A name is never used again for something else.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

RANKS = "ranks"
SPOOL = "spool"

# Of each: what a session that needs it has to do without, while the agent lacks it.
CAPABILITIES = {
    RANKS: "records do not say which rank they are of",
    SPOOL: "DREAMLAKE_SPOOL is not used: journals are in the session directory",
}

# What somebody else says of himself is kept for status, and cut.
_NAMES_MAX = 64
_TEXT_MAX = 64


class Said(NamedTuple):
    """What one side said of itself: ``can`` is None when it is from before there were capabilities."""

    can: tuple[str, ...] | None
    version: str | None


def mine() -> list[str]:
    """What this release can, as it is said in ``hello`` and in ``can``."""
    return sorted(CAPABILITIES)


def said_by(who: dict[str, Any]) -> Said:
    """What a client's ``hello`` says of it; whatever is of another shape was not said.

    >>> said_by({"path": "/data/project/run", "can": ("spool", "ranks"), "version": "0.4.0"})
    Said(can=('ranks', 'spool'), version='0.4.0')
    >>> said_by({"path": "/data/project/run"})
    Said(can=None, version=None)
    """
    can, version = who.get("can"), who.get("version")
    names: tuple[str, ...] | None = None
    if isinstance(can, (list, tuple)) and all(isinstance(name, str) for name in can):
        names = tuple(sorted({name[:_TEXT_MAX] for name in can[:_NAMES_MAX]}))
    return Said(names, version[:_TEXT_MAX] if isinstance(version, str) and version.isprintable() else None)


def lacking(needs: Collection[str], can: Collection[str] | None) -> list[str]:
    """Which of ``needs`` are not among what the other side ``can``; None is a side from before capabilities.

    >>> lacking({"ranks"}, None), lacking({"ranks"}, ("ranks", "something new"))
    (['ranks'], [])
    """
    return sorted(set(needs) - set(can or ()))
