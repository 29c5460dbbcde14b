"""The push protocol: docs/push.md says it in full."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import msgspec

from dreamlake.wire.marks import Mark
from dreamlake.wire.names import track_folder
from dreamlake.wire.projection import TIME_CHARACTERS_MAX, checksums
from dreamlake.wire.state import FILES_LOG, HISTORIES, LOGS_LOG, data_log
from dreamlake_server import limits, push, records
from dreamlake_server.api.sessions import checked, gone, made
from dreamlake_server.problem import bad, too_large
from dreamlake_server.records import Batch
from dreamlake_server.route import Answer, Call
from dreamlake_server.stores.meta import Head

Origin = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", description="A directory's identity")]
MarkText = Annotated[str, msgspec.Meta(pattern="^(0|[1-9][0-9]{0,15})-[0-9a-f]{8}$", description="<bytes>-<CRC-32>")]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Named(msgspec.Struct):
    workspace: str
    name: str


class LogBatch(msgspec.Struct):
    """Records of one log from index ``from`` on, and the mark before them. Either ``lines``, the bytes of the log as
    they are (base64 in JSON), or ``records``, a list of lines; or a tombstone: ``refused`` says why one record cannot
    be taken, and ``next`` is the mark after it; or, from 0 on, a ``base``: so many records are another origin's, and
    ``next`` is the mark after them, and ``time`` is when the latest of them was made: what comes after them in this log
    comes after them in joined reads, too, whatever the clock said."""

    first: Count = msgspec.field(name="from")
    prev: MarkText = "0-00000000"
    lines: bytes = b""
    records: Annotated[list[str], msgspec.Meta(max_length=limits.RECORDS)] = []
    refused: str | None = None
    base: Count = 0
    time: Annotated[str, msgspec.Meta(max_length=TIME_CHARACTERS_MAX)] | None = None
    next: MarkText | None = None


class Push(msgspec.Struct):
    origin: Origin
    session: Named
    logs: dict[str, LogBatch]


class Status(msgspec.Struct):
    """``logs`` null: every log of the origin."""

    origin: Origin
    session: Named
    logs: list[str] | None = None
    blobs: list[str] = []


class LogAck(msgspec.Struct, omit_defaults=True):
    """How far a log is stored. ``problem`` says why a part of what came was not taken: ``gap`` (with ``expected``),
    ``fork`` (the histories differ before ``index``, where ``stored`` is the mark), or ``record`` (``index``,
    ``why``)."""

    count: int
    mark: str
    problem: str | None = None
    expected: int | None = None
    index: int | None = None
    stored: str | None = None
    why: str | None = None


class SessionAck(msgspec.Struct, rename="camel"):
    id: str
    deleted_at: str | None = None


class PushAnswer(msgspec.Struct):
    """``lacking`` are the SHA-256 that the records speak of and whose bytes are not stored."""

    session: SessionAck
    logs: dict[str, LogAck]
    lacking: list[str]


class StatusAnswer(msgspec.Struct):
    session: SessionAck | None
    logs: dict[str, LogAck]
    lacking: list[str]
    limits: dict[str, int]


_PUBLISHED = (
    "BODY_BYTES",
    "PUSH_BYTES",
    "UNPACKED_RATIO",
    "RECORDS",
    "RECORD_BYTES",
    "LOGS",
    "BLOBS",
    "PART_BYTES",
    "PARTS",
    "FILE_BYTES",
)


async def status(call: Call) -> StatusAnswer:
    given: Status = call.body
    if given.logs is not None:
        check_logs(given.logs)
    if len(given.blobs) > limits.BLOBS:
        raise too_large("BLOBS", limits.BLOBS, "the list of blobs")
    workspace = checked("workspace", given.session.workspace)
    session = await call.server.meta.find_session(call.user, workspace, checked("session", given.session.name))
    logs: dict[str, LogAck] = {}
    if session is not None:
        heads = await call.server.meta.heads(session.id, origin=given.origin, logs=given.logs)
        logs = {log: _ack(head) for (_origin, log), head in heads.items()}
    for log in given.logs or ():
        logs.setdefault(log, _ack(Head()))
    return StatusAnswer(
        session=None if session is None else SessionAck(session.id, session.deleted),
        logs=logs,
        lacking=await _lacking(call, given.blobs),
        limits={name.lower(): getattr(limits, name) for name in _PUBLISHED},
    )


async def take(call: Call) -> Answer:
    given: Push = call.body
    check_logs(given.logs)
    # Before they are taken apart: a line may be one byte, and as a line of its own it takes 40.
    if sum(batch.lines.count(b"\n") + len(batch.records) for batch in given.logs.values()) > limits.RECORDS:
        raise too_large("RECORDS", limits.RECORDS, "the number of records")
    batches = {log: _batch(log, batch) for log, batch in given.logs.items()}
    session = await made(call, given.session.workspace, given.session.name)
    try:
        acked = await push.push(call.server.meta, session, given.origin, batches)
    except push.SessionGone as error:
        raise gone(error) from None
    files = batches.get(FILES_LOG)
    answer = PushAnswer(
        SessionAck(session.id),
        {log: _ack(each.head, each.problem) for log, each in acked.items()},
        await _lacking(call, _spoken_of(files) if files else []),
    )
    metrics = call.server.metrics
    metrics.records.inc(sum(each.records for each in acked.values()))
    problems = [each.problem["problem"] for each in acked.values() if each.problem]
    metrics.forks.inc(problems.count(records.FORK))
    status = 200 if not problems else 422 if set(problems) == {"record"} else 409
    return call.answer(answer, status)


def check_logs(logs: Collection[str]) -> None:
    """413 or 400 for what are no logs of a session."""
    if len(logs) > limits.LOGS:
        raise too_large("LOGS", limits.LOGS, "the number of logs")
    for log in logs:
        if log in HISTORIES or log == LOGS_LOG:
            continue
        track = log[len("tracks/") : -len("/data.jsonl")]
        try:
            track_folder(track)
        except ValueError:
            track = ""
        if not track or log != data_log(track):
            raise bad(f"{log[:80]!r} is no log of a session: see docs/push.md for their names", "bad-log")


def _batch(log: str, given: LogBatch) -> Batch:
    prev = Mark.of(given.prev)
    if given.refused is not None or given.base:
        if given.lines or given.records or given.next is None or (given.refused is not None and given.base):
            raise bad(f"{log}: send 'next' with either 'refused' or 'base', and no records", "bad-batch")
        if given.base and (given.first or prev != Mark()):
            raise bad(f"{log}: a base begins its log: 'from' is 0 and 'prev' {Mark().text}", "bad-batch")
        behind = Mark.of(given.next)
        if behind.size - prev.size < (given.base or 1):
            raise bad(f"{log}: 'next' is not so many records after 'prev'", "bad-batch")
        refused = None if given.refused is None else given.refused[:1000]
        return Batch(given.first, prev, (), refused, behind, given.base, given.time or None)
    if given.lines and given.records:
        raise bad(f"{log}: send 'lines' or 'records', not both", "bad-batch")
    if given.lines:
        if not given.lines.endswith(b"\n"):
            raise bad(f"{log}: the last of 'lines' does not end in a newline", "bad-batch")
        return Batch(given.first, prev, given.lines.split(b"\n")[:-1])
    return Batch(given.first, prev, [line.encode() for line in given.records])


def _spoken_of(batch: Batch) -> list[str]:
    rows = []
    for line in batch.lines:
        try:
            rows.append(records.parsed(line))
        except ValueError:
            continue
    return checksums(rows)


async def _lacking(call: Call, sha256s: list[str]) -> list[str]:
    stored = await call.server.meta.blobs(call.user, sha256s) if sha256s else {}
    return [each for each in sha256s if each not in stored]


def _ack(head: Head, problem: dict[str, Any] | None = None) -> LogAck:
    said = dict(problem or {})
    if "mark" in said:
        said["stored"] = said.pop("mark")
    return LogAck(head.count, records.mark_at_end(head).text, **said)
