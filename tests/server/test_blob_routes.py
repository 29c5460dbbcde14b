"""Blobs over HTTP: begun, put in parts, completed, read back; docs/push.md, Blobs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from dreamlake_server import limits
from tests.server.serving import Serving, over_each_store, over_memory, said

__all__ = ["over_each_store", "over_memory"]

PART = 1000
BYTES = bytes(index * 7 % 251 for index in range(2500))
SHA256 = hashlib.sha256(BYTES).hexdigest()
PARTS = {1: BYTES[:1000], 2: BYTES[1000:2000], 3: BYTES[2000:]}
HASHES = [hashlib.sha256(part).hexdigest() for part in PARTS.values()]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_BYTES", PART)


def begin(serving: Serving, sha256: str = SHA256, size: int = len(BYTES)) -> Any:
    return said(serving.alice.post("/v1/blobs", json={"sha256": sha256, "size": size}))


def put(serving: Serving, number: int, data: bytes, status: int = 200) -> Any:
    url = f"/v1/blobs/{SHA256}/parts/{number}"
    return said(serving.alice.put(url, params={"size": len(BYTES)}, content=data), status)


def complete(serving: Serving, status: int = 200, **what: Any) -> Any:
    return said(serving.alice.post(f"/v1/blobs/{SHA256}/complete", json={"size": len(BYTES), **what}), status)


def test_parts_in_any_order_make_a_blob(serving: Serving) -> None:
    assert begin(serving) == {"state": "wanted", "part_bytes": PART, "parts": {}, "urls": {}}
    for number in (3, 1, 1):
        assert put(serving, number, PARTS[number])["state"] == "wanted"
    assert begin(serving)["parts"] == {"1": 1000, "3": 500}, "whoever comes again goes on"
    said(serving.alice.get(f"/v1/blobs/{SHA256}"), 404)
    missing = complete(serving, 409)
    assert (missing["error"], missing["missing"]) == ("incomplete", [2])
    put(serving, 2, PARTS[2])
    assert complete(serving, parts=HASHES)["state"] == "stored"
    assert complete(serving)["state"] == "stored", "again: at once"
    assert begin(serving)["state"] == "stored"
    assert put(serving, 1, b"x" * 1000)["state"] == "stored", "what is stored stays as it is"
    found = serving.alice.get(f"/v1/blobs/{SHA256}")
    assert (found.status_code, found.content) == (200, BYTES)
    assert found.headers["content-type"] == "application/octet-stream"
    urls = said(serving.alice.get(f"/v1/blobs/{SHA256}/urls"))
    assert urls == {"size": len(BYTES), "part_bytes": PART, "urls": {}}


def test_wrong_bytes_are_told_by_part_and_sent_again(serving: Serving) -> None:
    for number, data in PARTS.items():
        put(serving, number, b"x" * 1000 if number == 2 else data)
    wrong = complete(serving, 409, parts=HASHES)
    assert (wrong["error"], wrong["bad_parts"]) == ("wrong-bytes", [2])
    assert begin(serving)["parts"] == {"1": 1000, "3": 500}
    put(serving, 2, PARTS[2])
    complete(serving)
    assert serving.alice.get(f"/v1/blobs/{SHA256}").content == BYTES


def test_wrong_bytes_without_hashes_are_all_sent_again(serving: Serving) -> None:
    for number, data in PARTS.items():
        put(serving, number, data[::-1])
    assert complete(serving, 409)["bad_parts"] == [1, 2, 3]
    assert begin(serving)["parts"] == {}


def test_no_bytes_at_all_are_a_blob(serving: Serving) -> None:
    sha256 = hashlib.sha256(b"").hexdigest()
    begin(serving, sha256, 0)
    said(serving.alice.put(f"/v1/blobs/{sha256}/parts/1?size=0", content=b""))
    said(serving.alice.post(f"/v1/blobs/{sha256}/complete", json={"size": 0}))
    found = serving.alice.get(f"/v1/blobs/{sha256}")
    assert (found.status_code, found.content) == (200, b"")
    said(serving.alice.get(f"/v1/blobs/{sha256}", headers={"Range": "bytes=0-"}), 416)


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 1001, 2499])
@pytest.mark.parametrize("end", [1, 1000, 1001, 2500])
def test_a_range_over_the_bounds_of_parts(in_memory: Serving, start: int, end: int) -> None:
    for number, data in PARTS.items():
        put(in_memory, number, data)
    complete(in_memory)
    found = in_memory.alice.get(f"/v1/blobs/{SHA256}", headers={"Range": f"bytes={start}-{end - 1}"})
    if start < end:
        assert (found.status_code, found.content) == (206, BYTES[start:end])
        assert found.headers["content-range"] == f"bytes {start}-{end - 1}/2500"
    else:
        assert (found.status_code, found.content) == (200, BYTES)
    head = in_memory.alice.request("HEAD", f"/v1/blobs/{SHA256}")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "2500", b"")


@pytest.mark.parametrize("number", ["0", "4", "-1", "x", "1.0", "%C2%B2", "9" * 30])
def test_a_part_that_there_is_not_is_a_400(in_memory: Serving, number: str) -> None:
    url = f"/v1/blobs/{SHA256}/parts/{number}?size=2500"
    said(in_memory.alice.put(url, content=b"x"), 400)
    assert begin(in_memory)["parts"] == {}


@pytest.mark.parametrize("data", [b"", BYTES[:999], BYTES[:1001]], ids=len)
def test_a_part_of_another_size_is_a_400_and_is_not_stored(serving: Serving, data: bytes) -> None:
    assert put(serving, 1, data, 400)["error"] == "size-mismatch"
    assert begin(serving)["parts"] == {}


@pytest.mark.parametrize("sha256", ["x", "A" * 64, "0" * 63, "0" * 65, "%2e%2e%2f" + "0" * 61, "%FF", "a%0A"])
def test_what_is_no_sha256_is_a_400(in_memory: Serving, sha256: str) -> None:
    alice = in_memory.alice
    said(alice.post("/v1/blobs", json={"sha256": sha256, "size": 1}), 400)
    said(alice.put(f"/v1/blobs/{sha256}/parts/1?size=1", content=b"x"), 400)
    said(alice.post(f"/v1/blobs/{sha256}/complete", json={"size": 1}), 400)
    said(alice.get(f"/v1/blobs/{sha256}"), 400)
    said(alice.get(f"/v1/blobs/{sha256}/urls"), 400)


@pytest.mark.parametrize("size", [-1, 1.5, "1", None, limits.FILE_BYTES + 1, 10**30], ids=repr)
def test_a_size_that_cannot_be(in_memory: Serving, size: Any) -> None:
    status = 413 if isinstance(size, int) and size > 0 else 400
    answers = [
        in_memory.alice.post("/v1/blobs", json={"sha256": SHA256, "size": size}),
        in_memory.alice.post(f"/v1/blobs/{SHA256}/complete", json={"size": size}),
    ]
    if size != "1":  # a query is always text
        answers.append(in_memory.alice.put(f"/v1/blobs/{SHA256}/parts/1", params={"size": str(size)}, content=b"x"))
    assert {answer.status_code for answer in answers} <= {status, 400}
    assert answers[0].status_code == status or size == 10**30


def test_another_size_than_the_blob_has_is_a_400(serving: Serving) -> None:
    for number, data in PARTS.items():
        put(serving, number, data)
    complete(serving)
    said(serving.alice.post("/v1/blobs", json={"sha256": SHA256, "size": 2501}), 400)
    said(serving.alice.post(f"/v1/blobs/{SHA256}/complete", json={"size": 2501}), 400)


@pytest.mark.parametrize("parts", [[], HASHES[:2], [*HASHES, HASHES[0]], ["x", *HASHES[1:]], [1, 2, 3]], ids=len)
def test_hashes_that_cannot_be_those_of_the_parts_are_a_400(in_memory: Serving, parts: Any) -> None:
    for number, data in PARTS.items():
        put(in_memory, number, data)
    complete(in_memory, 400, parts=parts)
    assert len(begin(in_memory)["parts"]) == 3


@pytest.mark.parametrize("query", ["first=0", "first=-1", "first=x", "first=" + "9" * 40])
def test_urls_that_cannot_be_asked_for(in_memory: Serving, query: str) -> None:
    for number, data in PARTS.items():
        put(in_memory, number, data)
    complete(in_memory)
    found = in_memory.alice.get(f"/v1/blobs/{SHA256}/urls?{query}")
    assert found.status_code == 400 or said(found)["urls"] == {}
