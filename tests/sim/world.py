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
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, ClassVar, TypeVar

from dreamlake.conversation import FlushRequest
from dreamlake.reader.segments import JOURNALS, is_torn
from dreamlake.world import processes
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.seams import NoUploader, Uploader
from dreamlake_agent.seams import World as LoopWorld
from tests.sim.disk import USER, Died, Faults, SimDisk, SimProcess
from tests.sim.network import Hub, Line, NetworkFaults, SimNetwork
from tests.sim.ownership import check_ownership
from tests.sim.parties import AgentProcess, Party, Reminders
from tests.sim.places import SPOOL, Place, place_of
from tests.sim.profiles import Profile, limits, profile_of
from tests.sim.promises import Call, Violation
from tests.sim.trainings import Client, Training

PATHS = ("/runs/w/s", "/runs/w/t")
PLACES_MAX = 4
CALM_TURNS_MAX = 1200
_WALL = 1_700_000_000 * 10**9
_DEPTH_MAX = 2
_SCENE_TURNS = 12
_WAITS = (0.01, 0.06, 0.3, 1.1, 3.5)
_STOPPED_SECONDS = (0.5, 5.0, 40.0)
NESTED = ("call", "link", "agent", "work", "network")


class World:
    """It is also the ``World`` that the loop asks for time, chance and who lives."""

    calm_seconds = 0.1  # a turn

    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        self.seed, self.chance = seed, Random(seed)
        self.profile = (profile or profile_of(seed)).drawn(self.chance)
        self.now = 1000.0
        self.events: deque[str] = deque(maxlen=2000)
        self.clients: list[Client] = []
        self.agents: list[AgentProcess] = []
        self.places: list[Place] = []
        self.boot = 1
        self.uploads = self.chance.choice((0, 1, 1, 10))  # of so many calls and five
        self._blind = self.chance.random() < self.profile.blind
        self._wall_ns = _WALL
        self._last_pid = USER
        self._depth = 0
        self._calm = False
        self._dooms: dict[int, int] = {}  # pid → disk calls until it dies; USER stands for the power
        self._paths = PATHS[: self.profile.sessions]
        self._copies = self._edits = 0
        self._homes = [f"ipc://{name}" for name in "abc"[: self.profile.homes]]
        self._reminders = {home: Reminders() for home in self._homes}
        self.disk = self.make_disk()
        self.network = SimNetwork(self.chance, self.profile.network)
        self.disk.mkdirs("/runs/w")
        self.disk.mkdirs("/scratch")
        self.disk.settle()
        self.disk.before, self.disk.after = self._before, self._after

    def make_disk(self) -> SimDisk:
        return SimDisk(self.chance, self.profile.disk)

    # ── for the loop ────────────────────────────────────────────────────────────────────────────────────────────────

    def monotonic(self) -> float:
        return self.now

    def wall_ns(self) -> int:
        return self._wall_ns + int(self.now * 1e9)

    def uploader(self) -> Uploader:
        """Of an agent that starts."""
        return NoUploader()

    def remote_and_key(self) -> tuple[dict[str, Any] | None, dict[str, str | None] | None]:
        """What a session is opened with: where it is meant to go, and the key for it."""
        return None, None

    def check_sent(self, training: Training, request: FlushRequest, place: Place, calls: list[Call]) -> None:
        """A client has heard that these are on its server."""

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

    # Of processes on one machine; nodes of their own have tests/sim/nodes.py.

    def begins(self, pid: int, home: str) -> None:
        """A process is about to be, at that home."""

    def seen_from(self, pid: int) -> LoopWorld:
        """Time, chance and who lives, as that process sees them."""
        return self

    def endpoint_of(self, home: str) -> str:
        """Where the agent of that home says that it listens."""
        return home

    def may_stay(self, place: Place, path: str) -> bool:
        """Whether that may stay in the directory when all is over: a segment of which power loss took the header may be
        one that another node has just begun, for all that an owner knows, and goes some time later."""
        if not place.power_lost or not path.startswith(JOURNALS):
            return False
        client = path.rpartition("/")[2][:32]
        at = self.user.root(place.path)
        try:  # or what was made for that one
            return any(
                name.startswith(client) and is_torn(self.user, at, name) for name in self.user.listdir(JOURNALS, at)
            )
        finally:
            self.user.close(at)

    def core(self) -> Agent:
        """What decides for an agent that starts."""
        return Agent(self.random(8))

    def listen(self, home: str) -> Hub:
        return self.network.listen(home)

    def connect_from(self, home: str) -> Callable[[str], Line]:
        return self.network.connect

    def reader_for(self, training: Training) -> SimProcess:
        """Who sees what the training's process sees."""
        return self.user

    def counts(self, training: Training) -> bool:
        """Whether what the agent says to the training just now will hold, whoever dies."""
        return True

    def describe(self, pid: int) -> dict[str, Any]:
        return {"host": "sim", "boot": str(self.boot), "ns": "", "pid": pid, "start": float(pid)}

    @property
    def user(self) -> SimProcess:
        return self.disk.process(USER)

    def client_id(self, size: int) -> bytes:
        return self.random(size)

    def place_at(self, path: str) -> Place:
        """What is known of the directory there, which a process has just made or found."""
        ino = self.disk.walk(path).number
        place = next((each for each in self.places if each.ino == ino and not each.removed), None)
        if place is None:
            place = Place(path, ino)
            self.places.append(place)
        return place

    def agent_at(self, home: str) -> AgentProcess | None:
        return next((each for each in self.agents if each.home == home and not each.dead), None)

    def start_agent(self, home: str) -> None:
        if self.agent_at(home) is None:
            pid = self._next_pid()
            self.note(f"agent a{pid} starts at {home}")
            self.agents.append(AgentProcess(self, pid, home, self._reminders[home]))

    def note(self, text: str) -> None:
        self.events.append(f"{self.now:.3f} {text}")

    def _next_pid(self) -> int:
        self._last_pid += 1
        return self._last_pid

    # ── one thing at a time ─────────────────────────────────────────────────────────────────────────────────────────

    def act(self, party: Party, thread: str, work: Callable[[], object]) -> None:
        """Let one thread of a process go on; its death is its own."""
        if party.dead or thread in party.busy or (self.now < party.stopped_until and not self._calm):
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
            self.check_call(pid, name, given)

    def check_call(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        """Hold what an agent is about to do against what it may do."""
        check_ownership(self.disk, pid, name, given)

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
        for place in self.places:
            if place.copied and not place.removed:
                place.remove(self.disk)  # nothing was promised of a copy that was not synced
            elif not place.removed:
                place.power_loss(self.disk)

    def _reap(self) -> None:
        """What the kernel does for the dead."""
        for party in (*self.clients, *self.agents):
            if party.dead:
                self.note(f"{party.name} is dead")
                self._dooms.pop(party.pid, None)
                party.end()
                party.died()
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
            paths = [*self._paths, *(place.path for place in self.places if place.copied and not place.removed)]
            self.arrive(self.chance.choice(self._homes), self.chance.choice(paths))

    def arrive(self, home: str, path: str) -> None:
        """A script starts, and opens a session."""
        client = Client(self, self._next_pid(), home)
        self.note(f"{client.name} arrives at {path}")
        self.clients.append(client)
        self.act(client, "call", lambda: self._open(client, path))

    def _open(self, client: Client, path: str) -> None:
        try:
            client.open(path)
        except OSError as error:
            self.note(f"{client.name} cannot open: {error}")
            self.disk.kill(client.pid)

    def _open_another(self, client: Client) -> None:
        """A second session in the same process; or the same once more."""
        if client.trainings and len(client.trainings) < 2:
            try:
                client.open(self.chance.choice(self._paths))
            except OSError as error:
                self.note(f"{client.name} cannot open another session: {error}")

    def _fork(self, client: Client) -> None:
        if client.trainings and len(self.clients) < 2 * self.profile.clients:
            child = Client(self, self._next_pid(), client.home)
            self.note(f"{client.name} forks {child.name}")
            self.clients.append(child)
            client.fork(child)

    def _call(self, client: Client) -> None:
        try:
            client.use_what_was_inherited()
        except OSError as error:
            self.note(f"{client.name} cannot begin a journal: {error}")
        if client.trainings:
            self.chance.choice(client.trainings).call()

    def _turns(self, *, workers: bool) -> None:
        """Everybody has turns, one after the other; without workers nothing becomes durable meanwhile."""
        for _ in range(_SCENE_TURNS):
            self._step("link")
            self._step("network")
            self._step("agent")
            if workers:
                self._step("work")
                self._step("wait")
            self._reap()

    def _stop_for_a_while(self, party: Party) -> None:
        party.stopped_until = self.now + self.chance.choice(_STOPPED_SECONDS)

    # what users do to directories

    def _some_place(self) -> Place | None:
        there = [each for each in self.places if not each.removed and self.disk.exists(each.path)]
        return self.chance.choice(there) if there and self._depth == 0 else None

    def _remove(self) -> None:
        place = self._some_place()
        if place is not None:
            self.note(f"the user removes {place.path}")
            place.remove(self.disk)

    def _wipe(self) -> None:
        """Node-local disk is cleaned."""
        if self._depth == 0 and self.disk.exists(SPOOL):
            self.note("the spool is removed")
            self.disk.remove_tree(SPOOL)
            self.disk.settle_names()
            for place in self.places:
                if not place.removed:
                    place.wipe()

    def _copy(self) -> None:
        place = self._some_place()
        if place is not None and sum(not each.removed for each in self.places) < PLACES_MAX:
            self._copies += 1
            path = f"/runs/w/copy{self._copies}"
            self.note(f"the user copies {place.path} to {path}")
            try:
                copied = place.copy(self.disk, path)
            except OSError:  # no room
                with suppress(FileNotFoundError):
                    self.disk.remove_tree(path)
                return
            self.places.append(copied)
            copied.check_reading(self)

    def _move(self) -> None:
        place = self._some_place()
        if place is not None and sum(not each.removed for each in self.places) < PLACES_MAX:
            self._copies += 1
            path = f"/runs/w/moved{self._copies}"
            self.note(f"the user moves {place.path} to {path}")
            self.disk.move(place.path, path)
            place.path = path

    def _edit(self) -> None:
        place = self._some_place()
        views = place.views(self.disk) if place is not None else []
        if place is not None and views and self.disk.room_bytes > 1000:
            view = self.chance.choice(views)
            self._edits += 1
            content = b'{"edited": %d}' % self._edits if self.chance.random() < 0.5 else b"edited %d" % self._edits
            self.note(f"the user edits {place.path}/{view}: {content!r}")
            place.edit(self.disk, view, content)

    def _push(self) -> None:
        """Whatever may leave the machine leaves it."""
        for agent in self.agents:
            for key, directory in agent.loop.directories.items():
                place = place_of(self, key[1])
                if place is not None:
                    place.push(self.disk, directory)

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
        if not all(training.leaving for training in client.trainings):
            for training in client.trainings:
                training.leave()
        elif not any(training.flushes for training in client.trainings) or self.chance.random() < 0.2:
            client.exit()
            self.disk.kill(client.pid)

    def _kill(self, party: Party) -> None:
        if not party.busy - {"call", "loop"}:
            self.disk.kill(party.pid)

    def _doom_party(self, party: Party) -> None:
        self._dooms.setdefault(party.pid, self.chance.choice((5, 30, 100)) * self.chance.randint(0, 10) // 10)

    _OF_CLIENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {
        "call": _call,
        "link": lambda self, client: client.link(),
        "flush": lambda self, client: [each.flush(self.chance.random() < 0.5) for each in client.trainings],
        "sync": lambda self, client: [each.sync() for each in client.trainings],
        "upload": lambda self, client: [each.upload() for each in client.trainings],
        "flush_durable": lambda self, client: [each.flush(True) for each in client.trainings],
        "leave": _leave,
        "open_another": _open_another,
        "fork": _fork,
        "pause_client": _stop_for_a_while,
        "kill_client": _kill,
        "doom_client": _doom_party,
    }
    _OF_AGENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {
        "agent": lambda self, agent: agent.turn(),
        "work": lambda self, agent: agent.work(),
        "stop_agent": lambda self, agent: agent.stop(),
        "pause_agent": _stop_for_a_while,
        "kill_agent": _kill,
        "doom_agent": _doom_party,
    }
    _OF_WORLD: ClassVar[dict[str, Callable[[Any], object]]] = {
        "network": lambda self: self.network.turn(),
        "wait": _wait,
        "turns": lambda self: self._turns(workers=False),
        "rest": lambda self: self._turns(workers=True),
        "arrive": _arrive,
        "start_agent": _start_some,
        "power": _power,
        "doom_power": _doom_power,
        "fill": _fill,
        "heal": _heal,
        "jump": _jump,
        "remove": _remove,
        "copy": _copy,
        "wipe": _wipe,
        "move": _move,
        "edit": _edit,
        "push": _push,
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
        for step in self.profile.scene or self.chance.choices(steps, weights, k=self.profile.steps):
            self._step(step)
            self._reap()
            if self.chance.random() < 0.02:
                self.check_reading()

    def _settle(self) -> None:
        self._calm = True
        self.note("calm")
        self.disk.faults, self.network.faults = Faults(), NetworkFaults()
        self.disk.capacity_bytes = None
        for client in self.clients:
            client.inherited.clear()
        for home in self._homes:
            self.arrive(home, self._paths[0])
        for path in sorted({*self._paths[1:], *(place.path for place in self.places if not place.removed)}):
            if path != self._paths[0]:
                self.arrive(self._homes[0], path)
        self._until(
            "everything is acked and covered", lambda: all(each.quiet for each in (*self.clients, *self.agents))
        )
        for client in self.clients:
            self.act(client, "call", lambda client=client: [each.leave() for each in client.trainings])  # type: ignore[misc]
        self._until("every session is closed", lambda: all(each.quiet for each in self.clients))
        for client in self.clients:
            self.act(client, "call", lambda client=client: self._leave(client))  # type: ignore[misc]
        self._reap()
        self._until("every directory is let go", lambda: not any(each.core.sessions for each in self.agents))

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        for _ in range(CALM_TURNS_MAX):
            self.now += self.calm_seconds
            self.disk.now_ns = self.wall_ns()
            for home in self._homes:
                self.start_agent(home)
            for client in self.clients:
                self.act(client, "link", client.link)
            self.network.turn()
            for agent in self.agents:
                self.act(agent, "loop", agent.turn)
                self.act(agent, "work", agent.work)
            self._beside()
            self._reap()
            if condition():
                return
        raise Violation(f"{what}: not within {CALM_TURNS_MAX} turns of calm; {self._restless()}")

    def _beside(self) -> None:
        """What else has its turn in the calm."""

    def _restless(self) -> str:
        clients = [
            f"{each.name} at {training.path}: {training.conversation.phase}, {training.conversation.unacked} unacked, "
            f"{len(training.flushes)} flushes, gone {training.book.gone}"
            for each in self.clients
            for training in each.trainings
        ]
        agents = [f"{each.name}: {each.core.last_error}, {list(each.core.sessions.values())}" for each in self.agents]
        return "; ".join(clients + agents)

    # ── what must be true ───────────────────────────────────────────────────────────────────────────────────────────

    def check_reading(self) -> None:
        """A reader who replays the journals finds everything, whoever lives."""
        place = self._some_place()
        if place is not None and not self.agents:
            place.check_reading(self)

    def _check(self) -> None:
        for place in self.places:
            if not place.removed:
                try:
                    place.check(self)
                except Violation as found:
                    raise Violation(f"{place.path}: {found}") from found
        # Where a directory was removed, or power loss took a marker, the journal of a dead client stays.
        if not any(place.removed or place.power_lost or place.wiped for place in self.places) and self.disk.exists(
            SPOOL
        ):
            # What died before it had marked its journal; the next that begins there clears it away.
            left = [path for path, data in self.disk.tree(SPOOL).items() if b"name" in data]
            if left:
                raise Violation(f"all is covered and closed, and in the spool these stay: {sorted(left)}")

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


AnyWorld = TypeVar("AnyWorld", bound=World)


def to_its_end(world: AnyWorld) -> AnyWorld:
    """Let a world run from its beginning to its end; a broken promise is a :class:`Violation`, which names its seed."""
    try:
        world.run()
    except Exception as error:
        error.args = (f"seed {world.seed} ({world.profile.name}): {error}",)
        raise
    return world


def run(seed: int, profile: Profile | None = None) -> World:
    """The world of a seed, as :func:`to_its_end` lets it run."""
    return to_its_end(World(seed, profile))
