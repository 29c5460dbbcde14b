"""Projections: of the sessions that are read. Each follows the histories of its session and reads only what is new."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from dreamlake.wire.projection import Projection, time_of
from dreamlake.wire.state import FILES_LOG, PARAMETERS_LOG, TRACKS_LOG
from dreamlake_server import records
from dreamlake_server.stores.meta import Head, Meta

FOLLOWED = (PARAMETERS_LOG, TRACKS_LOG, FILES_LOG)
THINGS_MAX = 500_000  # parameters, tracks and files, over all projections kept in memory
SESSIONS_MAX = 1_000
_SEGMENTS_AT_ONCE = 8


@dataclass
class _Kept:
    projection: Projection = field(default_factory=Projection)
    followed: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)  # → records read, latest time
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Projections:
    """A bounded cache; what it forgets is read again."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def of(self, session_id: str) -> Projection:
        """As of now: everything that was acked before the call is in it."""
        kept = self._kept.setdefault(session_id, _Kept())
        self._kept.move_to_end(session_id)
        async with kept.lock:
            heads = await self._meta.heads(session_id, logs=FOLLOWED)
            for (origin, log), head in sorted(heads.items()):
                await self._follow(session_id, kept, origin, log, head)
        self._forget()
        return kept.projection

    async def _follow(self, session_id: str, kept: _Kept, origin: str, log: str, head: Head) -> None:
        index, time = kept.followed.get((origin, log), (head.base, ""))
        while index < head.count:
            segments = await self._meta.segments(session_id, origin, log, index, _SEGMENTS_AT_ONCE)
            if not segments:
                return
            for segment in segments:
                time = max(time, segment.time_before or "")  # of a base
                for line in records.lines_of(segment)[index - segment.first :]:
                    if line:
                        row = records.parsed(line)
                        time = max(time, time_of(row) or "")
                        kept.projection.take(log, (time, origin, index), row)
                    index += 1
                # After each segment, not at the end: a failure in between must not have rows taken twice.
                kept.followed[origin, log] = (index, time)

    def _forget(self) -> None:
        things = sum(each.projection.size for each in self._kept.values())
        while len(self._kept) > SESSIONS_MAX or (things > THINGS_MAX and len(self._kept) > 1):
            _, oldest = self._kept.popitem(last=False)
            things -= oldest.projection.size
