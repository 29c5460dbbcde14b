"""The push protocol over a store: this came in, that went out. docs/push.md says it in words."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG, SESSION_LOG
from dreamlake_server import limits, records
from dreamlake_server.push import Acked, SessionGone, push, rows_of
from dreamlake_server.records import Batch, joined
from dreamlake_server.stores.memory import MemoryMeta
from dreamlake_server.stores.meta import Append, Head, Session

Run = Callable[[Coroutine[Any, Any, Any]], Any]

ORIGIN = "0123456789abcdef" * 2
LOSS = "tracks/train/loss/data.jsonl"


def rows(count: int, say: str = "a") -> list[bytes]:
    return [
        b'{"index":%d,"data":{"value":"%b%d"},"createdAt":"2026-01-01T00:%02d:%02d.000000Z"}'
        % (index, say.encode(), index, index // 60 % 60, index % 60)
        for index in range(count)
    ]


def mark(lines: Iterable[bytes]) -> Mark:
    return Mark().after(joined(list(lines)))


def piece(lines: list[bytes], first: int, end: int) -> Batch:
    """Records [first, end) of a log that holds these lines."""
    return Batch(first, mark(lines[:first]), lines[first:end])


class Origin:
    """One directory that pushes into one session."""

    def __init__(self, meta: MemoryMeta, session: Session, run: Run, name: str = ORIGIN) -> None:
        self.meta, self.session, self.run, self.name = meta, session, run, name

    def push(self, **batches: Batch) -> dict[str, Acked]:
        return self.run(push(self.meta, self.session, self.name, batches))  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> Acked:
        return self.push(**{LOSS: batch})[LOSS]

    def head(self, log: str = LOSS) -> Head:
        heads = self.run(self.meta.heads(self.session.id, origin=self.name, logs=[log]))
        return heads.get((self.name, log), Head())  # type: ignore[no-any-return]

    def stored(self, log: str = LOSS) -> list[bytes]:
        async def lines() -> list[bytes]:
            found: list[bytes] = []
            while segments := await self.meta.segments(self.session.id, self.name, log, len(found), 3):
                for segment in segments:
                    assert segment.first == len(found), "segments have a hole, or overlap"
                    assert records.mark_before(segment) == mark(found)
                    found += records.lines_of(segment)
            return found

        return self.run(lines())  # type: ignore[no-any-return]


@pytest.fixture
def run() -> Iterable[Run]:
    loop = asyncio.new_event_loop()
    yield loop.run_until_complete
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def origin(run: Run) -> Origin:
    return _origin(run)


def _origin(run: Run) -> Origin:
    meta = MemoryMeta()
    run(meta.open())
    session = run(meta.make_session("alice", "project", "run", "5" * 24, "2026-01-01T00:00:00.000000Z"))
    return Origin(meta, session, run)


def is_fork(acked: Acked) -> bool:
    return acked.problem is not None and acked.problem["problem"] == "fork"


def test_what_continues_is_taken(origin: Origin) -> None:
    lines = rows(30)
    assert origin.loss(piece(lines, 0, 10)).head.count == 10
    acked = origin.loss(piece(lines, 10, 30))
    assert (acked.head.count, acked.problem, acked.records) == (30, None, 20)
    assert records.mark_at_end(acked.head) == mark(lines)
    assert origin.stored() == lines
    assert (acked.head.time_first, acked.head.time_max) == (
        "2026-01-01T00:00:00.000000Z",
        "2026-01-01T00:00:29.000000Z",
    )


def test_what_comes_again_changes_nothing(origin: Origin) -> None:
    lines = rows(30)
    origin.loss(piece(lines, 0, 20))
    for first, end in ((0, 20), (0, 7), (13, 20), (5, 6), (20, 20), (0, 0)):
        acked = origin.loss(piece(lines, first, end))
        assert (acked.head.count, acked.problem, acked.records) == (20, None, 0), (first, end)
    assert origin.stored() == lines[:20]


def test_of_an_overlap_the_rest_is_taken(origin: Origin) -> None:
    lines = rows(30)
    origin.loss(piece(lines, 0, 20))
    acked = origin.loss(piece(lines, 5, 30))
    assert (acked.head.count, acked.records) == (30, 10)
    assert origin.stored() == lines


def test_a_gap_is_refused_with_what_is_expected(origin: Origin) -> None:
    lines = rows(30)
    origin.loss(piece(lines, 0, 10))
    acked = origin.loss(piece(lines, 11, 20))
    assert acked.problem == {"problem": "gap", "expected": 10}
    assert origin.stored() == lines[:10]


@pytest.mark.parametrize(("first", "end"), [(10, 20), (5, 15), (5, 8), (0, 10), (0, 30), (9, 10)])
def test_another_history_is_a_fork_and_overwrites_nothing(origin: Origin, first: int, end: int) -> None:
    """Also one that differs only before what comes: the mark stands for all that was."""
    mine, other = rows(30), [*rows(3), *rows(30, "b")[3:]]
    origin.loss(piece(mine, 0, 10))
    acked = origin.loss(piece(other, first, end))
    assert is_fork(acked), acked
    assert acked.problem is not None
    at = acked.problem["index"]
    assert acked.problem["mark"] == mark(mine[:at]).text != mark(other[:at]).text
    assert origin.stored() == mine[:10]


def test_the_same_record_behind_another_history_is_a_fork(origin: Origin) -> None:
    """A record may look the same in two copies of a directory; what was before it does not."""
    mine, other = rows(10), rows(10)
    other[3] = other[3].replace(b"a3", b"b3")
    origin.loss(piece(mine, 0, 5))
    assert is_fork(origin.loss(piece(other, 5, 10)))
    assert is_fork(origin.loss(piece(other, 4, 10)))


def test_a_log_with_a_problem_holds_up_no_other(origin: Origin) -> None:
    lines = rows(10)
    acked = origin.push(**{LOSS: piece(lines, 3, 5), "logs/logs.jsonl": piece(lines, 0, 5)})
    assert acked[LOSS].problem == {"problem": "gap", "expected": 0}
    assert acked["logs/logs.jsonl"].head.count == 5


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"no json", "no JSON"),
        (b"[1]", "no JSON object"),
        (b"", "no JSON"),
        (b'{"a":1}{"b":2}', "no JSON"),
        (b'{"a":"\xff"}', "no JSON"),
        (b'{"a":"' + b"x" * (8 << 20) + b'"}', "larger than"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", "no JSON"),
    ],
    ids=["text", "list", "empty", "two", "bytes", "large", "deep"],
)
def test_what_stands_before_a_wrong_record_is_taken(origin: Origin, line: bytes, why: str) -> None:
    lines = [*rows(5), line, *rows(10)[6:]]
    acked = origin.loss(piece(lines, 0, 10))
    assert acked.problem is not None
    assert (acked.head.count, acked.problem["index"], acked.problem["problem"]) == (5, 5, "record")
    assert why in acked.problem["why"]
    assert origin.stored() == lines[:5]


def test_a_tombstone_leaves_no_hole(origin: Origin) -> None:
    lines = [*rows(5), b"no json", *rows(10)[6:]]
    origin.loss(piece(lines, 0, 10))
    tombstone = Batch(5, mark(lines[:5]), (), "it is no JSON", mark(lines[:6]))
    assert origin.loss(tombstone).head.count == 6
    assert origin.loss(tombstone).head.count == 6, "it came again"
    assert origin.loss(piece(lines, 6, 10)).problem is None
    # Whoever comes later with the record itself hears that it is there.
    assert origin.loss(piece(lines, 0, 10)).problem is None
    found = origin.run(_all(origin))
    assert found == [*({"value": f"a{index}"} for index in range(5)), None, *({"value": f"a{i}"} for i in range(6, 10))]


async def _all(origin: Origin) -> list[Any]:
    return [row.get("data") async for row in rows_of(origin.meta, origin.session.id, origin.name, LOSS, 0, 10)]


def test_bare_nan_of_old_directories_is_taken_as_it_is(origin: Origin) -> None:
    lines = [b'{"index":0,"data":{"value":NaN},"createdAt":"2025-01-01T00:00:00.000000Z"}']
    assert origin.loss(piece(lines, 0, 1)).head.count == 1
    assert origin.stored() == lines


def test_small_pushes_make_no_crumbs_and_large_ones_no_lumps(origin: Origin) -> None:
    lines = rows(2000)
    for first in range(0, 2000, 4):
        origin.loss(piece(lines, first, first + 4))
    assert origin.stored() == lines
    count = len(origin.run(origin.meta.segments(origin.session.id, ORIGIN, LOSS, 0, 10_000)))
    assert count <= -(-len(joined(lines)) // limits.TAIL_BYTES)
    more = [*lines, *(b'{"data":{"x":"%b"}}' % (b"y" * 100_000) for _ in range(30))]
    origin.loss(piece(more, 2000, 2030))
    segments = origin.run(origin.meta.segments(origin.session.id, ORIGIN, LOSS, 2000, 10_000))
    assert all(each.size <= limits.SEGMENT_BYTES for each in segments)
    assert origin.stored() == more


def test_what_no_transaction_could_hold_is_taken_in_several(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise, which does not pack: 30 MiB in one log, and a thousand logs and more."""
    lines = [b'{"data":{"noise":"%b"}}' % random.Random(n).randbytes(250_000).hex().encode() for n in range(60)]
    sizes: list[int] = []
    shipped = origin.meta.append

    async def counts(session_id: str, name: str, appends: Sequence[Append], **more: Any) -> bool:
        sizes.append(sum(len(segment.data) for each in appends for segment in each.segments))
        assert len(appends) <= limits.APPEND_LOGS
        return await shipped(session_id, name, appends, **more)

    monkeypatch.setattr(origin.meta, "append", counts)
    acked = origin.push(**{LOSS: piece(lines, 0, 60), "logs/logs.jsonl": piece(rows(5), 0, 5)})
    assert (acked[LOSS].head.count, acked["logs/logs.jsonl"].head.count) == (60, 5)
    assert len(sizes) > 1
    assert max(sizes) <= limits.APPEND_BYTES
    assert origin.stored() == lines
    assert origin.loss(piece(lines, 50, 60)).problem is None
    many = {f"tracks/{n}/data.jsonl": piece(rows(1), 0, 1) for n in range(limits.APPEND_LOGS + 1)}
    assert all(each.head.count == 1 for each in origin.push(**many).values())


def test_two_uploaders_at_once_change_nothing(origin: Origin) -> None:
    """Of one origin: this agent, and somebody's sync of the same directory on another machine."""
    lines = rows(400)

    async def both() -> None:
        async def one(step: int) -> None:
            at = 0
            while at < 400:
                acked = await push(origin.meta, origin.session, ORIGIN, {LOSS: piece(lines, at, min(400, at + step))})
                assert acked[LOSS].problem is None, acked
                at = acked[LOSS].head.count

        await asyncio.gather(*(one(step) for step in (3, 7, 50, 11)))

    origin.run(both())
    assert origin.stored() == lines


def test_a_deleted_session_takes_nothing(origin: Origin) -> None:
    lines = rows(10)
    origin.loss(piece(lines, 0, 5))
    origin.run(origin.meta.mark_deleted("alice", origin.session.id, "2026-01-02T00:00:00.000000Z"))
    with pytest.raises(SessionGone, match="project/run"):
        origin.loss(piece(lines, 5, 10))
    assert origin.stored() == lines[:5]


def test_the_session_says_what_its_histories_say(origin: Origin) -> None:
    client = "a" * 32
    opened = (
        b'{"op":"open","time":"2026-01-01T00:00:00.000000Z","client":"%b","name":"run","workspace":"project",'
        b'"set":{"description":"first","tags":["t"]}}' % client.encode()
    )
    ended = b'{"op":"end","time":"2026-01-01T00:00:09.000000Z","client":"%b","state":"failed"}' % client.encode()
    lines = [opened, ended]
    origin.push(**{SESSION_LOG: piece(lines, 0, 1)})
    found = origin.run(origin.meta.session("alice", origin.session.id))
    assert found.origins[ORIGIN]["session"]["state"] == "running"
    origin.push(**{SESSION_LOG: piece(lines, 1, 2)})
    found = origin.run(origin.meta.session("alice", origin.session.id))
    assert found.origins[ORIGIN]["session"]["state"] == "failed"
    assert found.origins[ORIGIN]["given"]["description"] == ["2026-01-01T00:00:00.000000Z", "first"]


def test_the_session_refers_to_the_blobs_that_its_files_speak_of(origin: Origin) -> None:
    line = b'{"op":"hashed","time":"2026-01-01T00:00:00.000000Z","id":"f","checksum":"%b"}' % (b"ab" * 32)
    origin.push(**{FILES_LOG: piece([line], 0, 1)})
    assert origin.run(origin.meta.blobs_only_of("alice", origin.session.id)) == ["ab" * 32]


PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.booleans()), max_size=30)


@settings(max_examples=200, deadline=None)
@given(PIECES)
def test_whatever_is_sent_in_whatever_order_the_log_is_a_beginning_of_one_history(
    pieces: list[tuple[int, int, bool]],
) -> None:
    """Two copies of a directory, which differ from record 20 on, push pieces in any order: the log is a beginning of
    one of them, it never shrinks or changes, and an ack is never taken back."""
    loop = asyncio.new_event_loop()
    try:
        origin = _origin(loop.run_until_complete)
        copies = (rows(40), [*rows(20), *rows(40, "b")[20:]])
        before: list[bytes] = []
        for first, end, other in pieces:
            acked = origin.loss(piece(copies[other], first, max(first, end)))
            now = origin.stored()
            assert now[: len(before)] == before
            assert acked.head.count == len(now)
            assert now in (copies[0][: len(now)], copies[1][: len(now)])
            if acked.problem is None:
                assert now[: min(len(now), max(first, end))] == copies[other][: min(len(now), max(first, end))]
            before = now
    finally:
        loop.close()
