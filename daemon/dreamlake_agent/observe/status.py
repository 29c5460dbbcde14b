"""Status: what ``dreamlake agent status`` shows, as plain values."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import dreamlake
from dreamlake.wire import capabilities
from dreamlake.world import processes
from dreamlake_agent.loop import Loop
from dreamlake_agent.observe.observing import Observing

_RATE_SECONDS = 5.0


class Status:
    """Counts of one agent over time. ``sample`` is called a few times a second by whoever runs the loop."""

    def __init__(self, loop: Loop, endpoint: str, log_path: str) -> None:
        self._loop, self._endpoint, self._log_path = loop, endpoint, log_path
        self.observing: Observing | None = None
        self._began = time.time()
        self._samples: deque[tuple[float, int]] = deque()

    def sample(self) -> None:
        now = time.monotonic()
        self._samples.append((now, self._loop.core.points))
        while now - self._samples[0][0] > _RATE_SECONDS:
            self._samples.popleft()

    def tend(self) -> None:
        """As often as ``sample``: look at the disks, and show metrics."""
        if self.observing is not None:
            self.observing.tend(self.describe)

    def _points_per_second(self) -> float:
        self.sample()
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return round((after - before) / (last - first), 1) if last > first else 0.0

    def describe(self) -> dict[str, Any]:
        core = self._loop.core
        sessions = [self._session(key) for key in sorted(core.sessions, key=lambda key: core.sessions[key].path)]
        kept = {session["path"] for session in sessions}
        left = set(core.uploads.paths()) - kept
        now = self._loop.world.monotonic()
        return {
            "pid": self._loop.who["pid"],
            "host": self._loop.who["host"],
            "version": dreamlake.__version__,
            "can": capabilities.mine(),
            "endpoint": self._loop.who["endpoint"],
            "log": self._log_path,
            "started_at": round(self._began, 3),
            "uptime": round(time.time() - self._began, 3),
            "memory": processes.memory_bytes(),
            "queue": sum(session["queue_bytes"] for session in sessions),
            "points": core.points,
            "points_per_second": self._points_per_second(),
            "last_error": core.last_error,
            "warnings": self.observing.warnings() if self.observing else [],
            "metrics": self.observing.address if self.observing else None,
            "lag": round(core.watch.last.lag_seconds, 1),
            "sessions": sessions,
            # directories that nobody has open, and that are not wholly sent
            "uploads": [{"path": path, "uploads": core.uploads.describe(path, now)} for path in sorted(left)],
        }

    def _session(self, key: tuple[int, int]) -> dict[str, Any]:
        session = self._loop.core.sessions[key]
        directory = self._loop.directories.get(key)
        found = session.describe()
        state = directory.state if directory else None
        found["state"] = state.run_state if state else None
        found["name"] = state.session.get("name") if state and state.session else None
        found["workspace"] = state.session.get("workspace") if state and state.session else None
        running = [each for each in state.run.values() if each["state"] == "running"] if state else []
        found["uploads"] = self._loop.core.uploads.describe(session.path, self._loop.world.monotonic())
        found["ranks"] = sorted(each["rank"] for each in running if each["rank"] is not None)
        return found
