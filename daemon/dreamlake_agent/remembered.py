"""Remembered: session directories that somebody asks this agent to look at, without a message.

A client that can have no agent writes its directory into the registry: one in a container that has the same home, and
not the socket, or one in a job with a ``/tmp`` of its own. This agent sees the entry and follows the journal, whether
its writer lives or is dead. And of what another agent had, it takes over what was not let go: that one died with its
job.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator

from dreamlake import config
from dreamlake.reader.owners import last_word
from dreamlake.world.disk import REAL_DISK
from dreamlake.world.registry import Registry
from dreamlake_agent.core import events

Warn = Callable[[str], None]


class Remembered:
    """What the registry says, and what of it was seen."""

    def __init__(self, registry: Registry, warn: Warn) -> None:
        self._registry, self._warn = registry, warn
        self._changed = 0
        self._written: dict[str, int] = {}
        self._looked = self._orphans_at = -1e9

    def all(self, now: float) -> Iterator[events.Remembered]:
        """At the start: everything."""
        self._looked = self._orphans_at = now
        self._changed = self._registry.changed()
        paths = self._registry.paths()
        self._written = self._registry.written()
        yield from self._told(paths)

    def news(self, now: float, kept: Container[str]) -> Iterator[events.Remembered]:
        """Since the last look: what was added, and, every ``ORPHANS_SECONDS``, what has an owner that does not say that
        it let go. ``kept`` are the directories that this agent has open."""
        if now - self._looked < config.REGISTRY_SECONDS:
            return
        self._looked = now
        orphans = now - self._orphans_at >= config.ORPHANS_SECONDS
        changed = self._registry.changed()
        if changed == self._changed and not orphans:
            return
        if orphans:
            self._orphans_at = now
        before, self._changed, self._written = self._written, changed, self._registry.written()
        for path, written in self._written.items():
            if path not in kept and (written != before.get(path) or (orphans and _is_orphan(path))):
                yield from self._told([path])

    def _told(self, paths: list[str]) -> Iterator[events.Remembered]:
        for path in paths:
            try:
                found = os.stat(path)
            except OSError as error:
                self._warn(f"cannot look at {path}: {error}")
                continue
            yield events.Remembered((found.st_dev, found.st_ino), path)


def _is_orphan(path: str) -> bool:
    """Whether somebody owned it and has not let it go; if that one lives, its lock says so when we try."""
    try:
        at = REAL_DISK.root(path)
    except OSError:
        return False
    try:
        record = last_word(REAL_DISK, at)
    except OSError:
        return False
    finally:
        REAL_DISK.close(at)
    return record is not None and not record.get("released")
