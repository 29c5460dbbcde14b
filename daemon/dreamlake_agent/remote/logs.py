"""Logs: the logs of one directory to one server, from where the server is.

The server's marks are byte offsets of our own logs, so nothing has to be counted or remembered; that they are of the
same history is checked before anything is sent behind them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dreamlake.remote.follow import Follow
from dreamlake.remote.lake import Lake, Packed, Refused, pack
from dreamlake.wire.marks import Mark
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.remote.source import OtherBytes, Source, in_order

BATCH_BYTES = 4 << 20  # of log in one push, unless one line is larger
BATCH_RECORDS = 100_000
AHEAD_BYTES = 1 << 20  # behind by more than that after a request, the next one is made ready meanwhile
BATCH_LOGS = 1_000
STATUS_LOGS = 10_000  # asked about at once
STATUS_TRIES = 5  # with a server that forgets what it has acked
PUSHED = (200, 409, 422)


def forked(log: str) -> str:
    """What is told of a log in :attr:`~dreamlake_agent.remote.outcome.Outcome.forks`."""
    return (
        f"{log} on the server has another history than this directory: a copy of it, or a backup, went on by itself; "
        "nothing was overwritten. `dreamlake sync --fork` sends this one beside it"
    )


@dataclass(frozen=True)
class Place:
    """Where the server is in one log; ``mark`` is one that the log has."""

    count: int
    mark: Mark


@dataclass(frozen=True)
class Batch:
    """What one request pushes: pieces of logs, and where the server is when it takes all of them."""

    pieces: Mapping[str, tuple[Place, bytes]]
    ends: Mapping[str, Place]
    damaged: Mapping[str, str]  # logs that could not be read, and why
    packed: Packed


class Logs:
    """Raises what :class:`~dreamlake.remote.lake.Lake` raises; what was acked by then stays acked.

    One thread at a time. ``advance`` is told of bytes as they arrive.
    """

    def __init__(self, source: Source, lake: Lake, outcome: Outcome | None = None) -> None:
        self._source, self._lake = source, lake
        self.outcome = Outcome() if outcome is None else outcome
        self.advance: Callable[[int], None] = lambda _bytes: None
        self.acked: dict[str, Place] = {}
        self._stopped: set[str] = set()  # until the server is asked again
        self._asked = False
        self._bases = source.bases
        self._has_lost = False  # whether the server had less than it had acked: it was restored from a backup
        self.was_restored = False  # that, until whoever is told takes it back: it may have lost files as well

    @property
    def is_asked(self) -> bool:
        """Whether the server's places are known; else the next :meth:`send` begins with :meth:`status`."""
        return self._asked

    @property
    def behind(self) -> int:
        """Bytes that are still to be sent, as far as is known."""
        return sum(self._source.ends[log].size - self._start(log, place) for log, place in self.acked.items())

    def _start(self, log: str, place: Place) -> int:
        """The first byte that the server lacks of what is ours."""
        _count, base = self._bases.get(log, (0, Mark()))
        return place.mark.size if place.count else base.size

    def status(self) -> tuple[int, int]:
        """Ask where the server is; how many bytes of logs it lacks, and how many logs have forked."""
        self._asked = False
        names, heard = list(self._source.ends), dict[str, Any]()
        for first in range(0, max(1, len(names)), STATUS_LOGS):
            said = self._lake.ask("/v1/status", self._body(logs=names[first : first + STATUS_LOGS]))
            if said["session"] is not None and said["session"].get("deletedAt"):
                named = f"{self._source.workspace}/{self._source.name}"
                raise Refused(f"session {named} was deleted on the server", 410, said)
            heard |= said["logs"]
        before, self.acked, self._stopped, self._has_lost = self.acked, {}, set(), False
        forks, self.outcome.forks = self.outcome.forks, []
        for log in names:
            self._heard(log, heard[log], Mark(), known_fork=log in forks)
        if any(log in self.acked and self.acked[log].count < place.count for log, place in before.items()):
            self.was_restored = True
        self._bases = self._source.bases if self._has_others() else {}
        self._asked = True
        return self.behind, len(self.outcome.forks)

    def _has_others(self) -> bool:
        """Whether the server has what the bases stand for. Another server than that has none of it: it gets it all."""
        bases, origins = self._source.bases, self._source.base_origins
        if not origins or all(log not in self.acked or self.acked[log].count for log in bases):
            return True
        follow = Follow(self._lake, self._source.workspace, self._source.name)
        return not origins.isdisjoint(follow.origins(list(bases)[:STATUS_LOGS]))

    def renew(self, source: Source) -> None:
        """The directory has gone on: send what came since. Where that is not so, the server is asked anew."""
        before, self._source = self._source, source
        # It may be another directory at the same path.
        ends = source.ends
        self.acked = {log: at for log, at in self.acked.items() if log in ends and at.mark.size <= ends[log].size}
        if (source.origin, source.workspace, source.name) != (before.origin, before.workspace, before.name):
            self._asked = False
        if self._stopped - set(self.outcome.forks):  # what was damaged may be mended
            self._asked = False
        if not self._asked:
            return
        try:
            # The server's places lie before those ends.
            self._asked = all(source.goes_on(log, mark) for log, mark in before.ends.items())
        except (OtherBytes, OSError):
            self._asked = False
        for log in source.ends.keys() - before.ends.keys():
            self.acked[log] = Place(0, Mark())

    def send(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Send what is missing, until ``stop`` says so; by the status that was asked before, if it was."""
        try:
            for _try in range(STATUS_TRIES):
                if not self._asked:
                    self.status()
                self._begin()
                self._push_all(stop)
                if not self._has_lost or stop():
                    return
                self._asked, self.was_restored = False, True
            self.outcome.problems.append(f"{self._lake.url} forgets what it has acked: what is wrong with its store?")
        except BaseException:  # perhaps an answer was lost
            self._asked = False
            raise

    def _body(self, **more: Any) -> dict[str, Any]:
        session = {"workspace": self._source.workspace, "name": self._source.name}
        return {"origin": self._source.origin, "session": session, **more}

    def _heard(self, log: str, said: dict[str, Any], known: Mark, *, known_fork: bool = False) -> None:
        """Take how far the server says it is, unless it has another history. ``known`` is a mark that the log has."""
        mark = Mark.of(said["mark"])
        try:
            if said.get("problem") != "fork" and mark.size > self._source.ends[log].size:
                self._ahead(log)
                return
            same = said.get("problem") != "fork" and (mark == known or self._source.has(log, mark, known))
        except (OtherBytes, OSError) as error:
            self._stop(log, f"{log} could not be sent: {error}")
            return
        if same:
            self.acked[log] = Place(said["count"], mark)
            end = self._source.ends.get(log, mark)
            if mark != end and mark.size == end.size:
                self.outcome.problems.append(
                    f"{log} is not what its checkpoint says, and was sent as it stands: it was changed by hand, or is "
                    f"damaged; see `dreamlake verify {self._source.path}`"
                )
            return
        self.outcome.forks.append(log)
        self._stop(
            log,
            None if known_fork else forked(log),
        )

    def _ahead(self, log: str) -> None:
        """The server has more than this source: of a newer checkpoint, which somebody else has sent, of a copy that
        went on, or of another history. Our last record once more tells (docs/push.md, 3)."""
        begin = self._bases.get(log)
        if begin is not None and begin[1] == self._source.ends[log]:  # nothing of it is this origin's
            self.acked[log] = Place(*begin)
            return
        count, before, last = 0, Mark(), b""
        for line in self._source.lines(log):
            count, before, last = count + 1, before.after(last), line + b"\n"
        piece = {"from": count - 1, "prev": before.text, "lines": last}
        said = self._lake.ask("/v1/push", self._body(logs={log: piece}), accept=PUSHED)["logs"][log]
        problem = said.get("problem")
        if problem is None:
            self.acked[log] = Place(count, self._source.ends[log])
        elif problem == "gap":  # it was restored from a backup meanwhile
            self._has_lost = True
            self._heard(log, said, Mark())
        else:
            self._heard(log, {**said, "problem": "fork"}, Mark())

    def _stop(self, log: str, why: str | None) -> None:
        self._stopped.add(log)
        self.acked.pop(log, None)
        if why is not None:
            self.outcome.problems.append(why)

    def _begin(self) -> None:
        """Say of the logs that begin with another origin's records where this one's begin. Where nothing came since,
        there is nothing to say."""
        logs: dict[str, dict[str, Any]] = {}
        for log, (count, mark) in self._bases.items():
            place = self.acked.get(log)
            if place is None or place.count:
                continue
            if self._source.ends[log] == mark:
                self.acked[log] = Place(count, mark)
            else:
                time = self._source.base_times.get(log)
                logs[log] = {"from": 0, "prev": Mark().text, "base": count, "next": mark.text, "time": time}
        names = list(logs)
        for first in range(0, len(names), BATCH_LOGS):
            some = {log: logs[log] for log in names[first : first + BATCH_LOGS]}
            said = self._lake.ask("/v1/push", self._body(logs=some), accept=PUSHED)
            for log in some:
                self._heard(log, said["logs"][log], Mark())

    def _push_all(self, stop: Callable[[], bool]) -> None:
        """Push what is behind. While the server works at one request, the next one is read and packed."""
        batch = self._look_at(self._batch(self.acked))
        with contextlib.ExitStack() as until_done:
            ahead: ThreadPoolExecutor | None = None
            while batch.pieces and not stop():
                after = {**self.acked, **batch.ends}
                coming: Future[Batch] | None = None
                if sum(self._source.ends[log].size - place.mark.size for log, place in after.items()) > AHEAD_BYTES:
                    ahead = ahead or until_done.enter_context(ThreadPoolExecutor(1, "ahead"))
                    coming = ahead.submit(self._batch, after)
                self._push(batch)
                # What was read ahead is of use when the server is where it should be.
                batch = self._look_at(coming.result() if coming and self.acked == after else self._batch(self.acked))

    def _look_at(self, batch: Batch) -> Batch:
        for log, why in batch.damaged.items():
            self._stop(log, why)
        return batch

    def _batch(self, places: Mapping[str, Place]) -> Batch:
        """The next pieces behind these places, as many as a request takes."""
        found: dict[str, tuple[Place, bytes]] = {}
        damaged: dict[str, str] = {}
        size = records = 0
        for log in in_order(set(places)):
            place = places[log]
            room = BATCH_BYTES - size
            if place.mark.size >= self._source.ends[log].size or room <= 0:
                continue
            try:
                data = self._source.piece(log, place.mark.size, room)
            except (OtherBytes, OSError) as error:
                damaged[log] = f"{log} could not be sent: {error}"
                continue
            records += data.count(b"\n")
            if found and (size + len(data) > BATCH_BYTES or records > BATCH_RECORDS or len(found) == BATCH_LOGS):
                break
            found[log] = (place, data)
            size += len(data)
        logs = {
            log: {"from": place.count, "prev": place.mark.text, "lines": data} for log, (place, data) in found.items()
        }
        ends = {
            log: Place(place.count + data.count(b"\n"), place.mark.after(data)) for log, (place, data) in found.items()
        }
        return Batch(found, ends, damaged, pack(self._body(logs=logs)))

    def _push(self, batch: Batch) -> None:
        said = self._lake.ask("/v1/push", batch.packed, accept=PUSHED)
        for log, (place, data) in batch.pieces.items():
            self._acked(log, place, data, batch.ends[log].mark, said["logs"][log])

    def _acked(self, log: str, place: Place, data: bytes, sent_to: Mark, said: dict[str, Any]) -> None:
        before, mark = place.mark, Mark.of(said["mark"])
        # Where it should be, nothing has to be read again.
        self._heard(log, said, sent_to if mark == sent_to else before if mark.size >= before.size else Mark())
        now = self.acked.get(log)
        if log in self._stopped or now is None:
            return
        self._has_lost = self._has_lost or said.get("problem") == "gap"
        self.outcome.records += max(0, now.count - place.count)
        sent = max(0, now.mark.size - before.size)
        self.outcome.bytes += sent
        self.advance(sent)
        if said.get("problem") == "record":
            self._bury(log, now, str(said.get("why") or "the server does not take it"))
        elif now.mark == before and said.get("problem") is None and data:
            self._stop(log, f"{log} does not get on: the server acks, and takes nothing")

    def _bury(self, log: str, place: Place, why: str) -> None:
        """A record that the server will never take: a tombstone in its place, so that what comes behind it arrives."""
        line = self._source.piece(log, place.mark.size, 1 << 16)
        line = line[: line.index(b"\n") + 1]
        tombstone = {
            "from": place.count,
            "prev": place.mark.text,
            "refused": why,
            "next": place.mark.after(line).text,
        }
        said = self._lake.ask("/v1/push", self._body(logs={log: tombstone}), accept=PUSHED)
        self.outcome.refused += 1
        self.outcome.problems.append(f"record {place.count} of {log} was set aside by the server: {why}")
        self._heard(log, said["logs"][log], place.mark)
