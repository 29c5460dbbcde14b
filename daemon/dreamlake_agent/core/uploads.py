"""Uploads: which directory is sent where, and when it is tried again. PURE.

A *target* is one directory and one server. What a checkpoint covers is owed to every target of the directory; it is
sent in three *lanes* (logs, small files, large files), so that points never wait behind a checkpoint of a model. Each
job that the uploader is given ends in one of these ways:

=============  ====================================================================================================
``sent``       everything of the lane is on the server, but for the ``problems``
``away``       the network, or the server as a whole: all of that server's targets wait
``busy``       the server could not do this one: only this lane waits
``not let in`` the token: this target pauses until there is another token
``refused``    the server will not have this session (it was deleted there): asked again much later
``gone``       there is no such directory any more
``died``       the uploader did, or had to be started again
=============  ====================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake import config
from dreamlake.wire.remotes import Remote
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.effects import Effect

LOGS, SMALL, LARGE = "logs", "small", "large"
LANES = (LOGS, SMALL, LARGE)
SENT, AWAY, BUSY, NOT_LET_IN, REFUSED, GONE, DIED = "sent", "away", "busy", "not let in", "refused", "gone", "died"

_MOVED = "the directory was moved while it is open: what is new of it is sent when it is opened again, where it is now"
# jobs of one server at once
_AT_ONCE = {LOGS: config.UPLOADS_LOGS, SMALL: config.UPLOADS_SMALL, LARGE: config.UPLOADS_LARGE}


@dataclass
class Lane:
    name: str
    sent: int = 0  # of what is owed, so much is on the server
    job: int | None = None
    retry_at: float = 0.0
    wait: float = 0.0
    behind: tuple[int, int] | None = None  # records or files, and bytes, that lacked when that was last measured
    problems: tuple[str, ...] = ()


@dataclass
class Target:
    """One directory at one server. ``owed`` counts the checkpoints that were made since this agent has known it."""

    path: str
    remote: Remote
    owed: int = 0
    total: tuple[int, int] = (0, 0)  # rows and bytes of logs that are owed
    since: float = 0.0  # when it was last wholly sent, or became known
    error: str | None = None
    retry_at: float = 0.0
    token: str | None = None  # what the server did not let in
    kept: list[tuple[int, int]] = field(default_factory=list)  # (owed, newest superseded file that it covers)
    lanes: dict[str, Lane] = field(default_factory=lambda: {name: Lane(name) for name in LANES})
    said: set[str] = field(default_factory=set)

    @property
    def sent(self) -> int:
        return min(lane.sent for lane in self.lanes.values())

    @property
    def is_sent(self) -> bool:
        return self.sent >= self.owed

    @property
    def problems(self) -> list[str]:
        return [problem for lane in self.lanes.values() for problem in lane.problems]

    @property
    def behind_bytes(self) -> int:
        """As far as it was measured."""
        return sum(lane.behind[1] for lane in self.lanes.values() if lane.behind and lane.sent < self.owed)


@dataclass
class Server:
    """What is known of one server's health; ``wait`` is 0 while it answers."""

    until: float = 0.0
    wait: float = 0.0
    failed_at: float = -1e9
    error: str | None = None


@dataclass(frozen=True)
class Tell:
    """Say this of a directory, to the agent's log and to everybody who has it open."""

    path: str
    text: str
    remote: str


@dataclass(frozen=True)
class _Job:
    target: Target
    lane: Lane
    owed: int
    began: float


class Uploads:
    """Every decision about uploading of one agent."""

    def __init__(self) -> None:
        self._targets: dict[str, dict[Remote, Target]] = {}  # by directory
        self._servers: dict[str, Server] = {}
        self._jobs: dict[int, _Job] = {}
        self._numbers = 0
        self._worked_at: float | None = None  # None: the uploader rests
        self._look_at = 0.0  # nothing is due before, unless something happens

    # ── what is owed ────────────────────────────────────────────────────────────────────────────────────────────────

    def covered(self, path: str, remotes: tuple[Remote, ...], kept: int, total: tuple[int, int], now: float) -> None:
        """A checkpoint of the directory covers more than before: ``total`` rows and bytes of logs, and its superseded
        files up to ``kept``."""
        for remote in remotes:
            target = self._targets.setdefault(path, {}).setdefault(remote, Target(path, remote, since=now))
            if target.is_sent:
                target.since = now
            target.owed += 1
            if logs := target.lanes[LOGS].behind:
                more, grown = total[0] - target.total[0], total[1] - target.total[1]
                target.lanes[LOGS].behind = (max(0, logs[0] + more), max(0, logs[1] + grown))
            target.total = total
            target.kept = [*target.kept[-99:], (target.owed, kept)]
        self._look_at = 0.0

    def path_of(self, number: int) -> str | None:
        """The directory that a job is about."""
        job = self._jobs.get(number)
        return job.target.path if job else None

    def url_of(self, number: int) -> str | None:
        """The server that a job is about."""
        job = self._jobs.get(number)
        return job.target.remote.url if job else None

    def of(self, path: str) -> list[Target]:
        return list(self._targets.get(path, {}).values())

    def paths(self) -> list[str]:
        """Every directory that is known, sorted."""
        return sorted(self._targets)

    def _all(self) -> Iterator[Target]:
        return (target for targets in self._targets.values() for target in targets.values())

    def owed(self, path: str) -> dict[Remote, int]:
        """What is owed now, for :meth:`is_sent`."""
        return {target.remote: target.owed for target in self.of(path)}

    def is_sent(self, path: str, owed: dict[Remote, int]) -> bool:
        """Whether what was owed then is on every server; of a directory that somebody has open."""
        targets = self._targets.get(path, {})
        return all(remote in targets and targets[remote].sent >= count for remote, count in owed.items())

    def is_unfinished(self, path: str) -> bool:
        return any(not target.is_sent or target.problems for target in self.of(path))

    def is_under_way(self, path: str) -> bool:
        """Whether it is being sent, and nothing that would last is in the way."""
        return any(
            not target.is_sent
            and target.token is None
            and not target.retry_at
            and not self._server(target).wait
            and not any(lane.wait for lane in target.lanes.values())
            for target in self.of(path)
        )

    def trouble(self, path: str) -> str | None:
        """Why the directory is not on its servers yet, where something is in the way."""
        for target in self.of(path):
            server = self._server(target)
            error = (server.error if server.wait else None) or target.error
            if error is not None and not target.is_sent:
                return error
        return None

    def opened(self, path: str) -> None:
        """The directory was opened, again perhaps: its superseded files are numbered anew from those that are left."""
        for target in self.of(path):
            target.kept = []

    def waiting_bytes(self) -> int:
        """Of logs and files, to all servers together, as far as it was measured."""
        return sum(target.behind_bytes for target in self._all() if not target.is_sent)

    def owing(self) -> set[str]:
        """The directories that are not wholly sent."""
        return {target.path for target in self._all() if not target.is_sent}

    def superseded(self, path: str) -> int:
        """The newest superseded file of the directory that all servers have, or that none will ask for."""
        return min((_superseded(target) for target in self.of(path)), default=0)

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tick(self, now: float) -> Iterator[Effect | Tell]:
        """Start what is due."""
        if now >= self._look_at or self._look_at > now + config.UPLOADS_LOOK_SECONDS:
            self._look_at = now + config.UPLOADS_LOOK_SECONDS
            yield from self._start_due(now)
        if self._jobs:
            self._worked_at = now
        elif self._worked_at is not None and now - self._worked_at >= config.UPLOADER_IDLE_SECONDS:
            self._worked_at = None
            yield do.RestUploader()

    def _start_due(self, now: float) -> Iterator[Effect | Tell]:
        running: dict[tuple[str, str], int] = {}
        for job in self._jobs.values():
            place = (job.target.remote.url, job.lane.name)
            running[place] = running.get(place, 0) + 1
        asked = {job.target.remote.url for job in self._jobs.values() if job.began > self._server(job.target).failed_at}
        owing = [target for target in self._all() if not target.is_sent]
        for target in sorted(owing, key=lambda each: each.since):
            for lane in target.lanes.values():
                place = (target.remote.url, lane.name)
                if running.get(place, 0) >= _AT_ONCE[lane.name] or not self._is_due(target, lane, now, asked):
                    continue
                running[place] = running.get(place, 0) + 1
                asked.add(target.remote.url)
                yield self._start(target, lane, now)

    def _is_due(self, target: Target, lane: Lane, now: float, asked: set[str]) -> bool:
        if lane.job is not None or lane.sent >= target.owed or now < max(lane.retry_at, target.retry_at):
            return False
        server = self._server(target)
        if server.wait and (now < server.until or target.remote.url in asked):
            return False  # one asks whether it is back, the others wait for what that one hears
        # Paused: one lane asks whether there is another token.
        return target.token is None or all(each.job is None for each in target.lanes.values())

    def _start(self, target: Target, lane: Lane, now: float) -> Effect:
        self._numbers += 1
        self._jobs[self._numbers] = _Job(target, lane, target.owed, now)
        lane.job = self._numbers
        return do.Upload(self._numbers, target.path, target.remote.url, target.remote.user, lane.name, target.token)

    def _server(self, target: Target) -> Server:
        return self._servers.setdefault(target.remote.url, Server())

    # ── what the uploader says ──────────────────────────────────────────────────────────────────────────────────────

    def measured(self, event: on.UploadMeasured) -> None:
        job = self._jobs.get(event.number)
        if job is not None:
            job.lane.behind = event.behind

    def uploaded(self, event: on.Uploaded, now: float, *, is_open: bool = False) -> Iterator[Tell]:
        """A job has ended. ``is_open``: the directory is there, whether or not it is found at its path."""
        job = self._jobs.pop(event.number, None)
        if job is None:
            return
        target, lane = job.target, job.lane
        lane.job = None
        self._look_at = 0.0
        if event.ended == GONE and not is_open:
            self._drop(target)
            return
        if event.ended == NOT_LET_IN:
            yield from self._not_let_in(target, event, now)
            return
        if event.answered and event.ended != AWAY:
            self._servers.pop(target.remote.url, None)  # whatever it said
        if event.ended == SENT:
            yield from self._sent(target, lane, job.owed, event, now)
            return
        target.error = _MOVED if event.ended == GONE else event.text
        if event.ended == AWAY:
            self._away(target, job, event, now)
        else:
            first, most = config.UPLOAD_RETRY_SECONDS
            lane.wait = config.REFUSED_SECONDS if event.ended == REFUSED else min(most, lane.wait * 2 or first)
            lane.retry_at = now + max(
                event.retry_after, lane.wait if event.ended == REFUSED else event.chance * lane.wait
            )
        if event.ended == REFUSED:
            yield from self._tell(target, event.text)

    def _away(self, target: Target, job: _Job, event: on.Uploaded, now: float) -> None:
        """The whole server waits: full jitter under a cap that doubles, once for all the jobs that failed together."""
        first, most = config.UPLOAD_RETRY_SECONDS
        server = self._server(target)
        server.error = event.text
        if job.began > server.failed_at:
            server.wait = min(most, server.wait * 2 or first)
            server.failed_at = now
            server.until = now + max(event.retry_after, event.chance * server.wait)

    def _not_let_in(self, target: Target, event: on.Uploaded, now: float) -> Iterator[Tell]:
        target.retry_at = now + config.PAUSED_SECONDS
        if target.token != event.token:
            target.token, target.error = event.token, event.text
            yield from self._tell(
                target,
                f"{event.text}\nEverything is kept, and sent once there is another token: "
                f"`dreamlake login {target.remote.url}`",
            )

    def _sent(self, target: Target, lane: Lane, owed: int, event: on.Uploaded, now: float) -> Iterator[Tell]:
        lane.sent, lane.wait, lane.retry_at, lane.problems = max(lane.sent, owed), 0.0, 0.0, event.problems
        lane.behind = None
        if event.restored:
            target.owed += 1  # every lane once more
        if event.answered:  # else nothing had to be asked
            target.token, target.retry_at = None, 0.0
        if target.is_sent:
            target.since, target.error = now, None
        for problem in event.problems:
            yield from self._tell(target, problem)

    def _tell(self, target: Target, text: str) -> Iterator[Tell]:
        """Each thing once: to the agent's log, and to those who have the session open."""
        if text not in target.said and len(target.said) < config.TOLD_MAX:
            target.said.add(text)
            yield Tell(target.path, text, target.remote.url)

    def forget(self, path: str) -> list[Remote]:
        """The directory has been let go and is wholly sent; returns where."""
        found = [target.remote for target in self.of(path)]
        self._targets.pop(path, None)
        return found

    def _drop(self, target: Target) -> None:
        targets = self._targets.get(target.path, {})
        if targets.get(target.remote) is target:
            del targets[target.remote]
            if not targets:
                del self._targets[target.path]

    # ── status ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def describe(self, path: str, now: float) -> list[dict[str, Any]]:
        """For status: one entry for each server. Seconds are as of now; ``next_attempt`` is None while one is under way
        or none is owed."""
        return [self._describe(target, now) for target in self.of(path)]

    def _describe(self, target: Target, now: float) -> dict[str, Any]:
        server = self._server(target)
        lanes = [lane for lane in target.lanes.values() if lane.sent < target.owed]
        logs = target.lanes[LOGS]
        sending = any(lane.job is not None for lane in lanes)
        at = [max(lane.retry_at, target.retry_at, server.until if server.wait else 0.0) for lane in lanes]
        state = (
            "sent"
            if not lanes
            else "paused"
            if target.token is not None
            else "waiting"
            if server.wait or any(lane.wait for lane in lanes)
            else "sending"
        )
        return {
            "url": target.remote.url,
            "user": target.remote.user,
            "state": state,
            "pending_operations": logs.behind[0] if logs.behind and logs in lanes else 0,
            "pending_files": sum(lane.behind[0] for lane in lanes if lane is not logs and lane.behind),
            "pending_bytes": target.behind_bytes,
            "lag": round(now - target.since, 1) if lanes else 0.0,
            "last_error": self.trouble(target.path) if lanes else target.error,
            "next_attempt": round(max(0.0, min(at) - now), 1) if at and not sending else None,
            "problems": target.problems,
        }


def _superseded(target: Target) -> int:
    files = (target.lanes[SMALL], target.lanes[LARGE])
    if any(lane.problems for lane in files):
        return 0  # one of them may be what could not be sent
    return max((kept for owed, kept in target.kept if owed <= min(lane.sent for lane in files)), default=0)
