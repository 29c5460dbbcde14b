"""The pretend network file system is as bad as it says: what the tests of several nodes stand on."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live.volume import CannotMount
from tests.services.stale import Mount, mounted
from tests.waiting import wait_for

LONG = 1000  # seconds: until somebody says so


class Sides(NamedTuple):
    """Two nodes' mounts, and the server's own disk."""

    one: Mount
    other: Mount
    server: Path


New = Callable[..., Sides]


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[New]:
    with ExitStack() as mounts:

        def new(*options: object) -> Sides:
            server = tmp_path / "server"
            server.mkdir()
            try:
                one, other = (mounts.enter_context(mounted(server, tmp_path / n, *options)) for n in ("one", "other"))
            except CannotMount as reason:
                pytest.skip(f"no file system that is stale: {reason}")
            return Sides(one, other, server)

        yield new


def append(path: Path, data: bytes) -> int:
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    os.write(fd, data)
    return fd


def test_what_was_looked_up_and_listed_is_believed_until_it_is_old(sides: New) -> None:
    one, other, _ = sides("--stale", LONG)
    (one.at / "file").write_text("first")
    assert os.listdir(other.at) == ["file"]
    assert not (other.at / "late").exists()
    assert (other.at / "file").stat().st_size == 5
    (one.at / "late").write_text("here")
    with (one.at / "file").open("a") as file:
        file.write(" and more")
    assert not (other.at / "late").exists()
    assert os.listdir(other.at) == ["file"]
    assert (other.at / "file").stat().st_size == 5
    assert sorted(os.listdir(one.at)) == ["file", "late"]
    # Opened, it is as it is.
    assert (other.at / "file").read_text() == "first and more"
    other.tell("drop")
    assert (other.at / "late").read_text() == "here"
    assert sorted(os.listdir(other.at)) == ["file", "late"]


def test_a_believed_size_hides_the_end_from_who_has_it_open_and_without_cto_from_all(sides: New) -> None:
    one, other, _ = sides("--stale", LONG, "--no-cto")
    (one.at / "file").write_text("first")
    with (other.at / "file").open("rb", buffering=0) as opened:
        with (one.at / "file").open("a") as file:
            file.write(" and more")
        assert opened.read() == b"first"
        assert (other.at / "file").read_text() == "first"
        other.tell("drop")
        assert opened.read() == b" and more"


def test_what_is_old_is_asked_for_again(sides: New) -> None:
    one, other, _ = sides("--stale", 0.3)
    assert not (other.at / "late").exists()
    (one.at / "late").write_text("here")
    wait_for(lambda: (other.at / "late").read_text() == "here")


def test_written_data_waits_for_fsync_and_close(sides: New) -> None:
    one, other, server = sides("--late", LONG)
    fd = append(one.at / "file", b"first")
    assert (server / "file").read_bytes() == (other.at / "file").read_bytes() == b""
    assert (one.at / "file").read_bytes() == b"first"
    os.fsync(fd)
    assert (other.at / "file").read_bytes() == b"first"
    os.write(fd, b" second")
    assert os.pread(fd, 100, 2) == b"rst second"
    assert (other.at / "file").read_bytes() == b"first"
    os.close(fd)
    assert (server / "file").read_bytes() == (other.at / "file").read_bytes() == b"first second"


def test_written_data_goes_by_itself_in_the_end(sides: New) -> None:
    one, other, _ = sides("--late", 0.3)
    fd = append(one.at / "file", b"first")
    wait_for(lambda: (other.at / "file").read_bytes() == b"first")
    os.close(fd)


def test_late_data_are_zeros(sides: New) -> None:
    one, other, _ = sides("--late", LONG, "--zeros")
    fd = append(one.at / "file", b"first")
    os.fsync(fd)
    os.write(fd, b" second")
    assert (other.at / "file").read_bytes() == b"first" + bytes(7)
    assert (one.at / "file").read_bytes() == b"first second"
    os.close(fd)
    assert (other.at / "file").read_bytes() == b"first second"


def test_two_nodes_that_append_to_one_file_write_over_each_other(sides: New) -> None:
    one, other, server = sides("--stale", LONG)
    first, second = append(one.at / "file", b""), append(other.at / "file", b"")
    os.write(first, b"aaaa")
    os.write(second, b"bb")
    assert (server / "file").read_bytes() == b"bbaa"
    os.close(first)
    os.close(second)


@pytest.mark.parametrize("removal", ["unlink", "rename over"])
def test_a_file_that_another_node_removed_is_stale_to_who_has_it_open(sides: New, removal: str) -> None:
    one, other, _ = sides("--late", LONG)
    fd = append(other.at / "file", b"first")
    os.fsync(fd)
    if removal == "unlink":
        (one.at / "file").unlink()
    else:
        (one.at / "new").write_bytes(b"another")
        (one.at / "new").rename(one.at / "file")
    with pytest.raises(OSError, match="Stale") as read:
        os.pread(fd, 5, 0)
    with pytest.raises(OSError, match="Stale"):
        os.write(fd, b" and more")
    os.close(fd)
    assert read.value.errno == errno.ESTALE
    if removal == "rename over":  # whoever opens it anew has the other one, whatever was believed
        assert (other.at / "file").read_bytes() == b"another"


def test_where_the_server_keeps_what_is_open_late_bytes_go_nowhere(sides: New) -> None:
    one, other, server = sides("--late", LONG, "--keeps")
    fd = append(other.at / "file", b"first")
    (one.at / "new").write_bytes(b"another")
    (one.at / "new").rename(one.at / "file")
    os.fsync(fd)
    assert os.pread(fd, 5, 0) == b"first"
    os.close(fd)
    assert (server / "file").read_bytes() == b"another"


def test_a_folder_that_another_node_removed_takes_and_gives_nothing(sides: New) -> None:
    one, other, server = sides("--stale", LONG)
    (one.at / "folder").mkdir()
    with pytest.raises(FileExistsError):
        (other.at / "folder").mkdir()
    (one.at / "folder" / "file").write_text("here")
    fd = os.open(one.at / "folder", os.O_RDONLY)
    (other.at / "folder" / "file").unlink()
    (other.at / "folder").rmdir()
    assert (one.at / "folder").exists()
    for call in (
        lambda: os.rename("file", one.at / "moved", src_dir_fd=fd),
        lambda: os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd),
        lambda: os.rename(one.at / "folder" / "file", one.at / "moved"),
    ):
        with pytest.raises(OSError, match=r"Stale|No such") as refused:
            call()
        assert refused.value.errno in (errno.ESTALE, errno.ENOENT)
    os.close(fd)
    assert os.listdir(server) == []


def test_what_this_node_has_open_and_removes_has_another_name_meanwhile(sides: New) -> None:
    one, other, _ = sides()
    (one.at / "folder").mkdir()
    fd = append(one.at / "folder" / "file", b"first")
    (one.at / "folder" / "file").unlink()
    [left] = os.listdir(other.at / "folder")
    assert left.startswith(".nfs")
    with pytest.raises(OSError, match="not empty"):
        (one.at / "folder").rmdir()
    assert os.pread(fd, 5, 0) == b"first"
    os.close(fd)
    wait_for(lambda: os.listdir(one.at / "folder") == [])
    (one.at / "folder").rmdir()


@pytest.mark.parametrize(("locks", "shared"), [("local", False), ("cluster", True), ("none", None)])
def test_locks_reach_as_far_as_is_said(sides: New, locks: str, shared: bool | None) -> None:
    one, other, _ = sides("--locks", locks)
    files = [append(side.at / "file", b"") for side in (one, one, other)]

    def taken(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    if shared is None:
        with pytest.raises(OSError, match="not implemented"):
            taken(files[0])
    else:
        assert taken(files[0])
        assert not taken(files[1])
        assert taken(files[2]) is not shared
        one.tell("unlock")
        assert taken(files[2])
    for fd in files:
        os.close(fd)


def test_a_partitioned_node_waits_and_goes_on(sides: New) -> None:
    one, other, server = sides("--stale", LONG, "--late", LONG)
    # Started first: a fork closes what is open there, in the child, and that needs the network.
    with reading(one.at / "that") as killed, reading(one.at / "this") as waiting:
        fd = append(one.at / "file", b"first")
        one.tell("hang")
        os.write(fd, b" second")  # what is in memory is
        (other.at / "this").write_text("side")
        for process in (killed, waiting):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        wait_for(lambda: _waits(killed) and _waits(waiting))
        killed.kill()
        assert killed.wait(timeout=20) == -signal.SIGKILL
        assert waiting.poll() is None
        assert (server / "file").read_bytes() == b""
        one.tell("heal")
        assert waiting.stdout is not None
        assert waiting.stdout.read() == "side\n"
        os.close(fd)
    assert (server / "file").read_bytes() == b"first second"


@contextmanager
def reading(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that reads and says that file once it is told to."""
    program = f"input(); print(open({str(path)!r}).read(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _waits(process: subprocess.Popen[str]) -> bool:
    """In a call on that file system."""
    return "fuse" in Path(f"/proc/{process.pid}/stack").read_text()


def test_a_node_without_network_fails_and_one_that_dies_takes_along_what_it_had_not_written(sides: New) -> None:
    one, other, server = sides("--late", LONG)
    fd = append(one.at / "file", b"first")
    os.fsync(fd)
    one.tell("fail")
    with pytest.raises(OSError, match="Input/output"):
        (one.at / "file").read_bytes()
    one.tell("heal")
    os.write(fd, b" second")
    assert (one.at / "file").read_bytes() == b"first second"
    one.tell("lose")
    with pytest.raises(OSError, match="Input/output"):
        (one.at / "file").read_bytes()
    one.tell("heal")
    os.close(fd)
    assert (server / "file").read_bytes() == (other.at / "file").read_bytes() == b"first"
