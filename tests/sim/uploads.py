"""Worlds in which directories are also uploaded: by their agents, and by ``dreamlake sync`` beside them.

Requests are lost, cut, late and repeated; the server's processes die and its stores are restored from a backup. While a
request is on its way anything may happen, another whole upload too. What must be true: the server has of each log of
each directory a beginning, at the end all of it, each record once and in order, or its user was told of a fork; and
what has left is never taken back from the directory by a power loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from random import Random
from typing import Any, ClassVar
from zlib import crc32

import dreamlake_agent.remote.logs
from dreamlake.remote.lake import Lake, Unreachable
from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG
from dreamlake_agent.remote.logs import Logs
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.remote.source import NotSendable, OtherBytes, Source
from dreamlake_agent.remote.upload import Upload
from tests.sim.parties import Party
from tests.sim.places import Place, place_of
from tests.sim.profiles import UPLOADS, Profile, changed
from tests.sim.promises import Violation
from tests.sim.server import URL, Flight, Lakes, Letter, Weather, Wire, by_hand
from tests.sim.world import NESTED, World, to_its_end

_NESTED_UPLOADS = 2  # one in the middle of another
_BESIDE = ("agent_sends", "dreamlake_sync", "late")
# Whatever an upload may end with, and go on from the next time.
LATER = (Unreachable, NotSendable, OtherBytes, OSError)
CALM = Weather()


class Sender(Party):
    """A process that uploads: an agent's, or ``dreamlake sync``. It keeps what it has heard of each directory; and the
    number of times that the server had been restored by then."""

    def __init__(self, world: UploadWorld, pid: int, name: str) -> None:
        super().__init__(world, pid, f"{name}{pid}")
        self.kept: dict[str, tuple[Logs, int]] = {}

    @property
    def quiet(self) -> bool:
        return True

    def end(self) -> None:
        pass


class Sending:
    """One upload, from the opening of its directory to its end."""

    def __init__(self, world: UploadWorld, party: Party, path: str) -> None:
        self.world, self.party = world, party
        self.source = Source(party.disk, path)
        place = place_of(world, party.disk.fstat(self.source._at).ino)
        if place is None:
            self.source.close()
            raise FileNotFoundError(path)
        self.place = place
        # As the directory is now; of what it says that it has, and that others have sent, nothing else is known.
        self._tree = world.disk.tree(place.path)
        self._restored = world.lakes.restored
        self._pushed: set[str] = set()

    @cached_property
    def lake(self) -> Lake:
        world = self.world
        wire = Wire(world.lakes, lambda: world.weather, self.leaves, self.meanwhile, world.chance)
        return Lake(URL, None, sleep=lambda _seconds: world.pause(), transport=wire)

    def meanwhile(self) -> None:
        self.world.others_have_turns()
        self.party.disk.alive()

    def leaves(self, letter: Letter) -> None:
        for log, piece in (letter.push or {"logs": {}})["logs"].items():
            if "lines" not in piece:
                raise Violation(f"{self.party.name} gives up a record of {log}: {piece}")
            self._pushed.add(log)
            start, data = Mark.of(piece["prev"]).size, piece["lines"]
            before = self.place.left.get(log, b"")
            if len(before) < start:
                before = self._tree.get(log, b"")[:start]
            rows = before[:start] + data
            self.place._check_left(log, rows)
            self.place.left[log] = max(rows, before, key=len)
            self.world.sent.setdefault((self.source.origin, log), []).append(self.place)

    def check(self, logs: Logs, *, all_of_it: bool = True) -> None:
        """It has ended well: what it has pushed is there (``all_of_it``: what it has not pushed, too), and what it says
        to have forked has. Nobody knows where the server was restored, or the place removed meanwhile."""
        if self.place.removed or self._restored != self.world.lakes.restored:
            return
        tree = self.world.disk.tree(self.place.path)
        for log in logs.outcome.forks:
            if not differ(self._stored(log), tree.get(log, b"")):
                raise Violation(f"{self.party.name} says that {log} has forked, and it has not")
        for log in logs.acked.keys() if all_of_it else self._pushed & logs.acked.keys():
            if not self._stored(log).startswith(tree[log][: self.source.ends[log].size]):
                raise Violation(f"{self.party.name} believes that {log} is on the server, and it is not")

    def _stored(self, log: str) -> bytes:
        return self.world.lakes.stores.log(self.source.origin, log)


class UploadWorld(World):
    """Chance says when which directory is sent; in tests/sim/remotes.py the agent does."""

    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        super().__init__(seed, profile or profile_of(seed))
        self.weather = Weather.drawn(self.chance)
        self.lakes = Lakes(self.chance, self.wall_ns, self._answered)
        self.sent: dict[tuple[str, str], list[Place]] = {}  # (origin, log) → places that have sent some of it
        self._uploaders: dict[int, Sender] = {}  # of each agent, by its pid
        self._sending = 0

    # ── one upload ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _agent_sends(self) -> None:
        agent = self.chance.choice(self.agents) if self.agents and self._sending < _NESTED_UPLOADS else None
        paths = [each._path for each in agent.loop.directories.values()] if agent else []
        if agent is not None and paths:
            path = self.chance.choice(paths)
            uploader = self._uploaders.get(agent.pid)
            if uploader is None or uploader.dead:
                uploader = self._uploaders[agent.pid] = Sender(self, self._next_pid(), "u")
            self.act(uploader, "send", lambda: self._send_of(uploader, path))

    def _send_of(self, uploader: Sender, path: str) -> None:
        """What the uploader has heard before is taken for true until the server says otherwise."""
        try:
            with self._opened(uploader, path) as sending:
                logs, restored = uploader.kept.get(path) or (None, 0)
                if logs is None:
                    logs, restored = Logs(sending.source, sending.lake), self.lakes.restored
                    uploader.kept[path] = logs, restored
                else:
                    logs._lake = sending.lake
                    logs.renew(sending.source)
                logs.send()
                sending.check(logs, all_of_it=restored == self.lakes.restored)
        except LATER as error:
            self.note(f"{uploader.name} could not send {path}: {error!r}")

    def _kill_uploader(self) -> None:
        there = [each for each in self._uploaders.values() if not each.dead]
        if there:
            self.disk.kill(self.chance.choice(there).pid)

    def _sync(self) -> None:
        there = [each for each in self.places if not each.removed and self.disk.exists(each.path)]
        if there and self._sending < _NESTED_UPLOADS:
            sync = Sender(self, self._next_pid(), "s")
            path = self.chance.choice(there).path
            self.note(f"{sync.name} syncs {path}")
            self.act(sync, "send", lambda: self._sync_by(sync, path))
            self.disk.kill(sync.pid)

    def _sync_by(self, sync: Sender, path: str) -> Outcome | None:
        try:
            with self._opened(sync, path) as sending:
                upload = Upload(sending.source, sending.lake)
                outcome = upload.run()
                sending.check(upload.logs)
                return outcome
        except LATER as error:
            self.note(f"{sync.name} could not send {path}: {error!r}")
            if self._calm:
                raise Violation(f"{path} cannot be sent: {error!r}") from error
            return None

    @contextmanager
    def _opened(self, party: Party, path: str) -> Iterator[Sending]:
        sending = Sending(self, party, path)
        self._sending += 1
        try:
            yield sending
        finally:
            self._sending -= 1
            sending.lake.close()
            if not party.dead:
                sending.source.close()

    def others_have_turns(self) -> None:
        """A request is on its way. Where no other party stands in the middle of a step, anything may happen."""
        if self._calm or self.chance.random() > 0.1:
            return
        if self._depth:
            step = self.chance.choice(NESTED) if self._depth < 2 else ""
        else:
            steps, weights = list(self.profile.weights), list(self.profile.weights.values())
            step = self.chance.choices(steps, weights)[0] if steps else ""
            step = self.chance.choice(_BESIDE) if steps and self.chance.random() < 0.3 else step
        if step:
            self._step(step)
            if not self._depth:
                self._reap()

    def pause(self) -> None:
        self._wait()
        self.others_have_turns()

    # ── the server ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _answered(self, flight: Flight) -> None:
        """What an ack says is so, and what is stored has been sent, once."""
        if flight.status == 500:
            raise Violation(f"the server failed at {flight.letter.target}: {flight.body!r}")
        push = flight.letter.push
        if push is None or flight.status not in (200, 409):
            return
        for log, said in _decoded(flight)["logs"].items():
            stored = self.lakes.stores.log(push["origin"], log)
            mark = Mark.of(said["mark"])
            acked = stored[: mark.size]
            if len(acked) < mark.size or crc32(acked) != mark.checksum or acked.count(b"\n") != said["count"]:
                raise Violation(f"{log} was acked up to {said}, and {len(stored)} bytes are stored")
            self._check_sent(push["origin"], log, stored)

    def _check_sent(self, origin: str, log: str, stored: bytes) -> None:
        places = self.sent.get((origin, log), ())
        if stored and not any(each.left.get(log, b"").startswith(stored) for each in places):
            raise Violation(f"{log} of {origin} on the server is none that anybody has")

    _OF_WORLD: ClassVar[dict[str, Callable[[Any], object]]] = {
        **World._OF_WORLD,
        "agent_sends": _agent_sends,
        "kill_uploader": _kill_uploader,
        "dreamlake_sync": _sync,
        "late": lambda self: self.lakes.deliver_late(),
        "kill_server": lambda self: self.lakes.die(self.chance.randrange(len(self.lakes.processes))),
        "back_up": lambda self: self.lakes.back_up(),
        "restore": lambda self: self.lakes.restore(),
    }

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        with by_hand(), small_batches(self.chance):
            try:
                super().run()
            finally:
                self.lakes.drop(*self.lakes.processes)

    def _settle(self) -> None:
        super()._settle()
        self.weather = CALM
        if self.chance.random() < 0.5:
            self.lakes.calm()
        self.lakes._down = [0] * len(self.lakes._down)

    def _check(self) -> None:
        super()._check()
        for place in self.places:
            if not place.removed:
                self._check_server(place)
        self.lakes.calm()
        for origin, log in sorted(self.lakes.stores.origins()):
            self._check_sent(origin, log, self.lakes.stores.log(origin, log))
        self._check_once_more()

    def _check_server(self, place: Place) -> None:
        """After a whole upload all of it is there, or it has told of a fork; a copy may have gone on beyond it."""
        sync = Sender(self, self._next_pid(), "s")
        outcome = self._sync_by(sync, place.path)
        assert outcome is not None
        self.disk.kill(sync.pid)
        self._check_same(place, outcome)

    def _check_same(self, place: Place, outcome: Outcome) -> None:
        tree = self.disk.tree(place.path)
        origin = tree[".dreamlake/origin"].decode().strip()
        forks = set(outcome.forks)
        for log in tree:
            if is_log(log) and log not in forks and not self.lakes.stores.log(origin, log).startswith(tree[log]):
                raise Violation(f"{place.path}/{log} was sent, and the server has not all of it")
        others = [each for each in outcome.problems if not any(each.startswith(f"{log} ") for log in forks)]
        # After power loss the bytes of an upload that nobody flushed may be others (docs/durability.md).
        if others and not (place.power_lost and all(each.startswith("files/") for each in others)):
            raise Violation(f"{place.path} could not be sent: {others}")
        if FILES_LOG not in forks and not others:
            self._check_blobs(place)

    def _check_blobs(self, place: Place) -> None:
        sync = Sender(self, self._next_pid(), "s")
        with suppress(NotSendable):
            source = Source(sync.disk, place.path)
            lacking = [
                each.name for each in source.files() if each.stands and not self.lakes.stores.has_blob(each.sha256)
            ]
            if lacking:
                raise Violation(f"the bytes of {lacking} in {place.path} are not on the server")
        self.disk.kill(sync.pid)

    def _check_once_more(self) -> None:
        """Nothing that was late has changed anything."""
        for place in self.places:
            if not place.removed:
                self._check_server(place)


def differ(there: bytes, here: bytes) -> bool:
    """Whether two logs have different histories; one that is only behind has not."""
    return there[: len(here)] != here[: len(there)]


def is_log(path: str) -> bool:
    return path.endswith(".jsonl") and not path.startswith(".dreamlake/cut/")


def _decoded(flight: Flight) -> dict[str, Any]:
    found = jsons.loads(flight.body)
    assert isinstance(found, dict)
    return found


def profile_of(seed: int) -> Profile:
    return UPLOADS[seed % len(UPLOADS)]


@contextmanager
def small_batches(chance: Random) -> Iterator[None]:
    """So that a directory is many requests."""
    small = [
        (dreamlake_agent.remote.logs, "BATCH_BYTES", chance.choice((2000, 8000, 4 << 20))),
        (dreamlake_agent.remote.logs, "BATCH_LOGS", chance.choice((1, 2, 1000))),
    ]
    with changed(small):
        yield


def run(seed: int, profile: Profile | None = None) -> UploadWorld:
    """The world of a seed, as :func:`~tests.sim.world.to_its_end` lets it run."""
    return to_its_end(UploadWorld(seed, profile))
