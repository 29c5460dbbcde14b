"""Log lines over HTTP: numbered as they come, found by level, time and text."""

from __future__ import annotations

from typing import Any

import pytest

from dreamlake.wire.state import LOGS_LOG
from tests.reading import TIMESTAMP
from tests.server.serving import Directory, Serving, msgpack, over_each_store, over_memory, said

__all__ = ["over_each_store", "over_memory"]


def lines(serving: Serving, session: str, **query: Any) -> list[dict[str, Any]]:
    return said(serving.alice.get(f"/sessions/{session}/logs", params=query))["logs"]  # type: ignore[no-any-return]


def test_lines_are_numbered_in_the_order_they_came(serving: Serving) -> None:
    session = serving.alice.session()
    url = f"/sessions/{session}/logs"
    first = said(
        serving.alice.post(
            url,
            json={
                "logs": [
                    {"timestamp": "2026-01-01T00:00:00.000000Z", "level": "warn", "message": "a", "metadata": {"x": 1}},
                    {"timestamp": "2026-01-01T00:00:01.000000Z", "level": "INFO", "message": "b", "metadata": None},
                ]
            },
        )
    )
    assert first == {"created": 2, "startSequence": 0, "endSequence": 1, "sessionId": session}
    second = said(serving.alice.post(url, json={"logs": [{"message": "c"}]}))
    assert (second["startSequence"], second["endSequence"]) == (2, 2)
    found = lines(serving, session)
    assert found[0] == {
        "sequenceNumber": 0,
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "level": "warn",
        "message": "a",
        "metadata": {"x": 1},
    }
    assert found[1] == {
        "sequenceNumber": 1,
        "timestamp": "2026-01-01T00:00:01.000000Z",
        "level": "info",
        "message": "b",
    }
    assert (found[2]["sequenceNumber"], found[2]["level"], found[2]["message"]) == (2, "info", "c")
    assert TIMESTAMP.fullmatch(found[2]["timestamp"])


def test_they_are_found_by_level_time_and_text(serving: Serving) -> None:
    session = serving.alice.session()
    levels = ("debug", "info", "warn", "error", "fatal")
    given = [
        {"timestamp": f"2026-01-01T00:00:{number:02d}Z", "level": levels[number % 5], "message": f"Épochs {number}"}
        for number in range(20)
    ]
    said(serving.alice.post(f"/sessions/{session}/logs", json={"logs": given}))

    def numbers(**query: Any) -> list[int]:
        return [each["sequenceNumber"] for each in lines(serving, session, **query)]

    assert numbers(level="warn") == [2, 7, 12, 17]
    assert numbers(level=["warn", "fatal"]) == [2, 4, 7, 9, 12, 14, 17, 19]
    assert numbers(since="2026-01-01T00:00:18Z") == [18, 19], "since is included"
    assert numbers(until="2026-01-01T00:00:02Z") == [0, 1], "until is not"
    assert numbers(since="2026-01-01T01:00:18+01:00", until="2026-01-01T00:00:19.000000Z") == [18]
    assert numbers(text="éPOCHS 1", level="info") == [1, 11, 16]
    assert numbers(text="nothing") == []


def test_pages_give_each_line_once(serving: Serving) -> None:
    session = serving.alice.session()
    given = [{"message": f"{number}", "level": "warn" if number % 4 == 0 else "info"} for number in range(50)]
    said(serving.alice.post(f"/sessions/{session}/logs", json={"logs": given}))
    for level, every in (("info", [number for number in range(50) if number % 4]), ("warn", list(range(0, 50, 4)))):
        for limit in (1, 7, 13, 100):
            found: list[int] = []
            cursor: dict[str, str] = {}
            while True:
                page = said(
                    serving.alice.get(f"/sessions/{session}/logs", params={"level": level, "limit": limit, **cursor})
                )
                found += [each["sequenceNumber"] for each in page["logs"]]
                if page["nextCursor"] is None:
                    break
                cursor = {"cursor": page["nextCursor"]}
            assert found == every


def test_the_bare_nan_of_python_is_stored_as_the_project_stores_it(serving: Serving) -> None:
    session = serving.alice.session()
    content = b'{"logs":[{"message":"m","metadata":{"loss":NaN,"deep":{"x":[Infinity]},"word":"NaN"}}]}'
    said(serving.alice.post(f"/sessions/{session}/logs", content=content))
    found = lines(serving, session)[0]
    assert found["metadata"] == {"loss": "NaN", "deep": {"x": ["Infinity"]}, "word": "NaN"}
    assert found["nonfinite"] == ["loss", "deep.x.0"]


@pytest.mark.parametrize(
    "line",
    [
        {"message": "x", "level": "loud"},
        {"message": "x", "timestamp": "soon"},
        {"message": "x", "timestamp": "0001-01-01T00:00:00+14:00"},
        {"message": "x", "timestamp": "9999-12-31T23:59:59-14:00"},
        {"message": 7},
        {"level": "info"},
        {"message": "x", "metadata": [1]},
        {"message": "x" * (8 << 20)},
    ],
    ids=lambda line: repr(line)[:60],
)
def test_a_line_that_cannot_be_is_a_400_and_none_is_added(in_memory: Serving, line: dict[str, Any]) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "fine"}, line]}), 400)
    assert lines(in_memory, session) == []


def test_metadata_that_json_cannot_hold_is_a_400(in_memory: Serving) -> None:
    session = in_memory.alice.session()
    body = {"logs": [{"message": "x", "metadata": {"a": b"bytes"}}]}
    said(in_memory.alice.post(f"/sessions/{session}/logs", **msgpack(body)), 400)


@pytest.mark.parametrize("body", [{}, {"logs": []}, {"logs": [{"message": ""}] * 10_001}], ids=["", "none", "many"])
def test_no_line_or_too_many_at_once_are_a_400(in_memory: Serving, body: Any) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.post(f"/sessions/{session}/logs", json=body), 400)


@pytest.mark.parametrize(
    "query", ["level=loud", "since=soon", "until=0001-01-01T00:00:00%2B14:00", "limit=0", "limit=10001", "cursor=x"]
)
def test_a_query_that_cannot_be_is_a_400(in_memory: Serving, query: str) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.get(f"/sessions/{session}/logs?{query}"), 400)


def test_lines_of_old_directories_are_answered_as_valid_json(serving: Serving) -> None:
    old = [
        b'{"sequenceNumber":0,"timestamp":"2025-01-01T00:00:00.000000Z","level":"info","message":"a","metadata":{"x":NaN}}',
        b'{"sequenceNumber":1,"timestamp":"2025-01-01T00:00:01.000000Z","level":"info","message":"half \\ud83d"}',
        b'{"sequenceNumber":2,"timestamp":"\\udc00","level":"info","message":"whole \\ud83d\\ude00"}',
        b'{"sequenceNumber":3,"timestamp":7,"level":["info"],"message":{"not":"text"},"x":1e999}',
        b'{"sequenceNumber":4,"metadata":{"deep":%b,"x":NaN}}' % (b"[" * 200 + b"]" * 200),
    ]
    session = Directory(serving.alice, logs={LOGS_LOG: old}).pushed()
    found = lines(serving, session)
    assert [each["sequenceNumber"] for each in found] == [0, 1, 2, 3, 4]
    assert (found[0]["metadata"], found[0]["nonfinite"]) == ({"x": "NaN"}, ["x"])
    assert (found[1]["message"], found[2]["message"]) == ("half \ufffd", "whole \U0001f600")
    assert found[3]["x"] == "Infinity"
    assert lines(serving, session, text="half", level="info") == [found[1]]


def test_lines_of_several_origins_say_whose_they_are(serving: Serving) -> None:
    session = serving.alice.session()
    said(serving.alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "here"}]}))
    assert "origin" not in lines(serving, session)[0]
    old = [b'{"sequenceNumber":0,"timestamp":"2025-01-01T00:00:00.000000Z","level":"info","message":"there"}']
    Directory(serving.alice, logs={LOGS_LOG: old}).pushed()
    found = lines(serving, session)
    assert [(each["message"], each["sequenceNumber"]) for each in found] == [("there", 0), ("here", 0)]
    assert found[0]["origin"] == "a" * 32 != found[1]["origin"]
