"""Seams: what the loop meets besides the core, the disk and the socket; a test gives others in their place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from dreamlake.world import processes
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on

Job = Callable[[], on.Event]


class Log(Protocol):
    """The agent's log: a level, a text, and by name what somebody would search for (path, client, remote)."""

    def __call__(self, level: str, text: str, **about: str) -> None: ...


class Workers(Protocol):
    """Where fsync and hashing go, so that they never hold up a client."""

    def submit(self, job: Job) -> None: ...
    def done(self) -> list[on.Event]: ...
    def finish(self) -> None: ...


class World(Protocol):
    """The rest of the world: time, chance, and who lives."""

    def monotonic(self) -> float: ...
    def wall_ns(self) -> int: ...
    def random(self, size: int) -> bytes: ...
    def verdict(self, who: dict[str, Any]) -> str: ...


class Reminders(Protocol):
    """Which directories the next agent should look at (:class:`dreamlake.world.registry.Registry`)."""

    def add(self, path: str) -> None: ...
    def drop(self, path: str) -> None: ...


class Uploader(Protocol):
    """Whoever sends directories to servers (:class:`dreamlake_agent.uploader.Uploader`), and the keys for it."""

    def start(self, effect: do.Upload) -> None: ...
    def rest(self) -> None: ...
    def done(self) -> list[on.Event]: ...
    def keep_key(self, effect: do.KeepKey) -> None: ...
    def forget(self, effect: do.Forget) -> None: ...


class NoUploader:
    def start(self, effect: do.Upload) -> None:
        pass

    def rest(self) -> None:
        pass

    def done(self) -> list[on.Event]:
        return []

    def keep_key(self, effect: do.KeepKey) -> None:
        pass

    def forget(self, effect: do.Forget) -> None:
        pass


class NoReminders:
    def add(self, path: str) -> None:
        pass

    def drop(self, path: str) -> None:
        pass


class RealWorld:
    monotonic = staticmethod(time.monotonic)
    wall_ns = staticmethod(time.time_ns)
    random = staticmethod(os.urandom)
    verdict = staticmethod(processes.verdict)
