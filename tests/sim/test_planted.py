"""Planted bugs: each is one shipped function changed for the worse, and each must be found.

A simulation that finds nothing may be looking at nothing. Every test here changes one thing, runs worlds of the kind in
which it matters until a promise breaks, and fails when none does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dreamlake.conversation import Conversation
from dreamlake.reader.owners import last_word
from dreamlake.wire import messages, window
from dreamlake.world.disk import CREATE, READ_APPEND
from dreamlake_agent import loop
from dreamlake_agent.core import directories, replies
from dreamlake_agent.core import effects as do
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.store import directory, rows
from dreamlake_agent.store.cut import CutFolder
from dreamlake_agent.store.directory import Directory
from dreamlake_agent.store.files import Files
from dreamlake_agent.store.owner import Owner, claim, fence, write_record
from tests.sim import world
from tests.sim.profiles import PLACED, REPLACED, Profile
from tests.sim.world import World, run

SEEDS_MAX = 2000
SCENES = 40
Plant = Callable[[pytest.MonkeyPatch], None]


def no_owner(patch: pytest.MonkeyPatch) -> None:
    """An agent writes a directory although another one holds its lock."""

    def acquire(disk: Any, at: int, who: dict[str, Any], nonce: str, _verdict: Any) -> Owner:
        disk.mkdirs(".dreamlake/journals", at)
        fd = disk.open(".dreamlake/owner", READ_APPEND | CREATE, at)
        disk.lock(fd)  # and never looks at the answer
        owner = claim(disk, at, who, nonce, last_word(disk, at))
        owner.fd = fd
        fence(owner)
        write_record(owner, who)
        return owner

    patch.setattr(directory, "acquire", acquire)


def ack_before_commit(patch: pytest.MonkeyPatch) -> None:
    """What is applied in memory is acked at once."""
    applied = directories.applied

    def acks(memory: Memory, session: Any, event: Any) -> Any:
        yield from applied(memory, session, event)
        client = session.clients.get(event.client)
        if client is not None and client.peer is not None:
            numbers = (client.applied, client.covered, replies.credit(memory))
            yield do.Send(client.peer, ("ack", client.id, *numbers, dict(client.placed), []))

    patch.setitem(Agent._SESSION_EVENTS, directory_event("AppliedRun"), acks)


def directory_event(name: str) -> type:
    from dreamlake_agent.core import events

    return getattr(events, name)  # type: ignore[no-any-return]


def unlinked_before_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """A client drops a segment when it is applied, not when a checkpoint covers it."""
    acked = Conversation._acked

    def drops(self: Conversation, now: float, applied: int, covered: int, *rest: Any) -> None:
        acked(self, now, applied, applied, *rest)

    patch.setitem(Conversation._HEARD, "ack", drops)


def client_id_used_again(patch: pytest.MonkeyPatch) -> None:
    """Client ids are few, as pids and ranks are."""
    patch.setattr(
        World,
        "client_id",
        lambda self, size: bytes(size - 1) + self.random(1)[:1].translate(bytes(i % 2 for i in range(256))),
    )


def old_journal_after_new_operations(patch: pytest.MonkeyPatch) -> None:
    """Recovery leaves the journals for later: a client's new operations are applied before its old ones."""

    def recover_on(memory: Memory, session: Any) -> Any:
        session.recovery = []
        yield from on(memory, session)

    def judge(have: int, start: int, end: int) -> str:
        return window.CONTINUES if end > have else window.DUPLICATE

    on = directories.recover_on
    patch.setattr(directories, "recover_on", recover_on)
    patch.setattr(window, "judge", judge)
    _skip_the_checksum(patch)


def gap_accepted(patch: pytest.MonkeyPatch) -> None:
    """A batch that starts beyond what was applied is applied."""
    judged = window.judge
    patch.setattr(window, "judge", lambda *numbers: window.CONTINUES if (v := judged(*numbers)) == window.GAP else v)
    _skip_the_checksum(patch)


def no_dedupe(patch: pytest.MonkeyPatch) -> None:
    """A batch that was applied already is applied again."""
    patch.setattr(window, "judge", lambda have, start, end: window.CONTINUES)
    _skip_the_checksum(patch)


def _skip_the_checksum(patch: pytest.MonkeyPatch) -> None:
    """The running checksum would catch it first; that it does is a defence of its own."""
    data = Agent._SAID["data"]

    def believes(memory: Memory, session: Any, client: Any, event: Any, start: int, before: int, after: int) -> Any:
        client.running = before
        yield from data(memory, session, client, event, start, before, after)

    patch.setitem(Agent._SAID, "data", believes)


def cut_without_replay(patch: pytest.MonkeyPatch) -> None:
    """Recovery cuts the logs to the checkpoint and forgets the commits after it."""
    patch.setattr(directory, "committed", lambda disk, at, loaded: iter(()))
    patch.setattr(directory.Directory, "position", _as_if_all_were_applied(directory.Directory.position))


def _as_if_all_were_applied(position: Callable[..., tuple[int, int]]) -> Callable[..., tuple[int, int]]:
    def found(self: Directory, client: bytes) -> tuple[int, int]:
        log = self._loaded.commit_log
        for commit in log.commits if log and not self.positions.get(client) else ():
            for done in commit.runs:
                if done.client == client:
                    self.positions[client] = (done.end, done.running)
        return position(self, client)

    return found


def commit_before_rows(patch: pytest.MonkeyPatch) -> None:
    """Recovery believes that what is committed is in the logs, and leaves out the rows that are not."""

    def add(self: rows.Rows, log: str, fd: int, found: Any, data: bytes) -> None:
        if len(data) > 200 and log.endswith("data.jsonl"):
            self.dirty.add(log)
            return
        shipped(self, log, fd, found, data)

    shipped = rows.Rows._add
    patch.setattr(rows.Rows, "_add", add)


def nothing_kept_of_a_cut(patch: pytest.MonkeyPatch) -> None:
    """What recovery cuts is not cut at all: a killed agent's half line stays in the log."""
    patch.setattr(CutFolder, "cut", lambda self, log, fd, start, end: None)


def push_of_rows_not_durable(patch: pytest.MonkeyPatch) -> None:
    """What is committed leaves the machine at once."""
    commit = Directory.commit

    def pushes(self: Directory) -> list[str]:
        placed = commit(self)
        self.durable.update({log: known.size for log, known in self.rows._logs.items()})
        return placed

    patch.setattr(Directory, "commit", pushes)


def push_before_fsync_returned(patch: pytest.MonkeyPatch) -> None:
    """What a sync will stand for leaves the machine when the sync is asked for."""
    sync_job = Directory.sync_job

    def pushes(self: Directory) -> tuple[dict[str, int], Callable[[], None]]:
        sizes, job = sync_job(self)
        self.durable.update(sizes)
        return sizes, job

    patch.setattr(Directory, "sync_job", pushes)


def rename_before_commit(patch: pytest.MonkeyPatch) -> None:
    """A captured file is put over the one before it when its upload is applied, before any commit says so."""
    commit = Directory.commit

    def places_first(self: Directory) -> list[str]:
        if self._runs and self.state.incoming:
            self._place()
        return commit(self)

    patch.setattr(Directory, "commit", places_first)
    nothing_superseded(patch)


def nothing_superseded(patch: pytest.MonkeyPatch) -> None:
    """An upload's rename ends the version before it, although power loss may take the upload and leave its rename."""
    patch.setattr(
        Files,
        "_make_room",
        lambda self, newcomer, place: self._disk.mkdirs(place.rpartition("/")[0], self._at),
    )


def rename_not_redone(patch: pytest.MonkeyPatch) -> None:
    """Recovery believes that what is committed was put in its place."""
    recover = Directory._recover

    def recovers(self: Directory) -> None:
        placed = Directory._place
        try:
            Directory._place = lambda self: (self.state.incoming.clear(), [])[1]  # type: ignore[method-assign]
            recover(self)
        finally:
            Directory._place = placed  # type: ignore[method-assign]

    patch.setattr(Directory, "_recover", recovers)


def last_ack_never_asked_for(patch: pytest.MonkeyPatch) -> None:
    """A client that has sent everything waits for the ack, asks nobody, and takes no silence for an answer."""
    say = Conversation._say

    def says(self: Conversation, *message: Any, body: bytes | None = None) -> bool:
        return message[0] == messages.HAVE or say(self, *message, body=body)

    patch.setattr(Conversation, "_say", says)
    patch.setattr(Conversation, "is_silent", lambda self, now, seconds: False)


def failed_fsync_asked_again(patch: pytest.MonkeyPatch) -> None:
    """An fsync that failed is asked again until it says yes: the kernel has dropped the pages meanwhile."""

    shipped = loop._durable

    def durable(key: Any, job: Callable[[], None], done: Any) -> Any:
        for _ in range(10):  # for ever, where a journal is gone for good
            try:
                job()
            except OSError:
                continue
            return done
        return shipped(key, job, done)

    patch.setattr(loop, "_durable", durable)


# Where each is looked for: in the storms of these profiles, or in a scene made for what storms hardly come to.
PLANTED: list[tuple[Plant, tuple[str, ...] | Profile]] = [
    (no_owner, ("crashy", "quiet", "lossy", "everything")),
    (ack_before_commit, ("full", "lossy")),
    (unlinked_before_checkpoint, ("crashy", "power", "everything")),
    (client_id_used_again, ("quiet", "crashy", "lossy")),
    (old_journal_after_new_operations, ("crashy", "everything")),
    (gap_accepted, ("lossy", "everything", "crashy")),
    (no_dedupe, ("lossy", "everything", "crashy")),
    (cut_without_replay, ("crashy", "power")),
    (commit_before_rows, ("quiet", "crashy")),
    (nothing_kept_of_a_cut, ("crashy", "full")),
    (push_of_rows_not_durable, ("power",)),
    (push_before_fsync_returned, ("power", "unsound")),
    (rename_before_commit, ("power", "unsound")),
    (nothing_superseded, REPLACED),
    (rename_not_redone, PLACED),
    (last_ack_never_asked_for, ("lossy",)),
    (failed_fsync_asked_again, ("unsound",)),
]


# Where looking begins: what few worlds find, one of these finds today.
BEGIN_AT: dict[Plant, int] = {
    push_before_fsync_returned: 472,
    failed_fsync_asked_again: 239,
    push_of_rows_not_durable: 103,
}


def find(
    plant: Plant, where: tuple[str, ...] | Profile, patch: pytest.MonkeyPatch, world: Any = world, begin: int = 0
) -> None:
    """Run worlds, storms or scenes, of ``world`` until one breaks a promise; seed ``begin`` is the first."""
    plant(patch)
    scene = where if isinstance(where, Profile) else None
    every = (*range(begin, SEEDS_MAX), *range(begin))
    seeds = [seed for seed in every if scene or world.profile_of(seed).name in where]
    for seed in seeds:
        try:
            world.run(seed, scene)
        except AssertionError as found:
            print(f"seed {seed}: {found}"[:300])
            return
    pytest.fail(f"{plant.__name__} was not found in {len(seeds)} worlds")


@pytest.mark.parametrize(("plant", "where"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found(
    plant: Plant, where: tuple[str, ...] | Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    find(plant, where, monkeypatch, begin=BEGIN_AT.get(plant, 0))


@pytest.mark.parametrize("scene", [REPLACED, PLACED], ids=lambda scene: scene.name)
def test_a_scene_without_a_planted_bug_breaks_no_promise(scene: Profile) -> None:
    for seed in range(SCENES):
        run(seed, scene)
