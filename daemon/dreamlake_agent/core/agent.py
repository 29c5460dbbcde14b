"""The agent's decisions: ``handle(event) -> [effects]``. PURE.

Positions are bytes of a client's journal stream. A client is welcome once its directory is owned and recovered; then
what it sends continues its stream or is dropped, is applied, committed, acked, and some time later covered by a
checkpoint.
"""

from __future__ import annotations

from typing import Any, ClassVar

from dreamlake import config
from dreamlake.wire import messages
from dreamlake_agent.core import asks, clients, directories, journals, owed, replies
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.effects import Effect, Effects
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import LIVE, OPENING, STALLED


class Agent(Memory):
    """Every decision of one agent. ``incarnation`` tells clients that it is another one than before."""

    def handle(self, event: on.Event, now: float, wall: int) -> list[Effect]:
        """Take one event at ``now`` (monotonic seconds) and ``wall`` (nanoseconds since 1970); returns what to do."""
        self.now, self.wall = now, wall
        if isinstance(event, on.Heard):
            return list(self._heard(event))
        if isinstance(event, on.Turned):
            return list(self._turned())
        if isinstance(event, on.Tick):
            return list(self._tick())
        if isinstance(event, on.Remembered):
            return list(directories.remembered(self, event))
        if isinstance(event, on.UploadMeasured):
            self.uploads.measured(event)
            return []
        if isinstance(event, on.Uploaded):
            return list(self._uploaded(event))
        if isinstance(event, on.Gauged):
            return list(self.watch.measured(event.disks, self.sessions, self.uploads, now))
        session = self.sessions.get(event.key)
        if session is None:
            return []
        return list(self._SESSION_EVENTS[type(event)](self, session, event))

    @property
    def is_busy(self) -> bool:
        """Whether there is more to do at the next turn, whether or not somebody says something."""
        return bool(self.reading or self.viewing)

    @property
    def is_stopping(self) -> bool:
        return self.stop_at is not None

    def stop(self, now: float, wall: int) -> list[Effect]:
        """A signal asked for the end."""
        self.now, self.wall = now, wall
        return list(self._stop())

    def _turned(self) -> Effects:
        """Of the journals that nobody sends, a little is read: a long one, or a thousand, must not keep those waiting
        who speak. Then what was applied is committed, and of one session's thousands of views some are written."""
        for key, client_id in list(self.reading)[: max(1, config.TURN_BYTES // config.FOLLOW_BYTES)]:
            del self.reading[key, client_id]
            session = self.sessions.get(key)
            if session is not None and session.reads(client_id):
                self.reading[key, client_id] = None  # it goes to the end of the row
                session.applies += 1
                yield do.Follow(key, client_id)
        for session in self.sessions.values():
            if session.uncommitted:
                yield asks.commit(session)
        for key in list(self.viewing)[:1]:
            del self.viewing[key]
            session = self.sessions.get(key)
            if session is not None and session.viewing is not None:
                yield do.WriteViews(key)

    def _heard(self, event: on.Heard) -> Effects:
        kind, *rest = event.message
        if kind == messages.STATUS:
            yield do.Report(event.peer, rest[0])
        elif kind == messages.STOP:
            self.stop_replies.append((event.peer, rest[0]))
            yield from self._stop()
        elif kind == messages.HELLO:
            yield from clients.hello(self, event.peer, *rest)
        else:
            client_id = rest[0]
            session = self.sessions.get(self.homes.get(client_id, (0, 0)))
            client = session.clients.get(client_id) if session else None
            if session is None or client is None or client.peer != event.peer:
                yield do.Send(event.peer, (messages.WHO, client_id))
                return
            client.heard = self.now
            if kind == messages.HAVE:
                clients.count_lost(self, session, client, rest[2])
            if session.phase == LIVE and client_id not in session.held:
                session.following.discard(client_id)  # whoever speaks sends it
                yield from self._SAID[kind](self, session, client, event, *rest[1:])

    def _uploaded(self, event: on.Uploaded) -> Effects:
        path, url = self.uploads.path_of(event.number), self.uploads.url_of(event.number)
        if url is not None:
            self.counts.uploads[url, event.ended] += 1
        session = next((each for each in self.sessions.values() if each.path == path), None)
        yield from replies.tell(self, self.uploads.uploaded(event, self.now, is_open=session is not None))
        if path is None:
            return
        if session is None:
            yield from directories.forget_uploads(self, path)
        elif session.phase == LIVE:
            newest = self.uploads.superseded(path)
            if newest > session.superseded:
                session.superseded = newest
                yield do.DropSuperseded(session.key, newest)
            yield from owed.settle_syncs(self, session)

    def _tick(self) -> Effects:
        for session in list(self.sessions.values()):
            if session.phase == STALLED and self.now >= session.retry_at and self.stop_at is None:
                session.phase = OPENING
                yield do.OpenDirectory(session.key, session.path, session.distrust)
            elif session.phase == LIVE and (self.now >= session.rests_until or session.stopping):
                yield from directories.tick(self, session)
                rest = 0.0 if session.is_owing else config.REST_SECONDS
                session.rests_until = self.now + rest
        if self.stop_at is not None:
            yield from self._stop_on()
            return
        for key, path in self.owners.due(self.now):
            yield from directories.remembered(self, on.Remembered(key, path))
        yield from replies.tell(self, self.uploads.tick(self.now))

    def _stop(self) -> Effects:
        if self.stop_at is None:
            self.stop_at = self.now + config.STOP_SECONDS
            yield do.Note("info", "stopping: applying what is in the journals")
            for session in self.sessions.values():
                session.stopping = True
                for client in session.clients.values():
                    if client.peer is not None:
                        # From here on the client's file is followed, which has an end; its messages need not.
                        yield do.Send(client.peer, (messages.STOPPING, client.id))
                        client.peer = None
                if session.phase == LIVE:
                    yield do.Scan(session.key)

    def _stop_on(self) -> Effects:
        assert self.stop_at is not None
        for session in list(self.sessions.values()):
            settled = (
                session.phase == LIVE
                and not session.following
                and session.is_covered
                and session.viewed == session.commits
                and session.working is None
                and all(client.drained for client in session.clients.values())
            )
            if settled or session.phase in (STALLED, OPENING) or self.now >= self.stop_at:
                yield from directories.let_go(self, session)
        if not self.sessions:
            for peer, number in self.stop_replies:
                yield do.Send(peer, (messages.REPORT, number, b"{}"))
            yield do.Exit()

    _SAID: ClassVar[dict[str, Any]] = {
        messages.DATA: clients.data,
        messages.HAVE: clients.have,
        messages.FLUSH: clients.flush,
        messages.SYNC: clients.sync,
        messages.LEAVE: clients.leave,
    }

    _SESSION_EVENTS: ClassVar[dict[type, Any]] = {
        on.Opened: directories.opened,
        on.NotOpened: directories.not_opened,
        on.TakenOver: directories.taken_over,
        on.AppliedRun: directories.applied,
        on.Committed: directories.committed,
        on.Settled: owed.settled,
        on.Exhausted: journals.exhausted,
        on.Scanned: journals.scanned,
        on.Dropped: journals.dropped,
        on.ViewsWritten: owed.views_written,
        on.Synced: owed.synced,
        on.Checkpointed: owed.checkpointed,
        on.Broke: directories.broke,
        on.Vanished: directories.vanished,
        on.Hashed: owed.hashed,
    }
