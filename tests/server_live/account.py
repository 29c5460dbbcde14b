"""The account: what can be read back over HTTP, held against what origins wrote."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.server_live.carrier import Carrier
from tests.server_live.origins import LOGS, PARAMETERS, TRACKS, Origin

PAGE = 10_000
Row = dict[str, Any]


def rows_of(origin: Origin, log: str) -> list[Row]:
    return [json.loads(line) for line in origin.logs[log].lines]


def session_id(client: httpx.Client, origin: Origin) -> str:
    answer = client.post("/v1/status", json={"origin": origin.name, "session": origin.session})
    return str(answer.raise_for_status().json()["session"]["id"])


def pages(client: httpx.Client, path: str, key: str, cursor: str) -> Iterator[Row]:
    at: dict[str, Any] = {"limit": PAGE}
    while True:
        page = client.get(path, params=at).raise_for_status().json()
        yield from page[key]
        if page[cursor] is None:
            return
        at["cursor"] = page[cursor]


def assert_all_there_once(client: httpx.Client, origins: Sequence[Origin]) -> int:
    """Every line of these origins (all that a session has) is read back once, in its place, to the byte. Returns how
    many."""
    total = 0
    for origin in origins:
        question = {"origin": origin.name, "session": origin.session}
        told = client.post("/v1/status", json=question).raise_for_status().json()["logs"]
        # The mark is of every byte: it agrees only when nothing is missing, doubled or moved.
        expected = {log: (len(each), each.marks[-1]) for log, each in origin.logs.items() if len(each)}
        assert {log: (said["count"], said["mark"]) for log, said in told.items()} == expected
        total += sum(count for count, _ in expected.values())
    path = f"/sessions/{session_id(client, origins[0])}"
    for track, log in TRACKS.items():
        found = list(pages(client, f"{path}/tracks/{track}/data", "data", "nextCursor"))
        assert_rows(found, origins, log, "createdAt", {"index": str})
        assert client.get(f"{path}/tracks/{track}/stats").json()["totalDataPoints"] == str(len(found))
    found = list(pages(client, f"{path}/logs", "logs", "nextCursor"))
    assert_rows(found, origins, LOGS, "timestamp", {"sequenceNumber": int})
    parameters: dict[str, Any] = {}
    for origin in origins:
        for row in rows_of(origin, PARAMETERS):
            parameters.update(row["set"])
    if parameters:
        assert client.get(f"{path}/parameters").json()["data"] == parameters
    return total


def assert_rows(found: list[Row], origins: Sequence[Origin], log: str, time: str, number: dict[str, type]) -> None:
    """Of each origin its rows in its order; all of them in the order of (latest time so far, origin, index)."""
    of_origin: dict[str, list[Row]] = defaultdict(list)
    order, latest = [], defaultdict[str, str](str)
    for row in found:
        name = row.pop("origin", origins[0].name)
        latest[name] = max(latest[name], row[time])
        order.append((latest[name], name, len(of_origin[name])))
        of_origin[name].append(row)
    assert order == sorted(order)
    for origin in origins:
        expected = [{**row, **{key: kind(row[key]) for key, kind in number.items()}} for row in rows_of(origin, log)]
        # Compared one by one: a difference between two long lists takes minutes to explain.
        assert len(of_origin[origin.name]) == len(expected), log
        for index, (row, wanted) in enumerate(zip(of_origin[origin.name], expected, strict=True)):
            assert row == wanted, f"{log} of {origin.name}, record {index}"


def assert_blobs_are_right(client: httpx.Client, carrier: Carrier, origin: Origin) -> int:
    """Each blob by its SHA-256, also as a file of its session, and by a range. Returns how many bytes there are."""
    path = f"/sessions/{session_id(client, origin)}/files"
    asked = {"blobs": [sha256 for sha256, _ in carrier.stored.values()]}
    told = client.post("/v1/status", json={"origin": origin.name, "session": origin.session, **asked}).json()
    assert told["lacking"] == []
    assert {file["id"] for file in client.get(path).json()["files"]} == set(carrier.stored)
    chance = random.Random(1)
    for number, (file_id, (sha256, size)) in enumerate(carrier.stored.items()):
        place = f"{path}/{file_id}/download" if number % 2 else f"/v1/blobs/{sha256}"
        with client.stream("GET", place) as answer:
            data = b"".join(answer.raise_for_status().iter_bytes())
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (sha256, size)
        if size:
            start = chance.randrange(size)
            end = min(size, start + 100_000)
            piece = client.get(place, headers={"Range": f"bytes={start}-{end - 1}"})
            assert (piece.status_code, piece.content) == (206, data[start:end])
    return sum(size for _, size in carrier.stored.values())
