"""dvclive: each call appends a line to a TSV file, and writes a summary anew with each step."""

from __future__ import annotations

import os
from typing import Any

from dvclive import Live

REQUIREMENTS = ("dvclive==3.49.1",)


class Run:
    def __init__(self, folder: str, name: str, rank: int | None = None) -> None:
        where = os.path.join(folder, name if rank is None else f"{name}-{rank}")
        self._live = Live(where, save_dvc_exp=False, dvcyaml=None)

    def log(self, value: float, step: int) -> None:
        self._live.step = step
        self._live.log_metric("loss", value)

    def log_all(self, values: dict[str, float], step: int) -> None:
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._live.end()


def read(folder: str, name: str) -> Any:
    with open(os.path.join(folder, name, "plots", "metrics", "loss.tsv")) as file:
        next(file)
        return [float(line.split("\t")[-1]) for line in file if line.endswith("\n")]
