"""Settings: what the environment asks of an agent, as far as it can be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from dreamlake import config
from dreamlake_agent.core.limits import Thresholds

Value = TypeVar("Value")


class Settings:
    """``left_out`` are the sentences about what cannot be used: a warning that comes too early or too late, and metrics
    that are nowhere, are no reason for having no agent."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        free, share = self._read(
            "DREAMLAKE_DISK_FREE", config.disk_free, (config.DISK_FREE_BYTES, config.DISK_FREE_SHARE)
        )
        self.thresholds = Thresholds(
            disk_free_bytes=free,
            disk_free_share=share,
            backlog_bytes=self._read("DREAMLAKE_BACKLOG", config.backlog_bytes, config.BACKLOG_BYTES),
            lag_seconds=self._read("DREAMLAKE_LAG", config.lag_seconds, config.LAG_SECONDS),
        )
        self.gone_seconds = self._read("DREAMLAKE_GONE", config.gone_seconds, config.GONE_SECONDS)
        self.spool = os.environ.get("DREAMLAKE_SPOOL") or None  # of clients that come; its disk is looked at
        self.metrics = self._read("DREAMLAKE_METRICS", config.metrics, None)

    def _read(self, name: str, read: Callable[[], Value], instead: Value) -> Value:
        try:
            return read()
        except ValueError as error:
            self.left_out.append(f"{name} is left out: {error}")
            return instead
