"""Send one file to an S3 store: by a server's upload in parts, or by boto3's upload_file. Prints JSON.

Usage: blob.py FILE server URL
       blob.py FILE boto3 ENDPOINT BUCKET       (credentials in the environment)
"""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

WAYS = 4  # parts under way at once, for both


def ask(url: str, path: str, body: object) -> dict[str, object]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=600)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}: {said[:500]!r}")
    return json.loads(said)  # type: ignore[no-any-return]


def put(file: str, offset: int, size: int, url: str) -> None:
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=600)
    with open(file, "rb") as source:
        source.seek(offset)
        connection.request("PUT", f"{where.path}?{where.query}", source.read(size))
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise SystemExit(f"part at {offset}: {answer.status}: {said[:500]!r}")


def by_server(file: str, url: str) -> dict[str, float]:
    began = time.monotonic()
    digest, size = hashlib.sha256(), 0
    with open(file, "rb") as source:
        while chunk := source.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    hashed = time.monotonic()
    sha256 = digest.hexdigest()
    wanted = ask(url, "/v1/blobs", {"sha256": sha256, "size": size})
    length, urls = wanted["part_bytes"], wanted["urls"]
    assert isinstance(length, int)
    assert isinstance(urls, dict)
    with ThreadPoolExecutor(WAYS) as pool:
        jobs = [pool.submit(put, file, (int(n) - 1) * length, length, to) for n, to in urls.items()]
        for job in jobs:
            job.result()
    sent = time.monotonic()
    if ask(url, f"/v1/blobs/{sha256}/complete", {"size": size})["state"] != "stored":
        raise SystemExit("the server did not store it")
    return {"hash": hashed - began, "send": sent - hashed, "verify": time.monotonic() - sent}


def by_boto3(file: str, endpoint: str, bucket: str) -> dict[str, float]:
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
    parts = TransferConfig(multipart_chunksize=32 << 20, max_concurrency=WAYS)
    began = time.monotonic()
    client.upload_file(file, bucket, f"boto3-{time.time_ns()}", Config=parts)
    return {"send": time.monotonic() - began}


if __name__ == "__main__":
    kind = {"server": by_server, "boto3": by_boto3}[sys.argv[2]]
    print(json.dumps(kind(sys.argv[1], *sys.argv[3:])))
