"""What the pretend disk does that no real one can be asked to do: die, fill up, fail, and lose power.

The first half of a sentence that says *may* is shown by many seeds of which at least one did, and the other
half (*never*) by none that did otherwise.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from random import Random
from typing import TypeVar

import pytest

from dreamlake.world.disk import (
    APPEND,
    CREATE,
    NEW,
    READ,
    READ_APPEND,
    Disk,
    read_file,
    replace_file,
    sync_folder,
    write_all,
)
from tests.sim.disk import Died, Faults, SimDisk, SimProcess
from tests.sim.platter import PENDING_CHANGES_MAX, SECTOR_BYTES, File

SEEDS = range(150)
R = TypeVar("R")


def fresh(seed: int = 0) -> tuple[SimDisk, SimProcess, int]:
    """A disk with a durable folder ``/exp``, a process, and that folder opened by it."""
    disk = SimDisk(Random(seed))
    disk.mkdirs("/exp")
    disk.settle()
    process = disk.process(1)
    return disk, process, process.root("/exp")


def append(process: Disk, at: int, path: str, data: bytes) -> int:
    fd = process.open(path, READ_APPEND | CREATE, at)
    write_all(process, fd, data)
    return fd


def after_power_loss(prepare: Callable[[SimProcess, int], object], look: Callable[[SimDisk], R]) -> list[R]:
    """What is found afterwards, in each of many worlds that were the same until then."""
    found = []
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        prepare(process, at)
        disk.power_loss()
        found.append(look(disk))
    return found


# Bytes and power loss


def test_unsynced_bytes_may_vanish_or_survive_or_leave_a_torn_end() -> None:
    old, new = b"o" * 700, b"n" * 3000

    def prepare(process: SimProcess, at: int) -> None:
        fd = append(process, at, "log", old)
        process.fsync(fd)
        sync_folder(process, "", at)
        write_all(process, fd, new)

    found = after_power_loss(prepare, lambda disk: disk.read("/exp/log"))
    assert old in found
    assert old + new in found
    assert any(old < data < old + new and (old + new).startswith(data) for data in found), "a torn end"
    assert all(data.startswith(old) and len(data) <= 3700 for data in found), "nothing synced was touched"


def test_a_lost_sector_within_the_length_reads_as_zeros() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        append(process, at, "log", b"n" * 8 * SECTOR_BYTES)
        sync_folder(process, "", at)

    holes = set()
    for data in after_power_loss(prepare, lambda disk: disk.read("/exp/log")):
        for start in range(0, len(data), SECTOR_BYTES):
            sector = data[start : start + SECTOR_BYTES]
            assert set(sector) in ({0}, {ord("n")}), "a sector is written as a whole"
            holes.add((start, sector[0] == 0))
    assert holes >= {(start * SECTOR_BYTES, lost) for start in range(8) for lost in (True, False)}


def test_a_sector_survives_in_any_version_it_went_through() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        for _ in range(4):
            append(process, at, "log", b"n" * 100)
        sync_folder(process, "", at)

    found = after_power_loss(prepare, lambda disk: len(disk.read("/exp/log").rstrip(b"\0")))
    assert {0, 100, 200, 300, 400} <= set(found)


def test_an_unsynced_truncate_may_be_undone_and_its_bytes_come_back() -> None:
    old = b"a" * SECTOR_BYTES + b"b" * SECTOR_BYTES

    def prepare(process: SimProcess, at: int) -> None:
        fd = append(process, at, "log", old)
        process.fsync(fd)
        sync_folder(process, "", at)
        process.truncate(fd, SECTOR_BYTES)
        write_all(process, fd, b"c" * SECTOR_BYTES)

    found = {data[SECTOR_BYTES:][:1] or None for data in after_power_loss(prepare, lambda d: d.read("/exp/log"))}
    assert found == {b"b", b"c", b"\0", None}


def test_what_fsync_covered_with_its_name_never_vanishes() -> None:
    data = bytes(Random(1).randbytes(5000))

    def prepare(process: SimProcess, at: int) -> None:
        fd = append(process, at, "log", b"x" * 9000)
        process.fsync(fd)
        process.truncate(fd, 0)
        write_all(process, fd, data)
        process.fsync(fd)
        sync_folder(process, "", at)
        append(process, at, "other", b"unsynced")

    assert set(after_power_loss(prepare, lambda disk: disk.read("/exp/log"))) == {data}


def test_what_survived_one_power_loss_survives_the_next() -> None:
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        for path in ("a", "b", "c"):
            append(process, at, path, b"x" * 2000)
        disk.power_loss()
        first = disk.tree("/exp")
        disk.power_loss()
        assert disk.tree("/exp") == first


def test_a_settled_disk_loses_nothing() -> None:
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        process.mkdirs("d/e", at)
        append(process, at, "d/e/log", b"x" * 2000)
        disk.settle()
        disk.power_loss()
        assert disk.tree("/exp") == {"d/e/log": b"x" * 2000}


# Names and power loss


def test_fsync_of_a_new_file_does_not_cover_its_name() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        process.fsync(append(process, at, "log", b"bytes"))

    found = after_power_loss(prepare, lambda disk: disk.tree("/exp"))
    assert {} in found
    assert all(tree in ({}, {"log": b"bytes"}) for tree in found)


def test_fsync_of_a_folder_covers_its_names_and_not_their_bytes() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        append(process, at, "log", b"bytes")
        sync_folder(process, "", at)

    found = after_power_loss(prepare, lambda disk: disk.read("/exp/log"))
    assert {b"", b"bytes"} <= set(found)


def test_fsync_of_a_folder_does_not_cover_its_own_name() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        process.mkdirs("d", at)
        process.fsync(append(process, at, "d/log", b"bytes"))
        sync_folder(process, "d", at)

    found = after_power_loss(prepare, lambda disk: disk.tree("/exp"))
    assert {} in found
    assert {"d/log": b"bytes"} in found


def test_a_rename_without_fsync_may_be_lost_or_keep_its_name_without_its_bytes() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        replace_file(process, "view", b"old", at, durable=True)
        replace_file(process, "view", b"new", at, durable=False)

    found = after_power_loss(prepare, lambda disk: disk.read("/exp/view"))
    assert {b"old", b"new", b""} <= set(found)
    assert all(data in (b"old", b"new") or not data.strip(b"\0new") for data in found)


def test_a_durable_replacement_is_never_lost_and_never_torn() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        replace_file(process, "view", b"old" * 999, at, durable=True)
        replace_file(process, "view", b"new" * 999, at, durable=True)

    assert set(after_power_loss(prepare, lambda disk: disk.read("/exp/view"))) == {b"new" * 999}


def test_a_replacement_cut_anywhere_leaves_the_old_bytes_or_the_new() -> None:
    old, new = b"old" * 999, b"new" * 999
    found = []
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        replace_file(process, "view", old, at, durable=True)
        die_at(disk, seed % 16, torn=True)
        try:
            replace_file(process, "view", new, at, durable=True)
        except Died:
            disk.power_loss()
        found.append(disk.read("/exp/view"))
    assert set(found) == {old, new}


def test_an_unsynced_unlink_may_be_undone() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        process.fsync(append(process, at, "segment", b"bytes"))
        sync_folder(process, "", at)
        process.unlink("segment", at)

    found = after_power_loss(prepare, lambda disk: disk.tree("/exp"))
    assert {} in found
    assert {"segment": b"bytes"} in found


def test_a_removal_that_was_undone_left_no_mark() -> None:
    undone = 0
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        process.mkdirs("d", at)
        append(process, at, "d/log", b"bytes")
        disk.settle()
        disk.remove_tree("/exp/d")
        disk.power_loss()
        process = disk.process(1)
        at = process.root("/exp")
        if process.listdir("d", at) == ["log"]:
            undone += 1
            assert process.stat("d", at).nlink == process.stat("d/log", at).nlink == 1
            append(process, at, "d/more", b"goes on")
            process.unlink("d/log", at)
            assert disk.used_bytes == len(b"goes on")
    assert undone > 0


def test_names_survive_in_any_subset_and_each_in_its_own_order() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        for step in (b"1", b"2", b"3"):
            for path in ("a", "b"):
                process.fsync(append(process, at, "temp-" + path, step))
                process.rename("temp-" + path, path, at)

    def steps(disk: SimDisk) -> tuple[bytes | None, bytes | None]:
        tree = disk.tree("/exp")
        return tree.get("a"), tree.get("b")

    found = set(after_power_loss(prepare, steps))
    assert (None, b"3") in found
    assert (b"3", None) in found
    assert len(found) > 8, "mixtures too"


def test_a_rename_between_folders_never_loses_the_file_and_never_doubles_it() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        process.mkdirs("files", at)
        process.mkdirs("superseded", at)
        process.fsync(append(process, at, "files/model", b"old"))
        sync_folder(process, "files", at)
        sync_folder(process, "", at)
        process.rename("files/model", "superseded/model", at)
        process.fsync(append(process, at, "incoming", b"new"))
        process.rename("incoming", "files/model", at)

    found = after_power_loss(prepare, lambda disk: list(disk.tree("/exp").values()))
    assert all(each.count(b"old") == 1 and each.count(b"new") <= 1 for each in found)


def move_into_its_own_child(process: SimProcess, at: int) -> None:
    """Take ``b`` out of ``a``, then put ``a`` into ``b``."""
    process.mkdirs("a/b", at)
    process.fsync(append(process, at, "a/b/log", b"bytes"))
    process.fsync(append(process, at, "a/log", b"more"))
    for path in ("a/b", "a", ""):
        sync_folder(process, path, at)
    process.rename("a/b", "c", at)
    process.rename("a", "c/a", at)


def test_a_folder_that_is_moved_never_ends_up_inside_itself() -> None:
    found = after_power_loss(move_into_its_own_child, lambda disk: tuple(disk.tree("/exp")))
    assert set(found) == {("a/b/log", "a/log"), ("a/log", "c/log"), ("c/a/log", "c/log")}


def test_fsync_of_a_folder_covers_the_moves_of_folders_that_came_before() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        move_into_its_own_child(process, at)
        sync_folder(process, "c", at)

    found = after_power_loss(prepare, lambda disk: tuple(disk.tree("/exp")))
    assert set(found) == {("c/a/log", "c/log")}


def test_fsync_of_one_folder_leaves_the_order_of_the_others() -> None:
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        for data in (b"1", b"2", b"3"):
            replace_file(process, "view", data, at, durable=False)
        process.mkdirs("d", at)
        append(process, at, "d/log", b"")
        sync_folder(process, "d", at)
        disk.settle()
        disk.power_loss()
        assert disk.tree("/exp") == {"d/log": b"", "view": b"3"}


def test_a_folder_of_any_size_is_durable_after_its_fsync() -> None:
    disk, process, at = fresh()
    for number in range(2 * PENDING_CHANGES_MAX):
        process.close(process.open(f"{number}", APPEND | NEW, at))
    sync_folder(process, "", at)
    disk.power_loss()
    assert len(disk.tree("/exp")) == 2 * PENDING_CHANGES_MAX


# fsync that fails


def test_after_a_failed_fsync_the_next_one_succeeds_and_the_bytes_are_lost() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        fd = append(process, at, "log", b"x" * 4 * SECTOR_BYTES)
        sync_folder(process, "", at)
        process.disk.faults.fsync_error = 1.0
        with pytest.raises(OSError, match=r"Input/output error|No space left"):
            process.fsync(fd)
        process.disk.faults.fsync_error = 0.0
        process.fsync(fd)
        assert process.pread(fd, 9999, 0) == b"x" * 4 * SECTOR_BYTES, "still to be seen: the page cache has it"
        write_all(process, fd, b"later")
        process.fsync(fd)

    found = after_power_loss(prepare, lambda disk: disk.read("/exp/log"))
    assert all(len(data) == 4 * SECTOR_BYTES + 5 and data.endswith(b"later") for data in found)
    assert any(data.startswith(b"\0" * 4 * SECTOR_BYTES) for data in found)


def test_a_failed_fsync_of_a_folder_may_lose_its_names_for_good() -> None:
    def prepare(process: SimProcess, at: int) -> None:
        process.fsync(append(process, at, "log", b"bytes"))
        process.disk.faults.fsync_error = 1.0
        with pytest.raises(OSError, match=r"Input/output error|No space left"):
            sync_folder(process, "", at)
        process.disk.faults.fsync_error = 0.0
        sync_folder(process, "", at)
        assert process.listdir("", at) == ["log"]

    found = after_power_loss(prepare, lambda disk: disk.tree("/exp"))
    assert {} in found
    assert {"log": b"bytes"} in found


# Calls that fail


def test_a_short_write_says_how_much_arrived() -> None:
    disk, process, at = fresh()
    disk.faults.short_write = 1.0
    fd = process.open("log", READ_APPEND | CREATE, at)
    written = process.write(fd, b"0123456789")
    assert 0 < written < 10
    assert process.pread(fd, 99, 0) == b"0123456789"[:written]


def test_write_all_and_read_file_get_through_short_writes_and_reads() -> None:
    disk, process, at = fresh()
    disk.faults = Faults(short_write=0.9, short_read=0.9)
    append(process, at, "log", bytes(range(256)) * 8)
    assert read_file(process, "log", at, 1 << 20) == bytes(range(256)) * 8


def test_a_full_disk_takes_what_fits_and_then_refuses_until_there_is_room() -> None:
    disk, process, at = fresh()
    disk.capacity_bytes = 10
    fd = append(process, at, "log", b"123456")
    assert process.write(fd, b"abcdefgh") == 4
    with pytest.raises(OSError, match="No space left") as caught:
        process.write(fd, b"z")
    assert caught.value.errno == errno.ENOSPC
    process.truncate(fd, 2)
    assert process.write(fd, b"z" * 99) == 8
    disk.capacity_bytes = None
    assert process.write(fd, b"z" * 99) == 99


def test_a_removed_file_gives_its_room_back_when_it_is_closed() -> None:
    disk, process, at = fresh()
    fd = append(process, at, "log", b"x" * 100)
    disk.fill()
    process.unlink("log", at)
    assert disk.used_bytes == 100
    process.close(fd)
    assert disk.used_bytes == 0
    append(process, at, "log", b"y" * 100)
    process.rename("log", "other", at)
    disk.remove_tree("/exp")
    disk.kill(1)
    assert disk.used_bytes == 0


def test_on_a_full_disk_a_new_name_may_be_refused_too() -> None:
    disk, process, at = fresh()
    disk.fill()
    codes = set()
    for number in range(50):
        try:
            process.close(process.open(f"log{number}", APPEND | NEW, at))
            codes.add(0)
        except OSError as error:
            codes.add(error.errno or 0)
    assert codes == {0, errno.ENOSPC}


def test_an_eio_did_nothing() -> None:
    disk, process, at = fresh()
    fd = append(process, at, "log", b"1")
    disk.faults.eio = 1.0
    for call in (
        lambda: process.write(fd, b"2"),
        lambda: process.truncate(fd, 0),
        lambda: process.unlink("log", at),
        lambda: process.rename("log", "x", at),
        lambda: process.mkdirs("d", at),
        lambda: process.open("x", APPEND | CREATE, at),
        lambda: process.listdir("", at),
        lambda: process.pread(fd, 1, 0),
    ):
        with pytest.raises(OSError, match="Input/output error"):
            call()
    assert disk.tree("/exp") == {"log": b"1"}
    assert not disk.exists("/exp/d")


# Processes that die


def die_at(disk: SimDisk, step: int, *, torn: bool = False, after: bool = False) -> None:
    """Let the process die in its ``step``-th call from now."""
    left = [step]

    def hook(pid: int, name: str, args: tuple[object, ...]) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Died(torn=torn)

    disk.before, disk.after = (None, hook) if after else (hook, None)


def test_a_process_may_die_before_a_call_and_after_it() -> None:
    for after in (False, True):
        disk, process, at = fresh()
        fd = append(process, at, "log", b"")
        die_at(disk, 0, after=after)
        with pytest.raises(Died):
            process.write(fd, b"1")
        assert disk.read("/exp/log") == (b"1" if after else b"")
        disk.before = disk.after = None
        with pytest.raises(Died):
            process.write(fd, b"2")
        assert disk.process(1) is not process


def test_a_hook_may_kill_the_caller_or_cut_the_power_itself() -> None:
    for end in (lambda disk: disk.kill(1), lambda disk: disk.power_loss()):
        for after in (False, True):
            disk, process, at = fresh()
            fd = append(process, at, "log", b"")
            disk.settle()
            hook = partial(lambda end, disk, pid, name, args: end(disk), end, disk)
            disk.before, disk.after = (None, hook) if after else (hook, None)
            with pytest.raises(Died):
                process.write(fd, b"1")
            assert after or disk.read("/exp/log") == b""


def test_a_process_may_die_in_the_middle_of_a_write() -> None:
    found = set()
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        fd = append(process, at, "log", b"-")
        die_at(disk, 0, torn=True)
        with pytest.raises(Died):
            process.write(fd, b"abc")
        found.add(disk.read("/exp/log"))
    assert found == {b"-", b"-a", b"-ab", b"-abc"}


def test_a_process_may_die_between_the_folders_of_a_mkdirs() -> None:
    found = set()
    for seed in SEEDS:
        disk, process, at = fresh(seed)
        die_at(disk, 0, torn=True)
        with pytest.raises(Died):
            process.mkdirs("a/b", at)
        found.add((disk.exists("/exp/a"), disk.exists("/exp/a/b")))
    assert found == {(False, False), (True, False), (True, True)}


def test_the_dead_do_nothing_more_and_leave_no_line_in_the_trace() -> None:
    disk, process, at = fresh()
    fd = append(process, at, "log", b"1")
    disk.kill(1)
    trace = disk.trace
    for call in (
        lambda: process.write(fd, b"2"),
        lambda: process.close(fd),
        lambda: process.unlink("log", at),
    ):
        with pytest.raises(Died):
            call()
    assert disk.trace == trace
    assert disk.tree("/exp") == {"log": b"1"}


def test_a_pid_used_again_is_another_process() -> None:
    disk, process, at = fresh()
    disk.kill(1)
    heir = disk.process(1)
    assert heir is not process
    with pytest.raises(OSError, match="Bad file descriptor"):
        heir.listdir("", at)
    with pytest.raises(Died):
        process.listdir("", at)
    assert disk.process(1) is heir, "the late call of the dead one has not killed it"


def test_death_takes_nothing_from_the_page_cache() -> None:
    disk, process, at = fresh()
    append(process, at, "log", b"never synced")
    disk.kill(1)
    assert disk.read("/exp/log") == b"never synced"


def test_a_lock_is_free_when_its_process_is_killed() -> None:
    disk, process, at = fresh()
    assert process.lock(append(process, at, "owner", b""))
    other = disk.process(2)
    fd = other.open("owner", READ, other.root("/exp"))
    assert not other.lock(fd)
    disk.kill(1)
    assert other.lock(fd)


def test_a_forked_child_keeps_its_parents_lock_alive() -> None:
    disk, process, at = fresh()
    locked = append(process, at, "owner", b"")
    assert process.lock(locked)
    child = disk.fork(1, 2)
    disk.kill(1)
    other = disk.process(3)
    fd = other.open("owner", READ, other.root("/exp"))
    assert not other.lock(fd)
    child.close(locked)
    assert other.lock(fd)


def test_power_loss_kills_everyone_and_frees_every_lock() -> None:
    disk, process, at = fresh()
    process.lock(append(process, at, "owner", b""))
    disk.settle()
    disk.power_loss()
    with pytest.raises(Died):
        process.listdir("", at)
    heir = disk.process(1)
    assert heir.lock(heir.open("owner", READ, heir.root("/exp")))


# Time


def test_a_write_and_a_truncate_are_dated_by_the_worlds_clock() -> None:
    disk, process, at = fresh()
    fd = append(process, at, "log", b"123")
    first = process.fstat(fd).mtime_ns
    disk.now_ns += 1
    assert process.fstat(fd).mtime_ns == first
    process.write(fd, b"4")
    assert process.fstat(fd).mtime_ns == first + 1
    disk.now_ns += 1
    process.truncate(fd, 1)
    assert process.fstat(fd).mtime_ns == first + 2


# The user


def test_a_user_edits_copies_moves_and_removes_what_a_process_holds_open() -> None:
    disk, process, at = fresh()
    process.mkdirs("s/logs", at)
    fd = append(process, at, "s/logs/log", b"1")
    held = process.folder("s", at)
    disk.write("/exp/s/view", b"edited")
    disk.copy_tree("/exp/s", "/exp/copy")
    assert disk.tree("/exp/copy") == {"logs/log": b"1", "view": b"edited"}
    assert process.stat("copy/logs/log", at).ino != process.fstat(fd).ino
    disk.move("/exp/s", "/exp/moved")
    write_all(process, fd, b"2")
    append(process, held, "made", b"")
    assert disk.tree("/exp/moved") == {"logs/log": b"12", "made": b"", "view": b"edited"}
    disk.remove_tree("/exp/moved")
    assert process.fstat(held).nlink == process.fstat(fd).nlink == 0
    assert process.pread(fd, 9, 0) == b"12"
    assert not disk.exists("/exp/moved")


def test_faults_and_hooks_pass_the_user_by() -> None:
    disk, _, _ = fresh()
    disk.faults = Faults(short_write=1.0, short_read=1.0, eio=1.0, fsync_error=1.0)
    die_at(disk, 0)
    disk.write("/exp/view", b"0123456789")
    assert disk.read("/exp/view") == b"0123456789"


# Same seed, same trace


def busy(seed: int) -> tuple[str, dict[str, bytes], list[str]]:
    """A world of some hundred calls with all faults on."""
    disk = SimDisk(Random(seed), Faults(short_write=0.1, short_read=0.1, eio=0.02, fsync_error=0.02))
    disk.capacity_bytes = 20_000
    disk.mkdirs("/exp/d")
    world = Random(seed + 1)
    disk.before = lambda pid, name, args: die_sometimes(world)
    for pid in range(1, 40):
        process = disk.process(pid)
        try:
            at = process.root("/exp")
            for _ in range(20):
                work(process, at, world)
        except Died:
            if world.random() < 0.3:
                disk.power_loss()
                disk.mkdirs("/exp/d")
        check(disk)
    return disk.trace, disk.tree("/exp"), list(disk.recent)


def die_sometimes(world: Random) -> None:
    if world.random() < 0.01:
        raise Died(torn=world.random() < 0.5)


def work(process: SimProcess, at: int, world: Random) -> None:
    path, other = (world.choice(("a", "b", "d/a", "d/b")) for _ in range(2))
    try:
        match world.randrange(6):
            case 0 | 1 | 2:
                process.fsync(append(process, at, path, world.randbytes(world.randrange(3000))))
            case 3:
                process.rename(path, other, at)
            case 4:
                process.unlink(path, at)
            case 5:
                sync_folder(process, world.choice(("", "d")), at)
    except OSError:
        pass


def check(disk: SimDisk) -> None:
    """The disk's own accounts agree, whatever happened."""
    held = sum(len(data) for data in disk.tree("/").values())
    unnamed = {
        opened.inode
        for process in disk._processes.values()
        for opened in process.files.values()
        if isinstance(opened.inode, File) and opened.inode.nlink == 0
    }
    assert disk.used_bytes == held + sum(len(file.data) for file in unnamed)


def test_the_same_seed_gives_the_same_trace_and_the_same_bytes() -> None:
    for seed in range(10):
        assert busy(seed) == busy(seed)


def test_another_seed_gives_another_trace() -> None:
    assert all(one != other for one, other in pairwise([busy(seed)[0] for seed in range(10)]))


def test_the_trace_names_every_call_and_its_outcome() -> None:
    disk, process, at = fresh()
    disk.recent.clear()
    fd = append(process, at, "log", b"12345")
    with pytest.raises(FileNotFoundError):
        process.unlink("absent", at)
    disk.kill(1)
    assert list(disk.recent) == [
        f"1 open(log, {READ_APPEND | CREATE}, {at}) = {fd}",
        f"1 write({fd}, 5:cbf53a1c) = 5",
        f"1 unlink(absent, {at}) = ENOENT",
        "1 killed",
    ]
