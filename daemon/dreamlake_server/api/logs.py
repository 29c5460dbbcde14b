"""Logs: lines in, and back by level, time and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from dreamlake.wire.state import LOGS_LOG
from dreamlake.wire.times import time_ns, time_text
from dreamlake_server import here
from dreamlake_server.api.sessions import gone, refuse_protected, the_session
from dreamlake_server.limits import PAGE_ROWS, PAGE_ROWS_DEFAULT, SCAN_ROWS
from dreamlake_server.problem import bad
from dreamlake_server.push import SessionGone
from dreamlake_server.read import Reader, at_cursor, cursor_of
from dreamlake_server.route import Call
from dreamlake_server.stores.meta import Head

Level = Literal["debug", "info", "warn", "error", "fatal"]


class NewLine(msgspec.Struct):
    """One line; without a timestamp it is of now."""

    message: str
    level: str = "info"
    timestamp: str | None = None
    metadata: dict[str, Any] | None = None


class NewLines(msgspec.Struct):
    logs: list[NewLine]


class Created(msgspec.Struct, rename="camel"):
    created: int
    start_sequence: int
    end_sequence: int
    session_id: str


class LogQuery(msgspec.Struct):
    """``level`` may be given more than once; ``since`` is included, ``until`` is not; ``text`` is looked for in
    messages, in any case; ``rank`` is the rank of a training that wrote them."""

    level: list[Level] = []
    since: str | None = None
    until: str | None = None
    text: str | None = None
    rank: int | None = None
    limit: int = PAGE_ROWS_DEFAULT
    cursor: str | None = None


class LogList(msgspec.Struct, rename="camel"):
    """Lines as they stand in ``logs.jsonl``, with ``origin`` where the session has several."""

    logs: list[dict[str, Any]]
    next_cursor: str | None


_LEVELS = ("debug", "info", "warn", "error", "fatal")


async def add(call: Call) -> Created:
    session = await the_session(call)
    refuse_protected(session, ended_only=True)
    given: NewLines = call.body
    if not given.logs:
        raise bad("logs is empty: send at least one line")
    if len(given.logs) > PAGE_ROWS:
        raise bad(f"more than {PAGE_ROWS} lines (PAGE_ROWS): send them in several requests")
    now = call.server.now()
    lines = [_line(each, now) for each in given.logs]

    def rows(heads: Mapping[str, Head]) -> dict[str, list[dict[str, Any]]]:
        first = heads[LOGS_LOG].count
        return {LOGS_LOG: [{"sequenceNumber": first + number, **line} for number, line in enumerate(lines)]}

    try:
        before = await here.write(call.server.meta, session, [LOGS_LOG], rows)
    except SessionGone as error:
        raise gone(error) from None
    first = before[LOGS_LOG].count
    return Created(len(lines), first, first + len(lines) - 1, session.id)


def _line(given: NewLine, now: str) -> dict[str, Any]:
    level = given.level.lower()
    if level not in _LEVELS:
        raise bad(f"level {given.level[:40]!r} is none of {', '.join(_LEVELS)}")
    time = now if given.timestamp is None else _time("timestamp", given.timestamp)
    line: dict[str, Any] = {"timestamp": time, "level": level, "message": given.message}
    if given.metadata:
        line["metadata"], nonfinite = here.plain(given.metadata)
        if nonfinite:
            line["nonfinite"] = nonfinite
    return line


def _time(name: str, text: str) -> str:
    """As times are stored, which compare as text; 400 for what is none."""
    try:
        ns = time_ns(text)
    except OverflowError:  # in another zone it is before year 1, or after 9999
        ns = None
    if ns is None:
        raise bad(f"{name} {text[:40]!r} is no time: write it as 2026-01-31T12:00:00.000000Z")
    return time_text(ns)


async def read(call: Call) -> LogList:
    """In order; a page that looked at many lines and found few ends early, with a cursor."""
    session = await the_session(call)
    query: LogQuery = call.query
    if not 1 <= query.limit <= PAGE_ROWS:
        raise bad(f"limit must be 1 to {PAGE_ROWS} (PAGE_ROWS)")
    since = _time("since", query.since) if query.since else ""
    until = _time("until", query.until) if query.until else None
    try:
        positions = at_cursor(query.cursor) if query.cursor else None
    except ValueError as error:
        raise bad(str(error)) from None
    text = query.text.casefold() if query.text else None
    reader = await Reader.open(call.server.meta, session.id, LOGS_LOG, positions)
    found: list[dict[str, Any]] = []
    looked = 0
    async for record in reader.records():
        row = record.row
        looked += 1
        time = str(row.get("timestamp") or "")
        if (
            (not query.level or row.get("level") in query.level)
            and time >= since
            and (until is None or time < until)
            and (query.rank is None or row.get("rank") == query.rank)
            and (text is None or text in str(row.get("message") or "").casefold())
        ):
            found.append(
                {**row, "sequenceNumber": record.index, **({"origin": record.origin} if reader.origins > 1 else {})}
            )
        if len(found) == query.limit or looked == SCAN_ROWS:
            break
    return LogList(found, cursor_of(reader.positions) if await reader.has_more() else None)
