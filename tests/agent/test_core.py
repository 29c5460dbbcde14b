"""The core, told a few events by hand."""

from __future__ import annotations

from dreamlake import config
from dreamlake.wire import messages
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent

KEY = (1, 2)
FIRST, SECOND = b"1" * 16, b"2" * 16


def live(first: on.JournalSeen) -> Agent:
    """A core with a directory that is live, and one client in it."""
    core = Agent(b"8 bytes.")
    core.handle(on.Heard(b"peer", (messages.HELLO, first.client, {"path": "/run", "dev": 1, "ino": 2})), 10, 0)
    core.handle(on.Opened(KEY, "origin", {}, {}, [], {}, []), 10, 0)
    core.handle(on.Scanned(KEY, [first]), 10, 0)
    return core


def scanned(core: Agent, at: float, *journals: on.JournalSeen) -> list[do.Effect]:
    """What a scan brings about, and the turn after it."""
    return [*core.handle(on.Scanned(KEY, list(journals)), at, 0), *core.handle(on.Turned(), at, 0)]


def test_a_journal_that_has_just_begun_is_not_followed_before_its_client_could_say_hello() -> None:
    """What is applied out of a file is acked to nobody: the receipts of a forked child stayed without indexes."""
    first = on.JournalSeen(FIRST, 0, True)
    begun = on.JournalSeen(SECOND, 100, True)
    follow = do.Follow(KEY, SECOND)
    core = live(first)
    assert follow not in scanned(core, 11, first, begun)
    assert follow not in scanned(core, 11 + config.HEARD_SECONDS / 2, first, begun)
    assert follow in scanned(core, 12 + config.HEARD_SECONDS, first, begun)


def test_a_journal_whose_client_is_gone_is_followed_at_once() -> None:
    first = on.JournalSeen(FIRST, 0, True)
    core = live(first)
    assert do.Follow(KEY, SECOND) in scanned(core, 11, first, on.JournalSeen(SECOND, 100, False))


def test_journals_are_read_in_turn_and_each_turn_ends_with_a_commit() -> None:
    """A long journal was read to its end before anybody was heard: an agent that came up said nothing for a minute."""
    count = 3 * config.TURN_BYTES // config.FOLLOW_BYTES
    gone = [on.JournalSeen(b"%016d" % number, 1 << 30, False) for number in range(count)]
    core = live(on.JournalSeen(FIRST, 0, True))
    core.handle(on.Scanned(KEY, gone), 11, 0)
    read: list[bytes] = []
    for turn in range(6):
        assert core.is_busy
        *follows, commit = core.handle(on.Turned(), 11, 0)
        read += [each.client for each in follows if isinstance(each, do.Follow)]
        assert len(follows) == count // 3
        assert commit == do.Commit(KEY, core.sessions[KEY].applies)
        for client in read[-len(follows) :]:
            core.handle(on.AppliedRun(KEY, client, turn + 1, 7, 1, {}, {}, "running"), 11, 0)
        core.handle(on.Committed(KEY, core.sessions[KEY].applies), 11, 0)
    assert read == 2 * [each.client for each in gone]
    for journal in gone:
        core.handle(on.Exhausted(KEY, journal.client), 11, 0)
    core.handle(on.Turned(), 11, 0)
    core.handle(on.Turned(), 11, 0)
    core.handle(on.Turned(), 11, 0)
    assert not core.is_busy


def test_of_thousands_of_views_some_are_written_at_a_turn_and_a_flush_waits_for_all() -> None:
    core = live(on.JournalSeen(FIRST, 0, True))
    flushed = (messages.FLUSHED, FIRST, 1, None)
    flush = on.Heard(b"peer", (messages.FLUSH, FIRST, 1, 0, 0, 0))
    said = core.handle(flush, 11, 0)
    for _ in range(3):
        assert said == [do.WriteViews(KEY)]
        assert core.handle(on.ViewsWritten(KEY, done=False), 11, 0) == []
        assert core.is_busy
        assert do.WriteViews(KEY) not in core.handle(on.Tick(), 11.05, 0)
        said = core.handle(on.Turned(), 11.1, 0)
    assert do.Send(b"peer", flushed) in core.handle(on.ViewsWritten(KEY), 11.1, 0)
    assert core.handle(on.Turned(), 11.2, 0) == []
    assert not core.is_busy


def test_who_speaks_again_is_not_followed_any_more() -> None:
    """Both at once were in each other's way: what the client sent did not continue what was read from its file."""
    first = on.JournalSeen(FIRST, 1 << 20, True)
    core = live(first)
    late = 11 + config.HEARD_SECONDS
    assert do.Follow(KEY, FIRST) in scanned(core, late, first)
    core.handle(on.AppliedRun(KEY, FIRST, 100, 7, 1, {}, {}, "running"), late, 0)
    core.handle(on.Committed(KEY, core.sessions[KEY].applies), late, 0)
    core.handle(on.Heard(b"peer", (messages.HAVE, FIRST, 1 << 20, 0)), late, 0)
    assert do.Follow(KEY, FIRST) not in core.handle(on.Turned(), late, 0)
    assert not core.is_busy


def test_a_spooled_journal_is_covered_sooner_and_a_durable_flush_waits_for_that() -> None:
    """What no checkpoint covers dies with the node's disk."""

    def writes(*, spooled: bool) -> Agent:
        core = live(on.JournalSeen(FIRST, 0, True, spooled=spooled))
        core.handle(on.Checkpointed(KEY, {}, 0, (0, 0)), 10, 0)
        for at in (11.0, 11.0 + config.CHECKPOINT_SPOOL_SECONDS - 0.5):
            core.handle(on.AppliedRun(KEY, FIRST, int(at), 7, 1, {}, {}, "running"), at, 0)
            session = core.sessions[KEY]
            session.applies += 1
            core.handle(on.Committed(KEY, session.applies), at, 0)
        return core

    late = 10 + config.CHECKPOINT_SPOOL_SECONDS + 0.1
    flush = on.Heard(b"peer", (messages.FLUSH, FIRST, 1, 11, 1, 0))
    for spooled, works in ((True, do.WriteCheckpoint(KEY)), (False, do.Sync(KEY))):
        assert works in writes(spooled=spooled).handle(on.Tick(), late, 0)
        core = writes(spooled=spooled)
        core.sessions[KEY].viewing = core.sessions[KEY].commits
        core.handle(on.ViewsWritten(KEY), late - 0.3, 0)
        assert works in core.handle(flush, late - 0.3, 0)


def test_of_very_many_sessions_a_quiet_one_waits_longer_for_its_checkpoint() -> None:
    """A client with many of them comes to each every few seconds: none is quiet, and each message cost a checkpoint."""
    writes = do.WriteCheckpoint(KEY, tracks=True)
    for others, quiet in ((0, config.CHECKPOINT_QUIET_SECONDS), (5 * config.SESSIONS_A_SECOND, 5.0)):
        core = live(on.JournalSeen(FIRST, 0, True))
        for number in range(others):
            core.handle(on.Remembered((3, number), f"/other/{number}"), 10, 0)
        session = core.sessions[KEY]
        core.handle(on.AppliedRun(KEY, FIRST, 100, 7, 1, {}, {}, "running"), 10, 0)
        core.handle(on.Committed(KEY, session.applies), 10, 0)
        session.viewed = session.commits
        assert writes not in core.handle(on.Tick(), 9.9 + quiet, 0)
        core.handle(on.Synced(KEY), 9.9 + quiet, 0)
        assert writes in core.handle(on.Tick(), 10.1 + quiet, 0)


def test_a_journal_that_could_not_be_seen_for_a_while_goes_on_where_it_was_applied_to() -> None:
    """It was applied from its beginning once more: its client had been forgotten, and its position had not."""
    first = on.JournalSeen(FIRST, 0, True)
    core = live(first)
    back = on.JournalSeen(SECOND, 900, True, spooled=True, position=(700, 5, 600))
    core.handle(on.Heard(b"other", (messages.HELLO, SECOND, {"path": "/run", "dev": 1, "ino": 2})), 11, 0)
    said = core.handle(on.Scanned(KEY, [first, back]), 11, 0)
    (welcome,) = [each.message for each in said if isinstance(each, do.Send) and each.message[0] == messages.WELCOME]
    assert welcome[1:5] == (SECOND, 700, 5, 600)
