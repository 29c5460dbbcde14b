"""A limit: a message for each call from a PUSH socket to a process that takes it from a PULL socket and counts."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import orjson
import zmq

REQUIREMENTS: tuple[str, ...] = ()


def _count(address: str, counted: str) -> None:
    count = 0
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(address)
        while socket.recv():
            count += 1
    with open(counted, "w") as file:
        file.write(str(count))


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        where = os.path.join(folder, name if rank is None else f"{name}-{rank}")
        address = f"ipc://@{where}"
        self._other = multiprocessing.get_context("spawn").Process(target=_count, args=(address, where))
        self._other.start()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.set_hwm(0)
        self._socket.connect(address)

    def log(self, value: float, step: int) -> None:
        self._socket.send(orjson.dumps({"index": step, "data": {"value": value, "step": step}}))

    def log_to(self, series: str, value: float, step: int) -> None:
        self._socket.send(orjson.dumps({"series": series, "index": step, "data": {"value": value, "step": step}}))

    def flush(self) -> None:
        if self._other.is_alive():
            self._socket.send(b"")
            self._other.join()

    def close(self) -> None:
        self.flush()
        self._socket.close()
        self._context.term()


def read(folder: str, name: str) -> Any:
    path = os.path.join(folder, name)
    return [0.0] * (int(open(path).read()) if os.path.exists(path) else 0)
