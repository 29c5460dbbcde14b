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
