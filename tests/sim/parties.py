"""The parties of a simulated world: each one process on the pretend disk. An agent is a
:class:`~dreamlake_agent.loop.Loop` whose workers work when the world lets them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dreamlake_agent.core import events as on
from dreamlake_agent.loop import Loop
from tests.sim.disk import SimProcess
from tests.sim.promises import Violation

if TYPE_CHECKING:
    from tests.sim.world import World

OPEN_FILES_MAX = 8  # of a directory, but for its logs


class Party:
    """One process. ``busy`` are its threads that stand in the middle of something."""

    def __init__(self, world: World, pid: int, name: str, home: str = "") -> None:
        self.world, self.pid, self.name, self.home = world, pid, name, home
        world.begins(pid, home)
        self.disk: SimProcess = world.disk.process(pid)
        self.busy: set[str] = set()
        self.who = world.describe(pid)
        self.stopped_until = 0.0  # SIGSTOP

    @property
    def dead(self) -> bool:
        return self.disk.dead

    @property
    def quiet(self) -> bool:
        """Whether nothing is owed by it or to it."""
        raise NotImplementedError

    def died(self) -> None:
        """It is dead: what that means for what it was promised."""

    def end(self) -> None:
        """After its death: what else the kernel closes."""
        raise NotImplementedError


class Workers:
    """Jobs wait until the world lets one be done."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], Any]] = deque()
        self.results: list[Any] = []

    def submit(self, job: Callable[[], Any]) -> None:
        self.jobs.append(job)

    def done(self) -> list[Any]:
        found, self.results = self.results, []
        return found

    def finish(self) -> None:
        self.jobs.clear()


class Reminders:
    """As the registry in the state folder: paths of the directories that the next agent at a home looks at."""

    def __init__(self) -> None:
        self.paths: set[str] = set()

    def add(self, path: str) -> None:
        self.paths.add(path)

    def drop(self, path: str) -> None:
        self.paths.discard(path)


class AgentProcess(Party):
    """An agent."""

    def __init__(self, world: World, pid: int, home: str, reminders: Reminders) -> None:
        super().__init__(world, pid, f"a{pid}", home)
        self.reminders = reminders
        self.who = {**self.who, "endpoint": world.endpoint_of(home), "version": "sim"}
        self.hub = world.listen(home)
        self.workers = Workers()
        self.core = world.core()
        self.uploader = world.uploader()
        seams = (self.disk, self.hub, self.workers, world.seen_from(pid), self.who, self._log, reminders, self.uploader)
        self.loop = Loop(self.core, *seams)
        self._remember = sorted(reminders.paths)

    def _log(self, level: str, text: str, **_about: str) -> None:
        self.world.note(f"{self.name} {level}: {text}")

    def turn(self) -> None:
        while self._remember:
            self._look_at(self._remember.pop())
        self.loop.turn()
        self._check_memory()
        if self.loop.ended:
            self.workers.finish()
            self.world.disk.kill(self.pid)

    def _look_at(self, path: str) -> None:
        """As ``lifecycle.run`` does with what its registry remembers."""
        try:
            at = self.disk.root(path)
        except OSError:
            self.reminders.drop(path)
            return
        found = self.disk.fstat(at)
        self.disk.close(at)
        self.loop.take(on.Remembered((found.dev, found.ino), path))

    def _check_memory(self) -> None:
        """Between turns nothing waits in memory but in a directory that is about to be let go; and descriptors are
        bounded."""
        waiting = [key for key, each in self.loop.directories.items() if each.pending and key not in self.loop._broken]
        if waiting:
            raise Violation(f"{self.name} goes to sleep with {waiting} uncommitted")
        open_ones = {id(each): each for each in (*self.loop.directories.values(), *self.loop._working.values())}
        own = sum(len(each.own._segments) for each in open_ones.values() if each.own is not None)
        held = sum(len(each.held) for each in open_ones.values())
        most = (
            self.loop.opened.most
            + len(open_ones) * OPEN_FILES_MAX
            + held
            + 2 * own
            + OPEN_FILES_MAX
            + len(self.workers.jobs)
        )
        if len(self.disk.files) > most and "work" not in self.busy:
            raise Violation(f"{self.name} has {len(self.disk.files)} files open in {len(open_ones)} directories")

    def work(self) -> None:
        if self.workers.jobs:
            result = self.workers.jobs.popleft()()
            self.workers.results.append(result)

    def stop(self) -> None:
        self.loop.perform(self.core.stop(self.world.now, self.world.wall_ns()))

    @property
    def quiet(self) -> bool:
        return not self.workers.jobs and all(
            each.is_covered and each.viewed == each.commits and each.working is None and not each.uncommitted
            for each in self.core.sessions.values()
        )

    def end(self) -> None:
        self.hub.close()
        self.uploader.rest()
