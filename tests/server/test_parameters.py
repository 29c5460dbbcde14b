"""Parameters over HTTP: flat keys in, merged; what is not finite comes back as JSON that says so."""

from __future__ import annotations

from typing import Any

import pytest

from dreamlake.wire.state import PARAMETERS_LOG
from tests.server.serving import Directory, Serving, msgpack, over_each_store, over_memory, said

__all__ = ["over_each_store", "over_memory"]


def test_keys_are_merged(serving: Serving) -> None:
    session = serving.alice.session()
    first = said(serving.alice.post(f"/sessions/{session}/parameters", json={"data": {"lr": 0.1, "model.depth": 3}}))
    assert first["data"] == {"lr": 0.1, "model.depth": 3}
    assert (first["id"], first["sessionId"], first["version"]) == (session, session, 1)
    second = said(serving.alice.post(f"/sessions/{session}/parameters", json={"data": {"lr": 0.2, "sizes": [1, 2]}}))
    assert second["data"] == {"lr": 0.2, "model.depth": 3, "sizes": [1, 2]}
    assert second["version"] == 2
    assert second["createdAt"] == first["createdAt"] <= second["updatedAt"]
    assert said(serving.alice.get(f"/sessions/{session}/parameters")) == second


def test_without_any_there_is_nothing_to_show(serving: Serving) -> None:
    session = serving.alice.session()
    assert said(serving.alice.get(f"/sessions/{session}/parameters"), 404)["error"] == "not-found"
    empty = said(serving.alice.post(f"/sessions/{session}/parameters", json={"data": {}}))
    assert (empty["data"], empty["version"]) == ({}, 0)
    said(serving.alice.get(f"/sessions/{session}/parameters"), 404)


@pytest.mark.parametrize("content", [b'{"data":{"a":NaN,"b":[1,-Infinity],"c":{"d":Infinity},"e":"NaN"}}'])
def test_the_bare_nan_of_python_is_stored_as_the_project_stores_it(serving: Serving, content: bytes) -> None:
    session = serving.alice.session()
    said(serving.alice.post(f"/sessions/{session}/parameters", content=content))
    found = said(serving.alice.get(f"/sessions/{session}/parameters"))
    assert found["data"] == {"a": "NaN", "b": [1, "-Infinity"], "c": {"d": "Infinity"}, "e": "NaN"}
    assert found["nonfinite"] == ["a", "b.1", "c.d"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"data":{"a":NaN}',
        b'{"data":{"a":NaN}}}',
        b'{"data":[NaN]}',
        b'{"data":{"a":nan}}',
        b'{"data":{"a":NaN,"b":"\\ud800"}}',
        b'{"data":{"a":NaN,"\\udfff":1}}',
        b'{"data":{"a":NaN,"b":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        b'{"data":{"a":"\\ud800"}}',
        b'{"data":{"a":"\xff"}}',
        b'{"data":7}',
        b"{}",
        b"[]",
        b"",
    ],
)
def test_what_is_no_such_json_is_a_400_and_changes_nothing(in_memory: Serving, content: bytes) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.post(f"/sessions/{session}/parameters", content=content), 400)
    said(in_memory.alice.get(f"/sessions/{session}/parameters"), 404)


def test_numbers_of_any_size(serving: Serving) -> None:
    session = serving.alice.session()
    large = {"a": 10**30, "b": -(2**63) - 1, "c": 2**64}
    said(serving.alice.post(f"/sessions/{session}/parameters", json={"data": large}))
    assert said(serving.alice.get(f"/sessions/{session}/parameters"))["data"] == large


@pytest.mark.parametrize("value", [b"bytes", {"deep": {1: b"x"}}, {b"key": 1}], ids=repr)
def test_what_msgpack_can_say_and_json_cannot_is_a_400(in_memory: Serving, value: Any) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.post(f"/sessions/{session}/parameters", **msgpack({"data": {"a": value}})), 400)
    said(in_memory.alice.get(f"/sessions/{session}/parameters"), 404)


def test_more_than_a_record_may_have_is_a_400(in_memory: Serving) -> None:
    session = in_memory.alice.session()
    found = said(in_memory.alice.post(f"/sessions/{session}/parameters", json={"data": {"a": "x" * (8 << 20)}}), 400)
    assert "RECORD_BYTES" in found["message"]


def test_a_protected_session_takes_none(serving: Serving) -> None:
    session = serving.alice.session(writeProtected=True)
    assert said(serving.alice.post(f"/sessions/{session}/parameters", json={"data": {"a": 1}}), 409)["error"] == (
        "write-protected"
    )


def test_what_a_directory_pushed_and_what_was_set_here_are_one(serving: Serving) -> None:
    directory = Directory(
        serving.alice,
        logs={
            PARAMETERS_LOG: [
                b'{"op":"import","time":"2020-01-01T00:00:00.000000Z","set":{"a":1,"b":NaN},"version":4}',
                b'{"op":"set","time":"2020-01-02T00:00:00.000000Z","set":{"c":[1e999]}}',
            ]
        },
    )
    session = directory.pushed()
    found = said(serving.alice.get(f"/sessions/{session}/parameters"))
    assert (found["data"], found["version"]) == ({"a": 1, "b": "NaN", "c": ["Infinity"]}, 5)
    assert found["nonfinite"] == ["b", "c.0"]
    found = said(serving.alice.post(f"/sessions/{session}/parameters", json={"data": {"b": 2}}))
    assert (found["data"], found["nonfinite"]) == ({"a": 1, "b": 2, "c": ["Infinity"]}, ["c.0"])
    assert (found["createdAt"], found["version"]) == ("2020-01-01T00:00:00.000000Z", 6)


def test_an_integer_that_msgpack_cannot_hold_is_answered_as_json(serving: Serving) -> None:
    session = serving.alice.session()
    path = f"/sessions/{session}/parameters"
    answer = serving.alice.post(path, json={"data": {"a": 10**30}}, headers={"Accept": "application/msgpack"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["data"] == {"a": 10**30}
