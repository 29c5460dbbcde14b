"""Limits: each is told once when it is passed, and is over when it is clearly over."""

from __future__ import annotations

import os
from typing import Any

from dreamlake import config
from dreamlake.wire import messages
from dreamlake.wire.remotes import Remote
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core import limits
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.lag import Lag
from dreamlake_agent.core.limits import Limits, Measured, Over, Raised, Thresholds
from dreamlake_agent.core.session import Session

GIB = 1 << 30


def disk(free: int, total: int = 1000 * GIB, device: int = 7, path: str = "/data", inodes: int = 10**9) -> on.Disk:
    return on.Disk(device, path, free, total, inodes, 10**9)


def kinds(told: list[Raised | Over]) -> list[str]:
    return [f"over {each.raised.kind}" if isinstance(each, Over) else each.kind for each in told]


def test_a_disk_that_fills_up_is_one_warning_until_there_is_clearly_space_again() -> None:
    judge = Limits().judge
    told = [
        kinds(judge(Measured((disk(int(free * GIB)),)), now))
        for now, free in enumerate((50, 1.01, 0.99, 0.5, 1.01, 0.99, 1.2, 1.26, 1.01, 0.9))
    ]
    assert told == [[], [], ["disk_space"], [], [], [], [], ["over disk_space"], [], ["disk_space"]]


def test_what_the_warning_says_is_as_it_is_now() -> None:
    found = Limits()
    (raised,) = found.judge(Measured((disk(GIB // 2),)), 0)
    assert isinstance(raised, Raised)
    assert "the disk of /data has 512 MiB left, below the limit of 1024 MiB (DREAMLAKE_DISK_FREE)" in raised.text
    assert found.judge(Measured((disk(GIB // 4, path="/data/other"),)), 9) == []
    assert found.raised[0].describe(10) == {
        "kind": "disk_space",
        "path": "/data/other",
        "text": found.raised[0].text,
        "seconds": 10,
    }
    assert "/data/other has 256 MiB" in found.raised[0].text


def test_of_a_small_disk_the_limit_is_a_share_unless_one_was_asked_for() -> None:
    small = Measured((disk(GIB // 5, total=2 * GIB),))
    assert Limits().judge(small, 0) == []
    assert kinds(Limits(Thresholds(disk_free_bytes=GIB, disk_free_share=1.0)).judge(small, 0)) == ["disk_space"]


def test_each_disk_is_for_itself_and_one_that_nobody_uses_any_more_is_over() -> None:
    found = Limits()
    assert kinds(found.judge(Measured((disk(1, device=1), disk(1, device=2), disk(GIB * 9, device=3))), 0)) == [
        "disk_space",
        "disk_space",
    ]
    assert kinds(found.judge(Measured((disk(1, device=2),)), 1)) == ["over disk_space"]
    assert [raised.device for raised in found.raised] == [2]


def test_inodes_are_counted_where_the_file_system_counts_them() -> None:
    assert kinds(Limits().judge(Measured((disk(GIB * 9, inodes=9_999),)), 0)) == ["inodes"]
    assert Limits().judge(Measured((on.Disk(1, "/btrfs", GIB * 9, GIB * 99, 0, 0),)), 0) == []
    # A small one: 4,096 in all, of which 300 are a good part.
    assert Limits().judge(Measured((on.Disk(1, "/small", GIB * 9, GIB * 99, 300, 4096),)), 0) == []


def test_backlog_and_lag_do_not_flap_either() -> None:
    judge = Limits(Thresholds(backlog_bytes=1000, lag_seconds=60)).judge
    told = [
        kinds(judge(Measured((), backlog, lag), now))
        for now, (backlog, lag) in enumerate(
            ((999, 59), (1000, 60), (501, 31), (1000, 60), (500, 30), (999, 59), (2000, 0))
        )
    ]
    assert told == [[], ["backlog", "lag"], [], [], ["over backlog", "over lag"], [], ["backlog"]]


def test_every_kind_is_known() -> None:
    judge = Limits(Thresholds(backlog_bytes=1, lag_seconds=1)).judge
    assert tuple(kinds(judge(Measured((disk(0, inodes=0),), 1, 1), 0))) == limits.KINDS


# ── lag ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def writing(applied: int, end: int) -> tuple[dict[on.Key, Session], Any]:
    session = Session((1, 2), "/run", phase="live")
    client = session.client(b"c" * 16)
    client.applied, client.seen_end = applied, end
    return {session.key: session}, client


def test_a_journal_that_keeps_up_has_no_lag_at_any_rate() -> None:
    sessions, client = writing(0, 0)
    lag = Lag()
    for now in range(100):
        client.applied = client.seen_end = now * 10**6
        assert lag.look(sessions, now) == 0


def test_a_journal_that_is_not_applied_is_behind_by_its_age() -> None:
    sessions, client = writing(0, 100)
    lag = Lag()
    assert [lag.look(sessions, now) for now in (10, 20, 70)] == [0, 10, 60]
    client.applied = 100
    assert lag.look(sessions, 71) == 0


def test_half_a_record_at_the_end_of_a_dead_journal_is_no_lag() -> None:
    sessions, client = writing(90, 100)
    lag = Lag()
    assert [lag.look(sessions, now) for now in (0, 30)] == [0, 30]
    client.exhausted_end = 100
    assert [lag.look(sessions, now) for now in (40, 1000)] == [0, 0]


def test_one_that_is_always_ten_seconds_behind_is_said_to_be() -> None:
    sessions, client = writing(0, 0)
    lag = Lag()
    found = []
    for now in range(60):
        client.seen_end, client.applied = now * 100, max(0, (now - 10) * 100)
        found.append(lag.look(sessions, now))
    assert all(9 <= seconds <= 11 for seconds in found[25:])


def test_a_directory_in_trouble_is_behind_while_somebody_has_it_open() -> None:
    sessions, _ = writing(0, 0)
    (session,) = sessions.values()
    lag = Lag()
    session.trouble = "No space left on device"
    assert [lag.look(sessions, now) for now in (5, 8)] == [0, 3]
    session.trouble = None
    assert lag.look(sessions, 9) == 0
    session.trouble = "again"
    session.clients.clear()
    assert [lag.look(sessions, now) for now in (10, 20)] == [0, 0]
    assert lag.look({}, 30) == 0


# ── who is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Told:
    """An agent with sessions on two disks, each open in one process."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self.core = Agent(b"8 bytes.", thresholds)
        self.clients = {device: self.opens(device) for device in (1, 2)}

    def opens(self, device: int) -> bytes:
        client = os.urandom(16)
        hello = {"path": f"/disk{device}/run", "dev": device, "ino": 5}
        self.core.handle(on.Heard(b"peer" + client, (messages.HELLO, client, hello)), 0, 0)
        return client

    def gauged(self, *disks: on.Disk) -> tuple[list[str], list[bytes]]:
        """Lines of the log, and the clients that were told something."""
        effects = self.core.handle(on.Gauged(disks), 1, 0)
        notes = [effect.level for effect in effects if isinstance(effect, do.Note)]
        sent = [effect.message for effect in effects if isinstance(effect, do.Send)]
        assert {message[0] for message in sent} <= {messages.NOTICE}
        return notes, [message[1] for message in sent]


def test_those_whose_session_is_on_the_disk_are_told_once_also_who_comes_later() -> None:
    told = Told()
    assert told.gauged(disk(1, device=1), disk(9 * GIB, device=2)) == (["warning"], [told.clients[1]])
    assert told.gauged(disk(1, device=1), disk(9 * GIB, device=2)) == ([], [])
    late = told.opens(1)
    assert told.gauged(disk(2, device=1)) == ([], [late])
    assert told.gauged(disk(9 * GIB, device=1)) == (["info"], [])
    assert told.gauged(disk(1, device=1)) == (["warning"], [told.clients[1], late])


def test_a_backlog_is_told_to_those_who_have_something_to_be_sent() -> None:
    told = Told(Thresholds(backlog_bytes=100))
    told.core.uploads.covered("/disk2/run", (Remote("http://lake", None),), 0, (10, 1000), 0)
    jobs = [each for each in told.core.handle(on.Tick(), 1, 0) if isinstance(each, do.Upload)]
    assert jobs
    assert told.gauged() == ([], [])
    told.core.handle(on.UploadMeasured(jobs[0].number, (10, config.BACKLOG_BYTES)), 1, 0)
    assert told.gauged() == (["warning"], [told.clients[2]])


def test_lag_is_for_the_log_and_for_status_alone() -> None:
    told = Told(Thresholds(lag_seconds=0.5))
    session = told.core.sessions[1, 5]
    session.client(told.clients[1]).seen_end = 10
    told.gauged()
    told.core.handle(on.Gauged(()), 5, 0)
    assert [raised.kind for raised in told.core.watch.limits.raised] == [limits.LAG]
    assert told.gauged()[1] == []
