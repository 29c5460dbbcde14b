"""The bytes of version 1: read to the same values for ever, and made by today's encoders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dreamlake.reader.commits import CHECKPOINT, COMMITS, read_checkpoint, read_commits
from dreamlake.reader.segments import JOURNALS, read_segment, read_stream, segment_path
from dreamlake.wire import codec, messages, ops
from dreamlake.world.disk import REAL_DISK
from tests.golden import make, world

V1 = make.HERE / "v1"
# Since 0.4 the rows of a session with ranks say which one wrote them, and commits.log by which rules that was done.
RANKS = "v1-ranks"
VERSIONS = ["v1", RANKS]
OPERATIONS = make.read_table(V1 / "operations.txt")
MESSAGES = make.read_table(V1 / "messages.txt")


def hex_file(name: str, version: str = "v1") -> bytes:
    return make.unhex((make.HERE / version / name).read_text("ascii"))


def as_tuples(value: object) -> object:
    """msgpack has one kind of list; ours come back as tuples."""
    if isinstance(value, (list, tuple)):
        return tuple(map(as_tuples, value))
    if isinstance(value, dict):
        return {key: as_tuples(inner) for key, inner in value.items()}
    return value


def at_root(tmp_path: Path, path: str, data: bytes) -> int:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(data)
    return REAL_DISK.root(str(tmp_path))


# ── operations and messages ─────────────────────────────────────────────────────────────────────────────────────────


def test_there_is_one_of_every_kind() -> None:
    kinds = {value for name, value in vars(ops).items() if name.isupper() and type(value) is int and 0 < value < 100}
    assert {op[0] for op in world.OPERATIONS.values()} == kinds
    said = {message[0] for message, _ in world.MESSAGES.values()}
    assert said == {value for name, value in vars(messages).items() if name.isupper() and isinstance(value, str)}
    assert list(OPERATIONS) == list(world.OPERATIONS)
    assert list(MESSAGES) == list(world.MESSAGES)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_read_as_it_was_meant(name: str) -> None:
    (data,) = OPERATIONS[name]
    found = codec.unpack(data)
    assert found == as_tuples(world.OPERATIONS[name])
    assert ops.check(found) is found


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_written_as_ever(name: str) -> None:
    assert [codec.packer().pack(world.OPERATIONS[name])] == OPERATIONS[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_read_as_it_was_meant(name: str) -> None:
    message, body = world.MESSAGES[name]
    assert messages.decode(MESSAGES[name]) == (as_tuples(message), body or b"")
    if message[0] in messages.CLIENT_KINDS:
        assert messages.decode_from_client(MESSAGES[name]) == (as_tuples(message), body or b"")
    elif message[0] != messages.REPORT:  # that is for a command line
        assert messages.decode_from_agent(MESSAGES[name]) == (as_tuples(message), body or b"")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_written_as_ever(name: str) -> None:
    assert messages.encode(*world.MESSAGES[name]) == MESSAGES[name]


# ── files of records ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_journal_segment_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = at_root(tmp_path, segment_path(world.ALICE, 1), hex_file("segment.hex"))
    try:
        found = read_segment(REAL_DISK, root, f"{world.ALICE.hex()}.1")
        assert found is not None
        assert (found.client, found.number, found.base, found.running) == (world.ALICE, 1, 1 << 24, 0x12345678)
        assert (found.made, found.by) == (world.EPOCH, world.RANKS[world.ALICE])
        data = read_stream(REAL_DISK, root, [found], found.base, found.size)
        assert codec.whole_records(data, found.running)[::2] == (found.size, False)
        assert codec.operations(data) == [as_tuples(op) for op in world.OPERATIONS.values()]
    finally:
        REAL_DISK.close(root)


@pytest.mark.parametrize(("version", "rules"), [("v1", 1), (RANKS, 2)])
def test_commits_are_read_as_they_were_meant(version: str, rules: int, tmp_path: Path) -> None:
    data = hex_file("commits.hex", version)
    root = at_root(tmp_path, COMMITS, data)
    try:
        found = read_commits(REAL_DISK, root, world.ORIGIN)
        assert found is not None
        assert (found.seq, found.clients, tuple(found.commits)) == (41, world.POSITIONS, world.COMMITS)
        assert found.rules == rules
        assert found.ends[-1][0] == len(data)
    finally:
        REAL_DISK.close(root)


def test_a_checkpoint_is_read_as_it_was_meant(tmp_path: Path) -> None:
    root = at_root(tmp_path, CHECKPOINT, hex_file("checkpoint.hex"))
    try:
        assert read_checkpoint(REAL_DISK, root) == world.CHECKPOINT
    finally:
        REAL_DISK.close(root)


@pytest.mark.parametrize("name", ["segment", "commits", "checkpoint"])
def test_a_file_of_records_is_written_as_ever(name: str) -> None:
    assert getattr(world, name)() == hex_file(f"{name}.hex", RANKS if name == "commits" else "v1")


# ── session directories ─────────────────────────────────────────────────────────────────────────────────────────────


def ranks_apart(values: str) -> str:
    """What a reader says, without the ranks of rows: 0.3 wrote none, and what it left in journals is applied today."""
    return re.sub(r',\n *"rank": \d+(?=\n)', "", values)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("state", ["killed", "recovered"])
def test_a_session_directory_is_read_to_the_same_values(state: str, version: str, tmp_path: Path) -> None:
    folder = make.directory(state, tmp_path, version)
    (folder / ".dreamlake" / "owner").unlink()  # of a machine that we cannot see; nobody owns a copy
    wanted = (make.HERE / version / "recovered.values.json").read_text("utf-8")
    if state == "recovered":
        assert make.values(folder) == wanted
        return
    # What is in journals only is replayed in memory; all that the next agent adds is that Bob was killed.
    before = world.tree(folder)
    values = make.values(folder)
    if version != RANKS:
        values, wanted = ranks_apart(values), ranks_apart(wanted)
    assert values.partition('"parameters"')[2] == wanted.partition('"parameters"')[2]
    assert '"state": "running"' in values
    assert world.tree(folder) == before


def test_the_next_agent_recovers_a_killed_directory_to_the_same_bytes(tmp_path: Path) -> None:
    folder = make.directory("killed", tmp_path, RANKS)
    world.recover(folder)
    assert world.tree(folder) == world.tree(make.directory("recovered", tmp_path, RANKS))
    assert list((folder / JOURNALS).iterdir()) == []


def test_the_next_agent_recovers_what_the_agent_of_0_3_left(tmp_path: Path) -> None:
    folder = make.directory("killed", tmp_path)
    world.recover(folder)
    (folder / ".dreamlake" / "owner").unlink()
    wanted = (V1 / "recovered.values.json").read_text("utf-8")
    assert ranks_apart(make.values(folder)) == ranks_apart(wanted)
    assert list((folder / JOURNALS).iterdir()) == []
    # A row that came again with its rank is not one that nobody brought.
    cut = folder / ".dreamlake" / "cut"
    assert not cut.exists() or [each.name for each in cut.iterdir()] == []


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recovered_directory_opens_again_and_loses_nothing(version: str, tmp_path: Path) -> None:
    folder = make.directory("recovered", tmp_path, version)
    before = world.tree(folder)
    world.recover(folder)
    after = world.tree(folder)
    moving = {".dreamlake/owner", ".dreamlake/checkpoint"}
    if version == "v1":
        moving.add(".dreamlake/commits.log")  # begun anew, by today's rules
    assert {path: data for path, data in after.items() if path not in moving} == {
        path: data for path, data in before.items() if path not in moving
    }


@pytest.mark.parametrize("state", ["killed", "recovered"])
def test_a_session_directory_is_written_as_ever(state: str, tmp_path: Path) -> None:
    world.make(tmp_path)
    written = world.tree(tmp_path / state)
    # Kept since 0.3: what an upload replaced, until a checkpoint. Nobody who does not know of it is in its way.
    kept = {path: written.pop(path) for path in list(written) if path.startswith(".dreamlake/superseded/")}
    assert list(kept.values()) == ([b"weights of epoch 0\n"] if state == "killed" else [])
    # Since 0.4: the epoch of an owner that was killed.
    epoch = {path.rpartition("/")[2]: written.pop(path) for path in list(written) if "/epochs/" in path}
    assert sorted(epoch) == (["beat", "proof.0"] if state == "killed" else [])
    assert written == world.tree(make.directory(state, tmp_path / "golden", RANKS))
