"""Push: the second hop. An origin says what its logs hold; what continues them is taken, once.

The conversation is docs/push.md. Everything is decided on marks (``records.py``) and settled by one compare-and-set of
heads (``Meta.append``): whoever loses a race reads the heads again and finds that what it brought is there already, or
that it continues what came in between.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dreamlake.wire.marks import Mark
from dreamlake.wire.projection import checksums
from dreamlake.wire.state import FILES_LOG, SESSION_LOG
from dreamlake.wire.summary import summarised
from dreamlake_server import records
from dreamlake_server.limits import RACE_TRIES
from dreamlake_server.records import Batch
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.meta import Append, Head, Meta, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Rows are parsed on a thread when they are more than this: others have their turn meanwhile.
_THREAD_BYTES = 64 << 10
_SEGMENTS_AT_ONCE = 8
_RACE_SECONDS = 0.02  # that one who lost waits at most, longer each time, by chance

# Pushes of one origin at this server take turns: against each other they would lose without need.
_turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()


class SessionGone(Exception):
    """The session was deleted."""


@dataclass
class Acked:
    """What became of one log: how far it is stored, and why a part of what came was not taken."""

    head: Head
    problem: dict[str, Any] | None = None
    records: int = 0  # taken now


@dataclass
class _Plan:
    """What one look at the heads makes of a push."""

    logs: dict[str, Acked] = field(default_factory=dict)
    appends: list[Append] = field(default_factory=list)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


async def push(
    meta: Meta, session: Session, origin: str, batches: Mapping[str, Batch], *, whole: bool = False
) -> dict[str, Acked]:
    """Take what continues the logs of ``origin``. Cumulative: each answer is how far the log is stored now. A log with
    a problem holds up no other one, unless ``whole``: then nothing is taken when any has one.

    Raises :class:`SessionGone`, and :class:`~dreamlake_server.stores.StoreUnavailable`: then nothing is known, and the
    same push may come again.
    """
    async with _turns.setdefault((session.id, origin), asyncio.Lock()):
        for attempt in range(RACE_TRIES):
            heads = await meta.heads(session.id, origin=origin, logs=list(batches))
            plan = _Plan()
            for log, batch in batches.items():
                await _consider(meta, session, origin, log, batch, heads.get((origin, log), Head()), plan)
            if not plan.appends or (whole and any(each.problem for each in plan.logs.values())):
                return plan.logs
            groups = [plan.appends] if whole else records.in_turns(plan.appends)
            if await _carry_out(meta, session, origin, plan, groups):
                return plan.logs
            found = await meta.session(session.owner, session.id)
            if found is None or found.deleted is not None:
                raise SessionGone(f"session {session.workspace}/{session.name} was deleted")
            await asyncio.sleep(_RACE_SECONDS * attempt * random.random())
    raise StoreUnavailable(f"lost against other writers of {session.workspace}/{session.name} {RACE_TRIES} times")


async def _carry_out(meta: Meta, session: Session, origin: str, plan: _Plan, groups: Iterable[list[Append]]) -> bool:
    """A transaction for each group, one after the other; False when another writer was quicker at one of them: what was
    appended before it is then found to be there."""
    summary = await _summary(meta, session, origin, plan)
    blobs = checksums(plan.rows.get(FILES_LOG, []))
    for appends in groups:
        logs = {each.log for each in appends}
        done = await meta.append(
            session.id,
            origin,
            appends,
            summary=summary if SESSION_LOG in logs else None,
            blobs=blobs if FILES_LOG in logs else (),
        )
        if not done:
            return False
    return True


async def _consider(meta: Meta, session: Session, origin: str, log: str, batch: Batch, head: Head, plan: _Plan) -> None:
    plan.logs[log] = acked = Acked(head)
    end = min(batch.end, head.count)
    stored: Mark | None = records.mark_at_end(head)
    if batch.first <= head.count and end < head.count:
        stored = None if end < head.base else await mark_of(meta, session.id, origin, log, end, head)
    verdict = records.judge(head, batch, stored)
    if verdict == records.GAP:
        acked.problem = {"problem": "gap", "expected": head.count}
        return
    if verdict == records.FORK:
        if stored is None:  # what is before a base is not known here
            end, stored = head.base, await mark_of(meta, session.id, origin, log, head.base, head)
        acked.problem = {"problem": "fork", "index": end, "mark": stored.text}
        return
    if batch.end <= head.count:
        return
    last = None
    if records.grows(head, batch):
        found = await meta.segments(session.id, origin, log, head.count - 1, 1)
        last = found[0] if found and records.may_grow(found[0]) else None
    size = sum(map(len, batch.lines))
    if size > _THREAD_BYTES:
        append, wrong = await asyncio.to_thread(records.continued, log, head, batch, last)
    else:
        append, wrong = records.continued(log, head, batch, last)
    if wrong is not None:
        acked.problem = {"problem": "record", "index": wrong.index, "why": wrong.why}
    if append is not None:
        acked.head, acked.records = append.after, append.after.count - max(head.count, append.after.base)
        plan.appends.append(append)
        if log in (SESSION_LOG, FILES_LOG):
            new = batch.lines[head.count - batch.first :][: acked.records]
            plan.rows[log] = [records.parsed(line) for line in new]


async def _summary(meta: Meta, session: Session, origin: str, plan: _Plan) -> dict[str, Any] | None:
    """Of the origin, when its session history grows: that is short, and read whole."""
    append = next((each for each in plan.appends if each.log == SESSION_LOG), None)
    if append is None:
        return None
    rows = [row async for row in rows_of(meta, session.id, origin, SESSION_LOG, 0, append.before.count)]
    return summarised(origin, [*rows, *plan.rows[SESSION_LOG]])


async def mark_of(meta: Meta, session_id: str, origin: str, log: str, index: int, head: Head) -> Mark:
    """The mark before record ``index`` of a log that holds it, or ends there."""
    if index == head.count:
        return records.mark_at_end(head)
    found = await meta.segments(session_id, origin, log, index, 1)
    if not found or not found[0].first <= index < found[0].first + found[0].count:
        raise StoreUnavailable(f"record {index} of {log} is not in its segments")
    return records.mark_at(found[0], index)


async def rows_of(
    meta: Meta, session_id: str, origin: str, log: str, first: int, end: int
) -> AsyncIterator[dict[str, Any]]:
    """The rows [first, end) of one log of one origin; a tombstone is an empty one."""
    while first < end:
        segments = await meta.segments(session_id, origin, log, first, _SEGMENTS_AT_ONCE)
        if not segments:
            return
        for segment in segments:
            lines = records.lines_of(segment)
            for line in lines[max(0, first - segment.first) : max(0, end - segment.first)]:
                yield records.parsed(line) if line else {}
            first = segment.first + segment.count
