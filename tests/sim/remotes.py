"""Worlds in which sessions are opened with ``remote=``, and the agents decide by themselves what is sent when.

Chance says when an uploader's process gets on with what it was told, and what becomes of it: tokens expire and come, a
server is busy, the process is killed. In the end, and without any ``dreamlake sync``, everything is on the server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import httpx

import dreamlake_agent.remote.jobs
from dreamlake import config
from dreamlake.conversation import FlushRequest
from dreamlake.remote.credentials import Credentials, Login
from dreamlake.remote.lake import Lake
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.uploads import LANES
from dreamlake_agent.remote.jobs import Jobs
from dreamlake_agent.remote.source import Bytes, NotSendable, Source
from dreamlake_agent.uploader import event_of
from tests.sim.disk import Faults
from tests.sim.network import NetworkFaults
from tests.sim.parties import AgentProcess
from tests.sim.places import Place
from tests.sim.profiles import REMOTES, Profile, changed
from tests.sim.promises import Call, Violation
from tests.sim.server import URL, Wire
from tests.sim.trainings import Client, Training
from tests.sim.uploads import _NESTED_UPLOADS, CALM, Sender, Sending, UploadWorld, differ, is_log
from tests.sim.world import to_its_end

_LARGE_BYTES = 100
_MEANWHILE_MAX = 800  # moments of a world in which others may have turns while a request is on its way
_QUICK: list[tuple[Any, str, Any]] = [
    (dreamlake_agent.remote.jobs, "_LANES", {"small": (0, _LARGE_BYTES), "large": (_LARGE_BYTES, None)}),
    (config, "UPLOAD_RETRY_SECONDS", (1.0, 8.0)),
    (config, "UPLOADER_IDLE_SECONDS", 5.0),
]


class SimCredentials(Credentials):
    """In memory: keys that scripts gave, and one login."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str, str | None], str] = {}
        self.login: Login | None = None

    def keep_key(self, path: str, url: str, user: str | None, token: str) -> None:
        self.keys[path, url, user] = token

    def key_of(self, path: str, url: str, user: str | None) -> str | None:
        return self.keys.get((path, url, user))

    def forget_key(self, path: str, url: str, user: str | None) -> bool:
        return self.keys.pop((path, url, user), None) is not None

    def find(self, url: str, user: str | None) -> Login | None:
        return self.login


class Uploading(Jobs):
    """The shipped jobs, in one process of an uploader."""

    def __init__(self, world: RemoteWorld, process: Sender, heard: list[on.Event]) -> None:
        super().__init__(lambda said: heard.append(event_of(said)), world.credentials)
        self.world, self.process = world, process
        self.restored = world.lakes.restored
        self._sendings: list[Sending] = []  # each in the middle of the one before it

    def work(self, job: dict[str, Any]) -> dict[str, Any]:
        depth = len(self._sendings)
        said = super().work(job)
        for sending in self._sendings[depth:]:
            kept = self._kept.get((job["path"], job["url"], job["user"]))
            if said["ended"] == "sent" and kept is not None and kept.logs is not None and job["lane"] == "logs":
                sending.check(kept.logs, all_of_it=self.restored == self.world.lakes.restored)
        del self._sendings[depth:]
        return said

    def _source(self, path: str) -> Source:
        sending = Sending(self.world, self.process, path)
        self._sendings.append(sending)
        return sending.source

    def _lake(self, url: str, user: str | None, token: str | None) -> Lake:
        world = self.world
        wire = Wire(
            world.lakes,
            lambda: world.weather,
            lambda letter: self._sendings[-1].leaves(letter),
            lambda: self._sendings[-1].meanwhile(),
            world.chance,
            world.lets_in,
        )
        return Lake(url, token, tries=1, transport=wire)


class SimUploader:
    """An agent's uploader, whose jobs wait until the world lets one be done."""

    def __init__(self, world: RemoteWorld) -> None:
        self.world = world
        self.jobs: dict[int, do.Upload] = {}  # of this process, not ended
        self._waiting: list[do.Upload] = []
        self._heard: list[on.Event] = []
        self._process: Sender | None = None
        self._uploading: Uploading | None = None

    def start(self, effect: do.Upload) -> None:
        if self._process is None:
            self._process = Sender(self.world, self.world._next_pid(), "u")
            self._uploading = Uploading(self.world, self._process, self._heard)
        self.jobs[effect.number] = effect
        self._waiting.append(effect)

    def done(self) -> list[on.Event]:
        """What was said may be under way for a while."""
        if self._heard and not self.world._calm and self.world.chance.random() < 0.9:
            return []
        found = list(self._heard)
        self._heard.clear()
        if self._process is not None and self._process.dead:
            self._process = None
            found += [on.Uploaded(number, "died", "the uploader's process ended") for number in self.jobs]
            self.jobs.clear()
            self._waiting.clear()
        return found

    def rest(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self.world.disk.kill(process.pid)
        self._waiting.clear()

    def keep_key(self, effect: do.KeepKey) -> None:
        self.world.credentials.keep_key(effect.path, effect.url, effect.user, effect.token)

    def forget(self, effect: do.Forget) -> None:
        for url, user in effect.remotes:
            self.world.credentials.forget_key(effect.path, url, user)

    # ── for the world ───────────────────────────────────────────────────────────────────────────────────────────────

    def work(self) -> None:
        """Do some job, if there is one."""
        process = self._process
        if self._waiting and process is not None and not process.dead:
            effect = self._waiting.pop(self.world.chance.randrange(len(self._waiting)))
            self.world.act(process, f"job {effect.number}", lambda: self._do(effect, process))

    def _do(self, effect: do.Upload, process: Sender) -> None:
        assert self._uploading is not None
        told = {name: getattr(effect, name) for name in ("path", "url", "user", "lane", "unless")}
        said = self._uploading.work({"job": effect.number, **told})
        process.disk.alive()
        del self.jobs[effect.number]
        self.world.note(f"{process.name} has done {effect}: {said}")
        self._heard.append(event_of({**said, "job": effect.number, "chance": self.world.chance.random()}))

    def kill(self) -> None:
        if self._process is not None:
            self.world.disk.kill(self._process.pid)


class RemoteWorld(UploadWorld):
    def __init__(self, seed: int, profile: Profile | None = None) -> None:
        super().__init__(seed, profile or profile_of(seed))
        self.credentials = SimCredentials()
        self._tokens = 0  # so many expired: only the next one is let in, and at first whoever comes
        self._asked: list[tuple[FlushRequest, int]] = []  # and how often the server had been restored by then
        self._meanwhile = 0
        self._let_go: set[str] = set()  # before they were wholly sent
        self._without = self.chance.choice((0.0, 0.0, 0.2))  # of clients who open without a remote

    # ── for the parties ─────────────────────────────────────────────────────────────────────────────────────────────

    def uploader(self) -> SimUploader:
        return SimUploader(self)

    def others_have_turns(self) -> None:
        self._meanwhile += 1
        if self._meanwhile <= _MEANWHILE_MAX:
            super().others_have_turns()

    def remote_and_key(self) -> tuple[dict[str, Any] | None, dict[str, str | None] | None]:
        if self.chance.random() < self._without:
            return None, None
        with_key = self.chance.random() < 0.2
        key = {"url": URL, "user": None, "token": self._token} if with_key else None
        return {"url": URL, "user": None}, key

    @property
    def _token(self) -> str:
        return f"token{self._tokens}"

    def lets_in(self, request: httpx.Request) -> bool:
        return not self._tokens or request.headers.get("Authorization") == f"Bearer {self._token}"

    def check_sent(self, training: Training, request: FlushRequest, place: Place, calls: list[Call]) -> None:
        restored = next(count for asked, count in self._asked if asked is request)
        if restored != self.lakes.restored:
            return
        origin = self.disk.tree(place.path)[".dreamlake/origin"].decode().strip()
        for call in calls:
            if not (call.free or call.lost) and call.value.encode() not in self.lakes.stores.log(origin, call.log):
                raise Violation(f"{training.client.name} was told that {call.value} is on the server, and it is not")
        mine = {call.value for call in calls}
        for file in self._files(place):
            is_mine = not mine.isdisjoint(version.id for version in file.versions)
            if is_mine and file.stands and not self.lakes.stores.has_blob(file.sha256):
                raise Violation(f"{training.client.name} was told that {file.name} is on the server, and it is not")

    def _files(self, place: Place) -> list[Bytes]:
        source = Source(self.user, place.path)
        try:
            return source.files()
        finally:
            source.close()

    # ── steps ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _agent_sends(self) -> None:
        agent = self.chance.choice(self.agents) if self.agents and self._sending < _NESTED_UPLOADS else None
        if agent is not None:
            self._work(agent)

    def _work(self, agent: AgentProcess) -> None:
        self._sending += 1
        try:
            self._uploader_of(agent).work()
        finally:
            self._sending -= 1

    def _uploader_of(self, agent: AgentProcess) -> SimUploader:
        assert isinstance(agent.uploader, SimUploader)
        return agent.uploader

    def _kill_uploader(self) -> None:
        if self.agents:
            self._uploader_of(self.chance.choice(self.agents)).kill()

    def _wait_for_servers(self, client: Client) -> None:
        for training in client.trainings:
            self._asked.append((training.wait_for_servers(), self.lakes.restored))

    def _expire(self) -> None:
        self._tokens += 1
        self.note(f"only {self._token} is let in")

    def _log_in(self) -> None:
        self.credentials.login = Login(self._token)

    _OF_CLIENT: ClassVar[dict[str, Callable[[Any, Any], object]]] = {
        **UploadWorld._OF_CLIENT,
        "wait_for_servers": _wait_for_servers,
    }
    _OF_WORLD: ClassVar[dict[str, Callable[[Any], object]]] = {
        **UploadWorld._OF_WORLD,
        "agent_sends": _agent_sends,
        "kill_uploader": _kill_uploader,
        "expire": _expire,
        "log_in": _log_in,
    }

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        with changed(_QUICK):
            super().run()

    def _settle(self) -> None:
        self.weather = CALM
        self.lakes._down = [0] * len(self.lakes._down)
        if self._tokens:
            self._log_in()  # which makes an uploader ask anew
        if self.chance.random() < 0.5:
            self._rest()
        super()._settle()
        self._until("everything is sent", self._is_sent)
        self._check_agents(self.places)

    def _rest(self) -> None:
        """Nobody opens anything any more: agents go on by what they know, and by what their registry does."""
        self._calm, self.disk.faults, self.network.faults = True, Faults(), NetworkFaults()
        self.disk.capacity_bytes = None
        known = {path for reminders in self._reminders.values() for path in reminders.paths}
        known.update(session.path for agent in self.agents for session in agent.core.sessions.values())
        for client in self.clients:
            self.disk.kill(client.pid)
        self._reap()
        self._until("everything is sent, and let go", lambda: self._is_sent() and not self._has_sessions())
        # One that was sent, and that a restored server has lost: only a next record tells.
        if not self.lakes.restored:
            self._check_agents([place for place in self.places if place.path in known])

    def _is_sent(self) -> bool:
        agents = [agent for agent in map(self.agent_at, self._homes) if agent is not None]
        return len(agents) == len(self._homes) and not any(
            self._owing(each) or not each.quiet or each._remember for each in agents
        )

    def _has_sessions(self) -> bool:
        return any(agent.core.sessions for agent in self.agents)

    def _beside(self) -> None:
        for agent in self.agents:
            for _ in LANES:
                self._work(agent)
            kept = {session.path for session in agent.core.sessions.values()}
            self._let_go.update(target.path for target in self._owing(agent) if target.path not in kept)

    def _owing(self, agent: AgentProcess) -> list[Any]:
        uploads = agent.core.uploads
        return [target for path in uploads.paths() for target in uploads.of(path) if not target.is_sent]

    def _restless(self) -> str:
        owing = [str(target) for agent in self.agents for target in self._owing(agent)]
        return "; ".join((super()._restless(), *owing))

    def _check_agents(self, places: list[Place]) -> None:
        """What was opened with a remote is there, and its agents have done with it; or its user was told."""
        told = {path for agent in self.agents for path in agent.core.uploads.paths()}
        for place in places:
            if not place.removed:
                try:
                    self._check_arrived(place, told=place.path in told)
                except Violation as found:
                    raise Violation(f"{place.path}: {found}") from found

    def _check_arrived(self, place: Place, *, told: bool) -> None:
        try:
            source = Source(self.user, place.path)
        except NotSendable:  # power loss took its beginning, or nothing of it was ever covered
            return
        remotes, files, origin = source.remotes(), source.files(), source.origin
        source.close()
        if not remotes:
            return
        tree, stores = self.disk.tree(place.path), self.lakes.stores
        forks = [log for log in tree if is_log(log) and differ(stores.log(origin, log), tree[log])]
        for log in tree:
            if is_log(log) and log not in forks and not stores.log(origin, log).startswith(tree[log]):
                raise Violation(f"{log} was never sent")
        if forks:
            if not told:
                raise Violation(f"{forks} have forked, and nobody was told")
            return
        lacking = [file for file in files if not stores.has_blob(file.sha256)]
        if place.power_lost:
            return  # an upload that nobody flushed may be damaged (docs/durability.md)
        kept_all = not (self._without or place.copied or self.lakes.restored)
        if any(file.stands or kept_all for file in lacking):
            raise Violation(f"the bytes of {lacking} were never sent")
        if told:
            raise Violation("all of it is on the server, and its agent has not done with it")
        if len(self._homes) == 1 and any(place.path in each.paths for each in self._reminders.values()):
            raise Violation("all of it is on the server, and the next agent is to look at it")
        kept = [path for path in tree if path.startswith(".dreamlake/superseded/")]
        if kept and kept_all and place.path not in self._let_go:
            raise Violation(f"all of it is on the server, and {kept} are still there")


def profile_of(seed: int) -> Profile:
    return REMOTES[seed % len(REMOTES)]


def run(seed: int, profile: Profile | None = None) -> RemoteWorld:
    """The world of a seed, as :func:`~tests.sim.world.to_its_end` lets it run."""
    return to_its_end(RemoteWorld(seed, profile))
