"""Here: what clients write by the REST routes, without a directory of their own. The server numbers and writes it as an
origin of its own, one for each session, through the same push as everybody else's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from dreamlake.wire import jsons
from dreamlake_server.limits import RACE_TRIES
from dreamlake_server.problem import bad
from dreamlake_server.push import push
from dreamlake_server.records import Batch, mark_at_end
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.meta import Head, Meta, Session

Row = dict[str, Any]

# By origin. Writers of this process take turns: of many at once some would lose against all others, and give up.
_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def origin_of(session: Session) -> str:
    """32 hex digits, as every origin."""
    return hashlib.sha256(f"here/{session.id}".encode()).hexdigest()[:32]


def plain(fields: Mapping[str, Any], what: str = "field") -> tuple[Row, list[str]]:
    """What a client says, as a row may hold it, and the names of what is not finite. 400 for what JSON cannot hold,
    such as the bytes of a msgpack body."""
    nonfinite: list[str] = []
    try:
        return {key: jsons.plain_value(value, key, nonfinite, what) for key, value in fields.items()}, nonfinite
    except TypeError as error:
        raise bad(str(error)) from None


async def write(
    meta: Meta, session: Session, logs: Sequence[str], rows: Callable[[Mapping[str, Head]], Mapping[str, list[Row]]]
) -> dict[str, Head]:
    """Add rows to logs of this origin, all or none; returns where each log stood before. ``rows`` makes them for
    the heads that it is given, and is asked again when another writer was quicker. 400 for a row that is too large."""
    origin = origin_of(session)
    turn = _turns.setdefault(origin, asyncio.Lock())
    async with turn:
        return await _write(meta, session, origin, logs, rows)


async def _write(
    meta: Meta,
    session: Session,
    origin: str,
    logs: Sequence[str],
    rows: Callable[[Mapping[str, Head]], Mapping[str, list[Row]]],
) -> dict[str, Head]:
    for _ in range(RACE_TRIES):
        found = await meta.heads(session.id, origin=origin, logs=logs)
        heads = {log: found.get((origin, log), Head()) for log in logs}
        batches = {
            log: Batch(heads[log].count, mark_at_end(heads[log]), [jsons.encode(row) for row in new])
            for log, new in rows(heads).items()
            if new
        }
        done = await push(meta, session, origin, batches, whole=True)
        if not any(each.problem for each in done.values()):
            return heads
        wrong = next(
            (each.problem for each in done.values() if each.problem and each.problem["problem"] == "record"), None
        )
        if wrong is not None:
            raise bad(f"this cannot be stored: {wrong['why']}")
    raise StoreUnavailable(f"lost against other writers of {session.workspace}/{session.name} {RACE_TRIES} times")
