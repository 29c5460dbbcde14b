"""A client whose directory an agent of another node owns: it follows the checkpoint, and shows what it writes."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dreamlake import config
from dreamlake import journal as journal_module
from dreamlake.conversation import Conversation, FlushRequest
from dreamlake.link import Switchboard
from dreamlake.reader.commits import CHECKPOINT, encode_checkpoint, read_checkpoint
from dreamlake.reader.session import SessionReader
from dreamlake.wire import ops
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake.writer import THIS_PROCESS, Writer
from dreamlake_agent.store.directory import Directory
from tests.golden import world
from tests.waiting import wait_for

FAR = {**processes.myself(), "host": "node7", "boot": "another", "machine": "m7", "endpoint": "ipc:///x"}


class Owner:
    """The directory, kept by whoever ``who`` is; it does only what it is told."""

    def __init__(self, path: Path, who: dict[str, Any] = FAR) -> None:
        self.directory: Directory = world._open(path, who)
        self.who = who

    def take_in(self) -> None:
        """What stands in the journals, committed and not covered."""
        for journal in self.directory.seen():
            while (found := self.directory.journals.follow(journal.client, 1 << 20))[0]:
                self.directory.apply(journal.client, *found)
                self.directory.commit()
        self.directory.settle()

    def cover(self) -> None:
        self.directory.views.write(self.directory.state)
        world._cover(self.directory)

    def drop(self, client: bytes) -> None:
        assert self.directory.drop_journal(client)
        self.cover()

    def close(self) -> None:
        self.directory.close()


class Client:
    """A writer and its link, on a node without an agent. Time is what it is told."""

    def __init__(self, path: Path, spool: str | None = None) -> None:
        def nobody() -> str:
            raise OSError("no agent can be started")

        def begin_anew(_conversation: Conversation) -> None:
            self.begun_anew += 1
            self.writer.begin_anew()

        self.begun_anew, self.now = 0, 1000.0
        self.board = Switchboard(mock.Mock(), lambda: None, nobody, begin_anew)
        opening = {"name": "run", "workspace": "project"}
        self.writer = Writer(
            str(path), opening, b"{}", process=replace(THIS_PROCESS, link=lambda: self, spool=lambda: spool)
        )
        self.writer.connect()

    def add(self, conversation: Conversation) -> None:
        self.board.conversations[conversation.journal.client] = conversation

    def remove(self, conversation: Conversation) -> None:
        self.board.conversations.pop(conversation.journal.client, None)

    @property
    def conversation(self) -> Conversation:
        return self.writer.conversation

    def log(self, *messages: str) -> None:
        for message in messages:
            self.writer.put(ops.LOG, "info", message, None, None)

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.board.turn(self.now)

    def flush(self) -> FlushRequest:
        request = self.conversation.request_flush()
        self.turn()
        return request


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "root" / "project" / "run"


@pytest.fixture
def client(path: Path) -> Iterator[Client]:
    client = Client(path)
    yield client
    if client.writer.journal._segments:
        client.writer.close()


@pytest.fixture
def owner(client: Client, path: Path) -> Iterator[Owner]:
    owner = Owner(path)
    yield owner
    owner.close()


def messages(path: Path) -> list[str]:
    with SessionReader(str(path)) as reader:
        return [row["message"] for row in reader.logs()]


def segments(path: Path, client: Client) -> list[str]:
    return sorted(each for each in os.listdir(path / ".dreamlake/journals") if each.startswith(_name(client)))


def _name(client: Client) -> str:
    return client.writer.journal.client.hex()


def test_a_flush_returns_when_a_checkpoint_covers_it_and_not_when_it_is_committed(client: Client, owner: Owner) -> None:
    client.log("one", "two")
    request = client.flush()
    owner.take_in()
    for _ in range(10):
        client.turn(1.0)
    assert not request.done.is_set()
    owner.cover()
    client.turn(1.0)
    assert request.done.is_set()
    assert request.problem is None
    assert client.conversation.unacked == 0
    assert client.writer.journal.covered == client.writer.journal.end
    assert client.conversation.origin == world.ORIGIN
    client.log("three")
    later, remote = client.flush(), client.conversation.request_flush(remote=True)
    client.turn(10.0)
    assert not later.done.is_set()
    owner.take_in()
    owner.cover()
    client.turn(1.0)
    assert later.done.is_set()
    assert not remote.done.is_set()  # a checkpoint says nothing of servers


def test_nobody_follows_an_owner_of_this_node_or_one_that_let_go(client: Client, path: Path) -> None:
    owner = Owner(path, {**FAR, **processes.myself()})
    client.log("one")
    owner.take_in()
    owner.cover()
    request = client.flush()
    client.turn(20.0)
    assert not client.conversation.is_afar
    owner.close()
    Owner(path).close()
    client.turn(20.0)
    assert not request.done.is_set()
    assert not client.conversation.is_afar
    assert client.writer.journal.synced == 0


def test_what_is_written_is_shown_within_a_second_and_that_somebody_lives_every_ten(
    client: Client, owner: Owner, path: Path
) -> None:
    client.log("one")
    client.turn(1.0)
    journal = client.writer.journal
    assert journal.synced == journal.end
    client.log("two")
    client.turn(0.5)
    assert journal.synced < journal.end
    client.turn(0.5)
    assert journal.synced == journal.end
    owner.take_in()
    owner.cover()
    client.turn(1.0)
    assert not client.conversation.is_busy()
    (name,) = segments(path, client)
    file = path / ".dreamlake/journals" / name
    for _ in range(3):
        os.utime(file, ns=(0, 0))
        client.turn(config.BEAT_SECONDS - 1)
        client.turn(1.0)
        assert file.stat().st_mtime_ns > 0


def test_while_somebody_waits_it_looks_more_often(client: Client, owner: Owner) -> None:
    client.turn(1.0)
    client.log("one")
    request = client.flush()
    client.turn(config.SCAN_SECONDS / 4)
    assert client.writer.journal.synced == client.writer.journal.end
    owner.take_in()
    owner.cover()
    client.turn(config.SCAN_SECONDS / 4)
    assert request.done.is_set()


@pytest.mark.parametrize("change", [(1 << 20, 0), (-5, 0), (0, 1)])
def test_a_checkpoint_that_does_not_fit_the_journal_covers_nothing(
    change: tuple[int, int], client: Client, owner: Owner, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.log("one", "two")
    owner.take_in()
    owner.cover()
    checkpoint = read_checkpoint(REAL_DISK, client.writer.at)
    assert checkpoint is not None
    key = client.writer.journal.client
    position, running = checkpoint.clients[key]
    checkpoint.clients[key] = (position + change[0], running + change[1])
    (path / CHECKPOINT).write_bytes(encode_checkpoint(checkpoint))
    request = client.flush()
    for _ in range(10):
        client.turn(1.0)
    assert not request.done.is_set()
    assert client.writer.journal.covered == 0
    assert client.conversation.trouble
    assert len(caplog.records) == 1
    checkpoint.clients[key] = (position, running)
    (path / CHECKPOINT).write_bytes(encode_checkpoint(checkpoint))
    client.turn(1.0)
    assert request.done.is_set()
    assert client.conversation.trouble is None


def test_a_checkpoint_that_looks_as_it_did_is_read_all_the_same_after_a_while(
    client: Client, owner: Owner, path: Path
) -> None:
    owner.take_in()
    owner.cover()
    client.turn(1.0)
    client.log("one")
    before = (path / CHECKPOINT).stat()
    owner.take_in()
    owner.cover()
    fstat, at = type(REAL_DISK).fstat, before.st_ino
    now = (path / CHECKPOINT).stat()

    def of_before(self: Any, fd: int) -> Any:
        found = fstat(self, fd)
        if found.ino != now.st_ino:
            return found
        return replace(found, ino=at, size=before.st_size, mtime_ns=before.st_mtime_ns)

    with mock.patch.object(type(REAL_DISK), "fstat", of_before):
        request = client.flush()
        client.turn(1.0)
        assert not request.done.is_set()
        client.turn(5.0)
    assert request.done.is_set()


@pytest.mark.parametrize("damage", [lambda data: bytes(len(data)), lambda data: data[:-3], lambda data: b""])
def test_a_checkpoint_that_is_not_whole_here_yet_is_read_again(
    damage: Callable[[bytes], bytes], client: Client, owner: Owner, path: Path
) -> None:
    client.log("one")
    owner.take_in()
    owner.cover()
    data = (path / CHECKPOINT).read_bytes()
    (path / CHECKPOINT).write_bytes(damage(data))
    request = client.flush()
    client.turn(1.0)
    assert not request.done.is_set()
    (path / CHECKPOINT).write_bytes(data)
    client.turn(1.0)
    assert request.done.is_set()


def test_what_is_covered_goes_only_once_the_checkpoint_survives_power_loss(path: Path) -> None:
    with mock.patch.object(journal_module, "SEGMENT_BYTES", 300):
        client, owner = Client(path), Owner(path)
        client.log(*(f"{number} " + "x" * 100 for number in range(9)))
    assert len(segments(path, client)) > 3
    client.turn(1.0)  # its own fsync
    owner.take_in()
    owner.cover()
    fsync, folder = os.fsync, os.stat(path / ".dreamlake").st_ino

    def fails(fd: int) -> None:
        if os.fstat(fd).st_ino == folder:
            raise OSError(errno.EIO, "no")
        fsync(fd)

    before = segments(path, client)
    with mock.patch.object(type(REAL_DISK), "fsync", staticmethod(fails)):
        client.turn(6.0)
    assert segments(path, client) == before
    client.turn(6.0)
    assert len(segments(path, client)) == 1
    client.writer.close()
    owner.close()


def test_an_fsync_that_fails_disturbs_no_call_and_is_said_once(
    client: Client, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, "the disk says no")

    request = client.flush()
    with mock.patch.object(type(REAL_DISK), "fsync", staticmethod(fails)):
        for number in range(10):
            client.log(str(number))
            client.turn(1.0)
    assert client.writer.lost == 0
    (record,) = caplog.records
    assert "durable" in record.getMessage()
    owner.take_in()  # a checkpoint makes it safe, as it does for any journal
    owner.cover()
    client.turn(1.0)
    assert request.done.is_set()
    client.log("after")
    client.turn(2.0)
    assert client.writer.journal.synced == client.writer.journal.end


# ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_has_closed_and_is_covered_takes_its_journal_away(client: Client, owner: Owner, path: Path) -> None:
    client.log("one")
    client.writer.put(ops.CLOSE, ops.FINISHED, None)
    request = client.flush()
    owner.take_in()
    owner.cover()
    client.turn(1.0)
    assert request.done.is_set()
    client.writer.close()
    assert segments(path, client) == []
    owner.take_in()
    owner.cover()
    assert messages(path) == ["one"]
    with SessionReader(str(path)) as reader:
        assert reader.session()["state"] == ops.FINISHED


@pytest.mark.parametrize("what", ["not closed", "not covered"])
def test_who_has_not_closed_or_is_not_covered_leaves_it(what: str, client: Client, owner: Owner, path: Path) -> None:
    client.log("one")
    if what == "not covered":
        owner.take_in()
        owner.cover()
        client.turn(1.0)
        client.writer.put(ops.CLOSE, ops.FINISHED, None)
    else:
        owner.take_in()
        owner.cover()
    client.turn(1.0)
    client.writer.close()
    assert segments(path, client) != []


def test_who_was_paused_after_its_close_until_the_owner_had_dropped_its_journal_has_ended(
    client: Client, owner: Owner, path: Path
) -> None:
    """Its file has no name any more, as if the directory had been removed; nothing is written twice."""
    client.turn(1.0)
    client.log("one")
    client.writer.put(ops.CLOSE, ops.FINISHED, None)
    request = client.conversation.request_flush()
    owner.take_in()
    owner.cover()
    owner.drop(client.writer.journal.client)
    client.turn(200.0)
    assert request.done.is_set()
    assert client.begun_anew == 0
    client.writer.close()
    owner.take_in()
    assert messages(path) == ["one"]


def test_who_was_paused_until_it_was_given_up_goes_on_in_a_new_journal(
    client: Client, owner: Owner, path: Path
) -> None:
    client.log("one")
    client.turn(1.0)
    client.turn(0.1)  # it sees its file's name
    owner.take_in()
    owner.cover()
    client.conversation.sender.acked = 0
    owner.drop(client.writer.journal.client)
    client.log("two")  # when it goes on: into a file without a name
    client.turn(86_400.0)
    assert client.begun_anew == 1
    client.log("three")
    request = client.flush()
    owner.take_in()
    owner.cover()
    client.turn(1.0)
    assert request.done.is_set()
    assert messages(path) == ["one", "two", "three"]


def test_a_journal_that_a_person_removed_is_written_again_from_what_is_covered(
    client: Client, owner: Owner, path: Path
) -> None:
    client.log("one")
    owner.take_in()
    owner.cover()
    client.turn(1.0)
    client.log("two")
    shutil.rmtree(path / ".dreamlake/journals")
    client.turn(1.0)
    assert client.begun_anew == 1
    owner.take_in()
    owner.cover()
    assert messages(path) == ["one", "two"]


def test_a_directory_that_is_removed_is_begun_anew_as_ever(client: Client, owner: Owner, path: Path) -> None:
    client.log("one")
    client.turn(1.0)
    shutil.rmtree(path)
    client.turn(1.0)
    assert client.begun_anew == 1
    assert messages(path) == ["one"]


def test_a_file_that_was_removed_on_another_node_is_gone(client: Client) -> None:
    def stale(self: Any, _fd: int) -> Any:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    assert not client.writer.journal.is_gone()
    with mock.patch.object(type(REAL_DISK), "fstat", stale):
        assert client.writer.journal.is_gone()


def test_a_spooled_journal_comes_home_for_an_owner_that_cannot_see_the_spool(tmp_path: Path, path: Path) -> None:
    spool = tmp_path / config.spool_name()
    spool.mkdir(mode=0o700)
    client = Client(path, str(spool))
    owner = Owner(path)
    try:
        client.log("one")
        assert segments(path, client) == [f"{_name(client)}.spool"]
        client.turn(1.0)
        assert segments(path, client) == [f"{_name(client)}.0"]
        request = client.flush()
        owner.take_in()
        owner.cover()
        client.turn(1.0)
        assert request.done.is_set()
        assert messages(path) == ["one"]
    finally:
        client.writer.close()
        owner.close()


def test_a_gone_seconds_that_is_none_is_the_agents_to_complain_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMLAKE_GONE", "soon")
    client = Client(path)
    client.log("one")
    client.turn(1.0)
    client.turn(20.0)
    client.writer.close()


def test_an_agent_of_this_node_that_sends_us_elsewhere_is_nothing_to_warn_of(
    client: Client, owner: Owner, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client.conversation._sent_elsewhere(client.now, None, "owned by pid 1 on node7")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert client.conversation.was_apart


def test_a_durable_flush_returns_after_what_the_link_is_making_durable(client: Client, path: Path) -> None:
    """The link has taken the captured files; the caller, who finds none left, must not return before they are safe."""
    writer = client.writer
    (path / ".dreamlake/incoming/file").write_bytes(b"weights")
    writer.remember_capture(writer.journal.end, ".dreamlake/incoming/file", "files/file")
    begun, go_on, tried, order = threading.Event(), threading.Event(), threading.Event(), list[str]()
    fsync, lock = os.fsync, writer._sync_lock

    def slow(fd: int) -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(20)
            order.append("made durable")
        fsync(fd)

    class Lock:
        def __enter__(self) -> None:
            if begun.is_set():
                tried.set()
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    writer._sync_lock = Lock()  # type: ignore[assignment]
    with mock.patch.object(type(REAL_DISK), "fsync", staticmethod(slow)):
        link = threading.Thread(target=writer.sync)
        link.start()
        assert begun.wait(20)
        caller = threading.Thread(target=lambda: (writer.sync(), order.append("returned")))
        caller.start()
        wait_for(lambda: tried.is_set() or not caller.is_alive())
        go_on.set()
        link.join()
        caller.join()
    assert order == ["made durable", "returned"]
