"""Following back, and bases: what was pushed is read as it is, and a log may begin where another origin's ended.
docs/push.md says it in words."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from dreamlake.remote.follow import Follow, Head, OtherHistory, Piece
from dreamlake.remote.lake import Lake, NotLetIn, Refused, Trouble
from dreamlake.wire.marks import Mark
from dreamlake.wire.state import PARAMETERS_LOG, SESSION_LOG
from dreamlake.wire.zstd import unpack
from dreamlake_server import limits
from dreamlake_server.records import joined
from tests.remote.lakes import Wire, lake_of
from tests.server.serving import (
    HERE,
    LOSS,
    RUN,
    Caller,
    Directory,
    Serving,
    mark,
    over_each_store,
    over_memory,
    points,
    said,
)

__all__ = ["over_each_store", "over_memory"]

HEIR = "b" * 32


@pytest.fixture
def directory(serving: Serving) -> Directory:
    return Directory(serving.alice, logs={LOSS: points(30)})


def origins(caller: Caller, **more: Any) -> Any:
    return said(caller.post("/v1/origins", json={"session": RUN, **more}))


def pieces(caller: Caller, first: int = 0, origin: str = "a" * 32, **more: Any) -> list[dict[str, Any]]:
    body = {"session": RUN, "origin": origin, "log": LOSS, "from": first, **more}
    found: list[dict[str, Any]] = said(caller.post("/v1/records", json=body))["pieces"]
    return found


def followed(follow: Follow, first: int = 0, before: Mark | None = None, end: int | None = None) -> list[Piece]:
    return list(follow.pieces("a" * 32, LOSS, first, before, end))


def follow_of(serving: Serving, fault: Any = None) -> Follow:
    lake, _wire = lake_of(serving, fault)
    return Follow(lake, RUN["workspace"], RUN["name"])


def lines_of(found: Sequence[Piece]) -> list[bytes]:
    return [line for piece in found for line in piece.lines]


def a_base(lines: list[bytes], **more: Any) -> dict[str, Any]:
    return {"from": 0, "prev": mark([]), "base": len(lines), "next": mark(lines), **more}


# ── origins ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_origins_say_how_far_each_log_of_each_directory_is(serving: Serving, directory: Directory) -> None:
    assert origins(serving.alice) == {"session": None, "origins": {}}
    session = directory.pushed()
    Directory(serving.alice, HEIR, logs={LOSS: points(2), PARAMETERS_LOG: [b'{"op":"set"}']}).pushed()
    found = origins(serving.alice)
    assert found["session"] == {"id": session, "deletedAt": None}
    first, last = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:29.000000Z"
    loss = {"count": 30, "mark": mark(points(30)), "base": 0, "first": first, "last": last}
    assert found["origins"]["a" * 32] == {LOSS: loss}
    assert set(found["origins"][HEIR]) == {LOSS, PARAMETERS_LOG}
    assert list(origins(serving.alice, logs=[PARAMETERS_LOG])["origins"]) == [HEIR]
    assert origins(serving.bob)["session"] is None, "another user's"
    assert origins(serving.reader) == found, "a token that may only read"

    said(serving.alice.delete(f"/sessions/{session}"))
    gone = origins(serving.alice)
    assert (gone["session"]["deletedAt"] is not None, gone["origins"]) == (True, {})
    body = {"session": RUN, "origin": "a" * 32, "log": LOSS}
    assert said(serving.alice.post("/v1/records", json=body), 410)["error"] == "deleted"


# ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pieces_come_as_they_are_stored_each_with_its_marks(
    serving: Serving, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEGMENT_ROWS", 10)
    monkeypatch.setattr("dreamlake_server.records.SEGMENT_ROWS", 10)
    assert pieces(serving.alice) == [], "nobody has pushed it yet"
    directory.pushed()
    lines = directory.logs[LOSS]
    found = pieces(serving.alice, 13)
    assert [(each["from"], each["count"]) for each in found] == [(10, 10), (20, 10)]
    assert [(each["prev"], each["next"]) for each in found] == [
        (mark(lines[:10]), mark(lines[:20])),
        (mark(lines[:20]), mark(lines)),
    ]
    assert unpack(base64.b64decode(found[0]["lines"]), found[0]["size"]) == joined(lines[10:20])
    assert [each["from"] for each in pieces(serving.alice, 0, bytes=1)] == [0], "one piece at least"
    assert pieces(serving.alice, 30) == [], "not yet"
    assert pieces(serving.bob) == []


def test_following_gives_every_record_once_from_any_place(
    serving: Serving, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamlake_server.records.SEGMENT_ROWS", 10)
    monkeypatch.setattr("dreamlake.remote.follow.PIECES_BYTES", 1)
    lines = directory.logs[LOSS]
    for count in (0, 7, 30):
        directory.push({LOSS: directory.piece(LOSS, 0, count)})
        follow = follow_of(serving)
        assert follow.origins().get("a" * 32, {LOSS: Head(0, Mark())})[LOSS].count == count
        for first in {0, 1, 6, 9, 10, 11, 29} & set(range(count)):
            before = Mark.of(mark(lines[:first]))
            found = followed(follow, first, before)
            assert lines_of(found) == lines[first:count]
            assert found[-1].next == Mark.of(mark(lines[:count]))
            assert found[0].time == (f"2026-01-01T00:00:{first - 1:02d}.000000Z" if first else "")
            cut = followed(follow, first, before, end=(first + count + 1) // 2)
            assert lines_of(cut) == lines[first : (first + count + 1) // 2]
            assert cut[-1].next == Mark.of(mark(lines[: (first + count + 1) // 2]))
    assert follow.session is not None


@pytest.mark.parametrize("at", [0, 4, 9])
def test_a_record_that_was_refused_is_an_empty_line(serving: Serving, at: int) -> None:
    directory = Directory(serving.alice, logs={LOSS: points(10)})
    lines = directory.logs[LOSS]
    lines[at] = b"no json"
    directory.push({LOSS: directory.piece(LOSS, 0, at)})
    grave = {"from": at, "prev": mark(lines[:at]), "refused": "no JSON", "next": mark(lines[: at + 1])}
    said(directory.push({LOSS: grave}))
    expected = [*lines[:at], b"", *lines[at + 1 :]]
    found = followed(follow_of(serving), 0, Mark())
    assert lines_of(found) == expected[: at + 1]
    assert found[-1].next == Mark.of(mark(lines[: at + 1])), "its mark is known, though its bytes are not"
    directory.push({LOSS: directory.piece(LOSS, at + 1)})
    assert lines_of(followed(follow_of(serving), 0, Mark())) == expected
    assert pieces(serving.alice, at)[0]["refused"] == "no JSON"


def test_what_does_not_continue_is_not_given(serving: Serving, directory: Directory) -> None:
    directory.pushed()
    follow = follow_of(serving)
    other = Mark.of(mark(points(5, "b")))
    with pytest.raises(OtherHistory, match=r"another history of tracks/train/loss/data\.jsonl before record 5"):
        followed(follow, 5, other)
    assert len(lines_of(followed(follow, 5, None))) == 25, "nothing is known before"
    with pytest.raises(OtherHistory, match="fewer records"):
        followed(follow, 0, Mark(), end=31)


def damaged(how: Any) -> Any:
    """A wire on which answers to /v1/records are changed."""

    def fault(request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        if answer is None or request.url.path != "/v1/records":
            return None
        body = json.loads(answer.content)
        for piece in body["pieces"]:
            how(piece)
        answer._content = json.dumps(body).encode()
        return None

    return fault


@pytest.mark.parametrize(
    "change",
    [
        {"count": 29},
        {"size": 3},
        {"size": 1 << 60},
        {"lines": "AAAA"},
        {"lines": "no base64"},
        {"next": "0-0"},
        {"next": mark(points(30, "b"))},
        {"prev": mark(points(1))},
        {"from": 3},
        {"from": -40},
        {"from": None},
        {"count": 0, "size": 0, "lines": "KLUv/SAAAQAA"},
        {"prev": None},
    ],
    ids=repr,
)
def test_an_answer_that_was_damaged_on_the_way_is_an_error_and_never_a_record(
    in_memory: Serving, change: dict[str, Any]
) -> None:
    Directory(in_memory.alice, logs={LOSS: points(30)}).pushed()
    follow = follow_of(in_memory, damaged(lambda piece: piece.update(change)))
    found: list[Piece] = []
    with pytest.raises(Trouble):
        found.extend(follow.pieces("a" * 32, LOSS, 0, Mark()))
    assert found == []


@pytest.mark.parametrize(
    "body",
    [
        {"origin": "A" * 32},
        {"log": "tracks/../data.jsonl"},
        {"from": -1},
        {"bytes": 0},
        {"bytes": limits.ANSWER_BYTES + 1},
        {"session": {"workspace": "w", "name": "../x"}},
    ],
    ids=repr,
)
def test_what_the_protocol_does_not_know_is_a_400(in_memory: Serving, body: dict[str, Any]) -> None:
    whole = {"session": RUN, "origin": "a" * 32, "log": LOSS, **body}
    said(in_memory.alice.post("/v1/records", json=whole), 400)


def test_who_is_not_let_in_hears_so(in_memory: Serving) -> None:
    with Lake(HERE, None, transport=Wire(in_memory.nobody, None)) as lake, pytest.raises(NotLetIn):
        Follow(lake, *RUN.values()).origins()
    session = Directory(in_memory.alice, logs={LOSS: points(3)}).pushed()
    said(in_memory.alice.delete(f"/sessions/{session}"))
    with pytest.raises(Refused):
        followed(follow_of(in_memory), 0, Mark())


# ── bases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def heir(directory: Directory, count: int, new: int) -> Directory:
    """A directory that was pulled when ``directory`` had so many records, and has gone on."""
    lines = directory.logs[LOSS][:count]
    return Directory(directory.caller, HEIR, logs={LOSS: [*lines, *points(count + new, "b", minutes=60)[count:]]})


def data(directory: Directory, session: str, start: int = 0, limit: int = 1000) -> Any:
    url = f"/sessions/{session}/tracks/train/loss/data?startIndex={start}&limit={limit}"
    return said(directory.caller.get(url))


def test_a_log_that_begins_at_a_base_goes_on_where_another_ended(serving: Serving, directory: Directory) -> None:
    session = directory.pushed()
    pulled = heir(directory, 30, 5)
    base = a_base(points(30))
    for _ in range(2):
        acked = said(pulled.push({LOSS: base}))["logs"][LOSS]
        assert acked == {"count": 30, "mark": mark(points(30))}, "taken, and then dropped"
    assert followed(Follow(lake_of(serving)[0], *RUN.values()), 30, None) == []
    said(pulled.push({LOSS: pulled.piece(LOSS, 30)}))
    for _ in range(2):
        assert said(pulled.push({LOSS: base}))["logs"][LOSS]["count"] == 35

    found = data(directory, session)
    assert [each["data"]["value"] for each in found["data"]] == [
        *(f"a{index}" for index in range(30)),
        *(f"b{index}" for index in range(30, 35)),
    ]
    assert [(each["index"], each["origin"][0]) for each in found["data"]][29:31] == [("29", "a"), ("30", "b")]
    assert found["total"] == 35
    stats = said(serving.alice.get(f"/sessions/{session}/tracks/train/loss/stats"))
    assert stats["totalDataPoints"] == "35"
    assert stats["firstDataAt"] == "2026-01-01T00:00:00.000000Z"
    late = data(directory, session, start=29, limit=3)
    assert [each["index"] for each in late["data"]] == ["29", "30", "31"]
    assert origins(serving.alice)["origins"][HEIR][LOSS]["base"] == 30
    follow = follow_of(serving)
    assert lines_of(list(follow.pieces(HEIR, LOSS, 30, Mark.of(mark(points(30)))))) == pulled.logs[LOSS][30:]
    with pytest.raises(OtherHistory, match="no record 0"):
        list(follow.pieces(HEIR, LOSS, 0, Mark()))


def test_alone_it_is_a_log_like_any_other(serving: Serving, directory: Directory) -> None:
    """Its other part may be on another server, or be purged."""
    pulled = heir(directory, 30, 25)
    said(pulled.push({LOSS: a_base(points(30))}))
    session = str(said(pulled.push({LOSS: pulled.piece(LOSS, 30)}))["session"]["id"])
    assert [each["index"] for each in data(pulled, session)["data"]] == [str(index) for index in range(30, 55)]
    assert [each["index"] for each in data(pulled, session, start=20)["data"]] == [str(i) for i in range(50, 55)]
    page = data(pulled, session, limit=10)
    url = f"/sessions/{session}/tracks/train/loss/data?cursor={page['nextCursor']}"
    assert [each["index"] for each in said(serving.alice.get(url))["data"]] == [str(i) for i in range(40, 55)]
    stats = said(serving.alice.get(f"/sessions/{session}/tracks/train/loss/stats"))
    assert stats["totalDataPoints"] == "25"
    said(serving.alice.delete(f"/sessions/{session}"))
    assert serving.run(serving.server.meta.begin_purge("alice", session))
    serving.run(serving.server.meta.purge_session("alice", session))
    assert origins(serving.alice)["session"] is None


def test_pushes_on_a_base_are_judged_as_on_any_log(serving: Serving, directory: Directory) -> None:
    pulled = heir(directory, 30, 10)
    lines = pulled.logs[LOSS]
    said(pulled.push({LOSS: a_base(lines[:30])}))

    def pushed(piece: dict[str, Any], status: int = 200) -> Any:
        return said(pulled.push({LOSS: piece}), status)["logs"][LOSS]

    assert pushed(pulled.piece(LOSS, 33), 409)["problem"] == "gap"
    assert pushed(pulled.piece(LOSS, 30, 34))["count"] == 34
    assert pushed(pulled.piece(LOSS, 31, 36))["count"] == 36, "overlaps"
    assert pushed(pulled.piece(LOSS, 25, 33))["count"] == 36, "repeats, from before the base"
    assert pushed(pulled.piece(LOSS, 0, 30))["count"] == 36, "repeats what it stands for"
    assert pushed(pulled.piece(LOSS, 10, 38))["count"] == 38, "overlaps, from before the base"
    at_base = {"problem": "fork", "index": 30, "stored": mark(lines[:30])}
    assert pushed(pulled.piece(LOSS, 0, 20), 409) == {"count": 38, "mark": mark(lines[:38]), **at_base}
    other = Directory(serving.alice, HEIR, logs={LOSS: points(40, "c")})
    assert said(other.push({LOSS: other.piece(LOSS, 30)}), 409)["logs"][LOSS]["problem"] == "fork"
    tombstone = {"from": 38, "prev": mark(lines[:38]), "refused": "no", "next": mark(lines[:39])}
    assert pushed(tombstone)["count"] == 39
    assert pushed(pulled.piece(LOSS))["count"] == 40


@pytest.mark.parametrize(
    ("stored", "base", "problem"),
    [
        (points(10), a_base(points(10)), None),
        (points(10), a_base(points(4)), None),
        (points(10), a_base(points(10, "b")), "fork"),
        (points(10), a_base(points(4, "b")), "fork"),
        (points(10), a_base(points(11)), "fork"),
        (points(10), {**a_base(points(10)), "base": 11}, "fork"),
    ],
)
def test_a_base_is_taken_by_an_empty_log_alone(
    in_memory: Serving, stored: list[bytes], base: dict[str, Any], problem: str | None
) -> None:
    directory = Directory(in_memory.alice, logs={LOSS: stored})
    directory.pushed()
    found = said(directory.push({LOSS: base}), 409 if problem else 200)["logs"][LOSS]
    assert (found.get("problem"), found["count"], found["mark"]) == (problem, len(stored), mark(stored))


def test_another_base_is_a_fork(in_memory: Serving) -> None:
    directory = Directory(in_memory.alice, logs={LOSS: points(9)})
    said(directory.push({LOSS: a_base(points(5))}))
    for other in (points(4), points(6), points(5, "b")):
        found = said(directory.push({LOSS: a_base(other)}), 409)["logs"][LOSS]
        assert (found["problem"], found["count"], found["stored"]) == ("fork", 5, mark(points(5)))


@pytest.mark.parametrize(
    "batch",
    [
        {"from": 1, "base": 3, "next": "30-00000000"},
        {"from": 0, "prev": "9-00000000", "base": 3, "next": "30-00000000"},
        {"from": 0, "base": 3},
        {"from": 0, "base": 3, "next": "2-00000000"},
        {"from": 0, "base": -1, "next": "2-00000000"},
        {"from": 0, "base": 3, "next": "30-00000000", "refused": "why"},
        {"from": 0, "base": 3, "next": "30-00000000", "records": ["{}"]},
        {"from": 0, "base": 3, "next": "30-00000000", "time": "x" * 41},
    ],
    ids=repr,
)
def test_what_is_no_base_is_a_400(in_memory: Serving, batch: dict[str, Any]) -> None:
    body = {"origin": HEIR, "session": RUN, "logs": {LOSS: batch}}
    said(in_memory.alice.post("/v1/push", json=body), 400)
    assert said(in_memory.alice.get("/sessions"))["sessions"] == []


def test_what_comes_after_a_base_has_the_last_word_whatever_its_clock_says(serving: Serving) -> None:
    """The second machine's clock is an hour behind."""
    late, early = "2026-01-01T12:00:00.000000Z", "2026-01-01T11:00:00.000000Z"
    first = Directory(serving.alice)
    first.logs = {
        LOSS: [b'{"index":0,"data":{"value":1},"createdAt":"%s"}' % late.encode()],
        PARAMETERS_LOG: [b'{"op":"set","time":"%s","set":{"lr":0.1}}' % late.encode()],
    }
    session = first.pushed()
    second = Directory(serving.alice, HEIR)
    second.logs = {
        LOSS: [*first.logs[LOSS], b'{"index":1,"data":{"value":2},"createdAt":"%s"}' % early.encode()],
        PARAMETERS_LOG: [*first.logs[PARAMETERS_LOG], b'{"op":"set","time":"%s","set":{"lr":0.2}}' % early.encode()],
    }
    said(second.push({log: a_base(lines, time=late) for log, lines in first.logs.items()}))
    said(second.push({log: second.piece(log, 1) for log in second.logs}))
    third = Directory(serving.alice, "c" * 32, logs={LOSS: [b'{"index":0,"data":{"value":0}}']})
    third.pushed()
    values = [each["data"]["value"] for each in data(first, session)["data"]]
    assert values == [0, 1, 2]
    assert said(serving.alice.get(f"/sessions/{session}/parameters"))["data"] == {"lr": 0.2}


def test_a_session_history_that_begins_at_a_base(serving: Serving) -> None:
    """The summary of that origin is of its own rows; the session's is of all."""
    open_row = b'{"op":"open","time":"%s","client":"%s","name":"run","workspace":"project","set":{"tags":["%s"]}}'
    end_row = b'{"op":"end","time":"%s","client":"%s","state":"finished"}'
    first = Directory(serving.alice)
    first.logs = {
        SESSION_LOG: [
            open_row % (b"2026-01-01T00:00:00Z", b"1" * 32, b"one"),
            end_row % (b"2026-01-01T01:00:00Z", b"1" * 32),
        ]
    }
    session = first.pushed()
    second = Directory(serving.alice, HEIR, logs={SESSION_LOG: [b'{"op":"import","set":{}}']})
    said(second.push({SESSION_LOG: a_base(second.logs[SESSION_LOG])}))
    assert said(serving.alice.get(f"/sessions/{session}"))["state"] == "finished"
    second.logs[SESSION_LOG].append(open_row % (b"2026-01-02T00:00:00Z", b"2" * 32, b"two"))
    said(second.push({SESSION_LOG: second.piece(SESSION_LOG, 1)}))
    found = said(serving.alice.get(f"/sessions/{session}"))
    assert (found["state"], found["tags"], found["createdAt"]) == ("running", ["two"], "2026-01-01T00:00:00Z")
