"""mlflow with its SQLite store: each call is a transaction."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

REQUIREMENTS = ("mlflow==3.17.2",)


def _client(folder: str, name: str) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/{name}.db")


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        self._client = _client(folder, name)
        run_name = name if rank is None else f"{name}-{rank}"
        self._id = self._client.create_run("0", run_name=run_name).info.run_id

    def log(self, value: float, step: int) -> None:
        self._client.log_metric(self._id, "loss", value, step=step)

    def log_all(self, values: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def upload(self, path: str) -> None:
        self._client.log_artifact(self._id, path)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._client.set_terminated(self._id)


def read(folder: str, name: str) -> Any:
    client = _client(folder, name)
    runs = client.search_runs(["0"])
    return [each.value for run in runs for each in client.get_metric_history(run.info.run_id, "loss")]
