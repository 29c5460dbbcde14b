"""What every Meta must do with logs: heads, appends, segments. Part of :class:`tests.contract.meta.MetaSuite`."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import Any

import pytest

from dreamlake_server import limits
from dreamlake_server.stores.meta import Append, Head, Meta, Segment, Session
from tests.contract.conftest import Run

S1, S2, S3 = "1" * 24, "2" * 24, "3" * 24
THEN = "2026-01-01T00:00:00Z"
ONE, OTHER = "origin-one", "origin-other"
LOSS = "tracks/loss/data.jsonl"

# Each means something to some database, or differs from its neighbour only in a way that some database overlooks.
NAMES = (
    "plain",
    "PLAIN",
    "tracks/a.b/$c/data.jsonl",
    "a.b",
    "a",
    "$set",
    "$where: 1",
    ".hidden.",
    "..",
    "__proto__",
    "_id",
    "%2F",
    "100%_like?*[a-z]",
    'it\'s "quoted"; DROP TABLE segments; --',
    "back\\slash",
    " spaces ",
    "spaces",
    "line\nbreak\ttab",
    "\u00e9",  # one character
    "e\u0301",  # the same to the eye, in two
    "実験/損失",
    "🜁🜂" * 20,
    "\ufeffmark",
    "0",
    "00",
    "1e3",
    "null",
    "x" * limits.NAME_BYTES,
)


def together(*calls: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, list[Any]]:
    """All at once; what they answered, in their order."""

    async def gathered() -> list[Any]:
        return list(await asyncio.gather(*calls))

    return gathered()


def append(log: str, before: Head, *datas: bytes, rows: int = 1, tail: Segment | None = None) -> Append:
    """An append of a segment for each of ``datas``, of ``rows`` records each. With ``tail`` the first of them grows out
    of that segment, which was the last."""
    head, segments = before, []
    for data in datas:
        first, size, checksum, time = head.count, head.size, head.checksum, head.time_max
        after = Head(
            count=head.count + rows,
            size=head.size + len(data),
            checksum=zlib.crc32(data, head.checksum),
            time_first=head.time_first or "2026-01-01T00:00:00.000000Z",
            time_max=f"2026-01-01T00:00:00.{head.count + rows:06}Z",
        )
        grown, count = data, rows
        if tail is not None:
            first, size, checksum, time = tail.first, tail.size_before, tail.checksum_before, tail.time_before
            grown, count, tail = tail.data + data, tail.count + rows, None
        segments.append(Segment(first, count, len(grown), size, checksum, time, after.time_max, grown))
        head = after
    return Append(log, before, head, tuple(segments))


class LogSuite:
    @pytest.fixture
    def session(self, run: Run, meta: Meta) -> Session:
        return run(meta.make_session("alice", "work", "run", S1, THEN))

    def test_a_log_without_records_has_no_head(self, run: Run, meta: Meta, session: Session) -> None:
        assert run(meta.heads(S1)) == {}
        assert run(meta.heads(S2)) == {}
        assert run(meta.append(S1, ONE, [Append(LOSS, Head(), Head(), ())]))
        assert run(meta.heads(S1)) == {}
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")]))
        assert run(meta.heads(S1)).keys() == {(ONE, LOSS)}

    def test_head_and_segments_come_back_as_they_were_given(self, run: Run, meta: Meta, session: Session) -> None:
        far = Head(2**40 + 3, 2**45 + 7, 2**32 - 1, None, "2026-02-03T04:05:06.7Z", 2**40)
        segment = Segment(2**40, 3, 7, 2**45, 2**32 - 1, None, "2026-02-03T04:05:06.7Z", bytes(range(256)))
        assert run(meta.append(S1, ONE, [Append(LOSS, Head(), far, (segment,))]))
        assert run(meta.heads(S1)) == {(ONE, LOSS): far}
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == [segment]

    @pytest.mark.parametrize(
        "wrong",
        [
            replace(append(LOSS, Head(), b"row\n").after, **{name: value})
            for name, value in (
                ("count", 2),
                ("size", 5),
                ("checksum", 1),
                ("time_first", None),
                ("time_max", "2026-01-01T00:00:00.000002Z"),
                ("sealed", 1),
            )
        ]
        + [Head()],
    )
    def test_a_head_that_differs_in_anything_changes_nothing(
        self, run: Run, meta: Meta, session: Session, wrong: Head
    ) -> None:
        first = append(LOSS, Head(), b"row\n")
        assert run(meta.append(S1, ONE, [first], summary={"says": "first"}, blobs=["1" * 64]))
        more = Append(LOSS, wrong, replace(wrong, count=9), append(LOSS, first.after, b"lost\n").segments)
        # The lost append stands before, between and after others that would fit, which must not be kept either.
        fits = [append(f"tracks/{number}", Head(), b"lost\n") for number in range(4)]
        for at in (0, 2, 4):
            appends = [*fits[:at], more, *fits[at:]]
            assert run(meta.append(S1, ONE, appends, summary={"says": "lost"}, blobs=["2" * 64])) is False
        assert run(meta.heads(S1)) == {(ONE, LOSS): first.after}
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == list(first.segments)
        assert run(meta.segments(S1, ONE, "tracks/0", 0, 10)) == []
        assert run(meta.session("alice", S1)).origins == {ONE: {"says": "first"}}
        assert run(meta.blobs_only_of("alice", S1)) == ["1" * 64]
        for fit in fits:
            assert run(meta.append(S1, ONE, [fit]))

    def test_a_log_that_has_no_head_continues_nothing(self, run: Run, meta: Meta, session: Session) -> None:
        late = append(LOSS, append(LOSS, Head(), b"row\n").after, b"row\n")
        assert run(meta.append(S1, ONE, [late])) is False
        assert run(meta.heads(S1)) == {}
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == []

    def test_a_repeated_append_is_refused(self, run: Run, meta: Meta, session: Session) -> None:
        first = append(LOSS, Head(), b"row\n")
        assert run(meta.append(S1, ONE, [first])) is True
        assert run(meta.append(S1, ONE, [first])) is False
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == list(first.segments)

    def test_nothing_is_appended_to_a_session_that_is_not_there_or_deleted(
        self, run: Run, meta: Meta, session: Session
    ) -> None:
        first = append(LOSS, Head(), b"row\n")
        second = append(LOSS, first.after, b"row\n")
        assert run(meta.append(S2, ONE, [first], summary={}, blobs=["1" * 64])) is False
        assert run(meta.append(S2, ONE, [])) is False
        assert run(meta.append(S1, ONE, [first]))
        assert run(meta.mark_deleted("alice", S1, THEN))
        assert run(meta.append(S1, ONE, [second], summary={"late": 1}, blobs=["1" * 64])) is False
        assert run(meta.append(S1, ONE, [], summary={"late": 1})) is False
        assert run(meta.append(S1, ONE, [], blobs=["1" * 64])) is False
        assert run(meta.mark_deleted("alice", S1, None))
        assert run(meta.heads(S1)) == {(ONE, LOSS): first.after}
        assert run(meta.session("alice", S1)).origins == {}
        assert run(meta.blobs_only_of("alice", S1)) == []
        assert run(meta.append(S1, ONE, [second]))
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == [*first.segments, *second.segments]

    def test_a_small_last_segment_grows(self, run: Run, meta: Meta, session: Session) -> None:
        last = append(LOSS, Head(), b"a" * 20, b"b")
        assert run(meta.append(S1, ONE, [last]))
        for _ in range(3):
            tail = last.segments[-1]
            last = append(LOSS, last.after, b"more", tail=tail)
            assert run(meta.append(S1, ONE, [last]))
        assert [each.data for each in run(meta.segments(S1, ONE, LOSS, 0, 10))] == [b"a" * 20, b"bmoremoremore"]
        # It is full, and new ones come after it, in the same append.
        last = append(LOSS, last.after, b"!", b"c", b"d", tail=last.segments[-1])
        assert run(meta.append(S1, ONE, [last]))
        found = run(meta.segments(S1, ONE, LOSS, 0, 10))
        assert [each.data for each in found] == [b"a" * 20, b"bmoremoremore!", b"c", b"d"]
        assert found[1:] == list(last.segments)
        assert run(meta.heads(S1)) == {(ONE, LOSS): last.after}

    def test_a_lost_growth_leaves_the_segment_alone(self, run: Run, meta: Meta, session: Session) -> None:
        first = append(LOSS, Head(), b"row\n")
        won = append(LOSS, first.after, b"won\n", tail=first.segments[0])
        lost = append(LOSS, first.after, b"lost\n", tail=first.segments[0])
        for each, kept in ((first, True), (won, True), (lost, False)):
            assert run(meta.append(S1, ONE, [each])) is kept
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == list(won.segments)

    def test_segments_from_anywhere(self, run: Run, meta: Meta, session: Session) -> None:
        whole = append(LOSS, Head(), *(b"%d" % number for number in range(20)), rows=10)
        assert run(meta.append(S1, ONE, [whole]))
        # Neighbours in every order that a key could have; none of their segments may come along.
        for origin, log in ((ONE, LOSS + "a"), (ONE, LOSS[:-1]), (OTHER, LOSS), ("origin-on", LOSS)):
            assert run(meta.append(S1, origin, [append(log, Head(), b"not this", rows=1000)]))

        def firsts(first: int, limit: int = 100) -> list[int]:
            return [each.first for each in run(meta.segments(S1, ONE, LOSS, first, limit))]

        assert run(meta.segments(S1, ONE, LOSS, 0, 100)) == list(whole.segments)
        assert firsts(9) == list(range(0, 200, 10))
        assert firsts(10) == list(range(10, 200, 10))
        assert firsts(55, 3) == [50, 60, 70]
        assert firsts(55, 1) == [50]
        assert firsts(199) == firsts(190) == [190]
        assert firsts(200) == firsts(9_000_000) == []
        assert run(meta.segments(S1, ONE, "no such log", 0, 10)) == []
        assert run(meta.segments(S1, "no such origin", LOSS, 0, 10)) == []
        assert run(meta.segments(S2, ONE, LOSS, 0, 10)) == []

    def test_what_no_segment_holds_is_passed_over(self, run: Run, meta: Meta, session: Session) -> None:
        begun = append(LOSS, Head(), b"0", b"1", b"2", b"3", rows=10)
        holed = replace(begun, segments=begun.segments[1::2])  # 10 to 19, 30 to 39
        assert run(meta.append(S1, ONE, [holed]))
        for first, found in ((0, [10, 30]), (15, [10, 30]), (20, [30]), (29, [30]), (30, [30]), (40, [])):
            assert [each.first for each in run(meta.segments(S1, ONE, LOSS, first, 10))] == found

    def test_tombstones(self, run: Run, meta: Meta, session: Session) -> None:
        begun = append(LOSS, Head(), b"0", b"1", b"2")
        why = 'not JSON: "a\u0301" at 1\''
        grave = replace(begun.segments[1], data=b"", refused=why)
        assert run(meta.append(S1, ONE, [replace(begun, segments=(begun.segments[0], grave, begun.segments[2]))]))
        assert run(meta.segments(S1, ONE, LOSS, 1, 1)) == [grave]
        assert [each.refused for each in run(meta.segments(S1, ONE, LOSS, 0, 3))] == [None, why, None]

    def test_a_log_that_begins_at_a_base(self, run: Run, meta: Meta, session: Session) -> None:
        base = Head(count=30, size=900, checksum=7, time_max="2026-01-01T00:00:00.000009Z", base=30)
        assert run(meta.append(S1, ONE, [Append(LOSS, Head(), base, ())]))
        assert run(meta.heads(S1)) == {(ONE, LOSS): base}
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == []
        first = append(LOSS, base, b"row\n")
        first = replace(first, after=replace(first.after, base=30))
        assert not run(meta.append(S1, ONE, [replace(first, before=replace(base, base=0))])), "it is another head"
        assert run(meta.append(S1, ONE, [first]))
        assert run(meta.heads(S1, logs=[LOSS])) == {(ONE, LOSS): first.after}
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == list(first.segments)

    def test_large_segments_of_any_bytes(self, run: Run, meta: Meta, session: Session) -> None:
        datas = [random.Random(number).randbytes(limits.RECORD_BYTES) for number in range(3)]
        large = append(LOSS, Head(), *datas)
        assert run(meta.append(S1, ONE, [large]))
        assert run(meta.segments(S1, ONE, LOSS, 0, 10)) == list(large.segments)

    def test_logs_and_origins_by_any_name(self, run: Run, meta: Meta, session: Session) -> None:
        heads = {}
        for number, origin in enumerate(NAMES):
            logs = NAMES if number == 0 else (origin,)
            appends = [append(log, Head(), f"{number} {log}".encode()) for log in logs]
            assert run(meta.append(S1, origin, appends, summary={origin: number}))
            heads.update({(origin, each.log): each.after for each in appends})
        assert run(meta.heads(S1)) == heads
        assert run(meta.session("alice", S1)).origins == {name: {name: at} for at, name in enumerate(NAMES)}
        for origin, log in heads:
            assert run(meta.heads(S1, origin=origin, logs=[log])) == {(origin, log): heads[origin, log]}
            found = run(meta.segments(S1, origin, log, 0, 10))
            assert [each.data for each in found] == [f"{NAMES.index(origin)} {log}".encode()]

    def test_heads_of_an_origin_or_of_some_logs(self, run: Run, meta: Meta, session: Session) -> None:
        run(meta.make_session("alice", "work", "other", S2, THEN))
        for session_id in (S1, S2):
            for origin in (ONE, OTHER):
                assert run(meta.append(session_id, origin, [append(log, Head(), b"row\n") for log in "abc"]))

        def keys(**which: Any) -> list[tuple[str, str]]:
            return sorted(run(meta.heads(S1, **which)))

        assert keys() == [(origin, log) for origin in (ONE, OTHER) for log in "abc"]
        assert keys(origin=ONE) == [(ONE, log) for log in "abc"]
        assert keys(origin="nobody") == []
        assert keys(logs=["b", "none", "b"]) == [(ONE, "b"), (OTHER, "b")]
        assert keys(origin=OTHER, logs=("c", "a")) == [(OTHER, "a"), (OTHER, "c")]
        assert keys(logs=[]) == keys(origin=ONE, logs=[]) == []

    def test_as_many_logs_as_may_be_named(self, run: Run, meta: Meta, session: Session) -> None:
        long = "x" * (limits.NAME_BYTES - 5)
        names = [f"{number:05}{long}" for number in range(limits.LOGS)]
        there = names[::100]
        assert run(meta.append(S1, ONE, [append(log, Head(), b"row\n") for log in there]))
        assert run(meta.heads(S1, logs=names)).keys() == {(ONE, log) for log in there}
        assert run(meta.heads(S1, origin=ONE, logs=names)).keys() == {(ONE, log) for log in there}
        assert run(meta.heads(S1, origin=OTHER, logs=names)) == {}

    def test_many_logs_in_one_append(self, run: Run, meta: Meta, session: Session) -> None:
        appends = [append(f"tracks/{number}", Head(), b"row\n") for number in range(2000)]
        assert run(meta.append(S1, ONE, appends))
        assert run(meta.heads(S1)) == {(ONE, each.log): each.after for each in appends}
        wrong = [append(each.log, each.after if each is not appends[-1] else Head(), b"lost\n") for each in appends]
        assert run(meta.append(S1, ONE, wrong)) is False
        assert run(meta.heads(S1)) == {(ONE, each.log): each.after for each in appends}

    def test_a_summary_is_any_json_and_the_store_s_own(self, run: Run, meta: Meta, session: Session) -> None:
        summary = {
            "$set": {"a.b": [1, 2.5, -0.0, None, True, {"": "empty key"}]},
            "long": 2**70,
            "deep": [[[[{"x": []}]]]],
            "text": "\u0000 \u2028 実験",
            "_id": 1,
        }
        given = {**summary, "deep": [[[[{"x": []}]]]]}
        assert run(meta.append(S1, ONE, [], summary=given))
        given["deep"][0].append("changed by the caller")
        found = run(meta.session("alice", S1)).origins
        assert found == {ONE: summary}
        assert repr(found[ONE]["$set"]["a.b"][2]) == "-0.0"
        found[ONE]["deep"].append("changed by a reader")
        assert run(meta.session("alice", S1)).origins == {ONE: summary}
        assert run(meta.find_session("alice", "work", "run")).origins == {ONE: summary}
        # Another origin's stands beside it, an append without one leaves it, the next one replaces it whole.
        assert run(meta.append(S1, OTHER, [append(LOSS, Head(), b"row\n")], summary={}))
        assert run(meta.append(S1, ONE, [append(LOSS, Head(), b"row\n")]))
        assert run(meta.session("alice", S1)).origins == {ONE: summary, OTHER: {}}
        assert run(meta.append(S1, ONE, [], summary={"new": 1}))
        assert run(meta.session("alice", S1)).origins == {ONE: {"new": 1}, OTHER: {}}
        assert [each.origins for each in run(meta.sessions("alice", None, None, 1))] == [{ONE: {"new": 1}, OTHER: {}}]

    def test_of_several_at_one_head_one_wins(
        self, run: Run, meta: Meta, another: Meta | None, session: Session
    ) -> None:
        stores = [meta, another or meta]
        wins: Counter[int] = Counter()
        kept: list[Segment] = []
        for turn in range(12):
            before = run(meta.heads(S1)).get((ONE, LOSS), Head())
            bids = [append(LOSS, before, b"%d by %d\n" % (turn, who)) for who in range(8)]
            if kept and turn % 3:
                bids = [append(LOSS, before, b"%d by %d\n" % (turn, who), tail=kept[-1]) for who in range(8)]
            answers = run(
                together(
                    *(
                        stores[who % 2].append(S1, ONE, [bid, append(f"of {who}/{turn}", Head(), b"row\n")])
                        for who, bid in enumerate(bids)
                    )
                )
            )
            assert sorted(answers) == [False] * 7 + [True]
            winner = answers.index(True)
            wins[winner] += 1
            (segment,) = bids[winner].segments
            kept = [each for each in kept if each.first != segment.first] + [segment]
            heads = run(meta.heads(S1))
            assert heads[ONE, LOSS] == bids[winner].after
            assert [log for _, log in heads if log.endswith(f"/{turn}")] == [f"of {winner}/{turn}"]
            assert run(meta.segments(S1, ONE, LOSS, 0, 100)) == kept
        assert sum(wins.values()) == 12

    def test_writers_that_try_again_lose_nothing(
        self, run: Run, meta: Meta, another: Meta | None, session: Session
    ) -> None:
        async def write(store: Meta, who: int) -> None:
            for number in range(10):
                while True:
                    before = (await store.heads(S1, origin=ONE, logs=[LOSS])).get((ONE, LOSS), Head())
                    if await store.append(S1, ONE, [append(LOSS, before, b"%d.%d\n" % (who, number))]):
                        break

        run(together(*(write((meta, another or meta)[who % 2], who) for who in range(5))))
        found = run(meta.segments(S1, ONE, LOSS, 0, 100))
        assert chain(found) == run(meta.heads(S1))[ONE, LOSS]
        datas = [each.data for each in found]
        for who in range(5):
            assert [data for data in datas if data.startswith(b"%d." % who)] == [
                b"%d.%d\n" % (who, n) for n in range(10)
            ]

    def test_appends_to_different_logs_do_not_hinder_each_other(
        self, run: Run, meta: Meta, another: Meta | None, session: Session
    ) -> None:
        stores = (meta, another or meta)
        calls = [
            stores[who % 2].append(
                S1,
                f"origin.{who}",
                [append(LOSS, Head(), b"row\n"), append("own", Head(), b"row\n")],
                summary={"who": who},
                blobs=["a" * 64, f"{who:064}"],
            )
            for who in range(24)
        ]
        assert run(together(*calls)) == [True] * 24
        assert run(meta.heads(S1)).keys() == {(f"origin.{who}", log) for who in range(24) for log in (LOSS, "own")}
        assert run(meta.session("alice", S1)).origins == {f"origin.{who}": {"who": who} for who in range(24)}
        assert sorted(run(meta.blobs_only_of("alice", S1))) == [*(f"{who:064}" for who in range(24)), "a" * 64]


def chain(segments: Iterable[Segment]) -> Head:
    """The head that a whole log's segments come to; they must continue each other."""
    head = Head()
    for each in segments:
        assert (each.first, each.size_before, each.checksum_before) == (head.count, head.size, head.checksum)
        head = append("", head, each.data).after
    return head
