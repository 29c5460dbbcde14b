"""Worlds of several nodes that share one disk, as a network file system would show it to each of them.

Agents and clients of all nodes work in the same directories. Nodes are paused, cut off and lost; owners are paused in
the middle of a call and go on when others have taken over; locks reach one node only, are lost, or are not there at
all; what a node sees of the others is late. Whatever happens: nothing lost, doubled or torn, and no late owner changes
a log.

Every time is an eighth of what is shipped; what a node believes to see is younger than the silence after which an owner
is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from dreamlake import config
from dreamlake.reader import late
from dreamlake.reader.segments import is_torn, read_segment
from dreamlake.reader.session import SessionReader
from dreamlake.wire.state import LOGS_LOG, data_log
from dreamlake.world import processes
from dreamlake.world.disk import CREATE
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.seams import World as LoopWorld
from dreamlake_agent.store.owner import OwnedElsewhere
from dreamlake_agent.store.takeover import take_over
from tests.sim import promises
from tests.sim.disk import Died, SimDisk, SimProcess
from tests.sim.epochs import Epochs
from tests.sim.network import Hub, Line
from tests.sim.parties import AgentProcess, Party, Reminders
from tests.sim.places import Place
from tests.sim.platter import Folder, Inode
from tests.sim.profiles import NODES, Profile, changed
from tests.sim.promises import Violation
from tests.sim.shared import CLUSTER, LOCAL, LOST, NONE, SERVER, SharedDisk, Staleness
from tests.sim.trainings import Training
from tests.sim.world import World, to_its_end

GONE_SECONDS, BEAT_SECONDS, KEPT_SECONDS = 11.0, 1.25, 60.0
ATTRIBUTES_SECONDS = (0.0, 0.4, 3.75, 7.5)
_ENDPOINT = "ipc://agent"  # the same on every node, as /run/user/1000 is
_MOMENTS = (0.2, 0.6, 1.0)
_CLIENT = re.compile(r"([0-9a-f]{32})[.-]")
READERS = 1_000_000  # pids of those who only read, one on each node


class View:
    """Time, chance and who lives, as they are on one node."""

    def __init__(self, world: NodesWorld, node: str) -> None:
        self._world, self._node = world, node
        self.random = world.random

    def monotonic(self) -> float:
        return self._world.now

    def wall_ns(self) -> int:
        return self._world.wall_ns() + self._world.skews[self._node]

    def verdict(self, who: dict[str, Any]) -> str:
        return self._world.verdict_at(self._node, who)


class NodesWorld(World):
    """It is also the kernel of each node: what ``processes`` says is said of the node of whoever asks."""

    calm_seconds = 0.15
    disk: SharedDisk

    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        self.here = SERVER  # the node whose process has its turn
        super().__init__(seed, profile or profile_of(seed))
        self.names = [f"n{number}" for number in range(1, self.chance.choice((2, 2, 3, 4)) + 1)]
        self._homes = list(self.names)  # one on each node
        self._reminders = {home: Reminders() for home in self._homes}
        self.never = {name for name in self.names[1:] if self.chance.random() < 0.25}  # no agent may start there
        self.skews = {
            name: int(self.chance.choice((0, 1, 1, 60)) * self.chance.uniform(-50, 50) * 1e9) for name in self.names
        }
        self.boots = dict.fromkeys(self.names, 1)
        self.cut_off: dict[str, float] = {}  # nodes, and until when
        self.epochs = Epochs(self.disk)
        self.epochs.on_claim = self._claimed
        self._freezes: dict[int, int] = {}  # pid → disk calls until it is paused in one
        self.note(f"{self.names}, no agent on {sorted(self.never)}, {self.disk.lock_mode} locks, {self.disk.staleness}")

    def _drawn_skew(self) -> int:
        return int(self.chance.choice((0, 1, 1, 60)) * self.chance.uniform(-50, 50) * 1e9)

    def make_disk(self) -> SimDisk:
        late = self.chance.random() < 0.8
        draw = self.chance.choice
        staleness = Staleness(
            attributes_seconds=draw(ATTRIBUTES_SECONDS),
            no_cto=self.profile.no_cto > self.chance.random(),
            write_back_seconds=draw((0.5, 4.0, 8.0)) if late else 0.0,
            in_order=draw((True, False)),
            lock_wants_write=draw((True, False, False)),
            late_errors=draw((0.0, 0.5, 1.0)),
        )
        locks = draw((CLUSTER, CLUSTER, LOCAL, LOCAL, LOST, NONE))
        return SharedDisk(self.chance, self.profile.disk, staleness=staleness, locks=locks, clock=lambda: self.now)

    # ── nodes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def begins(self, pid: int, home: str) -> None:
        self.disk.node_of[pid] = home

    def node_of(self, pid: int) -> str:
        return self.disk.node_of[pid]

    def describe(self, pid: int) -> dict[str, Any]:
        node = self.node_of(pid)
        place = {"host": node, "machine": f"machine of {node}", "boot": f"{node} {self.boots[node]}"}
        return {**place, "ns": "", "pid": pid, "start": float(pid)}

    def verdict_at(self, node: str, who: dict[str, Any]) -> str:
        if who.get("host") != node:
            return processes.UNKNOWN
        if who.get("boot") != f"{node} {self.boots[node]}":
            return processes.GONE
        if self._blind and self.disk.lock_mode != NONE:  # without both, nobody could ever say that anybody is gone
            return processes.UNKNOWN
        lives = any(each.pid == who["pid"] and not each.dead for each in (*self.clients, *self.agents))
        return processes.ALIVE if lives else processes.GONE

    def seen_from(self, pid: int) -> LoopWorld:
        return View(self, self.node_of(pid))

    def core(self) -> Agent:
        return Agent(self.random(8), gone_seconds=GONE_SECONDS)

    def endpoint_of(self, home: str) -> str:
        return _ENDPOINT

    def listen(self, home: str) -> Hub:
        return self.network.listen(f"{home} {_ENDPOINT}")

    def connect_from(self, home: str) -> Callable[[str], Line]:
        return lambda endpoint: self.network.connect(f"{home} {endpoint}")

    def start_agent(self, home: str) -> None:
        if home not in self.never:
            super().start_agent(home)

    def reader_at(self, node: str) -> SimProcess:
        return self.disk.process(READERS + self.names.index(node), node)

    def reader_for(self, training: Training) -> SimProcess:
        return self.reader_at(training.client.home)

    def counts(self, training: Training) -> bool:
        """An owner that was taken over and does not know it yet may say what will not be so."""
        agent = self.agent_at(training.client.home)
        root = self._root(training.place)
        if agent is None or root is None or training.client.home in self.cut_off:
            return False
        return self.epochs.standing(root)[-1:] == [self.epochs.epoch_of(agent.pid, root)]

    def may_stay(self, place: Place, path: str) -> bool:
        """Who left it on another node than the last owner's may come back, for all that the owner knows."""
        found = _CLIENT.search(path)
        root = self._root(place)
        if found is None or root is None:
            return False
        last = self.epochs.owners[
            root.number, max(epoch for number, epoch in self.epochs.owners if number == root.number)
        ]
        at, name = self.user.root(place.path), path.rpartition("/")[2]
        segment, torn = read_segment(self.user, at, name), is_torn(self.user, at, name)
        self.user.close(at)
        if torn:  # it may have been begun a moment ago
            return True
        book = next((book for book in place.books if book.client.hex() == found[1]), None)
        if book is not None:
            return self.node_of(int(book.name[1:])) != self.node_of(last)
        return segment is not None and segment.by.get("host") != self.node_of(last)  # an agent's own

    def _root(self, place: Place) -> Folder | None:
        found = self.disk.walk(place.path)
        return found if isinstance(found, Folder) else None

    def _claimed(self, pid: int, root: Inode, epoch: int) -> None:
        """Whose epoch still stands was taken over. What was said of rows that no checkpoint covers holds only where the
        next owner sees all that the one before it saw."""
        self.note(f"{pid} on {self.node_of(pid)} claims epoch {epoch}")
        for before in self.epochs.standing(root):
            owner = self.epochs.owners.get((root.number, before), pid)
            if before < epoch and self.node_of(owner) != self.node_of(pid):
                for place in self.places:
                    if place.ino == root.number:
                        self._forget_indexes(place)

    def _forget_indexes(self, place: Place) -> None:
        for call in [call for book in place.books for call in book.calls]:
            call.index = call.index if call.pinned else None

    # ── one thing at a time ─────────────────────────────────────────────────────────────────────────────────────────

    def act(self, party: Party, thread: str, work: Callable[[], object]) -> None:
        before, self.here = self.here, party.home
        try:
            super().act(party, thread, work)
        finally:
            self.here = before

    def _before(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        if pid >= READERS:
            return
        if not self._calm and pid in self._freezes and self._depth == 0:
            self._freezes[pid] -= 1
            # Best between what is checked and what is then changed.
            if self._freezes[pid] < 0 and (_changes(name, given) or self.chance.random() < 0.05):
                del self._freezes[pid]
                self._freeze(pid, name)
        super()._before(pid, name, given)

    def _after(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        if pid < READERS:
            super()._after(pid, name, given)

    def check_call(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        """What it does is looked at when it is done (:class:`~tests.sim.epochs.Epochs`)."""

    def _step(self, step: str) -> None:
        self._look_for_violations()
        super()._step(step)
        for node in [node for node, until in self.cut_off.items() if self.now >= until]:
            self._rejoin(node)

    def _look_for_violations(self) -> None:
        if self.epochs.violation is not None:
            raise Violation(self.epochs.violation)

    def _rounds(self, count: int) -> None:
        """Everybody who can goes on, and time passes."""
        for _ in range(count):
            self.now += self.chance.choice(_MOMENTS)
            self.disk.now_ns = self.wall_ns()
            for client in list(self.clients):
                if not client.locked:
                    self.act(client, "link", client.link)
            if self.clients and self.chance.random() < 0.3:
                client = self.chance.choice(self.clients)
                if not client.locked:
                    self.act(client, "call", lambda client=client: self._call(client))  # type: ignore[misc]
            self.network.turn()
            for agent in list(self.agents):
                self.act(agent, "loop", agent.turn)
                self.act(agent, "work", agent.work)
            self._reap()

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _seconds(self) -> float:
        return self.chance.choice((2 * BEAT_SECONDS, 0.6 * GONE_SECONDS, 1.3 * GONE_SECONDS, 3 * GONE_SECONDS))

    def _freeze(self, pid: int, name: str) -> None:
        """SIGSTOP in the middle of a call; SIGCONT, and the call is made."""
        party = next((each for each in (*self.agents, *self.clients) if each.pid == pid and not each.dead), None)
        if party is None:
            return
        seconds = self._seconds()
        self.note(f"{party.name} is paused before {name}, for {seconds:.0f} s")
        party.stopped_until, self._depth = self.now + 10_000, self._depth + 1
        self.here, before = SERVER, self.here
        self._maybe_lose_locks(party.home)
        until = self.now + seconds
        while self.now < until and not self._calm:
            self._rounds(3)
        self.here, self._depth, party.stopped_until = before, self._depth - 1, 0.0
        self.note(f"{party.name} goes on")

    def _pause_agent(self, agent: AgentProcess) -> None:
        agent.stopped_until = self.now + self._seconds()
        self.note(f"{agent.name} is paused until {agent.stopped_until:.0f}")
        self._maybe_lose_locks(agent.home)

    def _maybe_lose_locks(self, node: str) -> None:
        if self.disk.lock_mode == LOST and self.chance.random() < 0.7:
            self.disk.lose_locks(node)

    def _doze(self, party: Party) -> None:
        """It will be paused in the middle of something."""
        self._freezes.setdefault(party.pid, self.chance.choice((3, 20, 60, 150)) * self.chance.randint(0, 10) // 10)

    def _while(self) -> None:
        """A while passes."""
        if self._depth == 0:
            self._rounds(self.chance.choice((5, 15, 25)))

    def _cut_off(self) -> None:
        node = self.chance.choice(self.names)
        if node not in self.cut_off:
            self.cut_off[node] = self.now + self._seconds()
            self.note(f"{node} is cut off until {self.cut_off[node]:.0f}")
            self.disk.partition(node)
            self._maybe_lose_locks(node)

    def _rejoin(self, node: str) -> None:
        del self.cut_off[node]
        self.disk.heal(node)

    def _lose_power(self) -> None:
        """Of the whole site: no page cache is left, and of the server's disk what its platter has."""
        super()._lose_power()
        self.epochs.forget()
        for node in self.names:
            self.disk.node_dies(node)
            self.boots[node] += 1
        for node in list(self.cut_off):
            self._rejoin(node)

    def _node_dies(self) -> None:
        """Power loss of one node: what it had not written back is gone."""
        node = self.chance.choice(self.names)
        self.note(f"{node} loses its power")
        self.disk.node_dies(node, self.chance.choice((0.0, 4.0, 2 * GONE_SECONDS)))
        if node in self.cut_off:
            self._rejoin(node)
        self.boots[node] += 1
        for place in self.places:
            books = [book for book in place.books if self.node_of(int(book.name[1:])) == node]
            if books:
                place.power_lost = True
                promises.power_loss(books)

    def _take_over(self) -> None:
        """A person says that the owner is gone."""
        place, node = self._some_place(), self.chance.choice(self.names)
        if place is not None:
            self.take_over(place, node)

    def take_over(self, place: Place, node: str) -> None:
        pid = self._next_pid()
        self.begins(pid, node)
        disk, before = self.disk.process(pid, node), self.here
        self.here = node
        try:
            who = {**self.describe(pid), "endpoint": _ENDPOINT, "version": "sim"}
            epoch = take_over(disk, place.path, who, self.random(16).hex())
            self.note(f"{pid} on {node} has taken {place.path} over, in epoch {epoch}")
        except (OSError, OwnedElsewhere) as error:
            self.note(f"{pid} on {node} could not take {place.path} over: {error}")
        except Died:
            pass
        finally:
            self.here = before
            self.disk.kill(pid)
        agent = self.agent_at(node)
        if agent is not None:
            self.act(agent, "loop", lambda: agent._look_at(place.path))

    _OF_CLIENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {**World._OF_CLIENT, "doze_client": _doze}
    _OF_AGENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {
        **World._OF_AGENT,
        "pause_agent": _pause_agent,
        "doze_agent": _doze,
    }
    _OF_WORLD: ClassVar[dict[str, Callable[[Any], object]]] = {
        **World._OF_WORLD,
        "while": _while,
        "cut_off": _cut_off,
        "node_dies": _node_dies,
        "take_over": _take_over,
    }

    # ── the storm, and the calm after it ────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        with changed(self._kernel()):
            super().run()

    def _kernel(self) -> list[tuple[Any, str, Any]]:
        """What every process asks its own kernel, and its own environment."""

        def verdict(who: dict[str, Any]) -> str:
            return self.verdict_at(self.here, who)

        return [
            (late, "_in_vain", {}),
            (processes, "host", lambda: self.here),
            (processes, "machine", lambda: f"machine of {self.here}"),
            (processes, "boot", lambda: f"{self.here} {self.boots.get(self.here, 0)}"),
            (processes, "verdict", verdict),
            (config, "may_start_agent", lambda: self.here not in self.never),
            (config, "GONE_SECONDS", GONE_SECONDS),
            (config, "BEAT_SECONDS", BEAT_SECONDS),
            (config, "FOREIGN_KEPT_SECONDS", KEPT_SECONDS),
        ]

    def _patience(self, path: str) -> late.Patience:
        return late.Patience(path, self._pass, lambda: self.now)

    def _pass(self, seconds: float) -> None:
        """A reader waits."""
        self.now += seconds

    def _settle(self) -> None:
        self._freezes.clear()
        for node in list(self.cut_off):
            self._rejoin(node)
        super()._settle()
        self.disk.settle_nodes()

    def _beside(self) -> None:
        """Without locks nothing says that an owner is gone but a person."""
        self._look_for_violations()
        if self.disk.lock_mode == NONE and self.chance.random() < 0.02:
            for place in self.places:
                root = self._root(place)
                standing = self.epochs.standing(root) if root is not None else []
                owner = self.epochs.owners.get((root.number, standing[-1])) if root is not None and standing else None
                lives = any(each.pid == owner and not each.dead for each in self.agents)
                if standing and not lives:
                    self.take_over(place, self.names[0])

    # ── what must be true ───────────────────────────────────────────────────────────────────────────────────────────

    def check_reading(self) -> None:
        """A reader on any node finds nothing doubled or torn; and what its own node's clients have written, unless it
        reads what its own node's agent has made of it, or has said that something cannot be seen yet."""
        place, node = self._some_place(), self.chance.choice(self.names)
        if place is None or node in self.cut_off:
            return
        before, self.here = self.here, node
        try:
            with SessionReader(place.path, self.reader_at(node), patience=self._patience) as reader:
                self._check_rows(node, place, reader)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and place.power_lost:
                return  # not even its names were durable
            raise Violation(f"{place.path} cannot be read on {node}: {error!r}") from error
        finally:
            self.here = before

    def _check_rows(self, node: str, place: Place, reader: SessionReader) -> None:
        found: dict[str, tuple[str, int]] = {}
        for log, rows in self._rows_of(reader).items():
            for position, value in rows:
                if value in found:
                    raise Violation(f"a reader on {node} finds {value} at {found[value]} and at {(log, position)}")
                found[value] = (log, position)
        known = {call.value for book in place.books for call in book.calls}
        strange = sorted(set(found) - known)
        if strange:
            raise Violation(f"a reader on {node} finds what nobody wrote: {strange[:5]}")
        for book in place.books:
            own = self.node_of(int(book.name[1:])) == node and reader._state is not None and not late._in_vain
            last: dict[str, int] = {}
            for call in book.calls:
                if call.content is not None or not (call.track or call.log == LOGS_LOG) or call.end is None:
                    continue
                at = found.get(call.value)
                if at is None:
                    if own and not (call.lost or call.free):
                        raise Violation(f"a reader on {node} does not find {call.value}, which was written there")
                    continue
                if at[1] <= last.get(at[0], -1):
                    raise Violation(f"a reader on {node} finds {call.value} before what came before it")
                last[at[0]] = at[1]

    @staticmethod
    def _rows_of(reader: SessionReader) -> dict[str, list[tuple[int, str]]]:
        rows = {LOGS_LOG: [(row["sequenceNumber"], row["message"]) for row in reader.logs(0, 10**6)]}
        for name in reader.tracks():
            points, _more = reader.points(name, 0, 10**6)
            rows[data_log(name)] = [(row["index"], row["data"]["v"]) for row in points]
        return rows

    def _check(self) -> None:
        self._look_for_violations()
        for place in self.places:
            left = [path for path in self.disk.tree(place.path) if path.startswith(".dreamlake/epochs/")]
            if left:
                raise Violation(f"{place.path} is let go, and these stay: {left}")
        super()._check()


def _changes(name: str, given: tuple[object, ...]) -> bool:
    return name in ("write", "rename", "truncate", "unlink") or (name == "open" and bool(int(str(given[1])) & CREATE))


def profile_of(seed: int) -> Profile:
    return NODES[seed % len(NODES)]


def run(seed: int, profile: Profile | None = None) -> NodesWorld:
    """The world of a seed, as :func:`~tests.sim.world.to_its_end` lets it run."""
    return to_its_end(NodesWorld(seed, profile))
