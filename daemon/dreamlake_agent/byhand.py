"""By hand: a session directory is taken from its owner because a person says so (``dreamlake agent takeover``).

What is known of the owner first, so that the person knows what he says; then the shipped takeover; then the agent of
this node, if one runs, is asked to look at the directory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dreamlake
from dreamlake import config
from dreamlake.reader.owners import epoch_of, last_word
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK, Disk
from dreamlake.world.endpoints import find_agent
from dreamlake.world.registry import Registry
from dreamlake_agent.store.owner import beat_of, try_owner_lock
from dreamlake_agent.store.takeover import appended, take_over

BEATS_WATCHED = 2.5  # so many beats are waited for
_LOOK_SECONDS = 0.2

# Whether the owner's lock is held: nobody can tell where the file system has no locks.
HELD, FREE, NO_LOCKS = "held", "free", "no locks"


@dataclass(frozen=True)
class Case:
    """What is seen of a directory's owner. ``silent``: for how long no beat came while somebody watched; None when one
    came, or nobody watched."""

    path: str
    record: dict[str, Any]
    lock: str
    verdict: str
    is_here: bool
    copies: int
    silent: float | None = None
    has_beaten: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether no agent would take the directory by itself, and at once."""
        if not self.record or self.record.get("released"):
            return False
        if self.is_begun:
            return True
        return not (self.is_here and self.verdict == processes.GONE)

    @property
    def is_begun(self) -> bool:
        """Whether its last owner was one that took it over, and was not through with that."""
        return bool(self.record.get("renews"))

    @property
    def owner(self) -> str:
        if self.record.get("host") is None:
            return "one that has not said who it is"
        return f"pid {self.record.get('pid')} on {self.record['host']}"

    @property
    def epoch(self) -> int:
        return epoch_of(self.record)


def look(path: str) -> Case:
    """What is there to be seen at once. Raises :class:`OSError`."""
    path = os.path.realpath(path)
    at = REAL_DISK.root(path)
    try:
        record = last_word(REAL_DISK, at) or {}
        return Case(
            path,
            record,
            {True: FREE, False: HELD, None: NO_LOCKS}[try_owner_lock(REAL_DISK, at)],
            processes.verdict(record),
            processes.is_here(record),
            sum(_sizes(REAL_DISK, at)),
        )
    finally:
        REAL_DISK.close(at)


def watch(case: Case, seconds: float | None = None, told: Callable[[float], None] = lambda _left: None) -> Case:
    """Wait for a beat of the owner; ``told`` hears how many seconds are left."""
    seconds = BEATS_WATCHED * config.beat_seconds() if seconds is None else seconds
    begin = time.monotonic()
    at = REAL_DISK.root(case.path)
    try:
        while (passed := time.monotonic() - begin) < seconds:
            told(seconds - passed)
            if beat_of(last_word(REAL_DISK, at) or {}) != beat_of(case.record):
                return Case(**{**vars(case), "has_beaten": True})
            time.sleep(min(_LOOK_SECONDS, seconds))
    finally:
        REAL_DISK.close(at)
    return Case(**{**vars(case), "silent": seconds})


def take(path: str, told: Callable[[int], None] = lambda _bytes: None, *, whatever: bool = False) -> tuple[int, bool]:
    """Take the directory from whoever has it; returns the epoch in which that was done, and whether an agent of this
    node has been asked to go on. Raises what ``take_over`` does."""
    path = os.path.realpath(path)
    who = {**processes.myself(), "endpoint": None, "version": dreamlake.__version__}
    epoch = take_over(REAL_DISK, path, who, os.urandom(16).hex(), say=told, whatever=whatever)
    return epoch, _ask_agent(path)


def _ask_agent(path: str) -> bool:
    if find_agent() is None:
        return False
    try:
        Registry().add(path)
    except OSError:
        return False  # whoever opens the session has it looked at
    return True


def _sizes(disk: Disk, at: int) -> list[int]:
    """Of the files that an owner appends to."""
    found = []
    for log in appended(disk, at):
        try:
            found.append(disk.stat(log, at).size)
        except OSError:
            continue
    return found
