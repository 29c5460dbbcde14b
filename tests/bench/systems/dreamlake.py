"""Dreamlake, local mode."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import time
from typing import Any

from dreamlake import Session

REQUIREMENTS: tuple[str, ...] = ()
_COVERED_SECONDS = 10  # within these a checkpoint covers what was written, and journals go


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        if rank is not None:
            os.environ["RANK"] = str(rank)
        self._session = Session(name, "bench", local_path=folder).open()
        self._track = self._session.track("loss")
        self._tracks: dict[str, Any] = {}

    def log(self, value: float, step: int) -> None:
        self._track.append(value=value, step=step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        self._track.append(**values, step=step)

    def log_to(self, series: str, value: float, step: int) -> None:
        track = self._tracks.get(series)
        if track is None:
            track = self._tracks[series] = self._session.track(series)
        track.append(value=value, step=step)

    def upload(self, path: str) -> None:
        self._session.files().upload(path, path="/files")

    def flush(self) -> None:
        self._session.flush()

    def close(self) -> None:
        self._session.close()


def read(folder: str, name: str) -> Any:
    with Session(name, "bench", local_path=folder) as session:
        return session.track("loss").to_numpy("value")["value"]


def end(folder: str) -> None:
    deadline = time.monotonic() + _COVERED_SECONDS
    while glob.glob(f"{folder}/bench/*/.dreamlake/journals/*") and time.monotonic() < deadline:
        time.sleep(0.1)
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "stop"], capture_output=True, check=False)
