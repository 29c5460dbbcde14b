"""Blobs on a real S3 server keep the contract; clients go there with URLs; and what happens when it is not there."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import uuid
from collections.abc import Iterator

import httpx
import pytest

from dreamlake_server import limits
from dreamlake_server.blobs import Incomplete, OwnedBlobs, Wanted
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores import s3 as module
from dreamlake_server.stores.blobs import key_of
from dreamlake_server.stores.memory import MemoryMeta
from dreamlake_server.stores.meta import Blob
from dreamlake_server.stores.s3 import S3Blobs
from tests import scripts
from tests.contract.blobs import KEY, LARGE, BlobsSuite, chunks, put, read
from tests.contract.conftest import Run
from tests.services.seaweed import S3

pytest_plugins = ["tests.services.fixtures"]
pytestmark = pytest.mark.services

# Puts one part of 128 MiB that is made as it goes and reads it back; prints by how many KiB the process grew.
ONE_LARGE_PART = """
    import asyncio, re, sys
    from pathlib import Path
    from dreamlake_server.stores.s3 import S3Blobs

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    async def made(count):
        for _ in range(count):
            yield bytes(1 << 20)

    async def main():
        place, endpoint, access_key, secret_key = sys.argv[1:]
        blobs = S3Blobs(place, endpoint=endpoint, access_key=access_key, secret_key=secret_key)
        await blobs.open()
        await blobs.put("alice/a", 1, 4 << 20, made(4))
        before, size = peak(), 128 << 20
        await blobs.put("alice/b", 1, size, made(128))
        async for chunk in blobs.read("alice/b", 1, 0, size):
            size -= len(chunk)
        assert size == 0
        await blobs.drop("alice/b")
        await blobs.close()
        print(peak() - before)

    asyncio.run(main())
"""
GROWTH_KIB_MAX = 32 << 10


@pytest.fixture
def place(s3: S3) -> str:
    s3.make_bucket("blobs")
    return f"s3://blobs/{uuid.uuid4().hex}/prefix"


def blobs_at(place: str, s3: S3) -> S3Blobs:
    return S3Blobs(place, endpoint=s3.endpoint, region=s3.region, access_key=s3.access_key, secret_key=s3.secret_key)


@pytest.fixture
def blobs(run: Run, s3: S3, place: str) -> Iterator[S3Blobs]:
    store = blobs_at(place, s3)
    run(store.open())
    yield store
    run(store.close())


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False) as opened:
        yield opened


class TestS3Blobs(BlobsSuite):
    racers = 4  # SeaweedFS takes up to a second for each


def test_where_a_part_lies(run: Run, s3: S3, place: str, blobs: S3Blobs) -> None:
    run(put(blobs, b"small", 1))
    run(put(blobs, LARGE, 2))
    path = place.removeprefix("s3:/")
    assert s3.request("GET", f"{path}/{KEY}/00001") == b"small"
    assert s3.request("GET", f"{path}/{KEY}/00002") == LARGE


def test_a_bucket_without_a_prefix_and_prefixes_apart(run: Run, s3: S3, place: str, blobs: S3Blobs) -> None:
    s3.make_bucket("whole")
    whole, other = blobs_at("s3://whole", s3), blobs_at(place + "2", s3)
    run(whole.open())
    run(other.open())
    run(put(blobs, b"x"))
    assert run(whole.parts(KEY)) == run(other.parts(KEY)) == {}
    run(put(whole, b"whole"))
    assert run(blobs.parts(KEY)) == {1: 1}
    assert run(read(whole, 1, 0, 5)) == b"whole"
    run(whole.drop(KEY))


def test_what_is_put_through_the_server_is_held_in_pieces_only(s3: S3, place: str) -> None:
    done = scripts.run(ONE_LARGE_PART, place, s3.endpoint, s3.access_key, s3.secret_key)
    assert int(done.stdout) < GROWTH_KIB_MAX


# ── URLs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_puts_and_gets_by_url(run: Run, blobs: S3Blobs, client: httpx.Client) -> None:
    for at, owner in enumerate(("alice", "a/b", "a%2Fb", "a b?c#d&e=f+g", "ü/日本"), 1):
        key = key_of(owner, "ab" * 32)
        put_url, get_url = (run(blobs.url(method, key, at, 60)) for method in ("PUT", "GET"))
        assert client.put(put_url, content=LARGE).status_code == 200
        assert run(blobs.parts(key)) == {at: len(LARGE)}
        assert run(read(blobs, at, 0, len(LARGE), key)) == LARGE
        assert client.get(get_url).content == LARGE
        part = client.get(get_url, headers={"Range": "bytes=1000000-1000009"})
        assert (part.status_code, part.content) == (206, LARGE[1_000_000:1_000_010])


def test_a_url_opens_what_it_says_and_no_more(run: Run, blobs: S3Blobs, client: httpx.Client) -> None:
    run(put(blobs, b"before", 1))
    run(put(blobs, b"before", 2))
    get_url, put_url = (run(blobs.url(method, KEY, 1, 60)) for method in ("GET", "PUT"))
    assert client.put(get_url, content=b"x").status_code == 403
    assert client.get(put_url).status_code == 403
    assert client.delete(put_url).status_code == 403
    for url in (get_url, put_url):
        other = url.replace("/00001?", "/00002?")
        assert other != url
        assert client.request("GET" if url is get_url else "PUT", other, content=b"x").status_code == 403
    assert run(read(blobs, 1, 0, 6)) == run(read(blobs, 2, 0, 6)) == b"before"
    for method in ("DELETE", "get", ""):
        with pytest.raises(ValueError, match="GET or PUT"):
            run(blobs.url(method, KEY, 1, 60))


def test_a_direct_upload_and_a_part_of_a_wrong_size(run: Run, blobs: S3Blobs, client: httpx.Client) -> None:
    owned = OwnedBlobs(MemoryMeta(), blobs, lambda: "2026-01-01T00:00:00Z")
    sha256 = hashlib.sha256(LARGE).hexdigest()
    wanted = run(owned.begin("alice", sha256, len(LARGE)))
    assert isinstance(wanted, Wanted)
    assert (wanted.missing, list(wanted.urls)) == ([1], [1])
    assert "Signature" in wanted.urls[1]
    assert "Signature" not in repr(wanted)
    for wrong in (LARGE + b"x", LARGE[:-1], b""):
        assert client.put(wanted.urls[1], content=wrong).status_code == 200  # the URL does not know better
        again = run(owned.begin("alice", sha256, len(LARGE)))
        assert (again.there, again.missing, list(again.urls)) == ({}, [1], [1])
        with pytest.raises(Incomplete):
            run(owned.complete("alice", sha256, len(LARGE)))
    client.put(wanted.urls[1], content=LARGE)
    assert run(owned.begin("alice", sha256, len(LARGE))).there == {1: len(LARGE)}
    assert isinstance(run(owned.complete("alice", sha256, len(LARGE))), Blob)
    (url,) = run(owned.urls("alice", sha256)).values()
    assert client.get(url).content == LARGE


def test_urls_are_handed_out_a_few_at_a_time(
    run: Run, blobs: S3Blobs, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PART_BYTES", 1000)
    monkeypatch.setattr(limits, "URLS", 3)
    owned, data = OwnedBlobs(MemoryMeta(), blobs, lambda: "2026-01-01T00:00:00Z"), LARGE[:7500]
    asked = ("alice", hashlib.sha256(data).hexdigest(), len(data))
    run(owned.put_part(*asked, 2, chunks(data[1000:2000])))
    handed: list[list[int]] = []
    while (wanted := run(owned.begin(*asked))).missing:
        handed.append(list(wanted.urls))
        for number, url in wanted.urls.items():
            assert client.put(url, content=data[(number - 1) * 1000 :][:1000]).status_code == 200
    assert handed == [[1, 3, 4], [5, 6, 7], [8]]
    run(owned.complete(*asked))
    assert (
        b"".join(
            [client.get(url).content for first in (1, 4, 7) for url in run(owned.urls(*asked[:2], first)).values()]
        )
        == data
    )
    assert [list(run(owned.urls(*asked[:2], first))) for first in (-5, 0, 8, 9)] == [[1, 2, 3], [1, 2, 3], [8], []]


# ── what does not go well ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_that_dies_and_comes_back(run: Run, s3: S3, blobs: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    run(put(blobs, LARGE, 1))
    run(put(blobs, b"small", 2))
    s3.kill()
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.5)
    try:
        for call in (
            lambda: put(blobs, b"x", 3),
            lambda: put(blobs, LARGE, 3),
            lambda: blobs.parts(KEY),
            lambda: read(blobs, 1, 0, 10),
            lambda: read(blobs, 1, 0, 0),
            lambda: blobs.drop(KEY),
            blobs.ping,
            blobs_at("s3://bucket", s3).open,
        ):
            with pytest.raises(StoreUnavailable) as raised:
                run(call())
            assert s3.access_key not in str(raised.value)
        assert run(blobs.url("GET", KEY, 1, 60)).startswith(s3.endpoint)  # nobody need be asked for that
    finally:
        s3.start()
        monkeypatch.undo()
    assert run(blobs.parts(KEY)) == {1: len(LARGE), 2: 5}
    assert run(read(blobs, 1, 0, len(LARGE))) == LARGE
    run(put(blobs, b"x", 3))


@pytest.fixture
def mute() -> Iterator[str]:
    """An endpoint that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_server_that_does_not_answer(run: Run, s3: S3, mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_SECONDS", 0.5)
    blobs = S3Blobs("s3://bucket", endpoint=mute, access_key=s3.access_key, secret_key=s3.secret_key)
    with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s"):
        run(blobs.open())
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.5)
    for call in (
        lambda: put(blobs, b"x", 3),
        lambda: put(blobs, LARGE, 3),
        lambda: blobs.parts(KEY),
        lambda: read(blobs, 1, 0, 10),
        lambda: blobs.drop(KEY),
    ):
        with pytest.raises(StoreUnavailable, match=r"no answer within 0\.5 s"):
            run(asyncio.wait_for(call(), 5))


@pytest.mark.parametrize("wrong", ["access", "secret"])
def test_credentials_are_never_told(run: Run, s3: S3, place: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    access_key = "WRONGACCESSKEY" if wrong == "access" else s3.access_key
    secret_key = "WRONGSECRETKEY" if wrong == "secret" else s3.secret_key
    blobs = S3Blobs(place, endpoint=s3.endpoint, access_key=access_key, secret_key=secret_key)
    code = "InvalidAccessKeyId" if wrong == "access" else "SignatureDoesNotMatch"
    with pytest.raises(StoreUnavailable, match=f"403 Forbidden.*{code}.*credentials") as raised:
        run(blobs.open())
    told = [raised.value]
    for call in (lambda: put(blobs, LARGE, 3), lambda: blobs.parts(KEY), lambda: read(blobs, 1, 0, 10)):
        with pytest.raises(StoreUnavailable) as raised:
            run(call())
        told.append(raised.value)
    for error in told:
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__
        for secret in (access_key, secret_key, "Signature="):
            assert secret not in f"{error!r} {blobs!r} {blobs}"


def test_what_is_not_given_comes_from_the_environment(
    run: Run, s3: S3, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    monkeypatch.setenv("AWS_REGION", s3.region)
    blobs = S3Blobs(place)
    run(blobs.open())
    run(put(blobs, LARGE))
    assert run(read(blobs, 1, 0, len(LARGE))) == LARGE
    run(blobs.close())


@pytest.mark.parametrize("place", ["bucket", "http://bucket", "s3://", "s3:///prefix", "s3://key:secret@bucket", ""])
def test_a_place_that_is_none(place: str) -> None:
    with pytest.raises(ValueError, match="s3://bucket") as raised:
        S3Blobs(place)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9000", "ftp://host", "http://", "http://key:secret@host:9000"])
def test_an_endpoint_that_is_none(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint") as raised:
        S3Blobs("s3://bucket", endpoint=endpoint)
    assert "secret" not in str(raised.value)
    with pytest.raises(ValueError, match="together"):
        S3Blobs("s3://bucket", access_key="key")
