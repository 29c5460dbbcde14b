"""One journal's side of the talk with the agent: greet, send from where the agent is, hear acks, ask when nothing is
heard, greet again when in doubt.

Driven by ``turn(now)`` and ``hear(message)``; it owns no thread and no clock, so the simulation runs it as it is.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from dreamlake import config
from dreamlake.afar import KEPT_AFAR, Afar
from dreamlake.journal import Journal
from dreamlake.reader.commits import Checkpoint
from dreamlake.spans import Spans
from dreamlake.wire import capabilities, codec, messages, window

if TYPE_CHECKING:  # zmq comes with the first session
    from dreamlake.world.sockets import Line

log = logging.getLogger("dreamlake")

LOOKING = "looking"  # for an agent
GREETING = "greeting"  # said hello
OPEN = "open"  # welcome
APART = "apart"  # this agent cannot have the directory: journal only, ask again later

# An agent answers `can` before anything else, if it can.
_FROM_BEFORE = capabilities.Said(None, None)
_APART_SECONDS = 3.0  # a directory that was away and is back is taken up again within 5 s


def restart_command() -> str:
    """What lets an agent of this installation take over."""
    return f"{sys.executable or 'python3'} -m dreamlake.cli agent restart"


@dataclass
class FlushRequest:
    """Somebody waits until the stream up to ``end`` is committed and shown."""

    number: int
    end: int
    durable: bool
    hashed: bool
    remote: bool = False  # until it is on every server, too
    done: threading.Event = field(default_factory=threading.Event)
    problem: str | None = None
    asked: float = -1e9


class Conversation:
    """One journal and the agent that is to have it. Thread-safe where it says so; ``turn`` and ``hear`` are the
    link's."""

    def __init__(
        self,
        journal: Journal,
        hello: dict[str, Any],
        where: Callable[[], str | None] = lambda: None,
        afar: Afar | None = None,
    ) -> None:
        self.journal = journal
        self.afar = afar
        self.is_afar = False  # the owner was on another node when last looked at
        self.is_closed = False  # CLOSE is written
        self.hello = hello
        self._where = where  # the directory's path now: somebody may have moved it
        self.phase = LOOKING
        self.sender = window.Sender(config.CREDIT_BYTES[0])
        self.origin: str | None = None
        self.damaged: str | None = None
        self.trouble: str | None = None
        self.no_agent: str | None = None  # why there is none, and since when (monotonic seconds)
        self.no_agent_since = 0.0
        self.gone = False
        self.anew_at = -1e9  # when to try again to begin anew, after the directory was removed
        self.lost = 0  # calls that the journal could not take, for status
        self.stopped = False
        self.refused: list[str] = []
        self.behind: str | None = None  # why what is synced is not on the server yet
        self.notices: list[str] = []  # what the agent wanted the user to know, each once
        # what this session needs an agent to be capable of; what the agent said it is, once it has answered
        self.needs: set[str] = set()
        self.agent: capabilities.Said | None = None
        # Moves a spooled journal into its directory (Writer), where every agent that has the directory sees it.
        self.come_home: Callable[[], bool] = lambda: False
        self.endpoint: str | None = None
        self.line: Line | None = None
        self.spans: dict[str, Spans] = {}
        self.changed = threading.Condition()
        self._running = journal.running if journal.end == 0 else codec.seed(journal.client)
        self._flushes: dict[int, FlushRequest] = {}
        self._numbers = 0
        self._lost_said = 0
        # since when (monotonic seconds) nothing moves on, and why; whether that was said
        self._stuck: tuple[float, str] | None = None
        self._stuck_said = False
        self._heard = self._asked = self._told = self._greeted = -1e9
        self._elsewhere: str | None = None
        self._tried: str | None = None  # where we were sent last, since we were welcome
        self._apart_until = 0.0
        self.was_apart = False  # and it was said

    # ── for callers, from any thread ────────────────────────────────────────────────────────────────────────────────

    def request_flush(self, *, durable: bool = False, hashed: bool = False, remote: bool = False) -> FlushRequest:
        """Ask for everything appended so far to be committed and shown; wait on its ``done``."""
        with self.changed:
            self._numbers += 1
            request = FlushRequest(self._numbers, self.journal.end, durable, hashed, remote)
            self._flushes[request.number] = request
        return request

    def withdraw(self, request: FlushRequest) -> None:
        with self.changed:
            self._flushes.pop(request.number, None)

    def index_of(self, track: str, ordinal: int) -> int | None:
        """The index that a point was given, once it is known."""
        with self.changed:
            spans = self.spans.get(track)
            return spans.find(ordinal) if spans else None

    def has_no_agent_since(self, then: float) -> bool:
        """Whether it was known at ``then`` already that there is no agent, and nothing has changed."""
        return self.no_agent is not None and self.no_agent_since <= then

    def owner_elsewhere(self, now: float) -> dict[str, Any] | None:
        """Who owns the directory, when that is an agent of another node, and none of this one hears us."""
        return None if self.afar is None or self.phase == OPEN else self.afar.find_owner(now)

    def is_covered_afar(self) -> bool:
        """Whether an owner on another node has everything, for good, so that the journal may go."""
        return self.is_afar and self.is_closed and self.phase != OPEN and self.journal.covered >= self.journal.end

    @property
    def unacked(self) -> int:
        return self.journal.end - self.sender.acked

    # ── for the link ────────────────────────────────────────────────────────────────────────────────────────────────

    def lacks(self) -> list[str]:
        """What this session needs and the agent that answers is not capable of."""
        return [] if self.agent is None else capabilities.lacking(self.needs, self.agent.can)

    def has_lost_file(self) -> bool:
        """Whether the journal that is being written has no name any more."""
        return self.journal.is_gone() if self.afar is None else not self.afar.notice_name()

    def is_busy(self) -> bool:
        return bool(self._flushes) or self.unacked > 0 or self.lost != self._lost_said

    def wants_line(self) -> bool:
        return self.line is None and self.phase != APART

    def attach(self, line: Line, endpoint: str, now: float) -> None:
        """There is an agent to talk to."""
        self.line, self.endpoint = line, endpoint
        self.no_agent = None
        self._heard = now  # a new line: its silence begins here
        self.agent = None
        self._greet(now)

    def detach(self) -> None:
        self.line = None
        self.phase = LOOKING

    def preferred_endpoint(self) -> str | None:
        """Where the directory's owner is, when an agent has told us."""
        return self._elsewhere

    def _say(self, *message: Any, body: bytes | None = None) -> bool:
        return self.line is not None and self.line.send(messages.encode(message, body))

    def _greet(self, now: float) -> None:
        self.phase, self._greeted = GREETING, now
        self.hello["path"] = self._where() or self.hello["path"]
        self._say(messages.HELLO, self.journal.client, self.hello)

    def is_awaited(self) -> bool:
        """Whether somebody waits for the agent right now: a greeting or a flush is under way."""
        return self.line is not None and (self.phase == GREETING or self._has_flushes())

    def _has_flushes(self) -> bool:
        return any(not request.remote for request in list(self._flushes.values()))

    def turn(self, now: float) -> int:
        """Send what there is to send; returns how many bytes of the journal that were."""
        self._say_when_stuck(now)
        self._look_afar(now)
        if self.phase == APART and now >= self._apart_until:
            self.phase = LOOKING
        if self.line is None or self.phase not in (GREETING, OPEN):
            return 0
        waiting = self.phase == GREETING or self.is_busy()
        if not waiting:
            self._heard = now  # nothing is owed: silence means nothing
            return 0
        if self.phase == GREETING:
            if now - self._greeted >= config.ASK_SECONDS:
                self._greet(now)
            return 0
        sent = self._send_batches(now)
        asks = self.unacked > 0 and not sent and now - max(self._asked, self._heard) >= config.ASK_SECONDS
        tells = self.lost != self._lost_said and now - self._told >= config.ASK_SECONDS
        if asks or tells:
            self._asked = self._told = now
            self._lost_said = self.lost
            self._say(messages.HAVE, self.journal.client, self.journal.end, self.lost)
        self._send_flushes(now)
        return sent

    def _look_afar(self, now: float) -> None:
        """Where the owner is on another node: show it what was written, and see what it has of that."""
        afar = self.afar
        if afar is None or self.phase == OPEN:
            return
        awaited = self._has_flushes()
        busy = awaited or self.unacked > 0
        if not afar.is_due(now, busy=busy, awaited=awaited):
            return
        afar.show_life(now)
        self.is_afar = afar.find_owner(now) is not None
        if not self.is_afar:
            return
        if self.journal.spool is not None:
            self.came_home(now)  # no agent of this node will bring it
            return
        try:
            afar.show(now, awaited=awaited)
        except OSError as error:
            self._troubled(now, f"the journal cannot be made durable: {error.strerror or error}")
        if busy:
            self.catch_up_afar(now)

    def catch_up_afar(self, now: float) -> None:
        """Take what the owner on another node says that it has."""
        if self.afar is None or not self.is_afar:
            return
        try:
            checkpoint = self.afar.read(now)
            if checkpoint is not None:
                self._covered_afar(now, checkpoint)
        except OSError:
            pass  # looked at again

    def _covered_afar(self, now: float, checkpoint: Checkpoint) -> None:
        assert self.afar is not None
        found = self.afar.position(checkpoint, closed=self.is_closed)
        if found is None or not self._agrees(now, *found):
            return
        with self.changed:
            self.origin = checkpoint.origin
            if self.sender.on_ack(found[0], self.journal.end):
                self._stuck, self._stuck_said, self.trouble = None, False, None
            self.journal.cover(found[0])
            for request in [each for each in self._flushes.values() if not each.remote and each.end <= found[0]]:
                self._flushed(now, request.number, None)
            self.changed.notify_all()

    def _agrees(self, now: float, applied: int, running: int | None) -> bool:
        """Whether what is said to be applied is what is in the journal up to there."""
        if applied > self.journal.end:
            self._troubled(now, "the agent knows more of this journal than was written to it")
            return False
        try:
            mine = self.journal.running_at(applied) if running is not None else None
        except OSError as error:
            self._troubled(now, f"the journal cannot be read: {error.strerror or error}")
            return False
        if mine is not None and mine != running:
            self._troubled(now, "what the agent applied under this journal's id is not what is in it")
            return False
        return True

    def is_silent(self, now: float, seconds: float) -> bool:
        return self.line is not None and self.phase in (GREETING, OPEN) and now - self._heard >= seconds

    def _send_batches(self, now: float) -> int:
        sent = 0
        while self.journal.end > self.sender.sent and (self.sender.room() > 0 or self.sender.sent == self.sender.acked):
            start = self.sender.sent
            room = max(1, min(config.BATCH_BYTES, self.sender.room()))
            end = self.journal.cut_point(start, room)
            if end - start > self.sender.room() and self.sender.sent > self.sender.acked:
                break
            try:
                data = self.journal.read(start, end)
            except OSError as error:
                # This disk's trouble, not that of the other sessions of this process: tried again at the next turn.
                self._troubled(now, f"the journal cannot be read: {error.strerror or error}")
                break
            after = codec.run_on(data, self._running)
            if not self._say(messages.DATA, self.journal.client, start, self._running, after, body=data):
                break
            self._running = after
            self.sender.on_sent(end)
            sent += len(data)
        return sent

    def _send_flushes(self, now: float) -> None:
        with self.changed:
            requests = list(self._flushes.values())
        for request in requests:
            if now - request.asked >= config.ASK_SECONDS:
                asked: tuple[Any, ...] = (messages.SYNC, self.journal.client, request.number, request.end)
                if not request.remote:
                    asked = (messages.FLUSH, *asked[1:], int(request.durable), int(request.hashed))
                if self._say(*asked):
                    request.asked = now
                    if request.remote:
                        self._asked = now  # an ack answers it: one that lacks what we sent says that it was lost

    def leave(self) -> None:
        if self.lost != self._lost_said:
            self._say(messages.HAVE, self.journal.client, self.journal.end, self.lost)
        self._say(messages.LEAVE, self.journal.client)

    def hear(self, message: messages.Message, now: float) -> None:
        """Take a message that names this conversation's client."""
        kind, _client, *rest = message
        self._heard = now
        if self.agent is None and kind in (messages.WELCOME, messages.ELSEWHERE):
            self.agent = _FROM_BEFORE
        with self.changed:
            self._HEARD[kind](self, now, *rest)
            self.changed.notify_all()

    def _welcome(
        self, now: float, applied: int, running: int, covered: int, credit: int, origin: str, incarnation: bytes
    ) -> None:
        if not self._agrees(now, applied, running):
            return
        self.phase = OPEN
        self.is_afar = False
        self._tried = None
        self.stopped = False
        self.trouble = None
        self.origin = origin
        self.sender.credit = credit
        self.sender.rewind(applied)
        self._running = running
        self._asked = now
        self._lost_said = 0  # this may be another agent than the one that was told
        for request in self._flushes.values():
            request.asked = -1e9
        self.journal.cover(min(covered, applied))

    def _acked(
        self,
        now: float,
        applied: int,
        covered: int,
        credit: int,
        placed: dict[str, list[list[int]]],
        refusals: list[tuple[int, str]],
    ) -> None:
        if applied > self.journal.end:
            return  # somebody else's: nothing in it is about this journal
        for track, spans in placed.items():
            known = self.spans.get(track)
            if known is None:
                known = self.spans[track] = Spans()
            for ordinal, index, count in spans:
                known.add(ordinal, index, count)
        for _position, reason in refusals:
            self.refused.append(reason)
            if len(self.refused) == 1:
                log.warning("dreamlake: the agent refused an operation: %s", reason)
        self.sender.credit = credit
        if self.sender.sent < applied:
            # The agent read on in our file: only it knows the running checksum there.
            self._greet(now)
        progressed = self.sender.on_ack(applied, self.journal.end)
        if progressed:
            self._stuck, self._stuck_said = None, False
        if applied < self.sender.sent and not progressed and now - self._asked < config.ASK_SECONDS / 2:
            # The answer to our question, and it lacks what we sent: start over from there.
            self._greet(now)
        self.journal.cover(min(covered, applied))

    def _flushed(self, now: float, number: int, problem: str | None) -> None:
        request = self._flushes.pop(number, None)
        if request is not None:
            request.problem = problem
            request.done.set()

    def _is_behind(self, now: float, text: str) -> None:
        self.behind = text

    def _noticed(self, now: float, text: str) -> None:
        if text not in self.notices and len(self.notices) < config.TOLD_MAX:
            self.notices.append(text)
            log.warning("dreamlake: %s: %s", self.hello["path"], text)

    def _agent_can(self, now: float, names: tuple[str, ...], version: str) -> None:
        self.agent = capabilities.said_by({"can": names, "version": version})

    def _sent_elsewhere(self, now: float, endpoint: str | None, why: str) -> None:
        tried, self._tried = self._tried, endpoint
        if endpoint is not None and endpoint != self.endpoint and (self.journal.spool is None or endpoint != tried):
            self._elsewhere = endpoint
            self.line, self.phase = None, LOOKING
            return
        if self.came_home(now) and self.journal.spool is None:
            self._greet(now)
            return
        if self._apart_until == 0.0:
            self.was_apart = True
            owner = self.afar.find_owner(now, again=True) if self.afar is not None else None
            if owner is None:
                log.warning(
                    "dreamlake: %s: %s; every call is kept in its journal until an agent that can see it comes",
                    self.hello["path"],
                    why,
                )
            else:
                log.info(KEPT_AFAR, owner["host"], self.hello["path"])
        self._elsewhere = None
        self.phase, self.line, self._apart_until = APART, None, now + _APART_SECONDS
        self.no_agent, self.no_agent_since = why, -1e9

    def came_home(self, now: float) -> bool:
        """Whether a spooled journal is in the directory now, or, where the disk is against that, will be later. False
        for one that was not spooled, or whose directory is not there either."""
        if self.gone or self.journal.spool is None:
            return False
        try:
            return self.come_home()
        except OSError as error:
            self.anew_at = now + config.ASK_SECONDS
            self._troubled(now, f"its journal cannot be moved out of its spool: {error.strerror or error}")
            return True

    def cannot_reach(self, endpoint: str, now: float) -> None:
        """The directory's owner is where nobody listens for us: in a job with a /tmp of its own, for one."""
        self._sent_elsewhere(now, None, f"the agent that keeps the session, at {endpoint}, cannot be reached from here")

    def doubt(self, endpoint: str, now: float) -> None:
        """The directory's owner is said to be where somebody else could listen: nothing is said there."""
        why = f"an agent at {endpoint[:200]!r} has the session's directory, and that is no place of yours alone"
        self._sent_elsewhere(now, None, why)

    def _was_damaged(self, now: float, why: str) -> None:
        self.damaged = why
        self.phase, self.line, self._apart_until = APART, None, now + _APART_SECONDS

    def _troubled(self, now: float, why: str) -> None:
        self.trouble = why
        self._stuck = (self._stuck[0] if self._stuck else now, why)

    def _say_when_stuck(self, now: float) -> None:
        """Warn once of trouble that lasts. What is tried again and works needs no word; and when the journal cannot
        take calls either, that was the word."""
        if self._stuck and not self._stuck_said and not self.lost and now - self._stuck[0] >= config.SILENCE_SECONDS:
            self._stuck_said = True
            log.warning(
                "dreamlake: %s is in trouble: %s. Calls are kept in its journal, and the agent tries again",
                self.hello["path"],
                self._stuck[1],
            )

    def _was_removed(self, now: float) -> None:
        self.gone = True

    def put_off(self, error: OSError, now: float) -> None:
        """The directory was removed, and cannot be made again now."""
        self.gone, self.anew_at = True, now + config.ASK_SECONDS
        why = f"it was removed, and cannot be made again: {error.strerror or error}"
        if self.trouble != why:
            self.trouble = why
            log.warning("dreamlake: %s: %s; calls are kept until it can", self.hello["path"], why)

    def _asked_who(self, now: float) -> None:
        self.agent = None  # it may be another than the one that said what it can
        self._greet(now)

    def _agent_stops(self, now: float) -> None:
        # Somebody wanted it to end: look for the next one, but do not start it.
        self.stopped = True
        self.line, self.phase = None, LOOKING

    def _other_version(self, now: float) -> None:
        why = f"the agent that runs speaks another protocol than this dreamlake; one that does: {restart_command()}"
        self._sent_elsewhere(now, None, why)

    _HEARD: ClassVar[dict[str, Callable[..., None]]] = {
        messages.CAN: _agent_can,
        messages.WELCOME: _welcome,
        messages.ACK: _acked,
        messages.FLUSHED: _flushed,
        messages.BEHIND: _is_behind,
        messages.NOTICE: _noticed,
        messages.ELSEWHERE: _sent_elsewhere,
        messages.DAMAGED: _was_damaged,
        messages.TROUBLE: _troubled,
        messages.GONE: _was_removed,
        messages.WHO: _asked_who,
        messages.STOPPING: _agent_stops,
    }
