"""A limit: a line of JSON made by orjson, and one `os.write` for it."""

from __future__ import annotations

import os
from typing import Any

import orjson

from tests.bench.systems import oswrite

REQUIREMENTS: tuple[str, ...] = ()


class Run(oswrite.Run):
    def log(self, value: float, step: int) -> None:
        os.write(self._fd, _line(value, step))

    def log_to(self, series: str, value: float, step: int) -> None:
        os.write(self._files[series], _line(value, step))


def _line(value: float, step: int) -> bytes:
    return orjson.dumps({"index": step, "data": {"value": value, "step": step}}) + b"\n"


def read(folder: str, name: str) -> Any:
    with open(os.path.join(folder, name), "rb") as file:
        return [orjson.loads(line)["data"]["value"] for line in file if line.endswith(b"\n")]
