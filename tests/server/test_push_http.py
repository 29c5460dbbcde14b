"""The push protocol over HTTP: this came in, that went out. docs/push.md says it in words."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest

from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG, LOGS_LOG, PARAMETERS_LOG
from dreamlake.wire.zstd import pack
from dreamlake_server import limits
from tests.server.serving import (
    LOSS,
    MSGPACK,
    RUN,
    Directory,
    Serving,
    as_base64,
    as_bytes,
    mark,
    msgpack,
    over_each_store,
    over_memory,
    points,
    said,
)

__all__ = ["over_each_store", "over_memory"]

SHA256 = "ab" * 32


@pytest.fixture
def directory(serving: Serving) -> Directory:
    return Directory(serving.alice, logs={LOSS: points(30)})


def status(directory: Directory, **what: Any) -> Any:
    body = {"origin": directory.origin, "session": directory.session, **what}
    return said(directory.caller.post("/v1/status", json=body))


def values(serving: Serving, session: str) -> list[str]:
    page = said(serving.alice.get(f"/sessions/{session}/tracks/train/loss/data"))
    return [each["data"]["value"] for each in page["data"]]


def test_a_conversation(serving: Serving, directory: Directory) -> None:
    lines = directory.logs[LOSS]
    before = status(directory)
    assert (before["session"], before["logs"], before["lacking"]) == (None, {}, [])
    assert before["limits"]["body_bytes"] == limits.BODY_BYTES
    assert said(serving.alice.get("/sessions"))["sessions"] == [], "status changes nothing"

    taken = said(directory.push({LOSS: directory.piece(LOSS, 0, 10)}))
    assert taken["logs"] == {LOSS: {"count": 10, "mark": mark(lines[:10])}}
    assert taken["lacking"] == []
    session = taken["session"]["id"]
    known = status(directory)
    assert known["session"] == {"id": session, "deletedAt": None}
    assert known["logs"] == taken["logs"]
    asked = status(directory, logs=[LOSS, LOGS_LOG])["logs"]
    assert asked == {**taken["logs"], LOGS_LOG: {"count": 0, "mark": "0-00000000"}}
    assert status(Directory(serving.alice, "b" * 32))["logs"] == {}, "another origin's are not its own"

    # Repeats, overlaps, continues.
    for first, end, count in (
        (0, 10, 10),
        (3, 7, 10),
        (10, 10, 10),
        (5, 20, 20),
        (20, 30, 30),
        (0, 30, 30),
        (0, 1, 30),
    ):
        acked = said(directory.push({LOSS: directory.piece(LOSS, first, end)}))
        assert acked["logs"][LOSS] == {"count": count, "mark": mark(lines[:count])}
    assert values(serving, session) == [f"a{index}" for index in range(30)]


def test_a_gap_is_a_409_with_what_is_expected(serving: Serving, directory: Directory) -> None:
    said(directory.push({LOSS: directory.piece(LOSS, 0, 10)}))
    found = said(directory.push({LOSS: directory.piece(LOSS, 11, 20)}), 409)
    assert found["logs"][LOSS] == {"count": 10, "mark": mark(points(10)), "problem": "gap", "expected": 10}


def test_a_fork_is_a_409_that_tells_where_and_overwrites_nothing(serving: Serving, directory: Directory) -> None:
    said(directory.push({LOSS: directory.piece(LOSS, 0, 10)}))
    other = Directory(serving.alice, logs={LOSS: [*points(5), *points(30, "b")[5:]]})
    for first, end, index in ((10, 20, 10), (5, 20, 10), (5, 8, 8), (0, 30, 10)):
        found = said(other.push({LOSS: other.piece(LOSS, first, end)}), 409)
        expected = {"problem": "fork", "index": index, "stored": mark(points(index))}
        assert found["logs"][LOSS] == {"count": 10, "mark": mark(points(10)), **expected}
    assert values(serving, found["session"]["id"]) == [f"a{index}" for index in range(10)]


def test_a_wrong_record_is_a_422_and_a_tombstone_goes_past_it(serving: Serving, directory: Directory) -> None:
    lines = directory.logs[LOSS]
    lines[7] = b"no json"
    found = said(directory.push(), 422)
    why = found["logs"][LOSS].pop("why")
    assert found["logs"][LOSS] == {"count": 7, "mark": mark(lines[:7]), "problem": "record", "index": 7}
    tombstone = {"from": 7, "prev": mark(lines[:7]), "refused": why, "next": mark(lines[:8])}
    for _ in range(2):
        acked = said(directory.push({LOSS: tombstone}))
        assert acked["logs"][LOSS] == {"count": 8, "mark": mark(lines[:8])}
    said(directory.push({LOSS: directory.piece(LOSS, 8)}))
    assert said(directory.push())["logs"][LOSS]["count"] == 30, "who comes with the record hears that it is there"
    assert values(serving, found["session"]["id"]) == [f"a{index}" for index in range(30) if index != 7]


@pytest.mark.parametrize(
    "record",
    ['{"data":\n{"value":1}}', '{"data":{"value":1}}\n', "\n", "[1]", "7", "", '{"a":1}{"b":2}', '{"a":"\\x"}'],
)
def test_what_is_not_one_line_with_one_object_is_no_record(serving: Serving, record: str) -> None:
    """A record with a newline would be two lines: all that come after it would have other numbers."""
    directory = Directory(serving.alice, logs={LOSS: points(2)})
    piece = directory.piece(LOSS)
    piece["records"].insert(1, record)
    found = said(directory.push({LOSS: piece}), 422)
    assert (found["logs"][LOSS]["count"], found["logs"][LOSS]["index"]) == (1, 1)
    assert values(serving, found["session"]["id"]) == ["a0"]


def test_a_log_with_a_problem_holds_up_no_other_and_the_worst_tells_the_status(serving: Serving) -> None:
    directory = Directory(serving.alice, logs={LOSS: points(9), LOGS_LOG: [b'{"message":"m"}', b"nothing"]})
    pieces = {LOSS: directory.piece(LOSS, 3), LOGS_LOG: directory.piece(LOGS_LOG), PARAMETERS_LOG: {"from": 0}}
    found = said(directory.push(pieces), 409)
    assert [found["logs"][log].get("problem") for log in pieces] == ["gap", "record", None]
    assert found["logs"][LOGS_LOG]["count"] == 1


def test_a_deleted_session_takes_nothing(serving: Serving, directory: Directory) -> None:
    session = directory.pushed()
    said(serving.alice.delete(f"/sessions/{session}"))
    assert said(directory.push(), 410)["error"] == "deleted"
    assert status(directory)["session"]["deletedAt"] is not None
    said(serving.alice.post(f"/sessions/{session}/restore"))
    said(directory.push())


@pytest.mark.parametrize("form", ["records", "base64", "msgpack", "msgpack records", "zstd", "zstd msgpack"])
def test_every_form_of_a_body_says_the_same(serving: Serving, form: str) -> None:
    directory = Directory(serving.alice, logs={LOSS: points(50), LOGS_LOG: [b'{"message":"gr\xc3\xb6\xc3\x9fe"}']})
    piece_as = as_bytes if form.endswith("msgpack") else as_base64 if form in ("base64", "zstd") else dict
    body = directory.body(**{log: piece_as(directory.piece(log)) for log in directory.logs})
    sent = msgpack(body) if "msgpack" in form else {"content": json.dumps(body), "headers": {}}
    if form.startswith("zstd"):
        sent["content"] = pack(msgspec.msgpack.encode(body) if "msgpack" in form else json.dumps(body).encode())
        sent["headers"]["Content-Encoding"] = "zstd"
    for _ in range(2):
        found = said(serving.alice.post("/v1/push", **sent))
        assert found["logs"] == {
            log: {"count": len(lines), "mark": mark(lines)} for log, lines in directory.logs.items()
        }
    assert len(values(serving, found["session"]["id"])) == 50


def test_an_answer_in_msgpack(serving: Serving, directory: Directory) -> None:
    sent = msgpack(directory.body(**{LOSS: as_bytes(directory.piece(LOSS))}))
    sent["headers"]["Accept"] = MSGPACK
    found = serving.alice.post("/v1/push", **sent)
    assert (found.status_code, found.headers["content-type"]) == (200, MSGPACK)
    assert msgspec.msgpack.decode(found.content)["logs"][LOSS]["count"] == 30


def test_what_is_lacking(serving: Serving) -> None:
    data = b"weights"
    sha256 = hashlib.sha256(data).hexdigest()
    rows = [
        {"op": "upload", "record": {"id": "1", "path": "/", "filename": "m", "checksum": SHA256}},
        {"op": "hashed", "id": "2", "checksum": sha256},
        {"op": "hashed", "id": "3", "checksum": "no hash"},
        {"op": "upload", "record": {"id": "4", "path": "/", "filename": "m", "checksum": SHA256}},
    ]
    directory = Directory(serving.alice, logs={FILES_LOG: [json.dumps(row).encode() for row in rows]})
    assert said(directory.push())["lacking"] == [SHA256, sha256]
    assert status(directory, blobs=[sha256, SHA256])["lacking"] == [sha256, SHA256]
    said(serving.alice.post(f"/sessions/{serving.alice.session('other')}/files", files={"file": ("x", data)}))
    assert said(directory.push())["lacking"] == [SHA256]
    assert status(directory, blobs=[sha256, SHA256])["lacking"] == [SHA256]
    other = Directory(serving.bob, logs=directory.logs)
    assert said(other.push())["lacking"] == [SHA256, sha256], "what alice has stored, bob has not"
    assert status(other, blobs=[sha256])["lacking"] == [sha256]


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ({"logs": {f"tracks/{number}/data.jsonl": {"from": 0} for number in range(limits.LOGS + 1)}}, "LOGS"),
        ({"pad": "x" * limits.PUSH_BYTES}, "PUSH_BYTES"),
        (
            {
                "logs": {
                    log: {"from": 0, "records": ["{}"] * (limits.RECORDS // 2 + 1)} for log in (LOGS_LOG, FILES_LOG)
                }
            },
            "RECORDS",
        ),
    ],
    ids=["logs", "body", "records"],
)
def test_what_is_over_a_limit_is_a_413_that_names_it(in_memory: Serving, what: dict[str, Any], limit: str) -> None:
    body = {"origin": "a" * 32, "session": RUN, "logs": {}, **what}
    found = said(in_memory.alice.post("/v1/push", json=body), 413)
    assert (found["limit"], found["max"]) == (limit, getattr(limits, limit))
    assert said(in_memory.alice.get("/sessions"))["sessions"] == []


def test_a_body_that_unpacks_to_too_much_is_a_413(in_memory: Serving) -> None:
    packed = pack(b" " * (limits.PUSH_BYTES + 1))
    assert len(packed) < 64 << 10
    found = said(in_memory.alice.post("/v1/push", content=packed, headers={"Content-Encoding": "zstd"}), 413)
    assert found["limit"] == "UNPACKED_RATIO"


def test_lines_are_counted_before_they_are_taken_apart(in_memory: Serving) -> None:
    """Of 2 KiB that unpack to 63 million empty lines, a server once made 6 GB."""
    batch = {"from": 0, "lines": b"\n" * (limits.RECORDS + 1)}
    body = {"origin": "a" * 32, "session": RUN, "logs": {"logs/logs.jsonl": batch}}
    found = said(in_memory.alice.post("/v1/push", **msgpack(body)), 413)
    assert found["limit"] == "RECORDS"


def test_too_many_blobs_in_a_status_are_a_413(in_memory: Serving) -> None:
    body = {"origin": "a" * 32, "session": RUN, "blobs": [SHA256] * (limits.BLOBS + 1)}
    assert said(in_memory.alice.post("/v1/status", json=body), 413)["limit"] == "BLOBS"
    body["blobs"] = [f"{number:064x}" for number in range(limits.BLOBS)]
    assert len(said(in_memory.alice.post("/v1/status", json=body))["lacking"]) == limits.BLOBS


def test_a_record_over_record_bytes_is_no_record(in_memory: Serving) -> None:
    start = b'{"data":{"value":"'
    line = start + b"x" * (limits.RECORD_BYTES - len(start) - 3) + b'"}}'
    for more, status_ in ((b"", 200), (b"x", 422)):
        directory = Directory(in_memory.alice, f"{status_:032d}", logs={LOSS: [line[:-3] + more + line[-3:]]})
        found = said(directory.push(), status_)["logs"][LOSS]
        assert found["count"] == (1 if status_ == 200 else 0)


@pytest.mark.parametrize(
    "what",
    [
        {"origin": "A" * 32},
        {"origin": "a" * 31},
        {"origin": None},
        {"session": {"workspace": "", "name": "x"}},
        {"session": {"workspace": "w", "name": "../x"}},
        {"session": {"workspace": "w", "name": "x" * 256}},
        {"session": {"workspace": "w"}},
        *(
            {"logs": {log: {"from": 0}}}
            for log in (
                "session.jsonl",
                "tracks/../data.jsonl",
                "tracks/data.jsonl",
                "tracks//data.jsonl",
                "tracks/x/metadata.json",
                "tracks//x/data.jsonl",
                "/tracks/x/data.jsonl",
                "logs/logs.jsonl/",
                ".dreamlake/origin",
                "",
            )
        ),
        *(
            {"logs": {LOSS: batch}}
            for batch in (
                {},
                {"from": -1},
                {"from": 1.5},
                {"from": 1 << 60},
                {"from": 0, "prev": "0-0"},
                {"from": 0, "prev": "01-00000000"},
                {"from": 0, "prev": "0-0000000G"},
                {"from": 0, "records": [1]},
                {"from": 0, "records": "{}"},
                {"from": 0, "lines": "e30="},  # no newline
                {"from": 0, "lines": "not base64!"},
                {"from": 0, "lines": "e30K", "records": ["{}"]},
                {"from": 0, "refused": "why"},
                {"from": 0, "refused": "why", "next": "0-00000000"},
                {"from": 0, "refused": "why", "next": "3-00000000", "records": ["{}"]},
                {"from": 0, "refused": "why", "next": "3-00000000", "lines": "e30K"},
            )
        ),
        {"logs": []},
        {"logs": None},
    ],
    ids=repr,
)
def test_what_the_protocol_does_not_know_is_a_400_and_makes_nothing(in_memory: Serving, what: Any) -> None:
    body = {"origin": "a" * 32, "session": RUN, "logs": {}, **what}
    said(in_memory.alice.post("/v1/push", json=body), 400)
    assert said(in_memory.alice.get("/sessions"))["sessions"] == []


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (b"\xc1", {"Content-Type": MSGPACK}, 400),
        (b"\x81\xa6origin", {"Content-Type": MSGPACK}, 400),
        (b"\xdd\xff\xff\xff\xff", {"Content-Type": MSGPACK}, 400),
        (b"\x91" * 100_000, {"Content-Type": MSGPACK}, 400),
        (b"[" * 100_000, {}, 400),
        (b"{}", {"Content-Encoding": "zstd"}, 400),
        (pack(b"{}")[:-1], {"Content-Encoding": "zstd"}, 400),
        (b"{}", {"Content-Encoding": "gzip"}, 415),
        (b"\xff\xfe{\x00}\x00", {}, 400),
    ],
    ids=["never used", "cut", "long list", "deep", "deep json", "not zstd", "cut zstd", "gzip", "utf-16"],
)
def test_a_body_that_cannot_be_read(in_memory: Serving, content: bytes, headers: dict[str, str], code: int) -> None:
    said(in_memory.alice.post("/v1/push", content=content, headers=headers), code)


def test_an_empty_push_makes_the_session(serving: Serving) -> None:
    found = said(Directory(serving.alice).push({}))
    assert (found["logs"], found["lacking"]) == ({}, [])
    assert [each["id"] for each in said(serving.alice.get("/sessions"))["sessions"]] == [found["session"]["id"]]


def test_times_that_are_none_do_not_keep_a_log_from_being_stored(serving: Serving) -> None:
    """What a time looks like is the writer's; what no store could take is replaced."""
    rows = [b'{"createdAt":"\\ud800","data":{"value":"a"}}', b'{"createdAt":7,"time":["x"],"data":{"value":"b"}}']
    session = Directory(serving.alice, logs={LOSS: rows}).pushed()
    assert values(serving, session) == ["a", "b"]
    said(serving.alice.get(f"/sessions/{session}/tracks/train/loss/stats"))


@pytest.mark.parametrize(("digits", "status_"), [(19, 400), (17, 400), (16, 200)])
def test_a_mark_is_refused_before_it_is_more_than_a_store_can_count(
    serving: Serving, digits: int, status_: int
) -> None:
    directory = Directory(serving.alice)
    far = Mark(10**digits - 1).text
    said(directory.push({LOSS: {"from": 0, "prev": "0-00000000", "refused": "far", "next": far}}), status_)
    said(directory.push({LOSS: {"from": 1, "prev": far, "records": ["{}"]}}), status_)
