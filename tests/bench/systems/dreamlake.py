"""Dreamlake, local mode."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from dreamlake import Session

REQUIREMENTS: tuple[str, ...] = ()


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        if rank is not None:
            os.environ["RANK"] = str(rank)
        self._session = Session(name, "bench", local_path=folder).open()
        self._track = self._session.track("loss")

    def log(self, value: float, step: int) -> None:
        self._track.append(value=value, step=step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        self._track.append(**values, step=step)

    def flush(self) -> None:
        self._session.flush()

    def close(self) -> None:
        self._session.close()


def read(folder: str, name: str) -> Any:
    with Session(name, "bench", local_path=folder) as session:
        return session.track("loss").to_numpy("value")["value"]


def end(folder: str) -> None:
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "stop"], capture_output=True, check=False)
