"""trackio, local: a thread writes batches to an SQLite file."""

from __future__ import annotations

import os
from typing import Any

REQUIREMENTS = ("trackio==0.43.0",)


def _trackio(folder: str) -> Any:
    os.environ.update(
        TRACKIO_DIR=folder, HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="0"
    )
    import trackio

    return trackio


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        run_name = name if rank is None else f"{name}-{rank}"
        self._run = _trackio(folder).init(project=name, name=run_name, embed=False)

    def log(self, value: float, step: int) -> None:
        self._run.log({"loss": value}, step=step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def upload(self, path: str) -> None:
        self._run.log_artifact(path, name=os.path.basename(path), type="file")

    def flush(self) -> None:
        self._run.finish()  # nothing less says when it is written

    def close(self) -> None:
        self._run.finish()


def read(folder: str, name: str) -> Any:
    _trackio(folder)
    from trackio.sqlite_storage import SQLiteStorage

    runs = SQLiteStorage.get_runs(name)
    return [row["loss"] for run in runs for row in SQLiteStorage.get_logs(name, run) if "loss" in row]
