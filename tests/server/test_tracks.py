"""Tracks over HTTP: points in, pages and counts out. Numbers of points are decimal strings, as 0.2.x has it."""

from __future__ import annotations

from typing import Any

import pytest

from dreamlake.wire.state import TRACKS_LOG
from tests.server.serving import (
    LOSS,
    Directory,
    Serving,
    msgpack,
    over_each_store,
    over_memory,
    points,
    said,
)

__all__ = ["over_each_store", "over_memory"]


def test_points_are_numbered_as_they_come(serving: Serving) -> None:
    session = serving.alice.session()
    track = f"/sessions/{session}/tracks/loss"
    for number in range(3):
        found = said(serving.alice.post(f"{track}/append", json={"data": {"value": number, "epoch": 1}}))
        assert (found["index"], found["bufferedDataPoints"], found["chunkSize"]) == (
            str(number),
            str(number + 1),
            10_000,
        )
    batch = said(
        serving.alice.post(
            f"{track}/append-batch",
            json={"dataPoints": [{"value": 3}, {"value": 4}], "description": None, "tags": None, "metadata": None},
        )
    )
    assert (batch["startIndex"], batch["endIndex"], batch["count"]) == ("3", "4", 2)
    assert (batch["bufferedDataPoints"], batch["trackId"]) == ("5", found["trackId"])

    page = said(serving.alice.get(f"{track}/data", params={"startIndex": "1", "limit": "3"}))
    assert [(each["index"], each["data"]["value"]) for each in page["data"]] == [("1", 1), ("2", 2), ("3", 3)]
    assert all("createdAt" in each for each in page["data"])
    assert (page["startIndex"], page["endIndex"], page["total"], page["hasMore"]) == ("1", "3", 3, True)
    rest = said(serving.alice.get(f"{track}/data?startIndex=4"))
    assert ([each["index"] for each in rest["data"]], rest["hasMore"], rest["nextCursor"]) == (["4"], False, None)
    beyond = said(serving.alice.get(f"{track}/data?startIndex=99"))
    assert (beyond["data"], beyond["total"], beyond["hasMore"]) == ([], 0, False)


def test_what_is_said_of_a_track_is_replaced_when_given(serving: Serving) -> None:
    session = serving.alice.session()
    url = f"/sessions/{session}/tracks/loss"
    about = {"description": "of training", "tags": ["a"], "metadata": {"unit": "nats", "scale": [1]}}
    first = said(serving.alice.post(f"{url}/append", json={"data": {"value": 1}, **about}))
    stats = said(serving.alice.get(f"{url}/stats"))
    assert {key: stats[key] for key in about} == about
    assert (stats["trackId"], stats["name"]) == (first["trackId"], "loss")
    assert (stats["totalDataPoints"], stats["bufferedDataPoints"], stats["chunkedDataPoints"]) == ("1", "1", "0")
    assert (stats["totalChunks"], stats["chunkSize"]) == (0, 10_000)
    assert stats["firstDataAt"] == stats["lastDataAt"] == stats["createdAt"] <= stats["updatedAt"]
    said(serving.alice.post(f"{url}/append-batch", json={"dataPoints": [{"value": 2}], "tags": ["b"]}))
    stats = said(serving.alice.get(f"{url}/stats"))
    assert (stats["description"], stats["tags"], stats["metadata"]) == ("of training", ["b"], about["metadata"])
    assert stats["totalDataPoints"] == "2"


def test_an_unknown_track_has_no_points_and_no_stats(serving: Serving) -> None:
    session = serving.alice.session()
    page = said(serving.alice.get(f"/sessions/{session}/tracks/none/data"))
    assert (page["data"], page["total"], page["hasMore"]) == ([], 0, False)
    said(serving.alice.get(f"/sessions/{session}/tracks/none/stats"), 404)
    assert said(serving.alice.get(f"/sessions/{session}/tracks")) == {"tracks": []}


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("loss", "loss"),
        ("train/loss", "train/loss"),
        ("train%2Floss", "train/loss"),
        ("train loss", "train loss"),
        ("train%20loss", "train loss"),
        ("größe/漢字", "größe/漢字"),
        ("gr%C3%B6%C3%9Fe", "größe"),
        ("100%25", "100%"),
        ("data", "data"),
        ("a/append", "a/append"),
        ("a/stats/data", "a/stats/data"),
        ("append-batch", "append-batch"),
        ("a+b&c=d;e", "a+b&c=d;e"),
        ("a%252Fb", "a%2Fb"),
    ],
)
def test_a_name_as_old_clients_send_it_and_percent_encoded(in_memory: Serving, sent: str, name: str) -> None:
    alice, session = in_memory.alice, in_memory.alice.session()
    url = f"/sessions/{session}/tracks/{sent}"
    said(alice.post(f"{url}/append", json={"data": {"value": 1}}))
    said(alice.post(f"{url}/append-batch", json={"dataPoints": [{"value": 2}]}))
    assert [each["data"]["value"] for each in said(alice.get(f"{url}/data"))["data"]] == [1, 2]
    assert said(alice.get(f"{url}/stats"))["name"] == name
    assert [each["name"] for each in said(alice.get(f"/sessions/{session}/tracks"))["tracks"]] == [name]


@pytest.mark.parametrize(
    "sent", ["..%2Fx", "a%2F..%2Fb", "%2Fabs", "a%2F%2Fb", "data.jsonl", "a/metadata.json", "%FF", "a%00b", "x" * 256]
)
def test_a_name_that_no_directory_could_have_is_a_400(in_memory: Serving, sent: str) -> None:
    alice, session = in_memory.alice, in_memory.alice.session()
    url = f"/sessions/{session}/tracks/{sent}"
    said(alice.post(f"{url}/append", json={"data": {"value": 1}}), 400)
    said(alice.post(f"{url}/append-batch", json={"dataPoints": [{"value": 1}]}), 400)
    said(alice.get(f"{url}/data"), 400)
    said(alice.get(f"{url}/stats"), 400)
    assert said(alice.get(f"/sessions/{session}/tracks"))["tracks"] == []


def test_the_bare_nan_of_python_is_stored_as_the_project_stores_it(serving: Serving) -> None:
    session = serving.alice.session()
    url = f"/sessions/{session}/tracks/loss"
    said(serving.alice.post(f"{url}/append", content=b'{"data":{"value":NaN,"word":"NaN","none":null}}'))
    said(serving.alice.post(f"{url}/append-batch", content=b'{"dataPoints":[{"value":1},{"value":[0,-Infinity]}]}'))
    said(serving.alice.post(f"{url}/append", **msgpack({"data": {"value": float("inf")}})))
    found = said(serving.alice.get(f"{url}/data"))["data"]
    assert [(each["data"], each.get("nonfinite")) for each in found] == [
        ({"value": "NaN", "word": "NaN", "none": None}, ["value"]),
        ({"value": 1}, None),
        ({"value": [0, "-Infinity"]}, ["value.1"]),
        ({"value": "Infinity"}, ["value"]),
    ]


def test_numbers_of_any_size(serving: Serving) -> None:
    session = serving.alice.session()
    url = f"/sessions/{session}/tracks/loss"
    large = {"value": 10**30, "negative": -(2**63) - 1}
    said(serving.alice.post(f"{url}/append", json={"data": large}))
    assert said(serving.alice.get(f"{url}/data"))["data"][0]["data"] == large


@pytest.mark.parametrize("what", [{"data": {"a": b"x"}}, {"data": {"a": 1}, "metadata": {"a": b"x"}}], ids=repr)
def test_what_json_cannot_hold_is_a_400(in_memory: Serving, what: Any) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.post(f"/sessions/{session}/tracks/loss/append", **msgpack(what)), 400)
    assert said(in_memory.alice.get(f"/sessions/{session}/tracks")) == {"tracks": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"dataPoints": []},
        {"dataPoints": [1]},
        {"dataPoints": [{"value": 1}] * 10_001},
        {"dataPoints": [{"value": 1}, {"value": "x" * (8 << 20)}]},
        {"dataPoints": [{"value": 1}], "tags": "a"},
    ],
    ids=["", "none", "number", "many", "large", "tags"],
)
def test_a_batch_that_cannot_be_is_a_400_and_none_of_it_is_added(in_memory: Serving, body: Any) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.post(f"/sessions/{session}/tracks/loss/append-batch", json=body), 400)
    assert said(in_memory.alice.get(f"/sessions/{session}/tracks")) == {"tracks": []}


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "startIndex=-1", "startIndex=x", "cursor=x", "limit=1.5"])
def test_a_query_that_cannot_be_is_a_400(in_memory: Serving, query: str) -> None:
    session = in_memory.alice.session()
    said(in_memory.alice.get(f"/sessions/{session}/tracks/loss/data?{query}"), 400)


def test_the_largest_page_is_10_000_points(in_memory: Serving) -> None:
    session = in_memory.alice.session()
    url = f"/sessions/{session}/tracks/loss"
    said(in_memory.alice.post(f"{url}/append-batch", json={"dataPoints": [{"value": n} for n in range(10_000)]}))
    said(in_memory.alice.post(f"{url}/append", json={"data": {"value": 10_000}}))
    page = said(in_memory.alice.get(f"{url}/data?startIndex=0&limit=10000"))
    assert (page["total"], page["endIndex"], page["hasMore"]) == (10_000, "9999", True)
    assert said(in_memory.alice.get(f"{url}/data"))["total"] == 1000, "without a limit"


def test_a_track_of_several_origins(serving: Serving) -> None:
    """What a directory pushed and what was sent here are one track, with the id that it had first."""
    row = b'{"time":"2026-01-01T00:00:00.000000Z","track":"train/loss","trackId":"first","set":{"description":"old"}}'
    directory = Directory(serving.alice, logs={LOSS: points(3), TRACKS_LOG: [row]})
    session = directory.pushed()
    url = f"/sessions/{session}/tracks/train/loss"
    appended = said(serving.alice.post(f"{url}/append", json={"data": {"value": "here"}, "tags": ["new"]}))
    # The index is the position within the origin.
    assert (appended["trackId"], appended["index"]) == ("first", "0")
    stats = said(serving.alice.get(f"{url}/stats"))
    assert (stats["trackId"], stats["totalDataPoints"]) == ("first", "4")
    assert (stats["description"], stats["tags"]) == ("old", ["new"])
    assert stats["firstDataAt"] == "2026-01-01T00:00:00.000000Z" < stats["lastDataAt"] <= stats["updatedAt"]
    assert said(serving.alice.get(f"/sessions/{session}/tracks"))["tracks"] == [stats]
    page = said(serving.alice.get(f"{url}/data"))["data"]
    assert [each["data"]["value"] for each in page] == ["a0", "a1", "a2", "here"]
    assert page[0]["origin"] == directory.origin != page[3]["origin"]


def test_points_without_a_history_are_a_track_all_the_same(serving: Serving) -> None:
    session = Directory(serving.alice, logs={LOSS: points(2)}).pushed()
    found = said(serving.alice.get(f"/sessions/{session}/tracks"))["tracks"]
    assert [(each["name"], each["totalDataPoints"]) for each in found] == [("train/loss", "2")]
    assert found[0]["createdAt"] == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("writers", [4, 60])
def test_many_at_once_get_an_index_each(serving: Serving, writers: int) -> None:
    session = serving.alice.session()
    url = f"/sessions/{session}/tracks/loss/append"
    answers = serving.alice.at_once([("POST", url, {"json": {"data": {"value": number}}}) for number in range(writers)])
    assert sorted(int(said(answer)["index"]) for answer in answers) == list(range(writers))
    page = said(serving.alice.get(f"/sessions/{session}/tracks/loss/data"))["data"]
    assert sorted(each["data"]["value"] for each in page) == list(range(writers))
    # Each caller was told the index that its own point has.
    told = {number: said(answer)["index"] for number, answer in enumerate(answers)}
    assert {each["data"]["value"]: each["index"] for each in page} == told
