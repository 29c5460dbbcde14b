"""One owned directory on a disk that forgets: what a checkpoint covers must be there after power loss."""

from __future__ import annotations

from random import Random

import pytest

from dreamlake import config
from dreamlake.journal import Journal
from dreamlake.reader import late
from dreamlake.reader.late import Patience
from dreamlake.reader.segments import segment_path
from dreamlake.reader.session import SessionReader
from dreamlake.wire import jsons, ops
from dreamlake.wire.state import track_view
from dreamlake_agent.store.directory import Directory
from tests.golden import world
from tests.golden.world import ALICE, BOB, OPERATIONS
from tests.sim.disk import SimDisk, SimProcess

SEEDS = range(25)
PLACE = "files/models/model.pth"


def opened(disk: SimDisk, process: SimProcess) -> Directory:
    found = process.fstat(process.root("/s"))
    return Directory.open(process, "/s", (found.dev, found.ino), world.OWNER, world.ORIGIN)


def follow(directory: Directory, client: bytes) -> None:
    directory.seen()
    data, running = directory.journals.follow(client, 1 << 20)
    directory.apply(client, data, running)
    directory.commit()


def checkpoint(directory: Directory) -> None:
    covered, _sizes, job = directory.checkpoint_job()
    job()
    directory.checkpointed(covered)


def begun(seed: int) -> tuple[SimDisk, SimProcess]:
    disk = SimDisk(Random(seed))
    for inner in ("journals", "incoming"):
        disk.mkdirs(f"/s/.dreamlake/{inner}")
    disk.settle()
    return disk, disk.process(1)


def writes(process: SimProcess, client: bytes, *done: ops.Op) -> Journal:
    journal = Journal(process, process.root("/s"), client, world.EPOCH, world.RANKS[client])
    for op in done:
        journal.append(op)
    return journal


@pytest.mark.parametrize("hashed", [False, True])
def test_a_file_that_a_checkpoint_covers_survives_power_loss(hashed: bool) -> None:
    for seed in SEEDS:
        disk, process = begun(seed)
        name = OPERATIONS["FILE"][3]
        disk.write(f"/s/.dreamlake/incoming/{name}", world.WEIGHTS["f0"])
        writes(process, ALICE, OPERATIONS["OPEN"], OPERATIONS["FILE"])
        directory = opened(disk, process)
        follow(directory, ALICE)
        if hashed:
            directory.say(OPERATIONS["HASHED"], world.AGENT, world.at(5), world.OWNER)
            directory.commit()
        checkpoint(directory)
        disk.power_loss()
        assert disk.read(f"/s/{PLACE}") == world.WEIGHTS["f0"], f"seed {seed}"


def test_rows_and_views_that_a_checkpoint_covers_survive_power_loss() -> None:
    for seed in SEEDS:
        disk, process = begun(seed)
        writes(
            process, ALICE, *(OPERATIONS[name] for name in ("OPEN", "LOG", "PARAMETERS", "TRACK", "POINT", "POINTS"))
        )
        directory = opened(disk, process)
        follow(directory, ALICE)
        checkpoint(directory)
        before = disk.tree("/s")
        disk.power_loss()
        after = disk.tree("/s")
        for path, data in before.items():
            if not path.startswith((".dreamlake/owner", ".dreamlake/epochs/")):
                assert after.get(path) == data, f"seed {seed}: {path}"


def test_a_view_that_a_checkpoint_left_out_is_made_by_the_next_owner() -> None:
    """While points come, a checkpoint does not wait for the views of tracks: one was never written, one is older."""
    for seed in SEEDS:
        disk, process = begun(seed)
        journal = writes(process, ALICE, OPERATIONS["OPEN"], OPERATIONS["POINT"])
        directory = opened(disk, process)
        follow(directory, ALICE)
        checkpoint(directory)
        for track in (OPERATIONS["POINT"][2], "late"):
            journal.append((ops.POINT, world.at(9), track, 7, b'{"value":1}'))
        follow(directory, ALICE)
        covered, _sizes, job = directory.checkpoint_job(tracks=False)
        job()
        directory.checkpointed(covered)
        assert f"/s/{track_view('late')}" not in disk.tree("/s")
        directory.close()
        again = opened(disk, process)
        checkpoint(again)
        shown = [jsons.loads(disk.read(f"/s/{track_view(name)}")) for name in (OPERATIONS["POINT"][2], "late")]
        assert [each["totalDataPoints"] for each in shown] == [2, 1], f"seed {seed}"


def test_what_a_sync_says_is_durable_keeps_its_indexes_also_after_a_change_of_owner() -> None:
    """Two ranks, a commit, the agent dies; the next agent recovers and syncs; the power goes."""
    for seed in SEEDS:
        disk, process = begun(seed)
        points = [(ops.POINT, world.at(1), "x", ordinal, b'{"of":"bob"}') for ordinal in range(40)]
        writes(process, BOB, world._opening(BOB, 1), *points)
        writes(process, ALICE, OPERATIONS["OPEN"], (ops.POINT, world.at(2), "x", 0, b'{"of":"alice"}'))
        directory = opened(disk, process)
        checkpoint(directory)
        follow(directory, BOB)
        follow(directory, ALICE)
        wanted = disk.read("/s/tracks/x/data.jsonl")
        directory.close()
        again = opened(disk, process)
        again.sync_job()[1]()
        disk.power_loss()
        third = opened(disk, disk.process(2))
        for client in (BOB, ALICE):
            third.seen()
            data, running = third.journals.follow(client, 1 << 20)
            if data:
                third.apply(client, data, running)
                third.commit()
        third.settle()
        assert disk.read("/s/tracks/x/data.jsonl") == wanted, f"seed {seed}"


@pytest.mark.parametrize(
    "header", [b"", b"\0" * 100, b"\x60\0\0\0 of a header, and the node that holds the rest is cut off"]
)
def test_a_journal_whose_header_is_on_its_way_is_kept_for_a_day(header: bytes) -> None:
    disk, process = begun(0)
    path = f"/s/{segment_path(BOB, 0)}"
    directory = opened(disk, process)
    disk.write(path, header)
    for seconds, kept in ((config.GONE_SECONDS, True), (config.FOREIGN_KEPT_SECONDS, False)):
        disk.now_ns += int((seconds + 1) * 1e9)
        directory.owner.beat(world.OWNER)
        directory.seen()
        assert disk.exists(path) is kept, seconds
    assert bool(directory.take_warnings()) is bool(header.strip(b"\0"))  # it goes to cut/, unless it is nothing


def test_a_reader_who_does_not_see_the_checkpoint_finds_no_row_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on another node, which shows the log, and the journal of which it was made, and may show the rest later."""
    monkeypatch.setattr(late, "_in_vain", {})
    disk, process = begun(0)
    points = [(ops.POINT, world.at(1), "x", ordinal, b'{"v":1}') for ordinal in range(5)]
    writes(process, BOB, world._opening(BOB, 1), *points)
    directory = opened(disk, process)
    follow(directory, BOB)
    me = {**world.OWNER, "host": "elsewhere", "boot": "", "machine": ""}
    for unseen in ((), ("checkpoint", "commits.log", "session.jsonl", "tracks.jsonl")):
        for name in unseen:
            disk.remove_tree(f"/s/.dreamlake/{name}")
        with SessionReader("/s", disk.process(3), me, lambda path: Patience(path, lambda _seconds: None)) as reader:
            assert [each["index"] for each in reader.points("x", 0, 100)[0]] == [0, 1, 2, 3, 4]
            assert reader.track("x")["totalDataPoints"] == 5
