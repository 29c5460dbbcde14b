"""Observing: what is done beside the loop so that somebody can see how it is: disks, warnings, metrics, health.

``tend`` is called by whoever runs the loop, again and again; it waits for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamlake import config
from dreamlake.wire import jsons
from dreamlake_agent.core import events as on
from dreamlake_agent.loop import Loop
from dreamlake_agent.observe import exposition, metrics
from dreamlake_agent.observe.gauge import Gauge
from dreamlake_agent.observe.scraping import CannotListen, Scraping
from dreamlake_agent.seams import Log
from dreamlake_agent.settings import Settings

SETTING = "setting"  # a warning: something that was asked for cannot be had


@dataclass(frozen=True)
class _Snapshot:
    metrics: bytes
    health: dict[str, Any]
    made: float


class Observing:
    """One agent's. ``flush`` writes what the log has kept back."""

    def __init__(self, loop: Loop, state: str, settings: Settings, log: Log, flush: Callable[[], None]) -> None:
        self._loop, self._place, self._log, self._flush = loop, settings.metrics, log, flush
        self._gauge = Gauge(state, settings.spool)
        self._settings = settings.left_out
        self._scraping: Scraping | None = None
        self._trouble: str | None = None
        self._gauged = self._made = self._tried = -1e9
        self._snapshot = _Snapshot(b"", {}, 0.0)
        for text in self._settings:
            log("warning", text)

    # ── for status ──────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def address(self) -> str | None:
        """Where metrics are; None where they are not."""
        return self._scraping.address if self._scraping is not None else None

    def warnings(self) -> list[dict[str, Any]]:
        """Every warning that stands."""
        now = self._loop.world.monotonic()
        sentences = [*self._settings, *([self._trouble] if self._trouble else [])]
        return [
            *(raised.describe(now) for raised in self._loop.core.watch.limits.raised),
            *({"kind": SETTING, "path": None, "text": text, "seconds": None} for text in sentences),
        ]

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tend(self, describe: Callable[[], dict[str, Any]]) -> None:
        """``describe`` is the whole status."""
        now = time.monotonic()
        core = self._loop.core
        if now - self._gauged >= config.GAUGE_SECONDS:
            self._gauged = now
            self._gauge.look((key[0], session.path) for key, session in core.sessions.items())
        if now - self._made < config.METRICS_SECONDS:
            return
        self._made = now
        self._loop.take(on.Gauged(self._gauge.disks))
        self._flush()
        if self._place is not None:
            self._take_snapshot(describe(), now)
            self._listen(self._place, now)

    def _take_snapshot(self, status: dict[str, Any], now: float) -> None:
        core = self._loop.core
        text = exposition.render(metrics.families(core, status, self._gauge.state_device))
        self._snapshot = _Snapshot(text, metrics.health(core, status), now)

    def _listen(self, place: str | int, now: float) -> None:
        if self._scraping is not None and self._scraping.is_alive:
            return
        if self._trouble is not None and now - self._tried < config.METRICS_RETRY_SECONDS:
            return
        self._tried = now
        if self._scraping is not None:
            self._scraping.close()
            self._scraping = None
        try:
            self._scraping = Scraping(place, self._answer)
        except CannotListen as why:
            if self._trouble is None:
                self._log("warning", f"{why}; it is tried again")
            self._trouble = str(why)
            return
        self._trouble = None
        self._log("info", f"metrics are shown at {self._scraping.address}")

    def _answer(self, path: str) -> tuple[int, str, bytes] | None:
        """In the thread of the socket."""
        snapshot = self._snapshot
        if path == "/metrics":
            return 200, exposition.TYPE, snapshot.metrics
        if path == "/health":
            found = metrics.aged(snapshot.health, time.monotonic() - snapshot.made)
            return 503 if found["reasons"] else 200, "application/json", jsons.pretty(found)
        return None

    def close(self) -> None:
        if self._scraping is not None:
            self._scraping.close()
