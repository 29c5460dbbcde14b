"""Takeover: what an owner writes that goes on after its directory was taken over."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dreamlake.journal import Journal
from dreamlake.reader.owners import epochs, last_word
from dreamlake.wire import jsons, ops
from dreamlake.world import processes
from dreamlake_agent.store.directory import Directory
from dreamlake_agent.store.owner import OwnedElsewhere, acquire
from dreamlake_agent.store.takeover import NotYet, take_over
from tests.golden import world
from tests.sim.disk import SimDisk, SimProcess

HERE = {**world.OWNER, "endpoint": "ipc://here", "version": "sim"}
THERE = {**HERE, "host": "node2", "boot": "another", "pid": 7, "start": 7.0, "endpoint": "ipc://there"}
ALICE = world.ALICE


def unknown(_who: dict[str, Any]) -> str:
    return processes.UNKNOWN


class Scene:
    """A session on one disk: a client of the first node, whose agent owns it."""

    def __init__(self) -> None:
        self.disk = SimDisk(Random(1))
        self.disk.mkdirs("/s/.dreamlake/journals")
        self.disk.mkdirs("/s/.dreamlake/incoming")
        self.here, self.there = self.disk.process(1), self.disk.process(2)
        self.client = self.disk.process(3)
        by = {**world.OWNER, "pid": 3, "start": 3.0}
        self.journal = Journal(self.client, self.client.root("/s"), ALICE, world.at(0), by)
        self.journal.append((ops.OPEN, world.at(0), {"name": "s", "workspace": "w"}, b"{}"))
        self.owner = self.open(self.here, HERE)

    def open(self, process: SimProcess, who: dict[str, Any]) -> Directory:
        at = process.root("/s")
        found = process.fstat(at)
        fresh = f"{who['pid']:032x}"
        directory = Directory.open(process, "/s", (found.dev, found.ino), who, fresh, verdict=unknown)
        follow(directory)
        directory.settle()
        return directory

    def log(self, text: str) -> None:
        self.journal.append((ops.LOG, world.at(1), "info", text, None, None))

    def taken_over(self, **how: Any) -> Directory:
        take_over(self.there, "/s", THERE, "ab" * 4, **how)
        return self.open(self.there, THERE)

    def logs(self) -> bytes:
        return self.disk.read("/s/logs/logs.jsonl")


def follow(directory: Directory) -> None:
    for journal in directory.seen():
        data, running = directory.journals.follow(journal.client, 1 << 20)
        if data:
            directory.apply(journal.client, data, running)
    directory.commit()


def cover(directory: Directory) -> None:
    checkpoint, sizes, job = directory.checkpoint_job()
    job()
    directory.made_durable(sizes)
    directory.checkpointed(checkpoint)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_live_owner_of_another_node_is_not_taken_over(scene: Scene) -> None:
    with pytest.raises(OwnedElsewhere) as elsewhere:
        scene.open(scene.there, THERE)
    assert not elsewhere.value.may_be_gone  # its lock is held
    beat = elsewhere.value.beat
    scene.owner.owner.beat(HERE)
    with pytest.raises(OwnedElsewhere):
        take_over(scene.there, "/s", THERE, "ab" * 4, seen=beat)
    assert epochs(scene.there, scene.there.root("/s")) == [1]


def test_a_lock_that_is_free_is_not_believed_of_another_node(scene: Scene) -> None:
    scene.disk.kill(1)
    with pytest.raises(OwnedElsewhere) as elsewhere:
        scene.open(scene.there, THERE)
    assert elsewhere.value.may_be_gone
    take_over(scene.there, "/s", THERE, "ab" * 4, seen=elsewhere.value.beat)
    assert scene.open(scene.there, THERE).owner.epoch == 3


LATE: dict[str, Callable[[Scene], object]] = {
    "rows and a commit": lambda scene: follow(scene.owner),
    "a view": lambda scene: scene.owner.views.write(scene.owner.state),
    "a checkpoint": lambda scene: cover(scene.owner),
    "a beat": lambda scene: scene.owner.owner.beat(HERE),
    "that it lets go": lambda scene: scene.owner.close(),
    "its distrust": lambda scene: scene.owner.distrust(),
}


@pytest.mark.parametrize("what", LATE)
def test_what_a_late_owner_writes_changes_nothing(what: str, scene: Scene) -> None:
    scene.log("before")
    follow(scene.owner)
    cover(scene.owner)
    scene.log("committed")
    follow(scene.owner)
    scene.log("late")
    owner = scene.taken_over()
    cover(owner)
    tree = scene.disk.tree("/s")
    try:
        LATE[what](scene)
    except OSError:
        pass
    after = scene.disk.tree("/s")
    assert {path: data for path, data in after.items() if tree.get(path) != data} == {}
    assert set(after) == set(tree)
    with pytest.raises(OSError):  # noqa: PT011 - whichever: it is not the owner any more
        scene.owner.is_gone()
    assert [line.count(b"message") for line in scene.logs().splitlines()] == [1, 1, 1]


def test_a_log_that_is_opened_late_is_not_written(scene: Scene) -> None:
    """It is opened by its name, which leads to the next owner's file."""
    follow(scene.owner)
    cover(scene.owner)
    owner = scene.taken_over()
    cover(owner)
    tree = scene.disk.tree("/s")
    scene.owner.rows.close()  # as when so many logs were written that these had to make room
    for log in (".dreamlake/session.jsonl", "logs/logs.jsonl", "tracks/new/data.jsonl"):
        with pytest.raises(FileNotFoundError):
            scene.owner.rows.extend({log: b'{"late":true}\n'})
    assert {path: data for path, data in scene.disk.tree("/s").items() if data} == {
        path: data for path, data in tree.items() if data
    }


def test_a_file_on_its_way_is_brought_back(scene: Scene) -> None:
    incoming = f"{ALICE.hex()}-f0"
    scene.disk.write(f"/s/.dreamlake/incoming/{incoming}", b"weights")
    record = {"id": "f0", "path": "/", "filename": "m.pth", "sizeBytes": 7, "checksum": None}
    scene.journal.append((ops.FILE, world.at(1), jsons.encode(record), incoming))
    at = scene.here.root("/s")
    scene.here.rename(f".dreamlake/incoming/{incoming}", scene.owner.owner.path(incoming), at)
    scene.here.mkdirs(".dreamlake/superseded", at)
    scene.disk.write(f"/s/{scene.owner.owner.path('1-f0-0123456789abcdef')}", b"older")
    owner = scene.taken_over()
    assert scene.disk.read("/s/files/m.pth") == b"weights"
    assert scene.disk.exists("/s/.dreamlake/superseded/1-f0-0123456789abcdef")
    assert epochs(scene.there, owner.at) == [3]


def test_a_takeover_that_died_is_done_again_before_anything_else(scene: Scene) -> None:
    scene.log("before")
    follow(scene.owner)
    cover(scene.owner)
    renames = []

    def before(pid: int, name: str, given: tuple[object, ...]) -> None:
        if pid == 2 and name == "rename":
            renames.append(given)
            if given[1] == "logs/logs.jsonl":
                scene.disk.kill(2)

    scene.disk.before = before
    with pytest.raises(BaseException, match="died"):
        take_over(scene.there, "/s", THERE, "ab" * 4)
    scene.disk.before = None
    scene.disk.kill(1)
    with pytest.raises(OwnedElsewhere) as owed:
        scene.open(scene.disk.process(4), {**THERE, "pid": 8})
    assert owed.value.is_owed
    process = scene.disk.process(4)
    take_over(process, "/s", {**THERE, "pid": 8}, "cd" * 4, seen=owed.value.beat)
    directory = scene.open(process, {**THERE, "pid": 8})
    assert b"before" in scene.logs()
    assert last_word(process, directory.at)["epoch"] == directory.owner.epoch  # type: ignore[index]


def test_logs_that_are_not_what_the_checkpoint_says_are_not_copied(scene: Scene) -> None:
    scene.log("before")
    follow(scene.owner)
    cover(scene.owner)
    whole = scene.logs()
    scene.disk.write("/s/logs/logs.jsonl", whole[:-5] + b"\0" * 5)
    with pytest.raises(NotYet, match=r"logs\.jsonl"):
        take_over(scene.there, "/s", THERE, "ab" * 4)
    scene.disk.write("/s/logs/logs.jsonl", whole)
    scene.taken_over()
    assert scene.logs() == whole


def test_of_two_that_claim_one_epoch_one_has_it(scene: Scene) -> None:
    scene.owner.close()
    at, other = scene.here.root("/s"), scene.there.root("/s")
    turns = []

    def before(pid: int, name: str, given: tuple[object, ...]) -> None:
        # The other node, whose locks are its own, claims between our look and our claim.
        if pid == 1 and name == "rename" and not turns and str(given[0]).endswith(".new"):
            turns.append(1)
            scene.disk._processes[2] = scene.there
            held = scene.disk.walk("/s/.dreamlake/owner").holder
            scene.disk.walk("/s/.dreamlake/owner").holder = None
            acquire(scene.there, other, THERE, "22" * 4, unknown)
            scene.disk.walk("/s/.dreamlake/owner").holder = held

    scene.disk.before = before
    with pytest.raises(OwnedElsewhere, match="pid 7 on node2"):
        acquire(scene.here, at, HERE, "11" * 4, unknown)
    assert turns
    assert epochs(scene.here, at) == [2]
