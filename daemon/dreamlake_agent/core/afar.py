"""Afar: directories that agents of other nodes own, and journals that clients of other nodes write. PURE.

Whether somebody on another node lives cannot be seen; only that he shows it. Two must agree that he is gone: his lock
is free, and for :data:`dreamlake.config.GONE_SECONDS` there was no further sign of life. That is measured by the clock
of the one who waits; clocks of different nodes are never compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dreamlake import config
from dreamlake_agent.core.events import Key

SKEW_SECONDS = 60.0  # so much is not believed of an age
_LOOKS = 3  # at a directory, in the time after which its owner is gone, though no client asks for it


@dataclass
class _Sign:
    """What was seen last of somebody, and since when it is the same."""

    what: Any
    since: float


def _since(age: float, now: float) -> float:
    """Since when the first sign that is seen is the same. The disk says how old it is; but some file systems let each
    node say when a file was changed, and what is believed of one may be old itself."""
    return now - max(0.0, age - SKEW_SECONDS)


class Signs:
    """Signs of life, of clients."""

    def __init__(self, gone_seconds: float) -> None:
        self._gone_seconds = gone_seconds
        self._last: dict[bytes, _Sign] = {}

    def silence(self, client: bytes, sign: Any, age: float, now: float) -> float:
        """How long it has shown no other sign than this."""
        last = self._last.get(client)
        if last is None:
            last = self._last[client] = _Sign(sign, _since(age, now))
        elif last.what != sign:
            last = self._last[client] = _Sign(sign, now)
        return now - last.since

    def is_gone(self, silence: float) -> bool:
        return silence >= self._gone_seconds

    def is_given_up(self, silence: float) -> bool:
        """Whether what it left may go, though nobody knows whether it will come back."""
        return silence >= max(self._gone_seconds, config.FOREIGN_KEPT_SECONDS)

    def forget(self, client: bytes) -> None:
        self._last.pop(client, None)


@dataclass
class _Owned:
    path: str
    beat: Any
    since: float
    looked: float


class Owners:
    """Directories of other nodes' agents that somebody here has asked for."""

    def __init__(self, gone_seconds: float) -> None:
        self._gone_seconds = gone_seconds
        self._owned: dict[Key, _Owned] = {}

    def is_gone(self, key: Key, path: str, beat: Any, age: float, now: float, *, is_locked: bool) -> bool:
        """Whether the owner that has shown ``beat``, so many seconds ago, is gone, as far as lock and beats say."""
        owned = self._owned.get(key)
        if owned is None:
            owned = self._owned[key] = _Owned(path, beat, _since(age, now), now)
        elif owned.beat != beat or is_locked:
            owned = self._owned[key] = _Owned(path, beat, now, now)
        owned.path, owned.looked = path, now
        return not is_locked and now - owned.since >= self._gone_seconds

    def forget(self, key: Key) -> None:
        """It is ours, or cannot be seen: what was seen before proves nothing."""
        self._owned.pop(key, None)

    def due(self, now: float) -> Iterator[tuple[Key, str]]:
        """Those that nobody has looked at for a while, and those whose owner is gone now unless it has shown itself."""
        for key, owned in list(self._owned.items()):
            gone_at = owned.since + self._gone_seconds
            if now - owned.looked >= self._gone_seconds / _LOOKS or owned.looked < gone_at <= now:
                owned.looked = now
                yield key, owned.path
