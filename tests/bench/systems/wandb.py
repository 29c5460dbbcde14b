"""wandb, offline: a helper in Go writes what it is sent to a log of records in blocks, as LevelDB has them."""

from __future__ import annotations

import glob
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

import wandb

REQUIREMENTS = ("wandb==0.31.0",)
_HEADER_BYTES, _BLOCK_BYTES, _PIECE = 7, 32768, struct.Struct("<IHB")
_KINDS = _WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        settings = wandb.Settings(
            mode="offline", silent=True, console="off", x_disable_stats=True, x_disable_meta=True, disable_git=True
        )
        where = os.path.join(folder, name if rank is None else f"{name}-{rank}")
        os.makedirs(where, exist_ok=True)
        self._run = wandb.init(project="bench", name=name, dir=where, settings=settings)

    def log(self, value: float, step: int) -> None:
        self._run.log({"loss": value}, step=step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def upload(self, path: str) -> None:
        artifact = wandb.Artifact(os.path.basename(path), "file")
        artifact.add_file(path)
        self._run.log_artifact(artifact)

    def flush(self) -> None:
        self._run.finish()  # nothing less says when it is written

    def close(self) -> None:
        self._run.finish()


def read(folder: str, name: str) -> Any:
    from wandb.proto import wandb_internal_pb2

    values = []
    for path in sorted(glob.glob(os.path.join(folder, f"{name}*", "wandb", "offline-run-*", "*.wandb"))):
        with open(path, "rb") as file:
            data = file.read()
        for piece in _records(data):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(piece)
            for item in record.history.item:
                if item.key == "loss" or list(item.nested_key) == ["loss"]:
                    values.append(json.loads(item.value_json))
    return values


def _records(data: bytes) -> Iterator[bytes]:
    """Blocks of 32 KiB of pieces (checksum, length, kind: whole, first, middle, last), after a header of 7 bytes."""
    at, record = _HEADER_BYTES, b""
    while at + _PIECE.size <= len(data):
        left = _BLOCK_BYTES - at % _BLOCK_BYTES
        if left < _PIECE.size:
            at += left
            continue
        _checksum, length, kind = _PIECE.unpack_from(data, at)
        piece = data[at + _PIECE.size : at + _PIECE.size + length]
        if kind not in _KINDS or len(piece) < length:
            return
        at += _PIECE.size + length
        record = piece if kind in (_WHOLE, _FIRST) else record + piece
        if kind in (_WHOLE, _LAST):
            yield record
