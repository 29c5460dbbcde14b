"""A limit: one `os.write` of as many bytes as a record of Dreamlake's has."""

from __future__ import annotations

import os
from typing import Any

REQUIREMENTS: tuple[str, ...] = ()
RECORD = b"x" * 75


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        where = os.path.join(folder, name if rank is None else f"{name}-{rank}")
        self._fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log(self, value: float, step: int) -> None:
        os.write(self._fd, RECORD)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        os.close(self._fd)


def read(folder: str, name: str) -> Any:
    return [0.0] * (os.path.getsize(os.path.join(folder, name)) // len(RECORD))
