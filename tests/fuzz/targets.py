"""What is fuzzed: one function a format. Each takes bytes, drives the shipped code with what it makes of them, and
fails by raising: an exception that is not documented, or an assertion of what must hold whatever the bytes are."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from dreamlake.cli.sessions import summary
from dreamlake.conversation import Conversation
from dreamlake.journal import Journal
from dreamlake.link import Switchboard
from dreamlake.reader import late
from dreamlake.reader import lines as lines_module
from dreamlake.reader.baseline import DamagedView, read_baseline
from dreamlake.reader.commits import (
    CHECKPOINT,
    COMMITS,
    commits_seed,
    encode_checkpoint,
    read_checkpoint,
    read_commits,
)
from dreamlake.reader.lines import Lines
from dreamlake.reader.owners import OWNER
from dreamlake.reader.segments import JOURNALS, is_torn, journals, parse_name, read_stream, runs
from dreamlake.reader.session import SessionReader
from dreamlake.wire import codec, jsons, messages, names, ops
from dreamlake.wire.applied import LINE_BYTES_MAX, Applied
from dreamlake.wire.apply import apply_run
from dreamlake.wire.state import HISTORIES, State, fold, track_view, view
from dreamlake.world import processes
from dreamlake_agent.store.directory import Directory, Unseen
from dreamlake_agent.store.owner import OwnedElsewhere, acquire, origin_of, release
from tests.fuzz.choices import Choices
from tests.fuzz.folders import (
    DISK,
    Folder,
    check_no_row_is_lost,
    damaged,
    folder,
    framed,
    packed,
)
from tests.fuzz.parties import WHO, AgentProcess
from tests.golden import world
from tests.sim.disk import SimDisk

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    TARGETS[function.__name__] = function
    return function


def strictly(data: bytes) -> Any:
    """The value of what everybody else takes for JSON, too."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    # A string of digits of any length is JSON; that Python refuses to read it is no fault of the writer.
    return json.loads(data.decode(), parse_constant=refuse, parse_int=lambda digits: digits)


# ── the wire ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _frames(data: bytes) -> list[bytes]:
    choices = Choices(data)
    count = choices.below(4)
    return [choices.blob() for _ in range(max(0, count - 1))] + ([choices.rest()] if count else [])


@target
def message_to_agent(data: bytes) -> None:
    try:
        message, _body = messages.decode_from_client(_frames(data))
    except messages.Unreadable:
        return
    if message[0] in (messages.STATUS, messages.STOP):
        messages.encode((messages.REPORT, message[1], b"{}"))
    else:
        messages.encode((messages.WHO, message[1]))


class _Line:
    def __init__(self) -> None:
        self.coming: list[list[bytes]] = []

    def receive(self) -> list[bytes] | None:
        return self.coming.pop(0) if self.coming else None

    def send(self, frames: list[bytes]) -> bool:
        messages.decode_from_client(frames)
        return True

    def close(self) -> None:
        pass


def _turn(board: Switchboard, now: float) -> None:
    try:
        board.turn(now)
    except OSError:
        pass  # of the journal: the link pauses and goes on


@target
def messages_to_client(data: bytes) -> None:
    """A client that is told anything goes on: it raises nothing, sends what can be read, and its journal stays."""
    choices = Choices(data)
    disk = SimDisk(Random(0)).process(1)
    disk.mkdirs(JOURNALS, disk.root("/"))
    journal = Journal(disk, disk.root("/"), world.ALICE, 1, {})
    line = _Line()
    board = Switchboard(lambda endpoint: line, lambda: "ipc://a", lambda: "ipc://a", lambda conversation: None)
    conversation = Conversation(journal, {"path": "/", "dev": 1, "ino": 1, "by": {}})
    board.conversations[world.ALICE] = conversation
    now = 1000.0
    for _ in range(20):
        journal.append((ops.LOG, 1, "info", "x" * 100, None, None))
        conversation.request_flush()
        _turn(board, now)
        now += 0.3
        if not choices.more:
            break
        line.coming.append([choices.blob()])
    # And an agent that makes sense again is understood again.
    welcome = (messages.WELCOME, world.ALICE, 0, codec.seed(world.ALICE), 0, 1 << 20, world.ORIGIN, b"\0" * 8)
    if conversation.journal.covered == 0 and not conversation.gone and world.ALICE in board.conversations:
        for _ in range(40):  # it may stay apart for some seconds
            now += 0.5
            line.coming.append(messages.encode(welcome))
            _turn(board, now)
        assert conversation.sender.sent == journal.end, "a client that was told nonsense sends nothing any more"
    for ordinal in (0, 5, 2**63):
        conversation.index_of("loss", ordinal)


@target
def records(data: bytes) -> None:
    running = codec.seed(world.ALICE)
    if data[:1] == b"\1":  # sound frames around anything
        choices = Choices(data[1:])
        payloads = [choices.blob() or b"\0" for _ in range(20) if choices.more]
        data = framed(payloads, running)
        assert codec.whole_records(data, running)[::2] == (len(data), False)
    end, after, _damaged = codec.whole_records(data, running)
    assert 0 <= end <= len(data)
    assert after == codec.run_on(data[:end], running)
    assert len(codec.operations(data[:end])) == sum(1 for _ in codec.records(data[:end], running))
    codec.operations(data)  # a client may send what is no record at all
    try:
        codec.unpack(data)
    except codec.Damaged:
        pass


# ── operations ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _opening(client: bytes) -> ops.Op:
    return (ops.OPEN, 1, {"workspace": "w", "name": "s", "pid": 1, "host": "h", "rank": 0}, b"{}")


def _check_applied(state: State, out: Applied) -> None:
    for log in out.rows:
        parts = log.split("/")
        assert not {"..", ""} & set(parts), log
        assert "\0" not in log
        assert log in HISTORIES or parts[0] in ("logs", "tracks"), log
        assert out.rows[log][-1].endswith(b"\n")
        for line in out.lines(log):
            assert len(line) < LINE_BYTES_MAX
            assert isinstance(strictly(line), dict)
            assert isinstance(jsons.loads(line), dict), "a reader passes this row over"
    for path in (*(track_view(name) for name in state.tracks), *out.stale):
        shown = view(state, path)
        if shown is not None:
            assert isinstance(strictly(jsons.pretty(shown)), dict)
    numbers = (1 << 40, 1 << 40, 1 << 20)
    head = messages.encode((messages.ACK, b"\0" * 16, *numbers, out.placed, list(out.refused.items())))
    if len(head[0]) <= messages.HEAD_BYTES_MAX:
        messages.decode_from_agent(head)


@target
def operations(data: bytes) -> None:
    """Any msgpack values as a client's operations: each is applied or refused, and a refused one changes nothing."""
    try:
        given = codec.unpack(data)
    except codec.Damaged:
        return
    run = list(given) if isinstance(given, tuple) else [given]
    client = world.ALICE if len(data) % 7 else world.AGENT
    if client == world.ALICE:
        run.insert(0, _opening(client))
    state = State(world.ORIGIN)
    apply_run(state, world.BOB, [_opening(world.BOB)], Applied())
    other, whole = State(world.ORIGIN), Applied()
    apply_run(other, world.BOB, [_opening(world.BOB)], whole)
    out = Applied()
    for position, op in enumerate(run):
        before = _picture(state)
        alone = Applied()
        apply_run(state, client, [op], alone)
        _check_applied(state, alone)
        if alone.refused:
            assert not any(alone.rows.values()), "a refused operation left a row"
            assert _picture(state) == before, f"a refused operation changed the state: {alone.refused}"
            out.refused[position] = alone.refused[0]
        for log, lines in alone.rows.items():
            out.rows.setdefault(log, []).extend(lines)
    # The same run at once, as replay does it, comes to the same rows.
    replayed = Applied()
    apply_run(other, client, run, replayed, set(out.refused))
    assert {log: replayed.lines(log) for log in replayed.rows} == {log: out.lines(log) for log in out.rows}
    assert _picture(other) == _picture(state)
    # A reader folds the histories' rows to the same views.
    read = State(world.ORIGIN)
    for log in HISTORIES:
        for line in (*whole.lines(log), *out.lines(log)):
            fold(read, log, jsons.loads(line))
    for path in ("session.json", "parameters.json", "files/.files_metadata.json"):
        one, two = view(read, path), view(state, path)
        assert (one and jsons.pretty(one)) == (two and jsons.pretty(two)), path


def _picture(state: State) -> str:
    """Everything in a state, in order. A tail's time and the order of keys are part of it."""
    return repr(_plainly(state))


def _plainly(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plainly(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return [[repr(key), _plainly(inner)] for key, inner in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None  # JSON's rows say null, replay reads null
    return value if isinstance(value, (str, int, type(None))) else repr(value)


# ── names and JSON ──────────────────────────────────────────────────────────────────────────────────────────────────


@target
def some_names(data: bytes) -> None:
    """Whatever a name says, its place is below the folder it belongs to, and is no other name's."""
    choices = Choices(data)
    one = choices.blob().decode("utf-8", "surrogateescape")
    two = choices.rest().decode("utf-8", "surrogateescape")
    found: dict[str, list[str | None]] = {"folder": [], "track": []}
    for name in (one, two):
        for kind, make in (("folder", lambda text: names.folder_of("name", text)), ("track", names.track_folder)):
            try:
                place = make(name)
            except ValueError:
                found[kind].append(None)
                continue
            found[kind].append(place)
            _check_place(place)
            assert "/" not in place or kind == "track"
            assert not (kind == "track" and {"data.jsonl", "metadata.json", ".dreamlake"} & set(place.split("/")))
            if kind == "folder":
                assert names.name_of(place) == name
        names.name_of(name)
    if one != two:
        for first, second in found.values():
            assert first is None or first != second, f"{one!r} and {two!r} share {first!r}"
    try:
        place = names.file_place(one, two)
    except ValueError:
        return
    _check_place(place)
    assert place.split("/")[0] not in (".files_metadata.json", ".files_metadata.json.tmp")


def _check_place(place: str) -> None:
    os.fsencode(place)
    assert "\0" not in place
    assert not place.startswith("/")
    assert os.path.normpath(place) == place
    assert ".." not in place.split("/")
    assert all(len(part.encode()) <= 255 for part in place.split("/"))


@target
def some_json(data: bytes) -> None:
    if jsons.is_object(data):
        assert isinstance(strictly(data), dict)
        assert b"\n" not in data
    try:
        found = jsons.loads(data)
    except ValueError:
        found = None
    if isinstance(found, dict):
        jsons.restore(found, [str(key) for key in found])
        jsons.restore(found, ["lr.\u00b2", "a.0.0", "a." * 50, "data.0", "0.0", "d." * 400])
        _encoded(found)
    try:
        found = codec.unpack(data)
    except codec.Damaged:
        return
    if isinstance(found, dict):
        _encoded(found)


def _encoded(fields: dict[Any, Any]) -> None:
    try:
        line, nonfinite = jsons.encode_fields(fields)
    except TypeError:
        return  # the documented answer to what JSON cannot hold
    assert jsons.is_object(line), "the agent would refuse what the client took"
    strictly(line)
    jsons.restore(jsons.loads(line), nonfinite)


# ── files of records and of lines ───────────────────────────────────────────────────────────────────────────────────


def _stream(data: bytes, running: int) -> bytes:
    """The bytes as they are, or (after a first byte of 1) as the payloads of sound records."""
    if data[:1] != b"\1":
        return data
    choices = Choices(data[1:])
    return framed([choices.blob() or b"\0" for _ in range(20) if choices.more], running)


def _at(into: Folder, path: str, data: bytes) -> int:
    into.fill({path: data})
    return DISK.root(str(into.path))


@target
def segments(data: bytes) -> None:
    """A journal: a header that says anything, then a stream that may go on in a second segment."""
    choices = Choices(data)
    seed = codec.seed(world.ALICE)
    first, second = choices.blob(), choices.blob()
    one = framed([first], seed) if first else b""
    two = framed([second], seed) if second else b""
    body = _stream(choices.rest(), seed)
    name = f"{JOURNALS}/{world.ALICE.hex()}"
    with folder() as into:
        into.fill({f"{name}.0": one + body, f"{name}.1": two + body})
        at = DISK.root(str(into.path))
        try:
            for segment in journals(DISK, at).get(world.ALICE, []):
                assert segment.number in (0, 1)
                assert min(segment.base, segment.size) >= 0
                processes.verdict(segment.by)
            found = journals(DISK, at).get(world.ALICE, [])
            for position in (0, 1, 7, 2**40):
                assert len(read_stream(DISK, at, found, position, 1 << 20)) <= len(one) + len(body) + len(two)
            if found:
                total = sum(len(run) for run, _, _ in runs(DISK, at, found, 0, seed, 1 << 10))
                assert total <= 2 * len(body)
            for entry in DISK.listdir(JOURNALS, at):
                is_torn(DISK, at, entry)
                assert parse_name(entry) is not None
        finally:
            DISK.close(at)


@target
def checkpoint(data: bytes) -> None:
    with folder() as into:
        at = _at(into, CHECKPOINT, _stream(data, codec.seed(b"dreamlake checkpoint")))
        try:
            found = read_checkpoint(DISK, at)
        except codec.Damaged:
            return
        finally:
            DISK.close(at)
        # What was read can be written again, and is read as the same.
        assert found is not None
        at = _at(into, CHECKPOINT, encode_checkpoint(found))
        try:
            assert read_checkpoint(DISK, at) == found
        finally:
            DISK.close(at)


@target
def commits(data: bytes) -> None:
    with folder() as into:
        at = _at(into, COMMITS, _stream(data, commits_seed(world.ORIGIN)))
        try:
            found = read_commits(DISK, at, world.ORIGIN)
        finally:
            DISK.close(at)
    if found is not None:
        for client, position in found.clients.items():
            assert [type(client), *map(type, position)] == [bytes, int, int]
        for number, commit in enumerate(found.commits):
            assert commit.seq == found.seq + number
            for run in commit.runs:
                assert type(run.client) is bytes
                assert run.start >= 0
                set(run.refused)
        assert len(found.ends) == len(found.commits) + 1
        found.end_before(found.seq), found.end_before(0), found.end_before(2**70)


@target
def lines(data: bytes) -> None:
    """A log: every way of reading it tells of the same rows, whatever the size of a chunk."""
    with folder() as into:
        at = _at(into, "logs/logs.jsonl", data)
        try:
            whole = list(Lines(DISK, at, "logs/logs.jsonl").rows())
            with (
                mock.patch.object(lines_module, "_CHUNK_BYTES", 7),
                mock.patch.object(lines_module, "_SEARCH_ABOVE_BYTES", 16),
            ):
                log = Lines(DISK, at, "logs/logs.jsonl")
                same = list(log.rows())
                assert _same(same, whole)
                assert _same([row for row in [log.first()] if row is not None], whole[:1])
                for count in (1, 3):
                    assert _same(log.last(count), whole[-count:] if whole else [])
                for first in (0, 1, 5, 2**70):
                    log.page("sequenceNumber", first, 3)
                if _ascending(whole):
                    for first in range(len(whole) + 1):
                        wanted = [row for row in whole if row["sequenceNumber"] >= first][:3]
                        assert _same(log.page("sequenceNumber", first, 3), wanted)
            shorter = Lines(DISK, at, "logs/logs.jsonl", len(data) // 2, [b'{"sequenceNumber":9}'])
            assert list(shorter.rows())[-1:] == [{"sequenceNumber": 9}]
            assert shorter.last(1) == [{"sequenceNumber": 9}]
        finally:
            DISK.close(at)


def _same(one: list[Any], two: list[Any]) -> bool:
    return list(map(repr, one)) == list(map(repr, two))


def _ascending(rows: list[dict[str, Any]]) -> bool:
    numbers = [row.get("sequenceNumber") for row in rows]
    return all(type(number) is int for number in numbers) and numbers == sorted(numbers)


@target
def owner(data: bytes) -> None:
    """The records of who owns a directory, and of which it is."""
    choices = Choices(data)
    origin = choices.blob()
    with folder() as into:
        into.fill({OWNER: choices.rest(), ".dreamlake/origin": origin, "session.json": b"{}"})
        with mock.patch.object(late, "LATE_SECONDS", 0.0), SessionReader(str(into.path), DISK) as reader:
            reader.origin(), reader.owner(), reader.session()
        at = DISK.root(str(into.path))
        try:
            try:
                owned = acquire(DISK, at, WHO, "0" * 8)
            except OwnedElsewhere as elsewhere:
                str(elsewhere).encode()
                return
            packed(owned.epoch)
            with suppress(OSError):  # larger than any origin
                found = origin_of(owned, world.ORIGIN)
                assert len(bytes.fromhex(found)) == 16
            release(owned, WHO)
            with SessionReader(str(into.path), DISK) as reader:
                assert reader.owner() is None
        finally:
            DISK.close(at)


# ── directories ─────────────────────────────────────────────────────────────────────────────────────────────────────


@target
def baseline(data: bytes) -> None:
    """A directory as a first owner finds it: what is taken over can be shown."""
    with folder() as into:
        damaged(into, Choices(data))
        at = DISK.root(str(into.path))
        try:
            base = read_baseline(DISK, at, world.ORIGIN)
            for log, row in base.imports:
                assert isinstance(strictly(jsons.encode(row)), dict), log
            for path in ("session.json", "parameters.json", "files/.files_metadata.json"):
                shown = view(base.state, path)
                assert shown is None or strictly(jsons.pretty(shown)) is not None
            for name in base.state.tracks:
                strictly(jsons.pretty(view(base.state, track_view(name))))
        except (DamagedView, OSError):
            pass
        finally:
            DISK.close(at)
        into.check_nothing_was_written_outside()


@target
def reading(data: bytes) -> None:
    """Somebody reads a damaged directory: answers or documented exceptions, and not a byte is written."""
    with folder() as into:
        damaged(into, Choices(data))
        before = _everything(into.path)
        with mock.patch.object(late, "LATE_SECONDS", 0.0):  # what is damaged will not come
            _read_all(into)
        assert _everything(into.path) == before
        into.check_nothing_was_written_outside()


def _everything(path: Path) -> list[tuple[str, int, int]]:
    found = []
    for base, folders, inside in os.walk(path):
        for name in (*folders, *inside):
            stat = (Path(base) / name).lstat()
            found.append((str(Path(base) / name), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def _read_all(into: Folder) -> None:
    try:
        summary(str(into.path))
        reader = SessionReader(str(into.path), DISK)
    except (DamagedView, OSError, codec.Damaged):
        return
    with reader:
        ways: list[Callable[[], Any]] = [
            reader.session,
            reader.parameters,
            reader.logs,
            lambda: reader.logs(1, 2),
            lambda: reader.last_logs(2),
            reader.log_count,
            reader.files,
            lambda: [DISK.close(reader.open_file(record)) for record in reader.files()],
            reader.owner,
            reader.origin,
        ]
        try:
            for name in reader.tracks():
                ways += [
                    lambda name=name: reader.track(name),
                    lambda name=name: reader.stats(name),
                    lambda name=name: reader.points(name),
                    lambda name=name: reader.points(name, 1, 1),
                    lambda name=name: reader.last_point(name),
                ]
        except OSError:
            pass
        for way in ways:
            try:
                way()
            except (DamagedView, OSError):
                pass


@target
def store(data: bytes) -> None:
    """The next owner of a damaged directory: it opens, or says why not, and no row that stood there is lost."""
    with folder() as into:
        damaged(into, Choices(data))
        before = into.logs()
        found = into.path.stat()
        key = (found.st_dev, found.st_ino)
        if _recovered(into, key):
            check_no_row_is_lost(before, into)
            # What one owner left, the next takes as it is.
            logs = into.logs()
            assert _recovered(into, key), "a directory that was recovered does not open again"
            assert into.logs() == logs, "a second recovery of a directory at rest changed its logs"
        into.check_nothing_was_written_outside()


def _recovered(into: Folder, key: tuple[int, int]) -> bool:
    """Do what an owner does at most; whether all of it went well. Only documented exceptions are an answer."""
    try:
        directory = Directory.open(DISK, str(into.path), key, WHO, world.ORIGIN)
    except (DamagedView, Unseen, OSError):
        return False
    try:
        for journal in directory.seen():
            while not directory.journals.is_finished(journal.client):
                data, running = directory.journals.follow(journal.client, 1 << 18)
                if not data:
                    break
                directory.apply(journal.client, data, running)
                directory.commit()
        directory.settle()
        for client, known in list(directory.state.clients.items()):
            if known.state == ops.RUNNING:
                directory.say((ops.KILLED, 1, bytes.fromhex(client)), world.NEXT_AGENT, 1, WHO)
        directory.commit()
        directory.views.write(directory.state)
        _cover(directory)
        for client in list(directory.journals.segments):
            directory.drop_journal(client)
        _cover(directory)
        directory.take_warnings()
        directory.is_settled()
    except OSError as error:
        if error.errno == errno.EBADF:
            raise AssertionError("a descriptor was used after its end") from error
        return False
    finally:
        directory.close()
    return True


def _cover(directory: Directory) -> None:
    found, _sizes, job = directory.checkpoint_job()
    job()
    directory.checkpointed(found)


@target
def recovery(data: bytes) -> None:
    """A whole agent that was told of a damaged directory: it lets it go or tries again, and ends when it is told to."""
    with folder() as into:
        damaged(into, Choices(data))
        before = into.logs()
        found = into.path.stat()
        agent = AgentProcess(DISK)
        agent.remember(str(into.path), (found.st_dev, found.st_ino))
        agent.rest()
        troubled = bool(agent.core.sessions) or agent.core.last_error is not None
        agent.stop()
        if not troubled:
            check_no_row_is_lost(before, into)
        into.check_nothing_was_written_outside()


# ── a whole agent ───────────────────────────────────────────────────────────────────────────────────────────────────


@target
def agent(data: bytes) -> None:
    """Clients that say anything in any order to a whole agent on the pretend disk. It answers, and it ends in time."""
    choices = Choices(data)
    disk = SimDisk(Random(0))
    path = "/runs/w/s"
    disk.mkdirs(f"{path}/{JOURNALS}")
    party = AgentProcess(disk.process(1))
    user = disk.process(2)
    at = user.root(path)
    here = user.fstat(at)
    streams: dict[bytes, tuple[int, int]] = {}
    for _ in range(60):
        if not choices.more:
            break
        peer = choices.one_of((b"p1", b"p2"))
        client = choices.one_of((world.ALICE, world.BOB, world.AGENT))
        start, running = streams.get(client, (0, codec.seed(client)))
        kind = choices.below(12)
        body: bytes | None = None
        message: tuple[Any, ...] | None = None
        if kind <= 1:
            message = (messages.HELLO, client, {"path": path, "dev": here.dev, "ino": here.ino, "by": {}})
        elif kind == 2:
            message = (messages.HELLO, client, {"path": path, "dev": choices.odd(raw=True), "ino": 1, "by": None})
        elif kind == 3:
            body, after = codec.frame(choices.blob() or b"\0", running)
            message = (messages.DATA, client, start, running, after)
            streams[client] = (start + len(body), after)
        elif kind == 4:
            op = choices.one_of(tuple(world.OPERATIONS.values()))
            body, after = codec.frame(packed(op), running)
            message = (messages.DATA, client, start, running, after)
            streams[client] = (start + len(body), after)
        elif kind == 5:
            body = choices.blob()
            message = (messages.DATA, client, start, running, codec.run_on(body, running))
            streams[client] = (start + len(body), codec.run_on(body, running))
        elif kind == 6:
            message = (choices.one_of((messages.HAVE, messages.DATA)), client, *(choices.number(8) for _ in range(3)))
            message = message[:4] if message[0] == messages.HAVE else message
        elif kind == 7:
            end = choices.one_of((start, 0, 2**63))
            message = (messages.FLUSH, client, choices.number(1), end, choices.below(2), choices.below(2))
        elif kind == 8:
            message = (choices.one_of((messages.LEAVE, messages.WHO, messages.STATUS)), client)
        elif kind == 9:
            party.hub.coming.append((peer, _frames(choices.blob())))
        elif kind == 10:
            party.lives = not party.lives
            party.turn(choices.one_of((0.1, 1.1, 4.0)))
        else:
            with suppress(OSError):  # it is gone already, or a file stands in the way
                (disk.remove_tree if choices.below(2) else disk.mkdirs)(f"{path}/{choices.one_of(_PLACES)}")
        if message is not None:
            try:
                party.hub.coming.append((peer, messages.encode(message, body)))
            except (OverflowError, ValueError, TypeError):
                continue
        if choices.below(2):
            party.turn()
    user.close(at)
    party.turn()
    party.stop()


_PLACES = (".dreamlake", JOURNALS, "logs", "tracks/loss/data.jsonl", "session.json", "tracks/train")


@target
def outside(data: bytes) -> None:
    """Operations with hostile names, through the store to the real disk: nothing leaves the directory."""
    try:
        given = codec.unpack(data)
    except codec.Damaged:
        return
    run = [_opening(world.ALICE), *(given if isinstance(given, tuple) else (given,))]
    with folder() as into:
        into.fill({"tracks/link/x": b""})
        (into.path / "tracks" / "out").symlink_to(into.outside / "folder")
        (into.path / "files").mkdir()
        (into.path / "files" / "out").symlink_to(into.outside / "folder")
        incoming = f"{world.ALICE.hex()}-f0"
        (into.path / ".dreamlake" / "incoming" / incoming).write_bytes(b"captured")
        found = into.path.stat()
        directory = Directory.open(DISK, str(into.path), (found.st_dev, found.st_ino), WHO, world.ORIGIN)
        try:
            stream = framed([packed(op) for op in run], codec.seed(world.ALICE))
            directory.apply(world.ALICE, stream, codec.run_on(stream, codec.seed(world.ALICE)))
            directory.commit()
            directory.views.write(directory.state)
        except OSError:
            pass  # a name that leads through a link, or into a file
        finally:
            directory.close()
        into.check_nothing_was_written_outside()
