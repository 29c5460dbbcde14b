"""Sessions over HTTP: made by their name, found by what is said of them, deleted and restored."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dreamlake.wire.state import LOGS_LOG, SESSION_LOG
from dreamlake_server.app import Server
from tests.server.serving import Directory, Serving, msgpack, opened, over_each_store, over_memory, said

__all__ = ["over_each_store", "over_memory"]


OPENED = b'{"op":"open","time":"2026-01-01T00:00:00Z","client":"%b","name":"run","workspace":"w","set":%%b}' % (
    b"1" * 32
)
FINISHED = b'{"op":"end","time":"2026-01-01T00:00:01Z","client":"%b","state":"finished"}' % (b"1" * 32)


def tick(server: Server) -> None:
    """A second between any two looks at the clock, so that what is newest is certain."""
    seconds = itertools.count(1_767_225_600)
    server.clock = lambda: next(seconds) * 10**9


def test_a_name_makes_a_session_and_finds_it_again(serving: Serving) -> None:
    made = said(
        serving.alice.post(
            "/workspaces/project/sessions",
            json={
                "name": "run",
                "description": "first",
                "tags": ["a", "b"],
                "folder": "/sweeps/lr",
                "metadata": {"seed": 1},
                "writeProtected": False,
            },
        )
    )
    session = made["session"]
    assert (session["name"], session["workspace"], session["description"]) == ("run", "project", "first")
    assert (session["tags"], session["folder"], session["metadata"]) == (["a", "b"], "/sweeps/lr", {"seed": 1})
    assert (session["writeProtected"], session["state"], session["deletedAt"]) == (False, None, None)
    assert made["workspace"]["name"] == "project"
    assert made["folder"]["name"] == "/sweeps/lr"
    assert made["namespace"]["name"] == "alice"
    assert said(serving.alice.get(f"/sessions/{session['id']}")) == session

    again = said(serving.alice.post("/workspaces/project/sessions", json={"name": "run", "description": "second"}))
    assert again["session"]["id"] == session["id"]
    assert again["session"]["description"] == "second"
    # Only what is given is replaced, and that whole.
    assert (again["session"]["tags"], again["session"]["metadata"]) == (["a", "b"], {"seed": 1})
    assert again["session"]["createdAt"] == session["createdAt"] <= again["session"]["updatedAt"]
    last = said(serving.alice.post("/workspaces/project/sessions", json={"name": "run", "metadata": {"lr": 2}}))
    assert last["session"]["metadata"] == {"lr": 2}
    assert last["session"]["description"] == "second"


def test_the_same_name_elsewhere_is_another_session(serving: Serving) -> None:
    ids = {serving.alice.session("run", workspace) for workspace in ("a", "b", "a/b", "a%2Fb%2Fc")}
    assert len({*ids, serving.alice.session("other", "a"), serving.bob.session("run", "a")}) == 6


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("plain", "plain"),
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("two words", "two words"),
        ("two%20words", "two words"),
        ("größe/漢字", "größe/漢字"),
        ("gr%C3%B6%C3%9Fe", "größe"),
        ("100%25", "100%"),
        ("a%252Fb", "a%2Fb"),
        ("sessions", "sessions"),
        ("a/sessions", "a/sessions"),
        ("plus+sign&x=1;v", "plus+sign&x=1;v"),
    ],
)
def test_a_workspace_as_old_clients_send_it_and_percent_encoded(in_memory: Serving, sent: str, name: str) -> None:
    made = said(in_memory.alice.post(f"/workspaces/{sent}/sessions", json={"name": "r/ün 1"}))
    assert (made["session"]["workspace"], made["session"]["name"]) == (name, "r/ün 1")
    listed = said(in_memory.alice.get(f"/workspaces/{sent}/sessions"))["sessions"]
    assert [each["id"] for each in listed] == [made["session"]["id"]]


@pytest.mark.parametrize("name", ["", "/abs", "../x", "a//b", "a/", ".", "..", ".dreamlake", "x" * 256, "nul\0"])
def test_a_name_that_no_directory_could_have_is_a_400(in_memory: Serving, name: str) -> None:
    assert said(in_memory.alice.post("/workspaces/w/sessions", json={"name": name}), 400)["error"] == "bad-name"
    assert said(in_memory.alice.get("/sessions"))["sessions"] == []


@pytest.mark.parametrize("sent", ["..%2Fx", "%2Fabs", "a%2F%2Fb", "%FF", "a%00", "."])
def test_a_workspace_that_cannot_be_is_a_400(in_memory: Serving, sent: str) -> None:
    assert in_memory.alice.post(f"/workspaces/{sent}/sessions", json={"name": "run"}).status_code in (400, 404)
    assert said(in_memory.alice.get("/sessions"))["sessions"] == []


@pytest.mark.parametrize("metadata", [{"a": b"x"}, {"a": {1: b"x"}}, {"a": [{b"k": 1}]}], ids=repr)
def test_metadata_that_json_cannot_hold_is_a_400(in_memory: Serving, metadata: Any) -> None:
    said(in_memory.alice.post("/workspaces/w/sessions", **msgpack({"name": "run", "metadata": metadata})), 400)


def test_metadata_that_is_not_finite_or_large_is_kept(serving: Serving) -> None:
    content = b'{"name":"run","metadata":{"a":NaN,"b":[-Infinity],"c":%d}}' % 10**30
    said(serving.alice.post("/workspaces/w/sessions", content=content))
    listed = said(serving.alice.get("/sessions"))["sessions"]
    assert listed[0]["metadata"] == {"a": "NaN", "b": ["-Infinity"], "c": 10**30}


def test_more_than_a_record_may_have_is_a_400(in_memory: Serving) -> None:
    found = said(
        in_memory.alice.post("/workspaces/w/sessions", json={"name": "run", "description": "x" * (8 << 20)}), 400
    )
    assert "RECORD_BYTES" in found["message"]


def test_they_are_listed_newest_first_in_pages(serving: Serving) -> None:
    tick(serving.server)
    ids = [serving.alice.session(f"run {number}", "a" if number % 3 else "b") for number in range(10)]
    serving.bob.session("run 0", "a")
    assert [each["id"] for each in said(serving.alice.get("/sessions"))["sessions"]] == ids[::-1]
    for limit in (1, 3, 10, 11):
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = said(serving.alice.get("/sessions", params={"limit": limit, **cursor}))
            assert len(page["sessions"]) <= limit
            found += [each["id"] for each in page["sessions"]]
            if page["nextCursor"] is None:
                break
            cursor = {"cursor": page["nextCursor"]}
        assert found == ids[::-1]
    in_b = said(serving.alice.get("/workspaces/b/sessions"))["sessions"]
    assert [each["id"] for each in in_b] == ids[9::-3]


def test_they_are_found_by_state_tags_and_folder(serving: Serving) -> None:
    tick(serving.server)
    alice = serving.alice
    first = alice.session("first", tags=["x", "y"], folder="/sweeps/lr")
    second = alice.session("second", tags=["x"], folder="/sweeps")
    third = alice.session("third", folder="/sweeps-old")
    opened_ = (
        b'{"op":"open","time":"2026-01-01T00:00:00Z","client":"%b","name":"run","workspace":"w","set":{"tags":["z"]}}'
    )
    running = Directory(alice, logs={SESSION_LOG: [opened_ % (b"1" * 32)]}).pushed()

    def ids(**query: Any) -> list[str]:
        return [each["id"] for each in said(alice.get("/sessions", params=query))["sessions"]]

    assert ids(tags="x") == [second, first]
    assert ids(tags=["x", "y"]) == [first]
    assert ids(folder="/sweeps") == ids(folder="sweeps/") == [second, first]
    assert ids(folder="/sweeps-old") == [third]
    assert ids(state="running") == ids(tags="z") == [running]
    assert ids(state=["running", "None"]) == [running, third, second, first]
    assert ids(state="failed") == []


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=x", "cursor=x", "limit=1&limit=2", "cursor=~"])
def test_a_query_that_cannot_be_is_a_400(in_memory: Serving, query: str) -> None:
    said(in_memory.alice.get(f"/sessions?{query}"), 400)


def test_a_deleted_session_is_gone_until_it_is_restored(serving: Serving) -> None:
    alice, session = serving.alice, serving.alice.session()
    said(alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "hello"}]}))
    deleted = said(alice.delete(f"/sessions/{session}"))
    assert deleted["id"] == session
    assert said(alice.delete(f"/sessions/{session}")) == deleted, "again: the same"
    said(alice.get(f"/sessions/{session}"), 404)
    said(alice.get(f"/sessions/{session}/logs"), 404)
    said(alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "more"}]}), 404)
    assert said(alice.get("/sessions"))["sessions"] == []
    assert said(alice.post("/workspaces/project/sessions", json={"name": "run"}), 410)["error"] == "deleted"

    assert said(alice.post(f"/sessions/{session}/restore"))["deletedAt"] is None
    said(alice.post(f"/sessions/{session}/restore"))
    assert [each["message"] for each in said(alice.get(f"/sessions/{session}/logs"))["logs"]] == ["hello"]
    assert alice.session() == session


def test_write_protection_stays_and_covers_lines_once_the_run_has_finished(serving: Serving) -> None:
    alice, session = serving.alice, serving.alice.session(writeProtected=True)
    assert said(alice.post("/workspaces/project/sessions", json={"name": "run"}))["session"]["writeProtected"] is True
    said(alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "while it runs"}]}))
    said(alice.post(f"/sessions/{session}/tracks/loss/append", json={"data": {"value": 1}}))
    said(alice.post(f"/sessions/{session}/parameters", json={"data": {"a": 1}}), 409)
    Directory(alice, logs={SESSION_LOG: [OPENED % b"{}", FINISHED]}).pushed()
    assert said(alice.get(f"/sessions/{session}"))["state"] == "finished"
    said(alice.post(f"/sessions/{session}/logs", json={"logs": [{"message": "too late"}]}), 409)
    said(alice.post(f"/sessions/{session}/tracks/loss/append", json={"data": {"value": 1}}), 409)
    said(alice.post(f"/sessions/{session}/tracks/loss/append-batch", json={"dataPoints": [{"value": 1}]}), 409)


def test_an_unknown_session_is_a_404_everywhere(in_memory: Serving) -> None:
    for path in (
        "",
        "/logs",
        "/parameters",
        "/tracks",
        "/tracks/loss/data",
        "/tracks/loss/stats",
        "/files",
        "/files/x",
    ):
        said(in_memory.alice.get(f"/sessions/{'0' * 24}{path}"), 404)


def test_what_was_made_is_there_after_a_restart(tmp_path: Any) -> None:
    with opened(tmp_path) as serving:
        session = serving.alice.session(description="kept")
        Directory(serving.alice, logs={LOGS_LOG: [b'{"message":"pushed"}']}).pushed()
    with opened(tmp_path) as serving:
        assert said(serving.alice.get(f"/sessions/{session}"))["description"] == "kept"
        assert [each["message"] for each in said(serving.alice.get(f"/sessions/{session}/logs"))["logs"]] == ["pushed"]
