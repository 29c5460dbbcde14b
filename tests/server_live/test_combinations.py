"""Every pair of stores, chosen by argument or by environment: a server stands on them, says so, and tells when one is
broken and when it has healed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pymongo
import pytest

from tests.live.volume import CannotMount, small_disk
from tests.server_live.lake import client_of, lake, new_token
from tests.server_live.origins import LOGS, Origin
from tests.services.mongod import Mongod
from tests.services.seaweed import S3
from tests.waiting import wait_for

pytest_plugins = ["tests.services.fixtures"]
pytestmark = pytest.mark.services

BUCKET = "combinations"
DISK_MIB = 48
BLOB_BYTES = 3 << 20
HEAL_SECONDS = 30
Break = Callable[[], contextlib.AbstractContextManager[object]]


class Stores:
    """A pair of stores: how a server is told of it, and how each of them is broken and healed."""

    def __init__(self, meta: str, blobs: str, folder: Path, mongod: Mongod, s3: S3) -> None:
        self.meta, self.blobs, self.data = meta, blobs, folder / "data"
        self._mongod, self._s3, self._place = mongod, s3, f"s3://{BUCKET}/{folder.name}"
        self.keys = {
            "AWS_ACCESS_KEY_ID": s3.access_key,
            "AWS_SECRET_ACCESS_KEY": s3.secret_key,
            "AWS_REGION": s3.region,
        }

    @property
    def tokens(self) -> list[str]:
        """Where they are, for the command line."""
        return ["--data", str(self.data), *(["--mongo", self._mongod.uri] if self.meta == "mongodb" else [])]

    @property
    def args(self) -> list[str]:
        s3 = ["--s3", self._place, "--s3-endpoint", self._s3.endpoint] if self.blobs == "s3" else []
        return [*self.tokens, *s3]

    @property
    def environment(self) -> dict[str, str]:
        names = [name.strip("-").replace("-", "_").upper() for name in self.args[::2]]
        return {f"DREAMLAKE_SERVER_{name}": value for name, value in zip(names, self.args[1::2], strict=True)}

    def broken(self, which: str) -> contextlib.AbstractContextManager[object]:
        breaks: dict[str, Break] = {
            "mongodb": lambda: _killed(self._mongod),
            "s3": lambda: _killed(self._s3),
            "sqlite": lambda: _full(self.data),
            "folder": lambda: _no_folder(self.data / "blobs"),
        }
        return breaks[getattr(self, which)]()


@contextlib.contextmanager
def _killed(server: Mongod | S3) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def _no_folder(folder: Path) -> Iterator[None]:
    """Something else stands in its place: also root can write nothing there."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_text("no folder")
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)


@contextlib.contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Not a byte is left on the disk."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path, mongod: Mongod, s3: S3) -> Iterator[Stores]:
    meta, blobs = request.param
    s3.make_bucket(BUCKET)
    with contextlib.ExitStack() as made:
        stores = Stores(meta, blobs, tmp_path, mongod, s3)
        client = made.enter_context(pymongo.MongoClient[dict[str, Any]](mongod.uri))
        client.drop_database("dreamlake")
        made.callback(client.drop_database, "dreamlake")
        yield stores


each_pair = pytest.mark.parametrize(
    "stores",
    [("sqlite", "folder"), ("sqlite", "s3"), ("mongodb", "folder"), ("mongodb", "s3")],
    indirect=True,
    ids="-".join,
)


def upload(client: httpx.Client, data: bytes, *, direct: bool) -> httpx.Response:
    """By the URL that the server gives, where it should give one. The last answer that came."""
    sha256, size = hashlib.sha256(data).hexdigest(), len(data)
    begun = client.post("/v1/blobs", json={"sha256": sha256, "size": size})
    if begun.status_code != 200 or begun.json()["state"] == "stored":
        return begun
    assert bool(begun.json()["urls"]) == direct
    if direct:
        put = httpx.put(begun.json()["urls"]["1"], content=data, timeout=20, trust_env=False)
    else:
        put = client.put(f"/v1/blobs/{sha256}/parts/1", params={"size": size}, content=data)
    return client.post(f"/v1/blobs/{sha256}/complete", json={"size": size}) if put.status_code == 200 else put


def assert_takes(client: httpx.Client, stores: Stores, say: bytes) -> None:
    """A push and a blob, which are read back."""
    origin = Origin(say.decode(), 1)
    origin.write(LOGS, 100)
    pushed = client.post("/v1/push", json=origin.push_of(LOGS, 0))
    assert pushed.status_code == 200, pushed.text
    session = pushed.json()["session"]["id"]
    rows = client.get(f"/sessions/{session}/logs", params={"limit": 1000}).json()["logs"]
    assert [row["message"] for row in rows] == [f"{origin.name[:8]} {index}" for index in range(100)]
    data = say * (BLOB_BYTES // len(say))
    stored = upload(client, data, direct=stores.blobs == "s3")
    assert (stored.status_code, stored.json()["state"]) == (200, "stored"), stored.text
    assert client.get(f"/v1/blobs/{hashlib.sha256(data).hexdigest()}").content == data


@each_pair
def test_a_server_stands_on_what_its_environment_names(stores: Stores, tmp_path: Path) -> None:
    environment = stores.environment
    token = new_token("alice", env=environment)
    with lake(tmp_path, env={**environment, **stores.keys}) as server:
        assert f"({stores.meta}, {stores.blobs})" in server.complaints()
        with client_of(server.url, token) as client:
            assert_takes(client, stores, b"by environment")
        server.assert_no_complaints()


@each_pair
@pytest.mark.timeout(240)
def test_health_tells_of_each_store_when_it_breaks_and_when_it_heals(stores: Stores, tmp_path: Path) -> None:
    with contextlib.ExitStack() as made:
        if stores.meta == "sqlite":
            try:
                stores.data = made.enter_context(small_disk(DISK_MIB)) / "data"
            except CannotMount as reason:
                pytest.skip(f"no small file system that could be filled: {reason}")
        token = new_token("alice", *stores.tokens)
        server = made.enter_context(lake(tmp_path, *stores.args, env=stores.keys))
        client = made.enter_context(client_of(server.url, token))
        status, said = server.health()
        kinds = {name: store["kind"] for name, store in said["stores"].items()}
        assert (status, kinds) == (200, {"meta": stores.meta, "blobs": stores.blobs, "tokens": stores.meta})
        assert_takes(client, stores, b"well")
        for which in ("meta", "blobs"):
            with stores.broken(which):
                wait_for(lambda which=which: server.states()[which] == "unavailable", HEAL_SECONDS)
                status, said = server.health()
                assert (status, said["status"]) == (503, "degraded")
                print(stores.meta, stores.blobs, which, said["stores"][which]["error"])
                assert_refuses(client, which)
            wait_for(lambda: server.health()[0] == 200, HEAL_SECONDS)
            assert_takes(client, stores, f"after {which}".encode())
        server.assert_no_complaints()


def assert_refuses(client: httpx.Client, which: str) -> None:
    """What asks for the broken store is told to come again, in JSON."""
    if which == "meta":
        origin = Origin("broken", 2)
        origin.write(LOGS, 20_000)
        answer = client.post("/v1/push", json=origin.push_of(LOGS, 0))
    else:
        answer = upload(client, b"broken" * 1_000_000, direct=False)
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"] == "unavailable"
    assert answer.headers["retry-after"] == "1"
