"""Send what `dreamlake sync` would send, the same bodies and bytes, by a bare loop. Prints JSON.

All of it is read, hashed and packed before the clock starts. Pushes go one after the other, since each begins at the
mark where the one before ended; parts of files go on as many connections as a sync has.

bare.py DIR URL
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from dreamlake.wire import codec, zstd
from dreamlake.wire.marks import Mark
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote.blobs import AT_ONCE
from dreamlake_agent.remote.logs import BATCH_BYTES
from dreamlake_agent.remote.source import Source, in_order

PACKED = {"Content-Type": "application/msgpack", "Content-Encoding": "zstd"}
SECONDS = 600


class Connections(threading.local):
    """Those of the calling thread, by where they go."""

    def __init__(self) -> None:
        self.to: dict[str, http.client.HTTPConnection] = {}


_mine = Connections()


def bodies(source: Source) -> Iterator[bytes]:
    batch: dict[str, dict[str, Any]] = {}
    size = 0

    def packed() -> bytes:
        session = {"workspace": source.workspace, "name": source.name}
        return zstd.pack(codec.packer().pack({"origin": source.origin, "session": session, "logs": batch}))

    for log in in_order(set(source.ends)):
        count, mark, end = 0, Mark(), source.ends[log].size
        while mark.size < end:
            data = source.piece(log, mark.size, BATCH_BYTES - size)
            batch[log] = {"from": count, "prev": mark.text, "lines": data}
            count, mark, size = count + data.count(b"\n"), mark.after(data), size + len(data)
            if mark.size < end or size >= BATCH_BYTES:
                yield packed()
                batch, size = {}, 0
    if batch:
        yield packed()


def send(method: str, url: str, body: bytes | memoryview, headers: dict[str, str]) -> bytes:
    where = urlsplit(url)
    connection = _mine.to.get(where.netloc)
    if connection is None:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=SECONDS)
        _mine.to[where.netloc] = connection
    connection.request(method, f"{where.path}?{where.query}" if where.query else where.path, body, headers)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{method} {where.path}: {answer.status}: {said[:500]!r}")
    return said


def ask(url: str, body: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(send("POST", url, json.dumps(body).encode(), {}))
    return found


class Blob:
    def __init__(self, data: bytes, url: str) -> None:
        self.data, self.url, self.sha256 = data, url, hashlib.sha256(data).hexdigest()

    def begin(self) -> None:
        self.wanted = ask(f"{self.url}/v1/blobs", {"sha256": self.sha256, "size": len(self.data)})

    def parts(self) -> range:
        return range(1, -(-len(self.data) // self.wanted["part_bytes"]) + 1)

    def put(self, number: int) -> None:
        length = self.wanted["part_bytes"]
        data = memoryview(self.data)[(number - 1) * length : number * length]
        here = f"{self.url}/v1/blobs/{self.sha256}/parts/{number}?size={len(self.data)}"
        send("PUT", self.wanted["urls"].get(str(number), here), data, {})

    def complete(self) -> None:
        said = ask(f"{self.url}/v1/blobs/{self.sha256}/complete", {"size": len(self.data)})
        if said["state"] != "stored":
            raise SystemExit(f"the server did not store a blob: {said}")


def main(path: str, url: str) -> None:
    source = Source(REAL_DISK, path)
    pushes = list(bodies(source))
    blobs = [Blob(b"".join(source.chunks(source.places(each)[0], 0, each.size)), url) for each in source.files()]
    blobs.sort(key=lambda each: len(each.data))
    began = time.monotonic()
    for body in pushes:
        send("POST", f"{url}/v1/push", body, PACKED)
    pushed = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(Blob.begin, blobs))
        list(pool.map(lambda work: work[0].put(work[1]), [(each, n) for each in blobs for n in each.parts()]))
        list(pool.map(Blob.complete, blobs))
    stored = time.monotonic()
    found = {
        "points": pushed - began,
        "files": stored - pushed,
        "records": source.records(),
        "bytes": sum(mark.size for mark in source.ends.values()),
        "file_bytes": sum(len(each.data) for each in blobs),
        "pushes": len(pushes),
    }
    source.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
