"""The shared pretend disk: what one node does is late, torn, refused or lost for another, as it says of itself.

That one node without staleness sees an ordinary disk is the contract's to say (``tests/world/test_disk.py``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from dreamlake.world.disk import APPEND, CREATE, NEW, READ, READ_APPEND, read_file, replace_file, try_lock, write_all
from tests.sim.shared import CLUSTER, LOCAL, LOST, NONE, SharedDisk, SharedProcess, Staleness

FOREVER = 1e6


class Pair:
    """One disk, and a process on each of two nodes."""

    def __init__(self, seed: int = 0, *, locks: str = CLUSTER, **staleness: Any) -> None:
        self.now = 0.0
        self.disk = SharedDisk(
            Random(seed),
            staleness=Staleness(**staleness),
            locks=locks,
            clock=lambda: self.now,
            nodes={1: "n1", 2: "n2"},
        )
        self.disk.mkdirs("/exp")
        self.one, self.two = self.disk.process(1), self.disk.process(2)
        self.at = {each: each.root("/exp") for each in (self.one, self.two)}

    def put(self, process: SharedProcess, path: str, data: bytes) -> int:
        fd = process.open(path, READ_APPEND | CREATE, self.at[process])
        write_all(process, fd, data)
        return fd

    def get(self, process: SharedProcess, path: str) -> bytes:
        return read_file(process, path, self.at[process], 1 << 20)

    def size(self, process: SharedProcess, path: str) -> int:
        return process.stat(path, self.at[process]).size

    def server(self, path: str) -> bytes:
        return self.disk.read(f"/exp/{path}")


def refusal(call: Callable[..., object], *args: object) -> str:
    try:
        call(*args)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


# Names and attributes


def test_what_a_node_knows_of_a_name_may_be_old_and_its_own_changes_it_sees_at_once() -> None:
    pair = Pair(attributes_seconds=30)
    one, two, at = pair.one, pair.two, pair.at
    assert refusal(two.stat, "a", at[two]) == "ENOENT"
    assert two.listdir("", at[two]) == []
    pair.put(one, "a", b"1")
    assert one.listdir("", at[one]) == ["a"]
    assert refusal(two.stat, "a", at[two]) == "ENOENT"  # it has looked, and remembers
    assert two.listdir("", at[two]) == []
    pair.now += 31
    assert two.listdir("", at[two]) == ["a"]
    assert pair.size(two, "a") == 1
    pair.put(two, "b", b"2")
    assert two.listdir("", at[two]) == ["a", "b"]


def test_a_name_that_a_node_never_looked_for_it_asks_for() -> None:
    pair = Pair(attributes_seconds=30)
    pair.put(pair.one, "a", b"1")
    assert pair.size(pair.two, "a") == 1


def test_sizes_and_bytes_are_late_until_a_node_asks_or_opens() -> None:
    pair = Pair(attributes_seconds=30)
    pair.put(pair.one, "a", b"old")
    fd = pair.two.open("a", READ, pair.at[pair.two])
    pair.put(pair.one, "a", b" and new")
    assert (pair.two.fstat(fd).size, pair.two.pread(fd, 100, 0), pair.size(pair.two, "a")) == (3, b"old", 3)
    assert pair.get(pair.two, "a") == b"old and new"  # close-to-open
    pair.now += 31
    assert pair.two.pread(fd, 100, 0) == b"old and new"


def test_without_close_to_open_an_open_asks_nobody() -> None:
    pair = Pair(attributes_seconds=30, no_cto=True)
    pair.put(pair.one, "a", b"old")
    pair.get(pair.two, "a")
    pair.put(pair.one, "a", b" and new")
    assert pair.get(pair.two, "a") == b"old"
    replace_file(pair.one, "a", b"other", pair.at[pair.one], durable=True)
    assert pair.get(pair.two, "a") == b"old"
    pair.now += 31
    assert pair.get(pair.two, "a") == b"other"


def test_a_file_that_was_moved_is_still_opened_by_its_old_name() -> None:
    pair = Pair(attributes_seconds=30)
    pair.put(pair.one, "a", b"1")
    pair.get(pair.two, "a")
    pair.one.rename("a", "b", pair.at[pair.one])
    pair.put(pair.one, "a", b"2")
    assert pair.get(pair.two, "a") == b"1"
    pair.now += 31
    assert pair.get(pair.two, "a") == b"2"


def test_a_file_that_was_replaced_is_opened_anew() -> None:
    pair = Pair(attributes_seconds=30)
    pair.put(pair.one, "a", b"1")
    fd = pair.two.open("a", READ, pair.at[pair.two])
    replace_file(pair.one, "a", b"2", pair.at[pair.one], durable=False)
    assert pair.get(pair.two, "a") == b"2"
    assert pair.two.pread(fd, 10, 0) == b"1"  # from its cache
    pair.now += 31
    assert refusal(pair.two.pread, fd, 10, 0) == "ESTALE"
    assert refusal(pair.two.fstat, fd) == "ESTALE"


def test_a_times_are_the_servers_and_touch_gives_the_present_one() -> None:
    pair = Pair()
    fd = pair.put(pair.one, "a", b"1")
    pair.disk.now_ns += 10**9
    pair.one.touch(fd)
    assert pair.two.stat("a", pair.at[pair.two]).mtime_ns == pair.disk.now_ns


# Bytes


def test_written_bytes_are_seen_here_at_once_and_elsewhere_after_fsync_close_or_a_while() -> None:
    pair = Pair(write_back_seconds=FOREVER)
    one, two = pair.one, pair.two
    fd = pair.put(one, "a", b"x" * 100)
    assert (pair.get(one, "a"), pair.get(two, "a")) == (b"x" * 100, b"")
    one.fsync(fd)
    assert pair.get(two, "a") == b"x" * 100
    other = pair.put(one, "b", b"y")
    one.close(other)
    assert pair.get(two, "b") == b"y"
    write_all(one, fd, b"z")
    pair.now += FOREVER
    assert pair.get(two, "a") == b"x" * 100 + b"z"


def test_bytes_on_their_way_read_as_zeros_or_are_not_there() -> None:
    found = set()
    for seed in range(200):
        pair = Pair(seed, write_back_seconds=FOREVER, in_order=False)
        fd = pair.put(pair.one, "a", b"first")
        write_all(pair.one, fd, b"second")
        for _ in range(4):
            found.add(pair.get(pair.two, "a"))
        pair.one.fsync(fd)
        assert pair.get(pair.two, "a") == b"firstsecond"
    assert {b"", b"first", b"\0" * 5 + b"second", b"firstsecond"} <= found
    assert all(byte in (0, right) for each in found for byte, right in zip(each, b"firstsecond", strict=False))


def test_in_order_there_are_no_zeros() -> None:
    for seed in range(50):
        pair = Pair(seed, write_back_seconds=FOREVER)
        fd = pair.put(pair.one, "a", b"first")
        write_all(pair.one, fd, b"second")
        for _ in range(10):
            assert b"firstsecond".startswith(pair.get(pair.two, "a"))


def test_a_killed_process_leaves_its_bytes_and_a_dead_node_does_not() -> None:
    pair = Pair(write_back_seconds=FOREVER)
    pair.put(pair.one, "a", b"kept")
    pair.disk.kill(1)
    assert pair.server("a") == b"kept"
    pair.one = pair.disk.process(1)
    pair.at[pair.one] = pair.one.root("/exp")
    fd = pair.put(pair.one, "b", b"synced")
    pair.one.fsync(fd)
    write_all(pair.one, fd, b" and not")
    pair.disk.node_dies("n1")
    assert pair.one.dead
    pair.now += FOREVER
    assert pair.get(pair.two, "b").rstrip(b"\0") in [b"synced and not"[: 6 + size] for size in range(9)]
    assert pair.get(pair.two, "b") != b"synced and not"


def test_a_file_with_no_name_takes_no_bytes_and_says_so_at_once_or_late() -> None:
    for late in (0.0, 1.0):
        pair = Pair(write_back_seconds=FOREVER, late_errors=late)
        fd = pair.put(pair.one, "a", b"1")
        pair.one.fsync(fd)
        replace_file(pair.two, "a", b"2", pair.at[pair.two], durable=True)
        assert refusal(write_all, pair.one, fd, b"late") == ("" if late else "ESTALE")
        assert refusal(pair.one.fsync, fd) == "ESTALE"
        assert refusal(pair.one.truncate, fd, 0) == "ESTALE"
        assert pair.server("a") == b"2"
        if late:
            write_all(pair.one, fd, b"later")
            assert refusal(pair.one.close, fd) == "ESTALE"
            assert refusal(pair.one.fstat, fd) == "EBADF"  # closed all the same


def test_what_the_node_itself_unlinked_lives_on_while_open() -> None:
    pair = Pair(attributes_seconds=30, write_back_seconds=FOREVER)
    fd = pair.put(pair.one, "a", b"1")
    pair.one.unlink("a", pair.at[pair.one])
    write_all(pair.one, fd, b"2")
    pair.now += 31
    pair.one.fsync(fd)
    assert (pair.one.pread(fd, 10, 0), pair.one.fstat(fd).nlink) == (b"12", 0)


def test_an_fsync_is_of_what_its_own_node_wrote() -> None:
    for own in (True, False):
        lost = 0
        for seed in range(20):
            pair = Pair(seed)
            fd = pair.put(pair.one, "a", b"x" * 5000)
            pair.disk.settle_names()
            if own:
                pair.one.fsync(fd)
            pair.two.fsync(pair.two.open("a", READ, pair.at[pair.two]))
            pair.disk.power_loss()
            lost += pair.server("a") != b"x" * 5000
        assert bool(lost) != own


# At the server


def test_of_two_nodes_one_makes_a_folder_or_a_file_whatever_they_remember() -> None:
    pair = Pair(attributes_seconds=FOREVER)
    one, two, at = pair.one, pair.two, pair.at
    for name in ("d", "f"):
        assert refusal(two.stat, name, at[two]) == "ENOENT"
    one.mkdir("d", at[one])
    assert refusal(two.mkdir, "d", at[two]) == "EEXIST"
    one.open("f", APPEND | NEW, at[one])
    assert refusal(two.open, "f", APPEND | NEW, at[two]) == "EEXIST"
    assert refusal(two.rmdir, "d", at[two]) == ""
    assert refusal(one.rmdir, "d", at[one]) == "ENOENT"


def test_a_removed_folder_refuses_everything_whoever_remembers_it() -> None:
    for seed in range(20):
        pair = Pair(seed, attributes_seconds=FOREVER)
        one, two, at = pair.one, pair.two, pair.at
        one.mkdir("d", at[one])
        inner = one.folder("d", at[one])
        pair.put(one, "c", b"")
        assert pair.size(one, "d") == 0
        two.rmdir("d", at[two])
        gone = {"ENOENT", "ESTALE"}
        assert one.stat("d", at[one]).is_dir  # as it remembers
        assert refusal(one.open, "d/x", APPEND | CREATE, at[one]) in gone
        assert refusal(one.open, "x", APPEND | NEW, inner) in gone
        assert refusal(one.rename, "c", "d/c", at[one]) in gone
        assert refusal(one.rename, "d/c", "c2", at[one]) in gone
        assert refusal(one.mkdir, "x", inner) in gone


def test_a_folder_that_was_made_again_is_another_one() -> None:
    pair = Pair(attributes_seconds=FOREVER)
    one, two, at = pair.one, pair.two, pair.at
    one.mkdir("d", at[one])
    inner = one.folder("d", at[one])
    two.rmdir("d", at[two])
    two.mkdir("d", at[two])
    pair.put(two, "d/c", b"2")
    assert refusal(one.open, "x", APPEND | NEW, inner) in ("ENOENT", "ESTALE")
    assert pair.get(one, "d/c") == b"2"  # by its name it is looked up once more


def test_a_folder_with_names_in_it_is_not_removed_on_the_word_of_a_cache() -> None:
    pair = Pair(attributes_seconds=FOREVER)
    pair.one.mkdir("d", pair.at[pair.one])
    assert pair.two.listdir("d", pair.at[pair.two]) == []
    pair.put(pair.one, "d/a", b"")
    assert refusal(pair.two.rmdir, "d", pair.at[pair.two]) == "ENOTEMPTY"


# Locks


@pytest.mark.parametrize(("mode", "second"), [(CLUSTER, False), (LOCAL, True), (NONE, None), (LOST, False)])
def test_a_lock_holds_for_all_for_one_node_or_not_at_all(mode: str, second: bool | None) -> None:
    pair = Pair(locks=mode)
    one, two = pair.put(pair.one, "owner", b""), pair.put(pair.two, "owner", b"")
    assert try_lock(pair.one, one) is (None if mode == NONE else True)
    assert try_lock(pair.two, two) is second
    again = pair.put(pair.one, "owner", b"")
    assert try_lock(pair.one, again) is (None if mode == NONE else False)
    pair.one.close(one)
    assert try_lock(pair.two, two) is (None if mode == NONE else True)


def test_a_lost_lock_goes_to_another_and_the_loser_is_not_told() -> None:
    pair = Pair(locks=LOST)
    one, two = pair.put(pair.one, "owner", b""), pair.put(pair.two, "owner", b"")
    assert pair.one.lock(one)
    pair.disk.lose_locks("n1")
    assert pair.two.lock(two)
    write_all(pair.one, one, b"still here")
    pair.one.close(one)  # and frees nothing of the other's
    assert not pair.one.lock(pair.put(pair.one, "owner", b""))


def test_the_lock_of_a_dead_node_is_held_until_its_lease_ends() -> None:
    pair = Pair()
    one, two = pair.put(pair.one, "owner", b""), pair.put(pair.two, "owner", b"")
    assert pair.one.lock(one)
    pair.disk.node_dies("n1", lease_seconds=60)
    assert not pair.two.lock(two)
    pair.now += 61
    assert pair.two.lock(two)


def test_a_lock_may_want_a_file_that_is_open_for_writing() -> None:
    pair = Pair(lock_wants_write=True)
    pair.put(pair.one, "owner", b"")
    assert refusal(pair.one.lock, pair.one.open("owner", READ, pair.at[pair.one])) == "EBADF"


# Partitions


def test_a_node_that_is_cut_off_is_refused_and_its_bytes_arrive_later() -> None:
    pair = Pair(attributes_seconds=30, write_back_seconds=FOREVER)
    one = pair.one
    fd = pair.put(one, "a", b"before ")
    one.fsync(fd)
    pair.disk.partition("n1")
    write_all(one, fd, b"meanwhile")  # into its cache
    assert one.pread(fd, 100, 0) == b"before meanwhile"
    for call in (
        lambda: one.fsync(fd),
        lambda: one.mkdir("d", pair.at[one]),
        lambda: one.unlink("a", pair.at[one]),
        lambda: one.root("/exp"),
    ):
        assert refusal(call) in ("EIO", "ETIMEDOUT")
    assert refusal(one.close, fd) in ("EIO", "ETIMEDOUT")
    assert pair.server("a") == b"before "
    pair.disk.heal("n1")
    pair.now += FOREVER
    one.listdir("", pair.at[one])
    assert pair.server("a") == b"before meanwhile"


def test_bytes_that_arrive_after_the_file_was_replaced_hit_nothing() -> None:
    pair = Pair(write_back_seconds=FOREVER)
    fd = pair.put(pair.one, "a", b"1")
    pair.one.fsync(fd)
    pair.disk.partition("n1")
    write_all(pair.one, fd, b"late")
    replace_file(pair.two, "a", b"2", pair.at[pair.two], durable=True)
    pair.disk.heal("n1")
    pair.disk.settle_nodes()
    assert pair.server("a") == b"2"


# All of it


def _storm(seed: int) -> str:
    random = Random(seed)
    pair = Pair(seed, attributes_seconds=30, write_back_seconds=20, in_order=False, locks=LOST)
    fds = {process: [pair.put(process, "a", b"")] for process in (pair.one, pair.two)}
    for _ in range(300):
        process = random.choice((pair.one, pair.two))
        name, other = random.choice("abc"), random.choice("abc")
        _do_something(random, pair, process, fds[process], name, other)
        pair.now += random.choice((0.0, 1.0, 9.0))
    return pair.disk.trace


def _do_something(random: Random, pair: Pair, process: SharedProcess, fds: list[int], name: str, other: str) -> None:
    fd, at = random.choice(fds), pair.at[process]
    calls: list[Callable[[], object]] = [
        lambda: fds.append(pair.put(process, name, random.randbytes(9))),
        lambda: write_all(process, fd, random.randbytes(600)),
        lambda: process.pread(fd, 99, 0),
        lambda: process.fsync(fd),
        lambda: process.rename(name, other, at),
        lambda: process.listdir("", at),
        lambda: process.stat(name, at),
    ]
    refusal(random.choice(calls))


def test_the_same_seed_is_the_same_disk() -> None:
    assert _storm(1) == _storm(1) != _storm(2)


def test_when_all_is_written_back_and_old_every_node_sees_what_the_server_has() -> None:
    for seed in range(30):
        random = Random(seed)
        pair = Pair(seed, attributes_seconds=30, write_back_seconds=20, in_order=False)
        fds = [(process, pair.put(process, name, b"")) for process in (pair.one, pair.two) for name in "ab"]
        for _ in range(50):
            process, fd = random.choice(fds)
            write_all(process, fd, random.randbytes(10))
            pair.now += random.choice((0.0, 5.0))
        for process, fd in fds:
            process.fsync(fd)
        pair.now += 31
        for name in "ab":
            assert pair.get(pair.one, name) == pair.get(pair.two, name) == pair.server(name)
