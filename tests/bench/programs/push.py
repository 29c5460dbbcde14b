"""Push points to a server, as an uploader does: a file's bytes, as they are, in msgpack under zstd. Prints JSON.

Usage: push.py URL POINTS
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from urllib.parse import urlsplit
from zlib import crc32

import msgspec

from dreamlake.wire import zstd

ROWS = 20_000  # in a request
LOG = "tracks/loss/data.jsonl"


def piece(first: int, end: int) -> bytes:
    """Lines as the agent writes them, about 100 bytes each."""
    line = b'{"index":%d,"data":{"value":0.%06d,"epoch":%d},"createdAt":"2026-01-01T%02d:%02d:%02d.%06dZ"}\n'
    return b"".join(
        line % (i, i * 7919 % 10**6, i // 100, i // 3600 % 24, i // 60 % 60, i % 60, i * 104729 % 10**6)
        for i in range(first, end)
    )


def main(url: str, points: int) -> None:
    pieces = [piece(first, min(points, first + ROWS)) for first in range(0, points, ROWS)]
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port)
    headers = {"Content-Type": "application/msgpack", "Content-Encoding": "zstd"}
    first = size = checksum = 0
    began, cpu = time.monotonic(), time.process_time()
    for data in pieces:
        log = {"from": first, "prev": f"{size}-{checksum:08x}", "lines": data}
        body = {"origin": "b" * 32, "session": {"workspace": "bench", "name": "push"}, "logs": {LOG: log}}
        connection.request("POST", "/v1/push", zstd.pack(msgspec.msgpack.encode(body)), headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {said[:500]!r}")
        first += data.count(b"\n")
        size, checksum = size + len(data), crc32(data, checksum)
    took = time.monotonic() - began
    if json.loads(said)["logs"][LOG]["count"] != points:
        raise SystemExit(f"the server has {said!r}, not {points} points")
    print(json.dumps({"seconds": took, "cpu": time.process_time() - cpu, "bytes": size}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
