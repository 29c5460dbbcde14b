"""tensorboardX: a thread writes a file of records, every 2 minutes or every 10 of them."""

from __future__ import annotations

import glob
import os
import struct
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

REQUIREMENTS = ("tensorboardX==2.6.5",)


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        run_name = name if rank is None else f"{name}-{rank}"
        self._writer = SummaryWriter(os.path.join(folder, run_name))

    def log(self, value: float, step: int) -> None:
        self._writer.add_scalar("loss", value, step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def read(folder: str, name: str) -> Any:
    values = []
    for path in glob.glob(os.path.join(folder, f"{name}*", "events.*")):
        with open(path, "rb") as file:
            data = file.read()
        at = 0
        while at + 12 <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            if at + 16 + length > len(data):
                break
            event = Event()
            event.ParseFromString(data[at + 12 : at + 12 + length])
            values += [each.simple_value for each in event.summary.value]
            at += 16 + length
    return values
