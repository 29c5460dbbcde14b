"""neptune-scale, offline: each call is a transaction of an SQLite file."""

from __future__ import annotations

import glob
import os
import sqlite3
from typing import Any

from neptune_scale import Run as NeptuneRun

REQUIREMENTS = ("neptune-scale==0.30.0",)
_UPDATES = "SELECT operation FROM run_operations WHERE operation_type = 0 ORDER BY sequence_id"


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        where = os.path.join(folder, name)
        os.makedirs(where, exist_ok=True)
        run_id = name if rank is None else f"{name}-{rank}"
        self._run = NeptuneRun(project="bench/bench", run_id=run_id, mode="offline", log_directory=where)

    def log(self, value: float, step: int) -> None:
        self._run.log_metrics({"loss": value}, step=step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        self._run.log_metrics(values, step=step)

    def upload(self, path: str) -> None:
        self._run.assign_files({f"files/{os.path.basename(path)}": path})

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._run.close()


def read(folder: str, name: str) -> Any:
    from neptune_scale.sync.operations_repository import UpdateRunSnapshot

    values = []
    for path in glob.glob(os.path.join(folder, name, "**", "*.sqlite3"), recursive=True):
        with sqlite3.connect(path) as connection:
            for (data,) in connection.execute(_UPDATES):
                snapshot = UpdateRunSnapshot()
                snapshot.ParseFromString(data)
                values += [each.float64 for key, each in snapshot.append.items() if key == "loss"]
    return values
