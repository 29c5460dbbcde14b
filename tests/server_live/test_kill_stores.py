"""Two servers on one MongoDB and one bucket; everything is killed at any moment, and nothing is lost or there twice."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import psutil
import pymongo
import pytest

from tests.server_live.crowd import Crowd
from tests.server_live.lake import Lake, client_of, lake, new_token
from tests.server_live.origins import LOGS, Origin
from tests.services.mongod import Mongod
from tests.services.seaweed import S3
from tests.services.server import Server
from tests.waiting import wait_for

pytest_plugins = ["tests.services.fixtures"]
pytestmark = pytest.mark.services

SECONDS = 30.0
KILLS = Counter(mongod=3, s3=3, server=4)  # at least
ROUNDS = 100
BUCKET = "lake"


@pytest.fixture
def database(mongod: Mongod) -> Iterator[dict[str, Any]]:
    """What the servers keep there is gone before and after."""
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database("dreamlake")
        yield client["dreamlake"]  # type: ignore[misc]
        client.drop_database("dreamlake")


@pytest.fixture
def lakes(tmp_path: Path, database: object, mongod: Mongod, s3: S3) -> Iterator[list[Lake]]:
    s3.make_bucket(BUCKET)
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key, "AWS_REGION": s3.region}
    place = f"s3://{BUCKET}/{tmp_path.name}"
    where = ("--mongo", mongod.uri, "--s3", place, "--s3-endpoint", s3.endpoint)
    with contextlib.ExitStack() as started:
        folders = [("--data", tmp_path / name) for name in ("one", "other")]
        yield [started.enter_context(lake(tmp_path, *folder, *where, env=keys)) for folder in folders]


def assert_sound(database: Any) -> None:
    """Of each log the segments lie end to end, up to its head."""
    ends: dict[tuple[str, ...], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for each in database["segments"].find({}, {"data": 0}).sort("first"):
        log = (each["session"], each["origin"], each["log"])
        assert (each["first"], each["size_before"]) == ends[log]
        ends[log] = (each["first"] + each["count"], each["size_before"] + each["size"])
    heads = database["heads"].find({})
    assert dict(ends) == {
        (each["session"], each["origin"], each["log"]): (each["count"], each["size"]) for each in heads
    }


def pass_time(seconds: float) -> None:
    at = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() >= at)


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_whoever_is_killed(
    lakes: list[Lake], mongod: Mongod, s3: S3, database: dict[str, Any]
) -> None:
    chance, kills = random.Random(11), Counter[str]()
    token = new_token("alice", "--mongo", mongod.uri)
    crowd = Crowd([each.url for each in lakes], token)
    # In the order in which they are started again: a server that finds no store at its start says so, and ends.
    everybody: dict[Server, str] = {mongod: "mongod", s3: "s3", **dict.fromkeys(lakes, "server")}
    began = time.monotonic()
    with crowd.sending():
        while not crowd.told.faults and (time.monotonic() - began < SECONDS or not kills >= KILLS):
            pass_time(chance.uniform(0.1, 1.0))
            if chance.random() < 0.2:
                # It answers nothing, and later it goes on as if nothing had been.
                frozen = psutil.Process(chance.choice(list(everybody)).pid)
                frozen.suspend()
                kills["frozen"] += 1
                pass_time(chance.choice((0.5, 3.0)))
                frozen.resume()
                continue
            fallen = chance.sample(list(everybody), k=chance.choice((1, 1, 1, 2, 3)))
            for each in fallen:
                each.kill()
                kills[everybody[each]] += 1
            pass_time(chance.choice((0.0, 0.3, 2.0)))
            for each in everybody:
                if each in fallen:
                    each.start()
        seconds = time.monotonic() - began
    print(f"{dict(kills)} kills in {seconds:.0f} s; {crowd.assert_all_there_once(chance.choice(lakes).url)}")
    assert_sound(database)
    for each in lakes:
        each.assert_no_complaints()


def test_the_same_batch_to_both_servers_at_once_is_taken_once(
    lakes: list[Lake], mongod: Mongod, database: dict[str, Any]
) -> None:
    token, origin = new_token("alice", "--mongo", mongod.uri), Origin("run", 5)
    log, count = origin.logs[LOGS], 0
    with contextlib.ExitStack() as opened:
        at_once = opened.enter_context(ThreadPoolExecutor(4))
        clients = [opened.enter_context(client_of(each.url, token)) for each in lakes * 2]
        for number in range(ROUNDS):
            origin.write(LOGS, 1 + number % 7)
            body = origin.push_of(LOGS, count)

            def push(client: httpx.Client, body: dict[str, Any] = body) -> httpx.Response:
                return client.post("/v1/push", json=body)

            for answer in at_once.map(push, clients):
                assert answer.status_code == 200, answer.text
                assert answer.json()["logs"] == {LOGS: {"count": len(log), "mark": log.marks[-1]}}
            count = len(log)
        path = f"/sessions/{answer.json()['session']['id']}/logs"
        rows = clients[0].get(path, params={"limit": 10_000}).json()["logs"]
        assert [row["message"] for row in rows] == [f"{origin.name[:8]} {index}" for index in range(count)]
        said = [re.search(r"^dreamlake_records_total (\S+)$", each.get("/metrics").text, re.M) for each in clients[:2]]
        assert sum(float(each[1]) for each in said if each) == count
    assert_sound(database)
    for each in lakes:
        each.assert_no_complaints()


@contextlib.contextmanager
def no_majority(mongod: Mongod) -> Iterator[None]:
    """What is written is not on a majority yet, however long one waits: as on a slow disk or a slow network."""
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        point = {"configureFailPoint": "disableSnapshotting"}
        client.admin.command({**point, "mode": "alwaysOn"})
        try:
            yield
        finally:
            client.admin.command({**point, "mode": "off"})
            client["dreamlake"]["pokes"].insert_one({})  # it looks again at the next write, or in 10 s


def test_who_comes_second_waits_for_a_slow_majority(
    lakes: list[Lake], mongod: Mongod, database: dict[str, Any]
) -> None:
    token, origin = new_token("alice", "--mongo", mongod.uri), Origin("run", 6)
    log, clients = origin.logs[LOGS], [client_of(each.url, token) for each in lakes]

    def push(client: httpx.Client, first: int) -> httpx.Response:
        return client.post("/v1/push", json=origin.push_of(LOGS, first))

    origin.write(LOGS, 5)
    assert push(clients[0], 0).status_code == 200
    origin.write(LOGS, 5)
    with ThreadPoolExecutor(2) as at_once:
        with no_majority(mongod):
            first = at_once.submit(push, clients[0], 5)
            wait_for(lambda: database["heads"].find_one({"log": LOGS, "count": 10}))  # committed, and not yet acked
            second = at_once.submit(push, clients[1], 5)
            done, _ = wait([first, second], timeout=1)
            assert not done, [each.result().text for each in done]
        for each in (first, second):
            assert each.result().json()["logs"] == {LOGS: {"count": 10, "mark": log.marks[-1]}}
    for client in clients:
        client.close()
    assert_sound(database)
