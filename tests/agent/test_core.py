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


def test_a_journal_that_has_just_begun_is_not_followed_before_its_client_could_say_hello() -> None:
    """What is applied out of a file is acked to nobody: the receipts of a forked child stayed without indexes."""
    first = on.JournalSeen(FIRST, 0, True)
    begun = on.JournalSeen(SECOND, 100, True)
    follow = do.Follow(KEY, SECOND)
    core = live(first)
    assert follow not in core.handle(on.Scanned(KEY, [first, begun]), 11, 0)
    assert follow not in core.handle(on.Scanned(KEY, [first, begun]), 11 + config.HEARD_SECONDS / 2, 0)
    assert follow in core.handle(on.Scanned(KEY, [first, begun]), 12 + config.HEARD_SECONDS, 0)


def test_a_journal_whose_client_is_gone_is_followed_at_once() -> None:
    first = on.JournalSeen(FIRST, 0, True)
    core = live(first)
    assert do.Follow(KEY, SECOND) in core.handle(on.Scanned(KEY, [first, on.JournalSeen(SECOND, 100, False)]), 11, 0)


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
        core.handle(on.ViewsWritten(KEY), late - 0.3, 0)
        assert works in core.handle(flush, late - 0.3, 0)


def test_a_journal_that_could_not_be_seen_for_a_while_goes_on_where_it_was_applied_to() -> None:
    """It was applied from its beginning once more: its client had been forgotten, and its position had not."""
    first = on.JournalSeen(FIRST, 0, True)
    core = live(first)
    back = on.JournalSeen(SECOND, 900, True, spooled=True, position=(700, 5, 600))
    core.handle(on.Heard(b"other", (messages.HELLO, SECOND, {"path": "/run", "dev": 1, "ino": 2})), 11, 0)
    said = core.handle(on.Scanned(KEY, [first, back]), 11, 0)
    (welcome,) = [each.message for each in said if isinstance(each, do.Send) and each.message[0] == messages.WELCOME]
    assert welcome[1:5] == (SECOND, 700, 5, 600)
