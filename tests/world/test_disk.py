"""One contract for the real disk and the pretend one.

Whatever the shipped code may lean on is said here once, and holds for both; what only one of them has
(symbolic links, power loss) is in the last section or in ``tests/sim/test_disk.py``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dreamlake.world.disk import (
    APPEND,
    CREATE,
    EMPTY,
    NEW,
    READ,
    READ_APPEND,
    Disk,
    RealDisk,
    Stat,
    read_file,
    replace_file,
    sync_folder,
    write_all,
)
from tests.sim.disk import SimDisk
from tests.sim.shared import SharedDisk


@dataclass
class Place:
    """A disk, an open folder on it, and the user who removes things from outside."""

    disk: Disk
    path: str
    at: int
    remove_tree: Callable[[str], None]

    def put(self, path: str, data: bytes) -> int:
        """Write a file; its descriptor stays open for reading and appending."""
        fd = self.disk.open(path, READ_APPEND | CREATE, self.at)
        write_all(self.disk, fd, data)
        return fd

    def get(self, path: str) -> bytes:
        return read_file(self.disk, path, self.at, 1 << 20)


@pytest.fixture(params=["real", "sim", "shared"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "real":
        real = RealDisk()
        at = real.root(str(tmp_path))
        yield Place(real, str(tmp_path), at, lambda path: shutil.rmtree(tmp_path / path))
        real.close(at)
    else:
        one_node = {0: "n", 1: "n"}  # of the user, and of the process
        disk = SimDisk(Random(0)) if request.param == "sim" else SharedDisk(Random(0), nodes=one_node)
        disk.mkdirs("/exp")
        sim = disk.process(1)
        yield Place(sim, "/exp", sim.root("/exp"), lambda path: disk.remove_tree(f"/exp/{path}"))


def refusal(call: Callable[..., object], *args: object) -> str:
    """The name of the errno with which a call fails."""
    try:
        call(*args)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    pytest.fail("it was not refused")


# Opening


def test_private_opens_a_folder_by_its_path_and_nothing_else(place: Place) -> None:
    place.disk.mkdirs("mine", place.at)
    place.put("file", b"")
    if isinstance(place.disk, RealDisk):
        os.chmod(f"{place.path}/mine", 0o700)
    inner = place.disk.private(f"{place.path}/mine")
    place.disk.open("a", APPEND | CREATE, inner)
    assert place.disk.listdir("mine", place.at) == ["a"]
    assert refusal(place.disk.private, f"{place.path}/none") == "ENOENT"
    assert refusal(place.disk.private, f"{place.path}/file") == "ENOTDIR"


def test_private_refuses_what_others_may_enter_and_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("mine")
    assert refusal(RealDisk().private, str(tmp_path / "link")) in ("ELOOP", "ENOTDIR")
    (tmp_path / "mine").chmod(0o710)
    assert refusal(RealDisk().private, str(tmp_path / "mine")) == "EPERM"


def test_an_absent_file_is_made_only_when_asked(place: Place) -> None:
    assert refusal(place.disk.open, "a", READ, place.at) == "ENOENT"
    assert refusal(place.disk.open, "a", APPEND, place.at) == "ENOENT"
    place.disk.open("a", APPEND | CREATE, place.at)
    assert place.disk.listdir("", place.at) == ["a"]
    assert place.get("a") == b""


def test_create_opens_a_file_that_is_there_and_keeps_its_bytes(place: Place) -> None:
    place.put("a", b"kept")
    place.disk.open("a", APPEND | CREATE, place.at)
    assert place.get("a") == b"kept"


def test_new_refuses_a_file_that_is_there_and_a_folder_too(place: Place) -> None:
    place.disk.open("a", APPEND | NEW, place.at)
    place.disk.mkdirs("d", place.at)
    assert refusal(place.disk.open, "a", APPEND | NEW, place.at) == "EEXIST"
    assert refusal(place.disk.open, "d", APPEND | NEW, place.at) == "EEXIST"


def test_empty_cuts_a_file_to_nothing_and_keeps_its_inode(place: Place) -> None:
    fd = place.put("a", b"gone")
    place.disk.open("a", APPEND | EMPTY, place.at)
    assert place.disk.fstat(fd).size == 0
    assert place.disk.stat("a", place.at).ino == place.disk.fstat(fd).ino


def test_a_file_below_a_folder_opens_by_its_path(place: Place) -> None:
    assert refusal(place.disk.open, "d/a", APPEND | CREATE, place.at) == "ENOENT"
    place.disk.mkdirs("d", place.at)
    place.put("d/a", b"below")
    assert place.get("d/a") == place.get("./d//a") == b"below"


def test_a_folder_is_a_place_to_start_from(place: Place) -> None:
    place.disk.mkdirs("d/e", place.at)
    place.put("d/e/a", b"1")
    inner = place.disk.folder("d/e", place.at)
    assert read_file(place.disk, "a", inner, 10) == b"1"
    again = place.disk.folder("", inner)
    assert again != inner
    assert place.disk.fstat(again).ino == place.disk.stat("d/e", place.at).ino


def test_a_file_is_no_folder(place: Place) -> None:
    fd = place.put("a", b"")
    assert refusal(place.disk.open, "a/b", READ, place.at) == "ENOTDIR"
    assert refusal(place.disk.open, "b", READ, fd) == "ENOTDIR"
    assert refusal(place.disk.folder, "a", place.at) == "ENOTDIR"
    assert refusal(place.disk.mkdirs, "a", place.at) == "ENOTDIR"
    assert refusal(place.disk.mkdirs, "a/b", place.at) == "ENOTDIR"
    assert refusal(place.disk.listdir, "a", place.at) == "ENOTDIR"
    assert refusal(place.disk.stat, "a/b", place.at) == "ENOTDIR"


def test_a_folder_is_no_file(place: Place) -> None:
    place.disk.mkdirs("d", place.at)
    assert refusal(place.disk.open, "d", APPEND, place.at) == "EISDIR"
    assert refusal(place.disk.open, "d", READ | CREATE, place.at) == "EISDIR"
    assert refusal(place.disk.open, "d", READ | EMPTY, place.at) == "EISDIR"
    assert refusal(place.disk.unlink, "d", place.at) == "EISDIR"
    fd = place.disk.open("d", READ, place.at)
    assert refusal(place.disk.pread, fd, 1, 0) == "EISDIR"
    assert refusal(place.disk.write, fd, b"x") == "EBADF"
    assert refusal(place.disk.truncate, fd, 0) == "EINVAL"


def test_a_root_must_be_a_folder_that_is_there(place: Place) -> None:
    place.put("a", b"")
    assert refusal(place.disk.root, f"{place.path}/a") == "ENOTDIR"
    assert refusal(place.disk.root, f"{place.path}/absent") == "ENOENT"


def test_a_name_over_255_bytes_is_refused(place: Place) -> None:
    place.put("é" * 127, b"")
    assert refusal(place.disk.open, "é" * 128, APPEND | CREATE, place.at) == "ENAMETOOLONG"
    assert refusal(place.disk.open, "é" * 128, READ, place.at) == "ENAMETOOLONG"
    assert refusal(place.disk.mkdirs, "x" * 256, place.at) == "ENAMETOOLONG"


def test_a_closed_descriptor_is_refused(place: Place) -> None:
    fd = place.put("a", b"1")
    place.disk.close(fd)
    assert refusal(place.disk.close, fd) == "EBADF"
    assert refusal(place.disk.pread, fd, 1, 0) == "EBADF"
    assert refusal(place.disk.write, fd, b"1") == "EBADF"
    assert refusal(place.disk.fsync, fd) == "EBADF"
    assert refusal(place.disk.fstat, fd) == "EBADF"
    assert refusal(place.disk.lock, fd) == "EBADF"
    assert refusal(place.disk.open, "a", READ, fd) == "EBADF"
    assert refusal(place.disk.listdir, "", fd) == "EBADF"


# Nothing leaves the folder


@pytest.mark.parametrize("path", ["..", "../exp", "d/..", "d/../a", "/", "/etc", "/exp/a", "a\0b", "\0"])
def test_no_operation_takes_a_path_out_of_its_folder(place: Place, path: str) -> None:
    place.disk.mkdirs("d", place.at)
    place.put("a", b"mine")
    for call in (
        lambda: place.disk.open(path, READ, place.at),
        lambda: place.disk.open(path, APPEND | CREATE, place.at),
        lambda: place.disk.folder(path, place.at),
        lambda: place.disk.stat(path, place.at),
        lambda: place.disk.rename("a", path, place.at),
        lambda: place.disk.rename(path, "b", place.at),
        lambda: place.disk.unlink(path, place.at),
        lambda: place.disk.mkdirs(path, place.at),
        lambda: place.disk.listdir(path, place.at),
    ):
        with pytest.raises(PermissionError):
            call()
    assert place.disk.listdir("", place.at) == ["a", "d"]


def test_names_that_only_look_like_a_way_out_are_names(place: Place) -> None:
    for name in ("...", "..a", "a..", ".hidden"):
        place.put(name, name.encode())
        assert place.get(name) == name.encode()


# Bytes


def test_append_writes_at_the_end_whoever_else_writes(place: Place) -> None:
    one, two = place.put("a", b"1"), place.disk.open("a", APPEND, place.at)
    assert place.disk.write(two, b"22") == 2
    assert place.disk.write(one, b"333") == 3
    assert place.disk.write(two, b"4") == 1
    assert place.get("a") == b"1223334"


def test_append_goes_on_at_the_new_end_after_a_cut(place: Place) -> None:
    fd = place.put("a", b"123456")
    place.disk.truncate(fd, 2)
    place.disk.write(fd, b"x")
    assert place.get("a") == b"12x"


def test_without_append_each_descriptor_has_its_own_place(place: Place) -> None:
    one, two = place.put("a", b"12345"), place.disk.open("a", os.O_WRONLY, place.at)
    assert place.disk.write(two, b"xy") == 2
    assert place.get("a") == b"xy345"
    place.disk.truncate(one, 0)
    assert place.disk.write(two, b"z") == 1
    assert place.get("a") == b"\0\0z"


def test_a_write_of_nothing_does_nothing(place: Place) -> None:
    fd = place.put("a", b"1")
    assert place.disk.write(fd, b"") == 0
    assert place.get("a") == b"1"


def test_pread_stops_at_the_end_and_moves_nothing(place: Place) -> None:
    fd = place.put("a", b"0123456789")
    assert place.disk.pread(fd, 4, 0) == b"0123"
    assert place.disk.pread(fd, 100, 8) == b"89"
    assert place.disk.pread(fd, 100, 10) == b""
    assert place.disk.pread(fd, 100, 1000) == b""
    assert place.disk.pread(fd, 0, 0) == b""
    assert place.disk.pread(fd, 4, 0) == b"0123"


def test_a_descriptor_does_only_what_it_was_opened_for(place: Place) -> None:
    place.put("a", b"1")
    reads, appends = place.disk.open("a", READ, place.at), place.disk.open("a", APPEND, place.at)
    assert refusal(place.disk.write, reads, b"x") == "EBADF"
    assert refusal(place.disk.truncate, reads, 0) == "EINVAL"
    assert refusal(place.disk.pread, appends, 1, 0) == "EBADF"
    place.disk.fsync(reads)
    assert place.get("a") == b"1"


def test_truncate_cuts_and_lengthens_with_zeros(place: Place) -> None:
    fd = place.put("a", b"123456")
    place.disk.truncate(fd, 3)
    assert place.get("a") == b"123"
    place.disk.truncate(fd, 5)
    assert place.get("a") == b"123\0\0"
    assert refusal(place.disk.truncate, fd, -1) == "EINVAL"


def test_written_bytes_are_seen_at_once_by_every_descriptor(place: Place) -> None:
    writer = place.put("a", b"")
    reader = place.disk.open("a", READ, place.at)
    place.disk.write(writer, b"new")
    assert place.disk.pread(reader, 10, 0) == b"new"


# What a file is


def test_to_write_out_changes_nothing_that_is_seen(place: Place) -> None:
    for size in (0, 10, 200_000):
        fd = place.put(f"f{size}", b"x" * size)
        place.disk.write_out(fd)
        write_all(place.disk, fd, b"more")
        assert place.get(f"f{size}") == b"x" * size + b"more"
        place.disk.close(fd)


def test_stat_and_fstat_say_the_same(place: Place) -> None:
    place.disk.mkdirs("d", place.at)
    fd = place.put("d/a", b"12345")
    found = place.disk.stat("d/a", place.at)
    assert found == place.disk.fstat(fd)
    assert (found.size, found.nlink, found.is_file, found.is_dir) == (5, 1, True, False)
    folder = place.disk.stat("d", place.at)
    assert (folder.is_file, folder.is_dir, folder.nlink > 0) == (False, True, True)
    assert place.disk.stat("", place.at).ino == place.disk.fstat(place.at).ino
    assert refusal(place.disk.stat, "b", place.at) == "ENOENT"


def test_each_file_has_its_own_identity_on_one_device(place: Place) -> None:
    found = [place.disk.fstat(place.put(name, b"")) for name in "abc"]
    assert len({stat.ino for stat in found}) == 3
    assert {stat.dev for stat in found} == {place.disk.fstat(place.at).dev}


# Names


def test_rename_replaces_and_keeps_the_inode(place: Place) -> None:
    old, new = place.put("a", b"old"), place.put("b", b"new")
    place.disk.rename("b", "a", place.at)
    assert place.disk.listdir("", place.at) == ["a"]
    assert place.get("a") == b"new"
    assert place.disk.stat("a", place.at).ino == place.disk.fstat(new).ino
    assert place.disk.fstat(old).nlink == 0
    assert place.disk.pread(old, 10, 0) == b"old"


def test_rename_moves_between_folders(place: Place) -> None:
    place.disk.mkdirs("d", place.at)
    place.disk.mkdirs("e", place.at)
    place.put("d/a", b"1")
    place.disk.rename("d/a", "e/b", place.at)
    assert (place.disk.listdir("d", place.at), place.disk.listdir("e", place.at)) == ([], ["b"])
    place.disk.rename("e", "d/e", place.at)
    assert place.get("d/e/b") == b"1"


def test_rename_onto_itself_does_nothing(place: Place) -> None:
    fd = place.put("a", b"1")
    place.disk.rename("a", "a", place.at)
    assert (place.get("a"), place.disk.fstat(fd).nlink) == (b"1", 1)


def test_rename_refuses_what_has_no_meaning(place: Place) -> None:
    place.disk.mkdirs("d/inner", place.at)
    place.disk.mkdirs("empty", place.at)
    place.put("a", b"1")
    place.put("d/b", b"2")
    rename, at = place.disk.rename, place.at
    assert refusal(rename, "absent", "x", at) == "ENOENT"
    assert refusal(rename, "a", "absent/x", at) == "ENOENT"
    assert refusal(rename, "a", "d", at) == "EISDIR"
    assert refusal(rename, "a", "empty", at) == "EISDIR"
    assert refusal(rename, "d", "a", at) == "ENOTDIR"
    assert refusal(rename, "empty", "d", at) == "ENOTEMPTY"
    assert refusal(rename, "d/inner", "d", at) == "ENOTEMPTY"
    assert refusal(rename, "d/b", "d", at) == "ENOTEMPTY"
    assert refusal(rename, "d", "d/inner/x", at) == "EINVAL"
    rename("d", "empty", at)
    assert place.disk.listdir("empty", at) == ["b", "inner"]


def test_an_unlinked_file_lives_on_while_open(place: Place) -> None:
    fd = place.put("a", b"still ")
    place.disk.unlink("a", place.at)
    assert place.disk.fstat(fd).nlink == 0
    assert refusal(place.disk.open, "a", READ, place.at) == "ENOENT"
    assert refusal(place.disk.unlink, "a", place.at) == "ENOENT"
    write_all(place.disk, fd, b"here")
    assert place.disk.pread(fd, 100, 0) == b"still here"
    place.disk.fsync(fd)


def test_a_name_used_again_is_another_file(place: Place) -> None:
    old = place.put("a", b"old")
    place.disk.unlink("a", place.at)
    new = place.put("a", b"new")
    assert place.disk.fstat(old).ino != place.disk.fstat(new).ino
    assert place.disk.pread(old, 10, 0) == b"old"


def test_mkdirs_makes_parents_and_may_be_repeated(place: Place) -> None:
    place.disk.mkdirs("d/e/f", place.at)
    place.put("d/e/f/a", b"kept")
    place.disk.mkdirs("d/e/f", place.at)
    place.disk.mkdirs("d/e", place.at)
    place.disk.mkdirs("", place.at)
    assert place.get("d/e/f/a") == b"kept"


def test_listdir_is_sorted_and_an_absent_folder_has_no_names(place: Place) -> None:
    for name in ("b", "a", "c", "B", "10", "9"):
        place.put(name, b"")
    place.disk.mkdirs("aa", place.at)
    assert place.disk.listdir("", place.at) == ["10", "9", "B", "a", "aa", "b", "c"]
    assert place.disk.listdir("absent", place.at) == []
    assert place.disk.listdir("absent/below", place.at) == []


def test_in_a_folder_that_the_user_removed_nothing_can_be_made(place: Place) -> None:
    place.disk.mkdirs("d", place.at)
    place.put("d/a", b"1")
    place.put("b", b"2")
    folder = place.disk.folder("d", place.at)
    inside = place.disk.open("a", READ, folder)
    place.remove_tree("d")
    assert place.disk.fstat(folder).nlink == 0
    assert place.disk.fstat(inside).nlink == 0
    assert place.disk.pread(inside, 10, 0) == b"1"
    assert place.disk.listdir("", folder) == []
    assert refusal(place.disk.open, "a", READ, folder) == "ENOENT"
    assert refusal(place.disk.open, "x", APPEND | CREATE, folder) == "ENOENT"
    assert refusal(place.disk.mkdirs, "x", folder) == "ENOENT"
    place.disk.fsync(folder)


def test_a_folder_made_again_is_another_folder(place: Place) -> None:
    place.disk.mkdirs("d", place.at)
    held = place.disk.folder("d", place.at)
    place.remove_tree("d")
    place.disk.mkdirs("d", place.at)
    assert place.disk.stat("d", place.at).ino != place.disk.fstat(held).ino
    assert place.disk.stat("d", place.at).nlink > 0


# The lock


def test_a_lock_belongs_to_one_open_file_until_it_is_closed(place: Place) -> None:
    one = place.put("owner", b"")
    two = place.disk.open("owner", READ, place.at)
    assert place.disk.lock(one)
    assert place.disk.lock(one)
    assert not place.disk.lock(two)
    place.disk.close(one)
    assert place.disk.lock(two)


def test_closing_another_descriptor_of_a_locked_file_frees_nothing(place: Place) -> None:
    # fcntl locks would be lost here; flock is not.
    one, other = place.put("owner", b""), place.disk.open("owner", READ, place.at)
    assert place.disk.lock(one)
    place.disk.close(other)
    assert not place.disk.lock(place.disk.open("owner", READ, place.at))


def test_a_lock_goes_with_the_inode_and_not_with_the_name(place: Place) -> None:
    old = place.put("owner", b"")
    assert place.disk.lock(old)
    place.disk.rename("owner", "elsewhere", place.at)
    assert place.disk.lock(place.put("owner", b""))
    assert not place.disk.lock(place.disk.open("elsewhere", READ, place.at))


# What is built on the operations


def test_replace_file_puts_all_bytes_and_leaves_no_temp(place: Place) -> None:
    place.disk.mkdirs("d", place.at)
    held = place.put("d/view", b"old")
    for durable in (False, True):
        replace_file(place.disk, "d/view", b"new" * 1000, place.at, durable=durable)
        assert place.get("d/view") == b"new" * 1000
        assert place.disk.listdir("d", place.at) == ["view"]
    assert place.disk.pread(held, 10, 0) == b"old"


def test_replace_file_writes_over_a_temp_that_a_dead_process_left(place: Place) -> None:
    place.put("view.tmp", b"half of something longer than the new bytes")
    replace_file(place.disk, "view", b"new", place.at, durable=True)
    assert place.get("view") == b"new"


def test_replace_file_needs_its_folder(place: Place) -> None:
    assert refusal(lambda: replace_file(place.disk, "d/view", b"", place.at, durable=False)) == "ENOENT"


def test_read_file_has_a_limit(place: Place) -> None:
    place.put("a", b"12345")
    assert read_file(place.disk, "a", place.at, 5) == b"12345"
    assert refusal(read_file, place.disk, "a", place.at, 4) == "EFBIG"
    assert refusal(read_file, place.disk, "b", place.at, 4) == "ENOENT"


def test_sync_folder_takes_a_folder_only(place: Place) -> None:
    place.put("a", b"")
    place.disk.mkdirs("d", place.at)
    sync_folder(place.disk, "", place.at)
    sync_folder(place.disk, "d", place.at)
    assert refusal(sync_folder, place.disk, "a", place.at) == "ENOTDIR"
    assert refusal(sync_folder, place.disk, "absent", place.at) == "ENOENT"


# Both, call by call


@pytest.mark.parametrize("kind", [SimDisk, partial(SharedDisk, nodes={0: "n", 1: "n"})], ids=["sim", "shared"])
@pytest.mark.parametrize("seed", range(40))
def test_the_same_random_calls_get_the_same_answers_from_both(
    tmp_path: Path, seed: int, kind: Callable[..., SimDisk]
) -> None:
    random, pretend = Random(seed), kind(Random(0))
    pretend.mkdirs("/exp")
    disks: tuple[Disk, Disk] = (RealDisk(), pretend.process(1))
    opened = [(disks[0].root(str(tmp_path)), disks[1].root("/exp"))]  # of each disk its descriptor

    def path() -> str:
        return "/".join(random.choice("abc") for _ in range(random.choice((1, 1, 2, 3))))

    flags = (READ, APPEND, READ_APPEND, APPEND | CREATE, READ_APPEND | CREATE, APPEND | NEW, APPEND | EMPTY)
    below: dict[str, Callable[[], tuple[object, ...]]] = {
        "open": lambda: (path(), random.choice(flags)),
        "rename": lambda: (path(), path()),
        **dict.fromkeys(("folder", "mkdirs", "unlink", "stat", "listdir"), lambda: (path(),)),
    }
    itself: dict[str, Callable[[], tuple[object, ...]]] = {
        "write": lambda: (random.randbytes(random.choice((0, 1, 700))),),
        "pread": lambda: (random.randrange(1000), random.randrange(1000)),
        "truncate": lambda: (random.randrange(1500),),
        **dict.fromkeys(("fstat", "lock", "fsync", "close"), tuple),
    }
    for _ in range(300):
        name, pair = random.choice([*below, *below, *itself]), random.choice(opened)
        if name == "close" and pair is opened[0]:
            continue
        given = (below.get(name) or itself[name])()
        answers = [
            answer(getattr(disk, name), *((*given, fd) if name in below else (fd, *given)))
            for disk, fd in zip(disks, pair, strict=True)
        ]
        if name in ("open", "folder") and not any(isinstance(each, str) for each in answers):
            opened.append((answers[0], answers[1]))
        else:
            assert answers[0] == answers[1], f"{name}{given}"
        if name == "close":
            opened.remove(pair)
    for real, _ in opened:
        disks[0].close(real)


def answer(call: Callable[..., Any], *args: object) -> Any:
    """What a call answers, without what differs between any two disks: identities, times, a folder's size."""
    try:
        found = call(*args)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    if not isinstance(found, Stat):
        return found
    return (found.size, found.nlink) if found.is_file else (found.is_dir, found.nlink > 0)


# The real disk only


def test_a_symbolic_link_is_followed_nowhere_below_the_root(tmp_path: Path) -> None:
    outside, inside, disk = tmp_path / "outside", tmp_path / "inside", RealDisk()
    outside.mkdir()
    inside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (inside / "folder").symlink_to(outside)
    (inside / "file").symlink_to(outside / "secret")
    (inside / "dangling").symlink_to(outside / "made")
    at = disk.root(str(inside))
    assert refusal(disk.open, "file", READ, at) == "ELOOP"
    assert refusal(disk.open, "file", APPEND | EMPTY, at) == "ELOOP"
    assert refusal(disk.open, "dangling", APPEND | CREATE, at) == "ELOOP"
    for call in (
        lambda: disk.open("folder/secret", READ, at),
        lambda: disk.folder("folder", at),
        lambda: disk.stat("folder/secret", at),
        lambda: disk.unlink("folder/secret", at),
        lambda: disk.rename("folder/secret", "mine", at),
        lambda: disk.rename("file", "folder/made", at),
        lambda: disk.mkdirs("folder/made", at),
        lambda: disk.mkdirs("folder", at),
        lambda: disk.listdir("folder", at),
    ):
        assert refusal(call) in ("ELOOP", "ENOTDIR")
    found = disk.stat("file", at)
    assert (found.is_file, found.is_dir) == (False, False)
    disk.unlink("file", at)
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_the_root_itself_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "scratch")
    disk = RealDisk()
    assert disk.fstat(disk.root(str(tmp_path / "home"))).ino == (tmp_path / "scratch").stat().st_ino


def test_no_operation_leaks_a_descriptor(tmp_path: Path) -> None:
    disk = RealDisk()
    at = disk.root(str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path)
    disk.mkdirs("d", at)
    before = len(os.listdir("/proc/self/fd"))
    for path in ("absent/x", "link/x", "d/absent/x", ".."):
        for call in (
            lambda path: disk.open(path, READ, at),
            lambda path: disk.folder(path, at),
            lambda path: disk.stat(path, at),
            lambda path: disk.rename(path, "y", at),
            lambda path: disk.rename("d", path, at),
            lambda path: disk.unlink(path, at),
            lambda path: sync_folder(disk, path, at),
            lambda path: replace_file(disk, path, b"", at, durable=True),
        ):
            assert refusal(call, path) in ("ENOENT", "ENOTDIR", "EPERM")
    disk.mkdirs("d/e/f", at)
    disk.listdir("d", at)
    replace_file(disk, "d/view", b"", at, durable=True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_descriptor_is_not_handed_to_other_programs(tmp_path: Path) -> None:
    disk = RealDisk()
    at = disk.root(str(tmp_path))
    disk.mkdirs("d", at)
    for fd in (at, disk.open("a", APPEND | CREATE, at), disk.folder("d", at), disk.folder("", at)):
        assert not os.get_inheritable(fd)


def test_a_pipe_where_a_log_belongs_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "logs.jsonl")
    disk = RealDisk()
    at = disk.root(str(tmp_path))
    assert refusal(disk.open, "logs.jsonl", APPEND | CREATE, at) == "ENXIO"


# One folder, made and removed


def test_of_two_that_make_a_folder_one_makes_it(place: Place) -> None:
    place.disk.mkdir("d", place.at)
    assert refusal(place.disk.mkdir, "d", place.at) == "EEXIST"
    assert refusal(place.disk.mkdir, "no/d", place.at) == "ENOENT"
    place.disk.mkdir("d/e", place.at)
    assert place.disk.listdir("d", place.at) == ["e"]


def test_nothing_is_made_in_a_removed_folder_nor_renamed_out_of_it(place: Place) -> None:
    place.disk.mkdir("d", place.at)
    place.put("d/a", b"1")
    inner = place.disk.folder("d", place.at)
    assert refusal(place.disk.rmdir, "d", place.at) == "ENOTEMPTY"
    assert refusal(place.disk.rmdir, "d/a", place.at) == "ENOTDIR"
    place.disk.unlink("d/a", place.at)
    place.disk.rmdir("d", place.at)
    assert refusal(place.disk.rmdir, "d", place.at) == "ENOENT"
    assert refusal(place.disk.open, "b", APPEND | CREATE, inner) == "ENOENT"
    assert refusal(place.disk.open, "d/b", APPEND | CREATE, place.at) == "ENOENT"
    assert refusal(place.disk.rename, "d/a", "a", place.at) == "ENOENT"
    place.put("c", b"")
    assert refusal(place.disk.rename, "c", "d/c", place.at) == "ENOENT"


def test_touch_gives_a_file_the_present_time(place: Place) -> None:
    fd = place.put("a", b"1")
    before = place.disk.fstat(fd)
    if isinstance(place.disk, RealDisk):
        os.utime(f"{place.path}/a", ns=(0, 0))
    place.disk.touch(fd)
    assert place.disk.fstat(fd).mtime_ns >= before.mtime_ns
    assert place.disk.fstat(fd).size == 1


def test_copy_fills_an_empty_file(place: Place) -> None:
    place.put("a", b"all of it")
    source, target = place.disk.open("a", READ, place.at), place.disk.open("b", READ_APPEND | CREATE, place.at)
    assert place.disk.copy(source, target) == 9
    assert place.get("b") == b"all of it"
