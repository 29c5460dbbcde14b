"""Following: a session's logs read back as they were pushed, origin by origin; docs/push.md, Following."""

from __future__ import annotations

import msgspec

from dreamlake.wire.marks import Mark
from dreamlake_server import limits, records
from dreamlake_server.api.push import Count, MarkText, Named, Origin, SessionAck, check_logs
from dreamlake_server.api.sessions import checked, gone
from dreamlake_server.problem import bad
from dreamlake_server.push import SessionGone
from dreamlake_server.route import Call
from dreamlake_server.stores.meta import Head, Segment, Session

_SEGMENTS_AT_ONCE = 8


class Origins(msgspec.Struct):
    """``logs`` null: every log."""

    session: Named
    logs: list[str] | None = None


class LogEnd(msgspec.Struct):
    """How far a log of an origin is stored, the record that it begins at, and the times of its first record and of its
    latest one."""

    count: int
    mark: str
    base: int
    first: str | None
    last: str | None


class OriginsAnswer(msgspec.Struct):
    session: SessionAck | None
    origins: dict[str, dict[str, LogEnd]]


class Records(msgspec.Struct):
    """Of one log of one origin, from the piece on that holds record ``from``; about ``bytes`` of lines."""

    session: Named
    origin: Origin
    log: str
    first: Count = msgspec.field(name="from", default=0)
    bytes: int = limits.ANSWER_BYTES


class Piece(msgspec.Struct, omit_defaults=True):
    """Consecutive records, the marks before and behind them, and the latest time in the log before them. ``lines`` are
    ``size`` bytes of the log, packed by zstd; in the place of a record that was refused there are none, and ``refused``
    says why."""

    first: int = msgspec.field(name="from")
    count: int = 0
    prev: MarkText = "0-00000000"
    next: MarkText = "0-00000000"
    time: str | None = None
    size: int = 0
    lines: bytes = b""
    refused: str | None = None


class RecordsAnswer(msgspec.Struct):
    """No piece: there is no such record yet."""

    pieces: list[Piece]


async def _session(call: Call, named: Named) -> Session | None:
    workspace, name = checked("workspace", named.workspace), checked("session", named.name)
    found: Session | None = await call.server.meta.find_session(call.user, workspace, name)
    return found


async def origins(call: Call) -> OriginsAnswer:
    given: Origins = call.body
    if given.logs is not None:
        check_logs(given.logs)
    session = await _session(call, given.session)
    if session is None:
        return OriginsAnswer(None, {})
    found: dict[str, dict[str, LogEnd]] = {}
    if session.deleted is None:
        for (origin, log), head in (await call.server.meta.heads(session.id, logs=given.logs)).items():
            found.setdefault(origin, {})[log] = _end_of(head)
    return OriginsAnswer(SessionAck(session.id, session.deleted), found)


def _end_of(head: Head) -> LogEnd:
    return LogEnd(head.count, records.mark_at_end(head).text, head.base, head.time_first, head.time_max)


async def read(call: Call) -> RecordsAnswer:
    given: Records = call.body
    check_logs([given.log])
    if not 1 <= given.bytes <= limits.ANSWER_BYTES:
        raise bad(f"bytes must be 1 to {limits.ANSWER_BYTES} (ANSWER_BYTES)")
    session = await _session(call, given.session)
    if session is None:
        return RecordsAnswer([])
    if session.deleted is not None:
        raise gone(SessionGone(f"session {session.workspace}/{session.name} was deleted"))
    pieces: list[Piece] = []
    last: Segment | None = None
    first, size = given.first, 0
    while True:
        segments = await call.server.meta.segments(session.id, given.origin, given.log, first, _SEGMENTS_AT_ONCE)
        for segment in segments:
            if last is not None:
                pieces.append(_piece(last, records.mark_before(segment)))
                if size >= given.bytes:
                    return RecordsAnswer(pieces)
            last, first, size = segment, segment.first + segment.count, size + segment.size
        if len(segments) < _SEGMENTS_AT_ONCE:
            break
    if last is not None:
        pieces.append(_piece(last, await _mark_behind(call, session, given, last)))
    return RecordsAnswer(pieces)


def _piece(segment: Segment, behind: Mark) -> Piece:
    before = records.mark_before(segment).text
    piece = Piece(segment.first, segment.count, before, behind.text, segment.time_before)
    if segment.refused is not None:
        piece.refused = segment.refused
    else:
        piece.size, piece.lines = segment.size, segment.data
    return piece


async def _mark_behind(call: Call, session: Session, given: Records, segment: Segment) -> Mark:
    if segment.refused is None:
        return records.mark_before(segment).after(records.bytes_of(segment))
    # The bytes of a tombstone are not here. The head first: where nothing follows then, it is the head's mark.
    key = given.origin, given.log
    heads = await call.server.meta.heads(session.id, origin=given.origin, logs=[given.log])
    following = await call.server.meta.segments(session.id, *key, segment.first + segment.count, 1)
    return records.mark_before(following[0]) if following else records.mark_at_end(heads[key])
