"""A series of millions of points: what the server holds in memory, how the series lies in its store, what a page costs.

By default three million; ``DREAMLAKE_TEST_SERVER_POINTS=10000000`` asks for ten.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import sqlite3
import time
import zlib
from array import array
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pymongo
import pytest

from dreamlake.wire.zstd import pack
from dreamlake_server.read import Reader
from dreamlake_server.stores.meta import Head, Meta, Segment
from dreamlake_server.stores.mongodb import MongoMeta
from dreamlake_server.stores.sqlite import SqliteMeta
from tests.server_live.lake import Lake, client_of, lake, new_token
from tests.services.mongod import Mongod

pytest_plugins = ["tests.services.fixtures"]
pytestmark = pytest.mark.timeout(600)

MILLION = 1_000_000
POINTS = int(os.environ.get("DREAMLAKE_TEST_SERVER_POINTS", str(3 * MILLION)))
POINTS_AT_ONCE = 100_000  # 8 MB
assert POINTS % MILLION == 0, "DREAMLAKE_TEST_SERVER_POINTS is a number of whole millions"
FAR = POINTS // 10 * 9
PAGE = 2500
GROWTH_BYTES_MAX = 64 << 20
SEGMENT_BYTES_MAX = 2 << 20  # of the 16 MB that a document of MongoDB may have
TRACK, LOG = "loss", "tracks/loss/data.jsonl"
ORIGIN, SESSION = "5e" * 16, {"workspace": "project", "name": "long"}
# Values without a pattern, so that segments are not smaller than those of a real series.
VALUES = array("Q", random.Random(5).randbytes(8 * POINTS_AT_ONCE))


def lines(first: int, count: int) -> bytes:
    """As the agent writes them. Many at once have one time and one format: making them costs less than taking them."""
    at = first // POINTS_AT_ONCE
    stamp = b"2026-01-01T%02d:%02d:%02d.000000Z" % (at // 3600, at // 60 % 60, at % 60)
    line = b'{"index":%%d,"data":{"value":0.%%020d},"createdAt":"%b"}\n' % stamp
    numbers = [0] * (2 * count)
    numbers[::2], numbers[1::2] = range(first, first + count), VALUES[first % POINTS_AT_ONCE :][:count]
    return line * count % tuple(numbers)


class Series:
    """The sender's side: it only remembers how far it is."""

    def __init__(self) -> None:
        self.count, self._size, self._checksum = 0, 0, 0

    @property
    def mark(self) -> str:
        return f"{self._size}-{self._checksum:08x}"

    def push(self, client: httpx.Client, end: int) -> float:
        """From where the server is up to record ``end``. Returns how many points were pushed in a second."""
        whose = {"origin": ORIGIN, "session": SESSION}
        began, before = time.monotonic(), self.count
        told = client.post("/v1/status", json={**whose, "logs": [LOG]}).raise_for_status().json()["logs"][LOG]
        assert (told["count"], told["mark"]) == (self.count, self.mark)
        while self.count < end:
            data = lines(self.count, min(POINTS_AT_ONCE, end - self.count))
            body = {**whose, "logs": {LOG: {"from": self.count, "prev": self.mark, "lines": data}}}
            headers = {"Content-Type": "application/msgpack", "Content-Encoding": "zstd"}
            answer = client.post("/v1/push", content=pack(msgpack.packb(body)), headers=headers)
            self.count = min(self.count + POINTS_AT_ONCE, end)
            self._size, self._checksum = self._size + len(data), zlib.crc32(data, self._checksum)
            assert answer.raise_for_status().json()["logs"] == {LOG: {"count": self.count, "mark": self.mark}}
        return (self.count - before) / (time.monotonic() - began)


def memory(server: Lake) -> tuple[int, int]:
    """Bytes that the process holds, and the most that it ever held."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    held, most = (int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10 for name in ("VmRSS", "VmHWM"))  # type: ignore[index]
    return held, most


def push_all(server: Lake, token: str) -> str:
    """The whole series; returns the session's id."""
    series = Series()
    with client_of(server.url, token) as client:
        fast = series.push(client, MILLION)
        held, most = memory(server)
        fast = min(fast, series.push(client, POINTS))
        held_then, most_then = memory(server)
        print(f"{fast:,.0f} points/s; MiB after 1 million: {held >> 20} ({most >> 20} at most)", end=", ")
        print(f"after {POINTS / MILLION:g}: {held_then >> 20} ({most_then >> 20})")
        assert held_then - held <= GROWTH_BYTES_MAX
        assert most_then - most <= GROWTH_BYTES_MAX
        [session] = client.get("/sessions").json()["sessions"]
        for first in (0, FAR, POINTS - PAGE):
            began = time.monotonic()
            query = {"startIndex": first, "limit": PAGE}
            page = client.get(f"/sessions/{session['id']}/tracks/{TRACK}/data", params=query).raise_for_status().json()
            expected = [json.loads(line) for line in lines(first, PAGE).splitlines()]
            assert page["data"] == [{**row, "index": str(row["index"])} for row in expected]
            assert page["hasMore"] == (first + PAGE < POINTS)
            print(f"page at {first}: {time.monotonic() - began:.3f} s", end="; ")
    return str(session["id"])


class Counting:
    """A store which counts the segments that it is asked for."""

    def __init__(self, meta: Meta) -> None:
        self._meta, self.segments_read = meta, 0

    async def heads(self, *args: Any, **kwargs: Any) -> dict[tuple[str, str], Head]:
        return await self._meta.heads(*args, **kwargs)

    async def segments(self, *args: Any) -> list[Segment]:
        found = await self._meta.segments(*args)
        self.segments_read += len(found)
        return found


def segments_read(meta: Meta, session_id: str) -> list[int]:
    """By a page at the beginning, and by one far behind it."""

    async def read(first: int) -> int:
        counting = Counting(meta)
        reader = await Reader.open(counting, session_id, LOG)  # type: ignore[arg-type]
        await reader.skip(first)
        records = reader.records()
        indexes = [(await anext(records)).index for _ in range(PAGE)]
        assert indexes == list(range(first, first + PAGE))
        return counting.segments_read

    async def both() -> list[int]:
        await meta.open()
        try:
            return [await read(0), await read(FAR)]
        finally:
            await meta.close()

    return asyncio.run(both())


def test_a_long_series_in_sqlite(tmp_path: Path) -> None:
    token = new_token("alice", "--data", tmp_path / "data")
    with lake(tmp_path, "--data", tmp_path / "data") as server:
        session_id = push_all(server, token)
        server.kill()
        server.assert_no_complaints()
    file = tmp_path / "data" / "meta.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        select = "SELECT count(*), sum(count), max(length(data)), max(size) FROM segments"
        segments, count, largest, largest_unpacked = connection.execute(select).fetchone()
    print(
        f"{segments} segments of {largest} bytes at most ({largest_unpacked} unpacked); the file has "
        f"{file.stat().st_size >> 20} MiB"
    )
    assert count == POINTS
    assert largest_unpacked <= SEGMENT_BYTES_MAX
    first, far = segments_read(SqliteMeta(file), session_id)
    assert 0 < far == first


@pytest.mark.services
def test_a_long_series_in_mongodb(tmp_path: Path, mongod: Mongod) -> None:
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as database:
        database.drop_database("dreamlake")
        try:
            token = new_token("alice", "--mongo", mongod.uri)
            with lake(tmp_path, "--data", tmp_path / "data", "--mongo", mongod.uri) as server:
                session_id = push_all(server, token)
                server.assert_no_complaints()
            largest = {"$group": {"_id": None, "most": {"$max": {"$bsonSize": "$$ROOT"}}, "count": {"$sum": "$count"}}}
            [found] = database["dreamlake"]["segments"].aggregate([largest])
            print(f"{found['most']} bytes in the largest segment")
            assert found["count"] == POINTS
            assert found["most"] <= SEGMENT_BYTES_MAX
            first, far = segments_read(MongoMeta(mongod.uri), session_id)
            assert 0 < far == first
        finally:
            database.drop_database("dreamlake")
