"""Rows: a log that a person edited between two owners goes on, and none of its lines is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamlake.wire import codec, ops
from tests.golden import make, world

LOSS = "tracks/train/loss/data.jsonl"
DAVE = bytes.fromhex("da5e0000000000000000000000000006")


def continued(folder: Path) -> None:
    """The next owner, and a rank that adds a point."""
    run = (
        (ops.OPEN, world.at(20), {"name": "run", "workspace": "project"}, b"{}"),
        (ops.POINT, world.at(21), "train/loss", 0, b"{}"),
    )
    data, running = b"", codec.seed(DAVE)
    for op in run:
        record, running = codec.frame(codec.pack(op), running)
        data += record
    directory = world._open(folder, world.NEXT_OWNER)
    try:
        directory.apply(DAVE, data, running)
        directory.commit()
        directory.settle()
    finally:
        directory.close()


@pytest.mark.parametrize("put", [b" ", b" " * 10, b" " * 500])
def test_a_log_that_was_made_longer_by_hand_keeps_every_line_whole(put: bytes, tmp_path: Path) -> None:
    """The checkpoint's size then falls into the middle of a line, and the next row was glued to its first half."""
    folder = make.directory("recovered", tmp_path)
    before = (folder / LOSS).read_bytes()
    data = before.replace(b":", b":" + put, 1)
    check(folder, data)


def test_a_log_that_lost_its_last_newline_keeps_every_line_whole(tmp_path: Path) -> None:
    folder = make.directory("recovered", tmp_path)
    check(folder, (folder / LOSS).read_bytes()[:-1] + b" ")


def check(folder: Path, data: bytes) -> None:
    (folder / LOSS).write_bytes(data)
    continued(folder)
    after = (folder / LOSS).read_bytes().splitlines()
    kept = [line for path in (folder / ".dreamlake").glob("cut/*") for line in path.read_bytes().splitlines()]
    assert [line for line in data.splitlines() if line not in after + kept] == []
    assert json.loads(after[-1])["data"] == {}
    assert all(json.loads(line) for line in after)


def test_a_history_that_was_made_longer_by_hand_is_read_whole(tmp_path: Path) -> None:
    """Carol's OPEN is the last row that the checkpoint covers; without it nobody would be there to be killed."""
    folder = make.directory("killed", tmp_path)
    history = folder / ".dreamlake" / "session.jsonl"
    first, rest = history.read_bytes().split(b"\n", 1)
    history.write_bytes(first.replace(b",", b", ") + b"\n" + rest)
    before = history.read_bytes().splitlines()
    world.recover(folder)
    assert history.read_bytes().splitlines()[:4] == before
