"""Commits and the checkpoint: whatever a record with a right checksum says, it is read or it is damage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dreamlake.reader.commits import CHECKPOINT, COMMITS, commits_seed, read_checkpoint, read_commits
from dreamlake.wire import codec
from dreamlake.world.disk import REAL_DISK

ORIGIN = "0" * 32
ALICE = b"a" * 16
SOUND: dict[str, Any] = {
    "v": 1,
    "seq": 3,
    "origin": ORIGIN,
    "logs": {"logs/logs.jsonl": [10, 1, 1, 1, None]},
    "clients": {ALICE: [5, 6]},
    "views": {"session.json": 7},
}
# More than there is memory, if it were taken for a number of bytes.
HUGE = 4 << 30
NO_NUMBER = (math.inf, math.nan, -1, 1.0, True, None, "3", 2**63, [])


def framed(values: list[Any], running: int) -> bytes:
    data = b""
    for value in values:
        record, running = codec.frame(codec.pack(value), running)
        data += record
    return data


def put(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / ".dreamlake").mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(data)


def read(tmp_path: Path, at: int, fields: Any) -> Any:
    put(tmp_path, CHECKPOINT, framed([fields], codec.seed(b"dreamlake checkpoint")))
    return read_checkpoint(REAL_DISK, at)


def test_a_sound_checkpoint_is_read(tmp_path: Path, at: int) -> None:
    assert read(tmp_path, at, SOUND).seq == 3


@pytest.mark.parametrize(
    "wrong",
    [
        *({"seq": number} for number in NO_NUMBER),
        *({"logs": {"logs/logs.jsonl": [number, 1, 1, 1, None]}} for number in NO_NUMBER),
        {"logs": {"logs/logs.jsonl": [10, 1, 1, 1, 5]}},
        {"logs": {5: [10, 1, 1, 1, None]}},
        {"origin": None},
        {"v": 2},
        {"clients": {HUGE: [5, 6]}},
        {"clients": {b"a": [5, 6]}},
        {"clients": {ALICE: [math.inf, 6]}},
        {"clients": [1, 2]},
        {"views": {"session.json": "7"}},
        {"views": [1]},
    ],
    ids=repr,
)
def test_a_checkpoint_of_another_shape_is_damage(wrong: dict[str, Any], tmp_path: Path, at: int) -> None:
    with pytest.raises(codec.Damaged):
        read(tmp_path, at, {**SOUND, **wrong})


def test_a_version_nested_as_deep_as_msgpack_goes_is_another_version(tmp_path: Path, at: int) -> None:
    record, _ = codec.frame(b"\x81\xa1v" + b"\x91" * 1015 + b"\x02", codec.seed(b"dreamlake checkpoint"))
    put(tmp_path, CHECKPOINT, record)
    with pytest.raises(codec.Damaged):
        read_checkpoint(REAL_DISK, at)


HEADER = {"v": 1, "seq": 3, "clients": {ALICE: [5, 6]}}
COMMIT = [3, [[ALICE, 5, 9, 1, [0]]]]


@pytest.mark.parametrize(
    "header",
    [
        *({**HEADER, "seq": number} for number in NO_NUMBER),
        {**HEADER, "clients": {HUGE: [5, 6]}},
        {**HEADER, "clients": {ALICE: [-math.inf, 6]}},
        {**HEADER, "clients": 5},
    ],
    ids=repr,
)
def test_a_header_of_another_shape_is_none(header: Any, tmp_path: Path, at: int) -> None:
    put(tmp_path, COMMITS, framed([header, COMMIT], commits_seed(ORIGIN)))
    assert read_commits(REAL_DISK, at, ORIGIN) is None


@pytest.mark.parametrize(
    "commit",
    [
        [4, [[None, 5, 9, 1, []]]],
        [4, [[HUGE, 5, 9, 1, []]]],
        [4, [["a" * 16, 5, 9, 1, []]]],
        [4, [[ALICE, math.inf, 9, 1, []]]],
        [4, [[ALICE, -5, 9, 1, []]]],
        [4, [[ALICE, 5, 2**64 - 1, 1, []]]],
        [4, [[ALICE, 5, 9, 1, [{}]]]],
        [4, [[ALICE, 5, 9, 1, 5]]],
        [4.0, []],
        [4, {}],
        4,
    ],
    ids=repr,
)
def test_a_commit_of_another_shape_ends_the_log_before_it(commit: Any, tmp_path: Path, at: int) -> None:
    put(tmp_path, COMMITS, framed([HEADER, COMMIT, commit], commits_seed(ORIGIN)))
    found = read_commits(REAL_DISK, at, ORIGIN)
    assert found is not None
    assert [each.seq for each in found.commits][:1] == [3]
    assert len(found.commits) == (2 if commit == [4, {}] else 1)  # a map of nothing is no run
