"""A limit: one `os.write` of as many bytes as a record of Dreamlake's has."""

from __future__ import annotations

import os
from typing import Any

REQUIREMENTS: tuple[str, ...] = ()
RECORD = b"x" * 75


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        self._where = os.path.join(folder, name if rank is None else f"{name}-{rank}")
        self._fd = _open(self._where)
        self._series: dict[str, int] = {}

    def log(self, value: float, step: int) -> None:
        os.write(self._fd, RECORD)

    def log_to(self, series: str, value: float, step: int) -> None:
        fd = self._series.get(series)
        if fd is None:
            fd = self._series[series] = _open(f"{self._where}-{series}")
        os.write(fd, RECORD)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        for fd in (self._fd, *self._series.values()):
            os.close(fd)


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def read(folder: str, name: str) -> Any:
    return [0.0] * (os.path.getsize(os.path.join(folder, name)) // len(RECORD))
