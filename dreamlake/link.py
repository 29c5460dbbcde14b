"""The link: this process's conversations with agents, and the one background thread that drives them.

:class:`Switchboard` hears, looks for agents and lets each :class:`~dreamlake.conversation.Conversation` send, in one
``turn``; it owns no thread, so the simulation runs it as it is. :class:`LinkThread` drives it over ZeroMQ.

The training thread never waits here and is never woken by an append: the link looks at the journal's length.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dreamlake import __version__, config
from dreamlake.conversation import Conversation, restart_command
from dreamlake.wire import messages
from dreamlake.wire.capabilities import CAPABILITIES

if TYPE_CHECKING:  # zmq comes with the first session
    from dreamlake.world.sockets import Line

log = logging.getLogger("dreamlake")


class Switchboard:
    """All conversations of a process over its lines. Driven by ``turn``; the world comes in through three functions."""

    def __init__(
        self,
        connect: Callable[[str], Line],
        find: Callable[[], str | None],
        start: Callable[[], str],
        on_gone: Callable[[Conversation], None],
        believes: Callable[[str], bool] = lambda endpoint: True,
        is_there: Callable[[str], bool] = lambda endpoint: True,
    ) -> None:
        self._connect, self._find, self._start, self._on_gone = connect, find, start, on_gone
        self._believes, self._is_there = believes, is_there
        self._lines: dict[str, Line] = {}
        self._unused: dict[str, float] = {}  # lines on which nobody talks any more, and since when
        self.conversations: dict[bytes, Conversation] = {}
        self._looked = self._doubted = -1e9
        self._start_wait = 0.0
        self._start_at = -1e9
        self._said_lacking: set[str] = set()

    def turn(self, now: float) -> int:
        """Hear, look for agents where one is missing, send; returns how many bytes of journals were sent."""
        sent = 0
        for endpoint, line in list(self._lines.items()):
            while (frames := line.receive()) is not None:
                self._hear(frames, now)
            self._check_silence(endpoint, line, now)
        for conversation in list(self.conversations.values()):
            if conversation.gone or (conversation.is_busy() and conversation.has_lost_file()):
                conversation.catch_up_afar(now)  # what an owner elsewhere has of it is not to be written again
                if conversation.gone or conversation.is_busy():
                    self._begin_anew(conversation, now)
                continue
            if conversation.wants_line():
                self._look(conversation, now)
            sent += conversation.turn(now)
        return sent

    def _begin_anew(self, conversation: Conversation, now: float) -> None:
        """The directory was removed. When there is no room for another one yet, this is tried again."""
        if now < conversation.anew_at:
            return
        if conversation.came_home(now):
            return  # only its spool was lost
        try:
            self._on_gone(conversation)
        except OSError as error:
            conversation.put_off(error, now)
            return
        self.conversations.pop(conversation.journal.client, None)

    def _say_what_is_lacking(self, conversation: Conversation) -> None:
        """Once in this process, of whatever it needs and the agent is not capable of; it goes on with what there is."""
        lacking = [name for name in conversation.lacks() if name not in self._said_lacking]
        if not lacking:
            return
        self._said_lacking.update(lacking)
        agent = conversation.agent
        log.warning(
            "dreamlake: the agent that runs is of %s, this process of dreamlake %s: until an agent of this version "
            "takes over, %s. Nothing is lost, and sessions may stay open while it does: "
            "%s",
            f"dreamlake {agent.version}" if agent is not None and agent.version else "an earlier version",
            __version__,
            "; ".join(CAPABILITIES.get(name, name) for name in lacking),
            restart_command(),
        )

    def is_awaited(self) -> bool:
        return any(each.is_awaited() for each in self.conversations.values())

    def _hear(self, frames: list[bytes], now: float) -> None:
        try:
            message, _body = messages.decode_from_agent(frames)
            if message[0] == messages.OTHER_VERSION:
                for conversation in self.conversations.values():
                    conversation._other_version(now)
                return
            conversation_or_none = self.conversations.get(message[1])
            if conversation_or_none is not None:
                conversation_or_none.hear(message, now)
                if message[0] in (messages.CAN, messages.WELCOME, messages.ELSEWHERE):  # it is known now what it can
                    self._say_what_is_lacking(conversation_or_none)
        except messages.OtherVersion:
            for conversation in self.conversations.values():
                conversation._other_version(now)
        except messages.Unreadable:
            log.debug("dreamlake: not a message of an agent's")

    def _check_silence(self, endpoint: str, line: Line, now: float) -> None:
        members = [each for each in self.conversations.values() if each.line is line]
        # ZeroMQ connects again by itself, and would wake an agent that was stopped, for nobody. Not at once: the last
        # word of who closed a session is still on its way.
        if members:
            self._unused.pop(endpoint, None)
        elif now - self._unused.setdefault(endpoint, now) >= config.SILENCE_SECONDS:
            self._drop_line(endpoint)
            return
        silent = any(each.is_silent(now, config.SILENCE_SECONDS) for each in members)
        if not silent:
            # Not at each turn: an agent with 360 clients that has no time to answer has none for their probes either.
            if now - self._doubted < config.ASK_SECONDS:
                return
            if not any(each.is_silent(now, config.ASK_SECONDS * 1.5) for each in members):
                return
            self._doubted = now
            if self._find() == endpoint:
                return
        self._drop_line(endpoint)

    def _drop_line(self, endpoint: str) -> None:
        line = self._lines.pop(endpoint)
        self._unused.pop(endpoint, None)
        for conversation in self.conversations.values():
            if conversation.line is line:
                if conversation.preferred_endpoint() == endpoint:
                    conversation._elsewhere = None
                conversation.detach()
        line.close()

    def _look(self, conversation: Conversation, now: float) -> None:
        endpoint = conversation.preferred_endpoint()
        if endpoint is None:
            if now - self._looked < config.POLL_IDLE_SECONDS and conversation.no_agent is not None:
                return
            self._looked = now
            endpoint = self._find()
        elif not self._believes(endpoint):
            conversation.doubt(endpoint, now)
            return
        elif not self._is_there(endpoint):
            conversation.cannot_reach(endpoint, now)
            return
        if endpoint is None:
            endpoint = self._start_one(conversation, now)
        if endpoint is None:
            return
        line = self._lines.get(endpoint)
        if line is None:
            line = self._lines[endpoint] = self._connect(endpoint)
        conversation.attach(line, endpoint, now)

    def _start_one(self, conversation: Conversation, now: float) -> str | None:
        reason: str | None
        never = not config.may_start_agent()
        if never:
            reason = "no agent is running and DREAMLAKE_AGENT=never"
        elif conversation.stopped:
            reason = "the agent was stopped"
        elif now < self._start_at:
            return None
        else:
            try:
                found = self._start()
                self._start_wait = 0.0
                return found
            except Exception as error:  # whatever it is, training goes on without an agent
                self._start_wait = min(60.0, max(1.0, self._start_wait * 2))
                self._start_at = now + self._start_wait
                reason = str(error)
        with conversation.changed:
            if conversation.no_agent is None:
                conversation.no_agent_since = -1e9 if never else now
            conversation.no_agent = reason
            conversation.changed.notify_all()
        return None

    def close(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines.clear()


class LinkThread:
    """The one thread of this process that talks to agents; started with the first session, ended with the process."""

    def __init__(self, on_gone: Callable[[Conversation], None]) -> None:
        from dreamlake.launch import start_agent
        from dreamlake.world.endpoints import find_agent, is_believed, is_there
        from dreamlake.world.sockets import ZmqLines

        self._lines = ZmqLines()
        self._board = Switchboard(self._lines.connect, find_agent, start_agent, on_gone, is_believed, is_there)
        self._lock = threading.Lock()
        self._coming: list[Conversation] = []
        self._leaving: list[tuple[Conversation, threading.Event]] = []
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="dreamlake-link", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def add(self, conversation: Conversation) -> None:
        with self._lock:
            self._coming.append(conversation)
        self._lines.wake()

    def remove(self, conversation: Conversation, seconds: float = 1.0) -> None:
        """The session is closed: say goodbye; waits until the thread has let go of the journal."""
        done = threading.Event()
        with self._lock:
            self._leaving.append((conversation, done))
        self._lines.wake()
        done.wait(seconds)

    def wake(self) -> None:
        self._lines.wake()

    def _run(self) -> None:
        quiet = config.POLL_AWAITED_SECONDS
        while not self._ending:
            try:
                self._take_changes()
                sent = self._board.turn(time.monotonic())
                if self._board.is_awaited():
                    # Longer while nothing comes: 360 processes that look 250 times a second for what is not there yet
                    # leave no processor to the agent that they wait for. Whatever comes ends the wait.
                    came = self._lines.wait(quiet)
                    quiet = config.POLL_AWAITED_SECONDS if came or sent else min(config.POLL_IDLE_SECONDS, quiet * 1.5)
                else:
                    # Acks can wait. Each time this thread wakes it takes the interpreter from the training for a
                    # moment, and for much longer when the kernel then takes the processor from this thread. Of many
                    # sessions, each must have something to say: a message of a few points costs as much as one of many.
                    is_busy = sent >= config.BUSY_BYTES * max(1, len(self._board.conversations))
                    self._lines.doze(config.POLL_BUSY_SECONDS if is_busy else config.POLL_IDLE_SECONDS)
            except Exception:
                # Ours, not the training's: say it and go on; the journal has everything.
                log.exception("dreamlake: the link failed; operations stay in the journal")
                time.sleep(1.0)

    def _take_changes(self) -> None:
        with self._lock:
            coming, self._coming = self._coming, []
            leaving, self._leaving = self._leaving, []
        for conversation in coming:
            self._board.conversations[conversation.journal.client] = conversation
        for conversation, done in leaving:
            if self._board.conversations.pop(conversation.journal.client, None) is not None:
                conversation.leave()
            done.set()
