"""What an agent makes of owners and clients of other nodes, which it never hears."""

from __future__ import annotations

from typing import Any

from dreamlake.wire import codec, messages, ops
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.afar import SKEW_SECONDS, Owners, Signs
from dreamlake_agent.core.agent import Agent

GONE = 60.0
KEY, PATH = (1, 2), "/shared/w/s"
CLIENT, FAR = b"c" * 16, b"f" * 16


class Scene:
    """A core, of which every effect is kept."""

    def __init__(self) -> None:
        self.core = Agent(b"i" * 8, gone_seconds=GONE)
        self.now = 1000.0
        self.done: list[Any] = []

    def take(self, event: on.Event) -> list[Any]:
        self.done = self.core.handle(event, self.now, 1)
        return self.done

    def hello(self) -> list[Any]:
        return self.take(on.Heard(b"peer", (messages.HELLO, CLIENT, {"path": PATH, "dev": 1, "ino": 2, "by": {}})))

    def refused(self, beat: tuple[int, int], *, locked: bool = False, owed: bool = False) -> list[Any]:
        self.hello()
        assert do.OpenDirectory(KEY, PATH) in self.done
        return self.take(on.NotOpened(KEY, "owned", "owned by pid 7 on node7", None, beat, locked, owed))

    def opened(self, *journals: on.JournalSeen, applied: int = 0, state: str = ops.RUNNING) -> list[Any]:
        self.take(on.Remembered(KEY, PATH))
        seen = {each.client: (applied, codec.seed(each.client)) for each in journals}
        states = {each.client: state if applied else ops.FINISHED for each in journals}
        self.take(on.Opened(KEY, "0" * 32, seen, {}, list(journals), states))
        return self.take(on.Settled(KEY, []))

    def scanned(self, *journals: on.JournalSeen) -> list[Any]:
        return self.take(on.Scanned(KEY, list(journals)))

    def committed(self) -> None:
        session = self.core.sessions[KEY]
        self.take(on.Committed(KEY, session.applies))
        session.viewing = session.commits
        self.take(on.ViewsWritten(KEY))
        session.working = session.commits
        self.take(on.Checkpointed(KEY, {FAR: 100}, 0, (0, 0)))


def kinds(effects: list[Any]) -> set[type]:
    return {type(each) for each in effects}


def test_an_owner_that_shows_itself_is_never_taken_over() -> None:
    scene = Scene()
    for beat in range(20):
        assert do.TakeOver not in kinds(scene.refused((3, beat)))
        scene.now += GONE - 1


def test_lock_and_beats_have_to_agree_that_an_owner_is_gone() -> None:
    scene = Scene()
    for _ in range(5):
        scene.now += GONE
        assert do.TakeOver not in kinds(scene.refused((3, 7), locked=True))
    assert do.TakeOver not in kinds(scene.refused((3, 7)))  # from now on the lock is free
    scene.now += GONE - 1
    assert do.TakeOver not in kinds(scene.refused((3, 7)))
    scene.now += 1
    assert do.TakeOver(KEY, PATH, (3, 7)) in scene.refused((3, 7))
    assert do.OpenDirectory(KEY, PATH) in scene.take(on.TakenOver(KEY))


def test_what_could_not_be_seen_for_a_while_begins_anew() -> None:
    scene = Scene()
    scene.refused((3, 7))
    scene.now += GONE
    scene.hello()
    scene.take(on.NotOpened(KEY, "trouble", "Input/output error"))
    scene.now += 10
    assert do.OpenDirectory in kinds(scene.take(on.Tick()))
    assert do.TakeOver not in kinds(scene.take(on.NotOpened(KEY, "owned", "owned", None, (3, 7), False)))


def test_a_directory_that_nobody_asks_for_any_more_is_still_looked_at() -> None:
    scene = Scene()
    scene.refused((3, 7))
    scene.now += GONE / 3
    assert do.OpenDirectory(KEY, PATH) in scene.take(on.Tick())


def test_a_takeover_that_was_begun_is_done_again_at_once() -> None:
    scene = Scene()
    assert do.TakeOver(KEY, PATH, (4, 1)) in scene.refused((4, 1), owed=True)


def test_logs_that_cannot_be_seen_yet_are_waited_for_and_then_taken_as_they_are() -> None:
    scene = Scene()
    assert do.TakeOver(KEY, PATH, (4, 1), whatever=False) in scene.refused((4, 1), owed=True)
    scene.take(on.TakenOver(KEY, "not yet", behind=True))
    scene.now += GONE
    scene.take(on.Tick())
    again = scene.take(on.NotOpened(KEY, "owned", "owned", None, (5, 1), False, owed=True))
    assert do.TakeOver(KEY, PATH, (5, 1), whatever=True) in again


def test_an_owner_shows_itself() -> None:
    scene = Scene()
    scene.opened()
    scene.now += GONE / 6
    assert do.Beat(KEY) in scene.take(on.Tick())
    assert do.Beat(KEY) not in scene.take(on.Tick())


def far(end: int = 100, sign: int = 1, **more: Any) -> on.JournalSeen:
    return on.JournalSeen(FAR, end, lives=False, locked=False, sign=(end, sign), **more)


def said_killed(effects: list[Any]) -> bool:
    return any(isinstance(each, do.Say) and each.op[0] == ops.KILLED for each in effects)


def test_a_client_of_another_node_lives_as_long_as_its_journal_changes() -> None:
    scene = Scene()
    scene.opened(far(), applied=100)
    for sign in range(5):
        scene.now += GONE - 1
        assert not said_killed(scene.scanned(far(sign=sign)))
    scene.now += GONE
    assert said_killed(scene.scanned(far(sign=4)))
    scene.committed()
    # Its node may come back, with calls that it still holds: the journal stays, and keeps nobody here.
    assert do.DropJournal not in kinds(scene.scanned(far(sign=4)))
    assert scene.core.sessions[KEY].clients[FAR].is_left
    scene.now += 86_400
    assert do.DropJournal(KEY, FAR) in scene.scanned(far(sign=4))


def test_a_journal_of_whom_the_owner_before_said_to_be_killed_stays_too() -> None:
    scene = Scene()
    scene.opened(far(), applied=100, state=ops.KILLED_STATE)
    scene.core.sessions[KEY].clients[FAR].covered = 100
    for _ in range(2):
        scene.now += GONE
        assert do.DropJournal not in kinds(scene.scanned(far()))


def test_a_journal_that_is_old_when_first_seen_is_not_waited_for() -> None:
    scene = Scene()
    scene.opened(far(age=GONE + SKEW_SECONDS), applied=100)
    assert said_killed(scene.scanned(far(age=GONE + SKEW_SECONDS)))


def test_a_tail_that_is_not_whole_is_asked_for_again() -> None:
    scene = Scene()
    scene.opened(far(), applied=100)
    for _ in range(3):
        scene.now += 4
        scene.scanned(far(end=200))
        assert do.Follow(KEY, FAR) in scene.take(on.Turned())
        scene.take(on.Exhausted(KEY, FAR))
        scene.take(on.Committed(KEY, scene.core.sessions[KEY].applies, runs=0))
        assert do.Follow(KEY, FAR) not in scene.take(on.Turned())


def test_signs_and_owners_forget() -> None:
    signs, owners = Signs(GONE), Owners(GONE)
    assert signs.silence(FAR, 1, 0.0, 10.0) == 0.0
    assert signs.silence(FAR, 1, 0.0, 15.0) == 5.0
    signs.forget(FAR)
    assert signs.silence(FAR, 1, 0.0, 20.0) == 0.0
    assert not owners.is_gone(KEY, PATH, (1, 1), 0.0, 0.0, is_locked=False)
    assert list(owners.due(GONE)) == [(KEY, PATH)]
    owners.forget(KEY)
    assert list(owners.due(2 * GONE)) == []
    assert not owners.is_gone(KEY, PATH, (1, 1), 0.0, 3 * GONE, is_locked=False)


def test_an_owner_whose_last_beat_is_old_when_first_seen_is_not_waited_for() -> None:
    old = GONE + SKEW_SECONDS
    assert Owners(GONE).is_gone(KEY, PATH, (1, 1), old, 10.0, is_locked=False)
    assert not Owners(GONE).is_gone(KEY, PATH, (1, 1), old - 1, 10.0, is_locked=False)
    assert not Owners(GONE).is_gone(KEY, PATH, (1, 1), old, 10.0, is_locked=True)
    owners = Owners(GONE)
    assert not owners.is_gone(KEY, PATH, (1, 1), 0.0, 10.0, is_locked=False)
    assert not owners.is_gone(KEY, PATH, (1, 2), old, 20.0, is_locked=False), "it has just shown itself"
