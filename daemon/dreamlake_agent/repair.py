"""Repair: one agent's life for one session directory, in this process and without a socket.

It is the shipped core and loop that own, recover, apply, commit, checkpoint and let go; nothing is mended in any other
way. The clock hurries: with nobody to wait for, the seconds that an agent leaves between its works are skipped.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Any

import dreamlake
from dreamlake import config
from dreamlake.errors import DreamlakeError
from dreamlake.reader.owners import last_word
from dreamlake.reader.segments import JOURNALS
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.loop import Loop
from dreamlake_agent.seams import Job, RealWorld

# So long, by its own clock, an agent is given to apply, cover and let go; then it is stopped, which drains it.
_LIFE_SECONDS = 4 * (config.CHECKPOINT_QUIET_SECONDS + config.RELEASE_SECONDS)


class Refused(DreamlakeError):
    """The directory could not be repaired; the message says why and what to try."""


class _NullHub:
    """Nobody to talk to."""

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        return None

    def send(self, peer: bytes, frames: list[bytes]) -> None:
        pass

    def close(self) -> None:
        pass


class _AtOnce:
    """Workers that have done their job when it is submitted."""

    def __init__(self) -> None:
        self._results: list[on.Event] = []

    def submit(self, job: Job) -> None:
        self._results.append(job())

    def done(self) -> list[on.Event]:
        found, self._results = self._results, []
        return found

    def finish(self) -> None:
        pass


class _HurriedWorld(RealWorld):
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class _Core(Agent):
    """An agent's core that is asked, at the end, whether the directory was ever its own."""

    opened = False
    not_opened: on.NotOpened | None = None

    def handle(self, event: on.Event, now: float, wall: int) -> list[do.Effect]:
        if isinstance(event, on.Opened):
            self.opened = True
        elif isinstance(event, on.NotOpened):
            self.not_opened = event
        return super().handle(event, now, wall)


def repair(path: str, say: Callable[[str], None]) -> None:
    """Recover the session directory at ``path`` as its next owner does, and let it go. What is done is said.

    Raises :class:`Refused`.
    """
    path = os.path.realpath(path)
    found = os.stat(path)
    _make_journals(path)
    core, world = _Core(os.urandom(8)), _HurriedWorld()
    who = {**processes.myself(), "endpoint": None, "version": dreamlake.__version__}

    said: set[str] = set()

    def log(level: str, text: str, **_about: str) -> None:
        text = text.removeprefix(f"{path}: ").replace(f"{path}/", "").removesuffix("; trying again")
        if level != "info" and text not in said:
            said.add(text)
            say(text)

    loop = Loop(core, REAL_DISK, _NullHub(), _AtOnce(), world, who, log)
    loop.take(on.Remembered((found.st_dev, found.st_ino), path))
    while core.sessions and world.now < _LIFE_SECONDS:
        _turn(loop, world)
    trouble = next((session.trouble for session in core.sessions.values()), None)
    loop.perform(core.stop(world.now, world.wall_ns()))
    while not loop.ended:
        _turn(loop, world)
    if not core.opened:
        raise Refused(_reason(path, core.not_opened))
    if trouble:
        raise Refused(f"{path} could not be repaired: {trouble}; see to its disk and permissions, then try again")


def _make_journals(path: str) -> None:
    """A directory of 0.2.x has none, and an agent takes no folder without one for a session's; here a person asks."""
    at = REAL_DISK.root(path)
    try:
        REAL_DISK.mkdirs(JOURNALS, at)
    except OSError as error:
        raise Refused(f"{path} could not be repaired: {JOURNALS}: {error.strerror}; see to its permissions") from None
    finally:
        REAL_DISK.close(at)


def _turn(loop: Loop, world: _HurriedWorld) -> None:
    if not loop.turn():
        world.now += config.TICK_SECONDS


def _reason(path: str, event: on.NotOpened | None) -> str:
    if event is None:
        return f"{path} could not be opened"
    if event.why == "owned":
        record = _owner_record(path)
        if not processes.is_here(record):
            return (
                f"{path} belongs to an agent on {record.get('host')} (pid {record.get('pid')}), which applies journals "
                "and rebuilds views by itself; should that node be gone for good: dreamlake agent takeover "
                f"{shlex.quote(path)}"
            )
        return (
            f"{path} belongs to a live agent (pid {record.get('pid')} on {record.get('host')}), which applies journals "
            "and rebuilds views by itself; to repair it from here, end that agent first: dreamlake agent stop"
        )
    if event.why == "damaged":
        return f"{event.reason}, and no history says what it was: mend that file by hand, or move it away"
    return f"{path} could not be repaired: {event.reason}; see to its disk and permissions, then try again"


def _owner_record(path: str) -> dict[str, Any]:
    at = REAL_DISK.root(path)
    try:
        return last_word(REAL_DISK, at) or {}
    except OSError:
        return {}
    finally:
        REAL_DISK.close(at)
