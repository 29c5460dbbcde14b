"""What trainings said that had returned, held against their directories; and those held against the server."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from dreamlake.remote.follow import Follow
from dreamlake.remote.lake import Lake
from tests import reading
from tests.remote import mirror
from tests.remote.live.programs.trainer import TRACKS
from tests.server_live.lake import client_of

FILES_LOG = ".dreamlake/files.jsonl"
CHUNK_BYTES = 1 << 20
PAGE_ROWS = 10_000


class Call(NamedTuple):
    place: str
    rows: int


def words_of(words: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in words.read_bytes().splitlines()] if words.exists() else []


def _told(words: Path) -> dict[str, list[Call]]:
    """Of each writer its calls that returned, by number."""
    found: dict[str, list[Call]] = defaultdict(list)
    for word in words_of(words):
        assert word["number"] == len(found[word["writer"]])
        found[word["writer"]].append(Call(word["place"], word["count"]))
    return found


def _kept(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Writer, number and place of every row that a call became."""
    for track in TRACKS:
        rows = reading.points(folder, track)
        reading.assert_consecutive(rows)
        for row in rows:
            yield row["data"]["writer"], row["data"]["number"], f"tracks/{track}/data.jsonl"
    for row in reading.lines(folder / "logs/logs.jsonl"):
        yield row["metadata"]["writer"], row["metadata"]["number"], "logs/logs.jsonl"
    for row in reading.lines(folder / ".dreamlake/parameters.jsonl"):
        for writer, number in row["set"].items():
            yield writer, number, ".dreamlake/parameters.jsonl"
    for row in reading.lines(folder / FILES_LOG):
        if row["op"] == "upload":
            said = row["record"]["metadata"]
            yield said["writer"], said["number"], FILES_LOG


def assert_kept(folder: Path, words: Path) -> int:
    """Every call that returned is in the directory once, each log in its writer's order; and at most one more of each
    writer, which was on its way. Returns the number of calls."""
    kept: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    last: dict[tuple[str, str], int] = defaultdict(int)
    for writer, number, place in _kept(folder):
        assert number >= last[writer, place], f"out of order in {place}: {writer}'s call {number}"
        last[writer, place] = number
        kept[writer][number].append(place)
    told = _told(words)
    for writer in {*kept, *told}:
        calls, there = told[writer], kept[writer]
        assert sorted(there) == list(range(len(there))), f"{writer}'s calls have a hole"
        assert len(there) - len(calls) in (0, 1), f"{writer} made {len(calls)} calls and has {len(there)}"
        for number, call in enumerate(calls):
            assert there[number] == [call.place] * call.rows, f"{writer}'s call {number}"
    return sum(map(len, told.values()))


def assert_sent(url: str, token: str, folder: Path) -> int:
    """The server has every log of the directory, to its last line, record by record. Returns the number of records."""
    logs = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jsonl")}
    whole = {log: data.split(b"\n")[:-1] for log, data in logs.items() if data and "/cut/" not in log}
    assert mirror.lines_of(folder) == whole, "not all of it is covered by a checkpoint"
    mirror.assert_same(url, token, folder)
    return sum(map(len, whole.values()))


def assert_blobs_sent(url: str, token: str, folder: Path, words: Path) -> list[int]:
    """The server has the bytes of every version that the history names with a checksum, which is the right one, and
    what stands in each place is among them. Returns how many bytes each content has."""
    uploads: dict[str, dict[str, Any]] = {}
    checksums: dict[str, str] = {}
    for row in reading.lines(folder / FILES_LOG):
        if row["op"] == "upload":
            uploads[row["record"]["id"]] = row["record"]
        elif row["op"] == "hashed":
            checksums[row["id"]] = row["checksum"]
    told = {(word["writer"], word["number"]): word["sha256"] for word in words_of(words) if "file" in word}
    for file_id, sha256 in checksums.items():
        said = uploads[file_id]["metadata"]
        assert told.get((said["writer"], said["number"]), sha256) == sha256, uploads[file_id]
    standing = {record["filename"]: file_id for file_id, record in uploads.items()}
    assert set(standing.values()) <= set(checksums), "what stands has no checksum"
    sizes = {sha256: uploads[file_id]["sizeBytes"] for file_id, sha256 in checksums.items()}
    with client_of(url, token) as client:
        for sha256, size in sizes.items():
            digest, length = hashlib.sha256(), 0
            with client.stream("GET", f"/v1/blobs/{sha256}") as answer:
                assert answer.status_code == 200, f"{sha256} ({size} bytes): {answer.status_code}"
                for chunk in answer.iter_bytes(CHUNK_BYTES):
                    digest.update(chunk)
                    length += len(chunk)
            assert (digest.hexdigest(), length) == (sha256, size)
    return list(sizes.values())


def assert_joined(url: str, token: str, name: str, folders: list[Path]) -> int:
    """The server's session has these directories' origins and no others, and shows the points of all of them as one.
    Returns the number of points."""
    with Lake(url, token) as lake:
        follow = Follow(lake, "project", name)
        assert set(follow.origins()) == {mirror.origin_of(folder) for folder in folders}
        assert follow.session is not None
        path, count = f"/sessions/{follow.session['id']}", 0
    with client_of(url, token) as client:
        for track in TRACKS:
            expected = []
            for folder in folders:
                origin, time = mirror.origin_of(folder), ""
                for row in reading.points(folder, track):
                    time = max(time, row["createdAt"])
                    expected.append((time, origin, row["index"], row["createdAt"], row["data"]))
            expected.sort(key=lambda each: each[:3])
            found = list(_pages(client, f"{path}/tracks/{track}/data"))
            assert found == [(str(index), made, data) for _time, _origin, index, made, data in expected], track
            count += len(found)
    return count


def _pages(client: httpx.Client, path: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    cursor = None
    while True:
        asked = {"limit": str(PAGE_ROWS), **({"cursor": cursor} if cursor else {})}
        page = client.get(path, params=asked).raise_for_status().json()
        for row in page["data"]:
            yield row["index"], row["createdAt"], row["data"]
        if (cursor := page["nextCursor"]) is None:
            return
