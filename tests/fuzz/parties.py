"""One agent over seams that the fuzzer holds: the shipped core, loop, store and recovery, in one thread."""

from __future__ import annotations

from collections import deque
from typing import Any

from dreamlake import config
from dreamlake.wire import messages
from dreamlake.world import processes
from dreamlake.world.disk import Disk
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.loop import Loop
from tests.golden import world

WHO = {**world.NEXT_OWNER, "pid": 1, "start": 1.0, "endpoint": "ipc://fuzz", "version": "fuzz"}
TURNS_MAX = 600


class Hub:
    """What came and what was answered."""

    def __init__(self) -> None:
        self.coming: deque[tuple[bytes, list[bytes]]] = deque()
        self.sent: list[tuple[bytes, list[bytes]]] = []

    def receive(self) -> tuple[bytes, list[bytes]] | None:
        return self.coming.popleft() if self.coming else None

    def send(self, peer: bytes, frames: list[bytes]) -> None:
        # Whatever is sent can be read by the other side.
        messages.decode(frames)
        self.sent.append((peer, frames))


class AgentProcess:
    """An agent; it is also its own world (time, chance, who lives) and its own workers."""

    def __init__(self, disk: Disk) -> None:
        self.now, self.lives = 1000.0, True
        self.jobs: deque[Any] = deque()
        self.results: list[Any] = []
        self.notes = 0
        self.hub = Hub()
        self.core = Agent(b"\1" * 8)
        self._random = 0
        self.loop = Loop(self.core, disk, self.hub, self, self, WHO, self._log)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return 1_700_000_000 * 10**9 + int(self.now * 1e9)

    def random(self, size: int) -> bytes:
        self._random += 1
        return self._random.to_bytes(size, "big")

    def verdict(self, who: dict[str, Any]) -> str:
        processes.verdict(who)  # must bear whatever a journal says of its writer
        return processes.ALIVE if self.lives else processes.GONE

    def _log(self, level: str, text: str, **_about: str) -> None:
        text.encode()
        self.notes += 1

    def submit(self, job: Any) -> None:
        self.jobs.append(job)

    def done(self) -> list[Any]:
        found, self.results = self.results, []
        return found

    def finish(self) -> None:
        self.jobs.clear()

    def turn(self, seconds: float = 0.1) -> None:
        self.now += seconds
        while self.loop.turn():
            pass
        while self.jobs:
            self.results.append(self.jobs.popleft()())

    def rest(self) -> None:
        """Everybody is dead: what stands in the journals is applied, and every directory is let go or in trouble."""
        self.lives = False
        for _ in range(TURNS_MAX):
            self.turn(0.3)
            if all(each.phase == "stalled" for each in self.core.sessions.values()):
                return
        raise AssertionError(f"no rest after {TURNS_MAX} turns: {list(self.core.sessions.values())}")

    def stop(self) -> None:
        """A stopped agent ends in time, whatever stands open."""
        self.loop.perform(self.core.stop(self.now, self.wall_ns()))
        for _ in range(int(config.STOP_SECONDS / 0.5) + 10):
            self.turn(0.5)
            if self.loop.ended:
                assert not self.loop.directories
                return
        raise AssertionError(f"it does not end: {list(self.core.sessions.values())}")

    def remember(self, path: str, key: tuple[int, int]) -> None:
        self.loop.take(on.Remembered(key, path))
