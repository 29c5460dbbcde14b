"""Damage, a small function each. Every one changes a healthy directory and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from dreamlake.reader.commits import Checkpoint, encode_checkpoint, encode_commits_header, read_checkpoint
from dreamlake.wire import codec
from dreamlake.world.disk import REAL_DISK
from tests.golden.world import ALICE, BOB
from tests.verify.directories import WRITER

Damage = Callable[[Path], object]

LOG = "logs/logs.jsonl"
LOSS = "tracks/train/loss/data.jsonl"
OLD = "tracks/loss/data.jsonl"
JOURNALS = ".dreamlake/journals"
ALICE_0, ALICE_1 = f"{JOURNALS}/{ALICE.hex()}.0", f"{JOURNALS}/{ALICE.hex()}.1"
BOB_0 = f"{JOURNALS}/{BOB.hex()}.0"
WRITER_0, WRITER_1 = f"{JOURNALS}/{WRITER.hex()}.0", f"{JOURNALS}/{WRITER.hex()}.1"


def edit(path: str, change: Callable[[bytes], bytes]) -> Damage:
    """Rewrite a file in place."""

    def damage(folder: Path) -> None:
        before = (folder / path).read_bytes()
        after = change(before)
        assert after != before
        (folder / path).write_bytes(after)

    return damage


def lines(path: str, change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return edit(path, lambda data: b"".join(change(data.splitlines(keepends=True))))


def cut(path: str, count: int) -> Damage:
    """The last ``count`` bytes are gone."""
    return edit(path, lambda data: data[:-count])


def add(path: str, data: bytes) -> Damage:
    return edit(path, lambda before: before + data)


def put(path: str, data: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)

    return damage


def flip(path: str, at: int) -> Damage:
    return edit(path, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def replace(path: str, old: bytes, new: bytes) -> Damage:
    """Bytes of a file are others, as many as before."""
    assert len(old) == len(new)
    return edit(path, lambda data: data.replace(old, new, 1))


def remove(*paths: str) -> Damage:
    def damage(folder: Path) -> None:
        for path in paths:
            (folder / path).unlink()

    return damage


def rename(path: str, to: str) -> Damage:
    return lambda folder: (folder / path).rename(folder / to)


def link(path: str) -> Damage:
    """A folder is moved out of the directory, and a symbolic link leads to it."""

    def damage(folder: Path) -> None:
        outside = folder.parent / "outside"
        (folder / path).rename(outside)
        (folder / path).symlink_to(outside)

    return damage


def checkpoint(change: Callable[[Checkpoint], Checkpoint]) -> Damage:
    def damage(folder: Path) -> None:
        root = REAL_DISK.root(str(folder))
        found = read_checkpoint(REAL_DISK, root)
        REAL_DISK.close(root)
        assert found is not None
        (folder / ".dreamlake/checkpoint").write_bytes(encode_checkpoint(change(found)))

    return damage


def checkpoint_of_version_2(folder: Path) -> None:
    data = codec.frame(codec.packer().pack({"v": 2}), codec.seed(b"dreamlake checkpoint"))[0]
    (folder / ".dreamlake/checkpoint").write_bytes(data)


def ahead(found: Checkpoint) -> Checkpoint:
    return dataclasses.replace(found, seq=found.seq + 5)


def behind(found: Checkpoint) -> Checkpoint:
    return dataclasses.replace(found, seq=0)


def commits_of_another_origin(folder: Path) -> None:
    (folder / ".dreamlake/commits.log").write_bytes(encode_commits_header(0, {}, "f" * 32)[0])


def earlier_parameters(folder: Path) -> None:
    shown = json.loads((folder / "parameters.json").read_bytes())
    shown.update(version=1, updatedAt="2026-01-01T00:00:01.500000Z", nonfinite=["clip"])
    shown["data"].update({"model.lr": 0.001, "clip": "NaN"})
    (folder / "parameters.json").write_text(json.dumps(shown))
