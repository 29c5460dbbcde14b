"""Joined reads over HTTP: several origins as one log, in pages that give each record once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake_server.read import at_cursor, cursor_of
from dreamlake_server.records import joined
from dreamlake_server.stores.memory import MemoryMeta
from dreamlake_server.stores.meta import Segment
from tests.server.serving import (
    LOSS,
    Directory,
    Serving,
    mark,
    msgpack,
    opened,
    over_each_store,
    over_memory,
    points,
    said,
)

__all__ = ["over_each_store", "over_memory"]

ORIGINS = ("a" * 32, "b" * 32, "c" * 32)
REFUSED = b"refused"

Found = tuple[str, str]  # origin and index of a record


def url(session: str) -> str:
    return f"/sessions/{session}/tracks/train/loss/data"


def pages(serving: Serving, session: str, limits: Iterator[int]) -> Iterator[list[dict[str, Any]]]:
    """By cursor, to the end."""
    cursor: dict[str, str] = {}
    while True:
        limit = next(limits)
        page = said(serving.alice.get(url(session), params={"limit": limit, **cursor}))
        assert page["total"] == len(page["data"]) <= limit
        assert page["hasMore"] == (page["nextCursor"] is not None)
        assert not page["hasMore"] or page["total"] == limit
        yield page["data"]
        if not page["hasMore"]:
            return
        cursor = {"cursor": page["nextCursor"]}


def always(limit: int) -> Iterator[int]:
    return itertools.repeat(limit)


def keys(rows: Sequence[dict[str, Any]]) -> list[Found]:
    return [(row.get("origin", ORIGINS[0]), row["index"]) for row in rows]


def all_by_cursor(serving: Serving, session: str, limits: Iterator[int]) -> list[Found]:
    return keys([row for page in pages(serving, session, limits) for row in page])


def push(serving: Serving, origin: str, lines: list[bytes], cuts: Sequence[int] = ()) -> str:
    """Push a log in pieces; where a line is REFUSED, a tombstone."""
    directory = Directory(serving.alice, origin, logs={LOSS: lines})
    session = str(said(directory.push({}))["session"]["id"])
    start = 0
    stops = {
        *cuts,
        len(lines),
        *(index + more for index, line in enumerate(lines) if line == REFUSED for more in (0, 1)),
    }
    for stop in sorted(stops - {0}):
        if lines[start] == REFUSED:
            piece: dict[str, Any] = {
                "from": start,
                "prev": mark(lines[:start]),
                "refused": "no JSON",
                "next": mark(lines[:stop]),
            }
        else:
            piece = directory.piece(LOSS, start, stop)
        said(directory.push({LOSS: piece}))
        start = stop
    return session


def timed(times: Sequence[int | None]) -> list[bytes]:
    """Rows that were made at these seconds; None is one that the server refused."""
    return [
        REFUSED
        if second is None
        else b'{"data":{"value":%d},"createdAt":"2026-01-01T00:00:%02d.000000Z"}' % (index, second)
        for index, second in enumerate(times)
    ]


def expected(logs: dict[str, Sequence[int | None]]) -> list[Found]:
    """By (latest time so far, origin, index), and without what was refused: said as simply as it can be."""
    found = []
    for origin, times in logs.items():
        latest = 0
        for index, second in enumerate(times):
            if second is not None:
                latest = max(latest, second)
                found.append((latest, origin, index))
    return [(origin, str(index)) for _latest, origin, index in sorted(found)]


def test_three_origins_are_joined(serving: Serving) -> None:
    logs: dict[str, Sequence[int | None]] = {
        ORIGINS[0]: [1, 5, 2, None, 9],
        ORIGINS[1]: [2, 2, 3, 8],
        ORIGINS[2]: [None, 0, 30, 4],
    }
    for origin, times in logs.items():
        session = push(serving, origin, timed(times))
    found = all_by_cursor(serving, session, always(100))
    assert found == expected(logs)
    # Within an origin its own order, also where a clock went back.
    assert [index for origin, index in found if origin == ORIGINS[0]] == ["0", "1", "2", "4"]
    assert [index for origin, index in found if origin == ORIGINS[2]] == ["1", "2", "3"]
    for limit in range(1, 14):
        assert all_by_cursor(serving, session, always(limit)) == found


def test_by_number_the_pages_are_the_same(serving: Serving) -> None:
    """Of one origin a number is an index, which a tombstone takes up; of several, how many records come before."""
    lines = timed([1, 2, None, 3, 4, None, None, 5, 6])
    session = push(serving, ORIGINS[0], lines)
    for limit in (1, 2, 3, 100):
        found, start = [], 0
        while True:
            page = said(serving.alice.get(url(session), params={"startIndex": start, "limit": limit}))
            found += keys(page["data"])
            if not page["hasMore"]:
                break
            start = int(page["endIndex"]) + 1
        assert (
            found
            == all_by_cursor(serving, session, always(2))
            == expected({ORIGINS[0]: [1, 2, None, 3, 4, None, None, 5, 6]})
        )


TIMES = st.lists(st.one_of(st.none(), st.integers(0, 59)), max_size=14)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(TIMES.filter(bool), TIMES, TIMES),
    st.lists(st.integers(1, 13), max_size=6),
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
    st.integers(1, 60),
)
def test_each_record_comes_once_whatever_the_pages(
    times: tuple[list[int | None], ...], cuts: list[int], sizes: list[int], start: int
) -> None:
    with opened() as serving:
        session = serving.alice.session()
        logs = dict(zip(ORIGINS, times, strict=True))
        for origin, seconds in logs.items():
            push(serving, origin, timed(seconds), [cut for cut in cuts if cut < len(seconds)])
        every = expected(logs)
        assert all_by_cursor(serving, session, itertools.cycle(sizes)) == every
        if times[1] or times[2]:
            for first in (start % (len(every) + 2), len(every)):
                page = said(serving.alice.get(url(session), params={"startIndex": first, "limit": sizes[0]}))
                assert keys(page["data"]) == every[first : first + sizes[0]]
                assert page["hasMore"] == (first + sizes[0] < len(every))


def test_large_segments_are_skipped_whole_and_right(in_memory: Serving) -> None:
    """Two origins of which one ran after the other, and a third all the time: some segments overlap and some do not."""
    logs = {
        ORIGINS[0]: points(3000),
        ORIGINS[1]: points(3000, "b", minutes=60),
        ORIGINS[2]: points(9, "c", minutes=49),
    }
    for origin, lines in logs.items():
        session = push(in_memory, origin, lines, range(0, len(lines), 700))
    every = all_by_cursor(in_memory, session, always(1000))
    assert len(every) == len(set(every)) == 6009
    for start in (1, 699, 700, 701, 2937, 2940, 2950, 3005, 3009, 3010, 5999, 6008, 6009, 7000):
        page = said(in_memory.alice.get(url(session), params={"startIndex": start, "limit": 5}))
        assert keys(page["data"]) == every[start : start + 5]


def test_what_comes_between_two_pages_breaks_no_cursor(serving: Serving) -> None:
    """What is later comes later; an origin that is new in between is read from its start."""
    directory = Directory(serving.alice, logs={LOSS: points(30)})
    said(directory.push({LOSS: directory.piece(LOSS, 0, 10)}))
    session = str(said(directory.push({LOSS: directory.piece(LOSS, 0, 10)}))["session"]["id"])
    first = said(serving.alice.get(url(session), params={"limit": 6}))
    said(directory.push({LOSS: directory.piece(LOSS, 10)}))
    push(serving, ORIGINS[1], points(3, "b"))
    found = keys(first["data"])
    cursor = first["nextCursor"]
    while cursor:
        page = said(serving.alice.get(url(session), params={"limit": 6, "cursor": cursor}))
        found += keys(page["data"])
        cursor = page["nextCursor"]
    assert sorted(found) == sorted(
        [*((ORIGINS[0], str(index)) for index in range(30)), *((ORIGINS[1], str(index)) for index in range(3))]
    )


@pytest.mark.parametrize(
    "cursor",
    ["x", "!", "é", "=", "e30=x", "bnVsbA", "WzFd", "eyJhIjotMX0", "eyJhIjoxLjV9", "eyJhIjp0cnVlfQ", "A" * 70_000],
)
def test_what_is_no_cursor_is_a_400(in_memory: Serving, cursor: str) -> None:
    session = push(in_memory, ORIGINS[0], points(3))
    if len(cursor) < 65_000:  # of a longer one httpx makes no URL; nothing that listens takes it
        said(in_memory.alice.get(url(session), params={"cursor": cursor}), 400)
    with pytest.raises(ValueError, match="cursor"):
        at_cursor(cursor)


def test_a_cursor_of_elsewhere_is_harmless(in_memory: Serving) -> None:
    session = push(in_memory, ORIGINS[0], points(3))
    strange = cursor_of({"f" * 32: 9, ORIGINS[0]: (1 << 62) - 1})
    page = said(in_memory.alice.get(url(session), params={"cursor": strange}))
    assert (page["data"], page["hasMore"]) == ([], False)


@pytest.mark.parametrize(
    ("data", "answered", "nonfinite"),
    [
        (b'{"value":NaN}', {"value": "NaN"}, ["value"]),
        (b'{"a":[1,-Infinity],"b":{"c":Infinity}}', {"a": [1, "-Infinity"], "b": {"c": "Infinity"}}, ["a.1", "b.c"]),
        (b'{"value":1e999}', {"value": "Infinity"}, ["value"]),
        (b'{"value":-%b.0}' % (b"9" * 400), {"value": "-Infinity"}, ["value"]),
        (b'{"value":"NaN","Infinity":1}', {"value": "NaN", "Infinity": 1}, None),
        (b'{"\\ud800":NaN}', {"\ufffd": "NaN"}, ["\ufffd"]),
        (b'{"value":"\\ud83d\\ude00 \\udc00"}', {"value": "\U0001f600 \ufffd"}, None),
        (b'{"value":%d}' % 10**40, {"value": 10**40}, None),
    ],
)
def test_what_only_old_lines_hold_is_answered_as_valid_json(
    serving: Serving, data: bytes, answered: Any, nonfinite: list[str] | None
) -> None:
    session = push(serving, ORIGINS[0], [b'{"index":0,"data":%b,"createdAt":"2025-01-01T00:00:00.000000Z"}' % data])
    found = said(serving.alice.get(url(session)))["data"][0]
    assert (found["data"], found.get("nonfinite")) == (answered, nonfinite)


def test_deep_old_lines_with_nan_are_answered(in_memory: Serving) -> None:
    line = b'{"data":{"value":NaN,"deep":%b}}' % (b"[" * 200 + b"]" * 200)
    session = push(in_memory, ORIGINS[0], [line])
    assert said(in_memory.alice.get(url(session)))["data"][0]["data"]["value"] == "NaN"


class Counting(MemoryMeta):
    """How many segments were read."""

    read = 0

    async def segments(self, session_id: str, origin: str, log: str, first: int, limit: int) -> list[Segment]:
        found = await super().segments(session_id, origin, log, first, limit)
        self.read += len(found)
        return found


def push_many(serving: Serving, origin: str, lines: list[bytes]) -> str:
    directory = Directory(serving.alice, origin)
    body = {"from": 0, "prev": "0-00000000", "lines": joined(lines)}
    return str(said(serving.alice.post("/v1/push", **msgpack(directory.body(**{LOSS: body}))))["session"]["id"])


def test_of_300_000_points_a_page_near_the_end_costs_what_the_first_one_costs() -> None:
    """In segments read, of which there are some 30 a log."""
    meta = Counting()
    lines = points(300_000)
    with opened(meta=meta) as serving:

        def cost(session: str, **query: Any) -> tuple[int, dict[str, Any]]:
            meta.read = 0
            page: dict[str, Any] = said(serving.alice.get(url(session), params={"limit": 10, **query}))
            return meta.read, page

        session = push_many(serving, ORIGINS[0], lines)
        count = len(serving.run(meta.segments(session, ORIGINS[0], LOSS, 0, 1000)))
        assert count >= 25
        first, _ = cost(session)
        near, page = cost(session, startIndex=299_900)
        assert [each["index"] for each in page["data"]] == [str(299_900 + number) for number in range(10)]
        assert near <= first <= 4
        by_cursor, again = cost(session, cursor=page["nextCursor"])
        assert again["data"][0]["index"] == "299910"
        assert by_cursor <= first

        # With a second origin by cursor as well, however far it is.
        push_many(serving, ORIGINS[1], lines[:100_000])
        first, _ = cost(session)
        near, page = cost(session, cursor=cursor_of({ORIGINS[0]: 299_900, ORIGINS[1]: 99_990}))
        assert page["total"] == 10
        assert near <= first <= 8


def test_the_same_page_at_random_places(in_memory: Serving) -> None:
    """By cursor from any record on it is what a walk from the start comes to."""
    for number, origin in enumerate(ORIGINS):
        session = push(in_memory, origin, points(400, minutes=2 * number), range(0, 400, 90))
    every = all_by_cursor(in_memory, session, always(1000))
    choose = random.Random(7)
    for start in choose.sample(range(len(every)), 15):
        seen = every[:start]
        positions = {origin: sum(1 for each, _ in seen if each == origin) for origin in ORIGINS}
        page = said(in_memory.alice.get(url(session), params={"limit": 20, "cursor": cursor_of(positions)}))
        assert keys(page["data"]) == every[start : start + 20]


def test_the_points_and_lines_of_one_rank(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        b'{"index":%d,"data":{"rank":1},"createdAt":"2026-01-01T00:00:00.000000Z","rank":%d}' % (at, at % 3)
        for at in range(30)
    ]
    session = push(serving, ORIGINS[0], lines)

    def asked(**more: Any) -> dict[str, Any]:
        return dict(said(serving.alice.get(url(session), params={"rank": 1, **more})))

    page = asked(limit=4)
    assert [(row["index"], row["rank"]) for row in page["data"]] == [(str(at), 1) for at in (1, 4, 7, 10)]
    rest = asked(cursor=page["nextCursor"])
    assert [row["index"] for row in rest["data"]] == [str(at) for at in range(13, 30, 3)]
    assert asked(startIndex=26)["data"][0]["index"] == "28"
    # A page that looks at many and finds few ends early, and its cursor goes on behind what it looked at.
    monkeypatch.setattr("dreamlake_server.api.tracks.SCAN_ROWS", 5)
    found: list[str] = []
    cursor: dict[str, str] | None = {}
    while cursor is not None:
        page = asked(**cursor)
        found += [row["index"] for row in page["data"]]
        cursor = {"cursor": page["nextCursor"]} if page["hasMore"] else None
    assert found == [str(at) for at in range(1, 30, 3)]

    logs = f"/sessions/{session}/logs"
    assert said(serving.alice.get(logs, params={"rank": 1}))["logs"] == []
