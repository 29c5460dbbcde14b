"""Whatever is killed and however the network hurts: afterwards the server has what the directories have, once.

``DREAMLAKE_CHAOS_SEED`` and ``DREAMLAKE_CHAOS_SECONDS`` choose another hour of it.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tests.remote.live.chaos import LAST_SECONDS, LONGER_SECONDS, Chaos
from tests.server_live.lake import Lake, lake
from tests.services.faults import CUT, REFUSE, RESET, SLOW, STALL, faults
from tests.services.mongod import Mongod
from tests.services.seaweed import S3

pytest_plugins = ["tests.services.fixtures"]

SECONDS = float(os.environ.get("DREAMLAKE_CHAOS_SECONDS", "60"))
SEED = os.environ.get("DREAMLAKE_CHAOS_SEED")
BUCKET = "chaos"
ORPHAN_SECONDS = 5
KILLS = Counter(training=6, agent=6, uploader=6, server=3)
MET = Counter({RESET: 10, CUT: 10, STALL: 10, SLOW: 10, REFUSE: 2, "requests": 100})

SMALL_SECONDS = 8.0
SMALL_SEED = 3
SMALL_KILLS = Counter(training=1, agent=1, uploader=1, server=1)
SMALL_MET = Counter({RESET: 1, CUT: 1, STALL: 1, SLOW: 1, REFUSE: 1, "requests": 20})


def go(chaos: Chaos, seconds: float) -> None:
    """Two sessions; what is written of one comes from two machines' directories."""
    try:
        for name, root in (("run", "here"), ("run", "there"), ("other", "here")):
            chaos.train(name, root)
        chaos.run(seconds)
        print(dict(chaos.counts()))
        chaos.heal()
        print(chaos.assert_all_there_once())
    finally:
        chaos.end()
    assert chaos.counts() >= chaos.least


def port_of(server: Lake | S3) -> int:
    url = server.url if isinstance(server, Lake) else server.endpoint
    return int(url.rpartition(":")[2])


@pytest.mark.timeout(SMALL_SECONDS + LONGER_SECONDS + LAST_SECONDS + 60)
def test_a_little_chaos(home: Path, tmp_path: Path) -> None:
    chance = random.Random(SMALL_SEED)
    with (
        lake(tmp_path, "--data", tmp_path / "data", "--auth", "none") as server,
        faults(server.port, chance) as network,
    ):
        chaos = Chaos(home, tmp_path, server, network, (), chance, (9, 12), SMALL_KILLS + SMALL_MET)
        go(chaos, SMALL_SECONDS)


@pytest.fixture
def database(mongod: Mongod) -> Iterator[None]:
    """What the server keeps there is gone before and after. The transaction of a server that was killed holds up others
    for a little while, and not for MongoDB's minute."""
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database("dreamlake")
        limit = {"setParameter": 1, "transactionLifetimeLimitSeconds": ORPHAN_SECONDS}
        before = client.admin.command(limit)["was"]
        yield
        client.admin.command({**limit, "transactionLifetimeLimitSeconds": before})
        client.drop_database("dreamlake")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Gigabytes, which are not kept as ``tmp_path`` is."""
    with tempfile.TemporaryDirectory(prefix="dreamlake-chaos-") as path:
        yield Path(path)


@pytest.mark.services
@pytest.mark.timeout(SECONDS + LONGER_SECONDS + LAST_SECONDS + 180)
def test_chaos_on_a_real_mongodb_and_a_real_s3(
    home: Path, folder: Path, database: None, mongod: Mongod, s3: S3
) -> None:
    seed = int(SEED) if SEED else random.SystemRandom().randrange(1 << 32)
    print(f"DREAMLAKE_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    s3.make_bucket(BUCKET)
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key, "AWS_REGION": s3.region}
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(faults(port_of(s3), chance))
        where = ("--mongo", mongod.uri, "--s3", f"s3://{BUCKET}/{seed}", "--s3-endpoint", store.url)
        server = opened.enter_context(lake(folder, "--data", folder / "data", *where, "--auth", "none", env=keys))
        network = opened.enter_context(faults(server.port, chance))
        go(Chaos(home, folder, server, network, (store,), chance, (20, 60), KILLS + MET), SECONDS)
