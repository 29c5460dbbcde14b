"""One seed is one world: clients, agents, a disk and a network, and everything that may happen to them.

The shipped journal, link, core, loop, store and reader run unmodified over the pretend disk and network. A storm of
steps, each chosen by the one ``Random``, is followed by calm: no more faults, an agent everywhere, and all must come to
rest. Then the directory is held against what the clients were promised.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar

from dreamlake.world import processes
from tests.sim import promises
from tests.sim.disk import USER, Died, Faults, SimDisk, SimProcess
from tests.sim.network import NetworkFaults, SimNetwork
from tests.sim.ownership import Ownership
from tests.sim.parties import AgentProcess, Client, Party
from tests.sim.profiles import Profile, limits, profile_of
from tests.sim.promises import Book, Violation

PATH = "/runs/w/s"
CALM_TURNS_MAX = 1200
_WALL = 1_700_000_000 * 10**9
_DEPTH_MAX = 2
_WAITS = (0.01, 0.06, 0.3, 1.1, 3.5)
NESTED = ("call", "link", "agent", "work", "network")


class World:
    """It is also the ``World`` that the loop asks for time, chance and who lives."""

    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        self.seed, self.chance = seed, Random(seed)
        self.profile = (profile or profile_of(seed)).drawn(self.chance)
        self.now = 1000.0
        self.may_vanish = self.profile.lies > 0
        self.events: deque[str] = deque(maxlen=2000)
        self.clients: list[Client] = []
        self.agents: list[AgentProcess] = []
        self.books: list[Book] = []
        self.boot = 1
        self._blind = self.chance.random() < self.profile.blind
        self._wall_ns = _WALL
        self._last_pid = USER
        self._depth = 0
        self._calm = False
        self._dooms: dict[int, int] = {}  # pid → disk calls until it dies; USER stands for the power
        self._homes = [f"ipc://{name}" for name in "abc"[: self.profile.homes]]
        self.disk = SimDisk(self.chance, self.profile.disk)
        self.network = SimNetwork(self.chance, self.profile.network)
        self.disk.mkdirs("/runs/w")
        self.disk.settle()
        self.disk.before, self.disk.after = self._before, self._after
        self.ownership = Ownership(self.disk, PATH)

    # ── for the loop ────────────────────────────────────────────────────────────────────────────────────────────────

    def monotonic(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return self._wall_ns + int(self.now * 1e9)

    def random(self, size: int) -> bytes:
        return self.chance.getrandbits(8 * size).to_bytes(size, "big")

    def verdict(self, who: dict[str, Any]) -> str:
        if self._blind:
            return processes.UNKNOWN
        lives = any(each.pid == who["pid"] and not each.dead for each in (*self.clients, *self.agents))
        if not self._calm and self.profile.lies and self.chance.random() < self.profile.lies:
            lives = not lives
        return processes.ALIVE if lives else processes.GONE

    # ── for the parties ─────────────────────────────────────────────────────────────────────────────────────────────

    def describe(self, pid: int) -> dict[str, Any]:
        return {"host": "sim", "boot": str(self.boot), "ns": "", "pid": pid, "start": float(pid)}

    @property
    def user(self) -> SimProcess:
        return self.disk.process(USER)

    def client_id(self) -> bytes:
        return self.random(16)

    def agent_at(self, home: str) -> AgentProcess | None:
        return next((each for each in self.agents if each.home == home and not each.dead), None)

    def start_agent(self, home: str) -> None:
        if self.agent_at(home) is None:
            pid = self._next_pid()
            self.note(f"agent a{pid} starts at {home}")
            self.agents.append(AgentProcess(self, pid, f"a{pid}", home))

    def note(self, text: str) -> None:
        self.events.append(f"{self.now:.3f} {text}")

    def _next_pid(self) -> int:
        self._last_pid += 1
        return self._last_pid

    # ── one thing at a time ─────────────────────────────────────────────────────────────────────────────────────────

    def act(self, party: Party, thread: str, work: Callable[[], object]) -> None:
        """Let one thread of a process go on; its death is its own."""
        if party.dead or thread in party.busy:
            return
        party.busy.add(thread)
        try:
            work()
        except Died:
            pass
        finally:
            party.busy.discard(thread)

    def _before(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        if not self._calm:
            self._doom(pid)
            if self._depth < _DEPTH_MAX and self.chance.random() < self.profile.preempt:
                self._depth += 1
                try:
                    self._step(self.chance.choice(NESTED))
                finally:
                    self._depth -= 1
        if any(each.pid == pid and not each.dead for each in self.agents):
            self.ownership.check(pid, name, given)

    def _after(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        if not self._calm and self._dooms.get(pid) == 0:
            del self._dooms[pid]
            raise Died

    def _doom(self, pid: int) -> None:
        for each in (pid, USER):
            if each in self._dooms:
                self._dooms[each] -= 1
                if self._dooms[each] < 0:
                    del self._dooms[each]
                    self._fate(each)

    def _fate(self, pid: int) -> None:
        if pid == USER:
            self._lose_power()
        else:
            raise Died(torn=self.chance.random() < 0.5)

    def _lose_power(self) -> None:
        self.note("power loss")
        self.disk.power_loss()
        self.boot += 1
        self._dooms.clear()
        promises.power_loss(self.books)

    def _reap(self) -> None:
        """What the kernel does for the dead."""
        for party in (*self.clients, *self.agents):
            if party.dead:
                self.note(f"{party.name} is dead")
                self._dooms.pop(party.pid, None)
                party.end()
                if isinstance(party, Client):
                    for book in party.books:
                        book.end = book.end or "died"
        self.clients = [each for each in self.clients if not each.dead]
        self.agents = [each for each in self.agents if not each.dead]

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, step: str) -> None:
        self.now += self.chance.choice((0.001, 0.004, 0.02))
        self.disk.now_ns = self.wall_ns()
        client = self.chance.choice(self.clients) if self.clients else None
        agent = self.chance.choice(self.agents) if self.agents else None
        if step in self._OF_CLIENT:
            if client is not None and not client.locked:
                self.act(client, "link" if step == "link" else "call", lambda: self._OF_CLIENT[step](self, client))
        elif step in self._OF_AGENT:
            if agent is not None:
                self.act(agent, "work" if step == "work" else "loop", lambda: self._OF_AGENT[step](self, agent))
        else:
            self._OF_WORLD[step](self)

    def _wait(self) -> None:
        self.now += self.chance.choice(_WAITS)

    def _arrive(self) -> None:
        if len(self.clients) < self.profile.clients:
            self.arrive(self.chance.choice(self._homes))

    def arrive(self, home: str) -> Client | None:
        pid = self._next_pid()
        client = Client(self, pid, f"c{pid}", PATH, home)
        self.note(f"{client.name} arrives")

        def begin() -> None:
            try:
                client.begin()
            except OSError as error:
                self.note(f"{client.name} cannot open: {error}")
                self.disk.kill(pid)

        self.act(client, "call", begin)
        if client.dead:
            for book in client.books:
                book.end = "died"
            return None
        self.clients.append(client)
        return client

    def _start_some(self) -> None:
        self.start_agent(self.chance.choice(self._homes))

    def _power(self) -> None:
        if self._depth == 0:
            self._lose_power()

    def _doom_power(self) -> None:
        self._dooms.setdefault(USER, self.chance.randint(0, 400))

    def _fill(self) -> None:
        self.disk.capacity_bytes = self.disk.used_bytes + self.chance.choice((0, 10, 300, 3000))

    def _heal(self) -> None:
        self.disk.capacity_bytes = None

    def _jump(self) -> None:
        self._wall_ns += int(self.chance.uniform(-100, 100) * 1e9)

    def _leave(self, client: Client) -> None:
        """Close, and go when all is flushed, or after a while."""
        if not client.leaving:
            client.leave()
        elif not client.flushes or self.chance.random() < 0.2:
            for conversation in client.board.conversations.values():
                conversation.leave()
            client.book.end = "left"
            self.disk.kill(client.pid)

    def _kill(self, party: Party) -> None:
        if not party.busy - {"call", "loop"}:
            self.disk.kill(party.pid)

    def _doom_party(self, party: Party) -> None:
        self._dooms.setdefault(party.pid, self.chance.choice((5, 30, 100)) * self.chance.randint(0, 10) // 10)

    _OF_CLIENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {
        "call": lambda self, client: client.call(),
        "link": lambda self, client: client.link(),
        "flush": lambda self, client: client.flush(self.chance.random() < 0.5),
        "sync": lambda self, client: client.sync(),
        "leave": _leave,
        "kill_client": _kill,
        "doom_client": _doom_party,
    }
    _OF_AGENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {
        "agent": lambda self, agent: agent.turn(),
        "work": lambda self, agent: agent.work(),
        "stop_agent": lambda self, agent: agent.stop(),
        "kill_agent": _kill,
        "doom_agent": _doom_party,
    }
    _OF_WORLD: ClassVar[dict[str, Callable[[Any], object]]] = {
        "network": lambda self: self.network.turn(),
        "wait": _wait,
        "arrive": _arrive,
        "start_agent": _start_some,
        "power": _power,
        "doom_power": _doom_power,
        "fill": _fill,
        "heal": _heal,
        "jump": _jump,
    }

    # ── the storm, and the calm after it ────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        with limits(self.chance), _hushed():
            self._storm()
            self._settle()
            self._check()

    def _storm(self) -> None:
        for _ in range(2):
            self._arrive()
        steps, weights = list(self.profile.weights), list(self.profile.weights.values())
        for step in self.chance.choices(steps, weights, k=self.profile.steps):
            self._step(step)
            self._reap()
            if not self.agents and self.chance.random() < 0.05:
                self.check_reading()

    def _settle(self) -> None:
        self._calm = True
        self.note("calm")
        self.disk.faults, self.network.faults = Faults(), NetworkFaults()
        self.disk.capacity_bytes = None
        for home in self._homes:
            self.arrive(home)
        self._until(
            "everything is acked and covered", lambda: all(each.quiet for each in (*self.clients, *self.agents))
        )
        for client in self.clients:
            self.act(client, "call", client.leave)
        self._until("every session is closed", lambda: all(each.quiet for each in self.clients))
        for client in self.clients:
            self._leave(client)
        self._reap()
        self._until("every directory is let go", lambda: not any(each.core.sessions for each in self.agents))

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        for _ in range(CALM_TURNS_MAX):
            self.now += 0.1
            self.disk.now_ns = self.wall_ns()
            for home in self._homes:
                self.start_agent(home)
            for client in self.clients:
                self.act(client, "link", client.link)
            self.network.turn()
            for agent in self.agents:
                self.act(agent, "loop", agent.turn)
                self.act(agent, "work", agent.work)
            self._reap()
            if condition():
                return
        raise Violation(f"{what}: not within {CALM_TURNS_MAX} turns of calm; {self._restless()}")

    def _restless(self) -> str:
        clients = [
            f"{each.name}: {each.conversation.phase}, {each.conversation.unacked} unacked" for each in self.clients
        ]
        agents = [f"{each.name}: {each.core.last_error}, {list(each.core.sessions.values())}" for each in self.agents]
        return "; ".join(clients + agents)

    # ── what must be true ───────────────────────────────────────────────────────────────────────────────────────────

    def check_reading(self) -> None:
        """No agent lives: a reader who replays the journals finds everything."""
        if not self.disk.exists(PATH):
            return
        at = self.user.root(PATH)
        _loaded, found = promises.replayed(self.user, at)
        self.user.close(at)
        promises.check_rows(found, self.books)

    def _check(self) -> None:
        tree = self.disk.tree(PATH)
        promises.check_rows(promises.read_rows(tree), self.books)
        at = self.user.root(PATH)
        loaded, found = promises.replayed(self.user, at)
        self.user.close(at)
        if loaded.warnings:
            raise Violation(f"the directory is not sound: {loaded.warnings}")
        promises.check_rows(found, self.books)
        promises.check_views(tree, loaded.state)
        promises.check_ends(loaded.state, self.books)
        left = [path for path in tree if path.startswith(".dreamlake/journals/")]
        if left:
            raise Violation(f"all is covered and closed, and these journals stay: {left}")

    @property
    def trace(self) -> tuple[str, str]:
        return self.disk.trace, self.network.trace


@contextmanager
def _hushed() -> Iterator[None]:
    """No warnings to the terminal; and a generator that the dead left open may die once more when it is collected."""
    logger, hook = logging.getLogger("dreamlake"), sys.unraisablehook
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = lambda found: None if found.exc_type is Died else hook(found)
    try:
        yield
        gc.collect()
    finally:
        logger.setLevel(before)
        sys.unraisablehook = hook


def run(seed: int, profile: Profile | None = None) -> World:
    """The world of a seed, from its beginning to its end; a broken promise is a :class:`Violation`."""
    world = World(seed, profile)
    try:
        world.run()
    except Exception as error:
        error.args = (f"seed {seed} ({world.profile.name}): {error}",)
        raise
    return world
