"""A limit: one `os.write` of as many bytes as a record of Dreamlake's has."""

from __future__ import annotations

import os
from typing import Any

REQUIREMENTS: tuple[str, ...] = ()
RECORD = b"x" * 75


class Files(dict[str, int]):
    """A file for each name, open from its first use on."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __missing__(self, name: str) -> int:
        fd = self[name] = os.open(self._where + name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return fd


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        self._files = Files(os.path.join(folder, name if rank is None else f"{name}-{rank}"))
        self._fd = self._files[""]

    def log(self, value: float, step: int) -> None:
        os.write(self._fd, RECORD)

    def log_to(self, series: str, value: float, step: int) -> None:
        os.write(self._files[series], RECORD)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        for fd in self._files.values():
            os.close(fd)


def read(folder: str, name: str) -> Any:
    return [0.0] * (os.path.getsize(os.path.join(folder, name)) // len(RECORD))
