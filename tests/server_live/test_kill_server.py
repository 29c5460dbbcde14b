"""The server is killed at any moment, and started again; nothing that it acked is lost, nothing is there twice."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.server_live.crowd import Crowd
from tests.server_live.lake import lake, new_token
from tests.waiting import wait_for

SECONDS = 15.0
KILLS = 8


def assert_sound(database: Path) -> None:
    """The file is whole, and the segments of each log lie end to end."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ends: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
        select = "SELECT log, first, count, size_before, size FROM segments ORDER BY log, first"
        for log, first, count, size_before, size in connection.execute(select):
            assert (first, size_before) == ends[log]
            ends[log] = (first + count, size_before + size)
        heads = connection.execute("SELECT key, count, size FROM logs")
        assert dict(ends) == {key: (count, size) for key, count, size in heads}


@pytest.mark.timeout(180)
def test_nothing_is_lost_or_doubled_whenever_the_server_is_killed(tmp_path: Path) -> None:
    chance, kills, stops = random.Random(7), 0, 0
    token = new_token("alice", "--data", tmp_path / "data")
    with lake(tmp_path, "--data", tmp_path / "data") as server:
        crowd = Crowd([server.url], token)
        began = time.monotonic()
        with crowd.sending():
            while (kills < KILLS or time.monotonic() - began < SECONDS) and not crowd.told.faults:
                at = time.monotonic() + chance.uniform(0.1, 1.2)
                wait_for(lambda at=at: time.monotonic() >= at)
                if not server.is_hurried and chance.random() < 0.2:
                    assert server.stop() == 0
                    stops += 1
                else:
                    server.kill()
                    kills += 1
                # Now and then the next kill comes while it starts.
                server.is_hurried = chance.random() < 0.2
                server.start()
            seconds = time.monotonic() - began
        print(f"{kills} kills and {stops} stops in {seconds:.0f} s; {crowd.assert_all_there_once(server.url)}")
        server.kill()
        assert_sound(tmp_path / "data" / "meta.sqlite")
        server.assert_no_complaints()
