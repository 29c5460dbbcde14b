"""Lag: for how long what is in the journals has waited to be applied. PURE.

Of each journal one mark is kept: how far it went when it was looked at. The journal is behind by the age of that mark
while the mark is not reached; by what the last mark took, while there is more. So one mark a journal is enough, at any
rate of calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dreamlake_agent.core.events import Key
from dreamlake_agent.core.session import Session


@dataclass
class _Mark:
    end: int
    since: float
    took: float = 0.0


class Lag:
    """``look`` about once a second."""

    def __init__(self) -> None:
        self._marks: dict[tuple[Key, bytes], _Mark] = {}
        self._stalled: dict[Key, float] = {}

    def look(self, sessions: Mapping[Key, Session], now: float) -> float:
        """The longest of all, in seconds. Of a directory in trouble: for how long it is, while somebody has it open."""
        self._stalled = {
            key: self._stalled.get(key, now)
            for key, session in sessions.items()
            if session.trouble is not None  # until it is open again
        }
        longest = max((now - since for key, since in self._stalled.items() if sessions[key].clients), default=0.0)
        marks: dict[tuple[Key, bytes], _Mark] = {}
        for key, session in sessions.items():
            for client in session.clients.values():
                if client.drained:
                    continue
                place = (key, client.id)
                mark = self._marks.get(place) or _Mark(client.seen_end, now)
                if client.applied >= mark.end:
                    mark = _Mark(client.seen_end, now, now - mark.since)
                marks[place] = mark
                longest = max(longest, mark.took, now - mark.since)
        self._marks = marks
        return longest
