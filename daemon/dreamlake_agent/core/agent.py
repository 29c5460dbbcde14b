"""The agent's decisions: ``handle(event) -> [effects]``. PURE.

Positions are bytes of a client's journal stream. A client is welcome once its directory is owned and recovered; then
what it sends continues its stream or is dropped, is applied, committed, acked, and some time later covered by a
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from dreamlake import config
from dreamlake.wire import capabilities, codec, messages, ops, window
from dreamlake.wire.remotes import remote_of
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.afar import Owners, Signs
from dreamlake_agent.core.counts import Counts
from dreamlake_agent.core.effects import Effect
from dreamlake_agent.core.limits import Thresholds
from dreamlake_agent.core.session import LIVE, OPENING, RECOVERING, STALLED, Client, Flush, Hashing, Session, Syncing
from dreamlake_agent.core.uploads import Tell, Uploads
from dreamlake_agent.core.watch import Watch

Effects = Iterator[Effect]


class Agent:
    """Every decision of one agent. ``incarnation`` tells clients that it is another one than before."""

    def __init__(
        self,
        incarnation: bytes,
        thresholds: Thresholds | None = None,
        version: str = "unknown",
        gone_seconds: float = config.GONE_SECONDS,
    ) -> None:
        self.incarnation = incarnation
        self.version = version
        self.sessions: dict[on.Key, Session] = {}
        # where a client's session is; a message names only the client
        self._homes: dict[bytes, on.Key] = {}
        # journals that are read from their files, in turn, and sessions whose views are being written
        self._reading: dict[tuple[on.Key, bytes], None] = {}
        self._viewing: dict[on.Key, None] = {}
        self._now = 0.0
        self._wall = 0
        self._stop_at: float | None = None
        self._stop_replies: list[tuple[on.Peer, int]] = []
        self.last_error: str | None = None
        self._owners, self._signs = Owners(gone_seconds), Signs(gone_seconds)
        self._beat_seconds = config.beat_seconds(gone_seconds)
        self.uploads = Uploads()
        self.watch = Watch(thresholds)
        self.counts = Counts()
        self.points = 0
        self.operations = 0

    def handle(self, event: on.Event, now: float, wall: int) -> list[Effect]:
        """Take one event at ``now`` (monotonic seconds) and ``wall`` (nanoseconds since 1970); returns what to do."""
        self._now, self._wall = now, wall
        if isinstance(event, on.Heard):
            return list(self._heard(event))
        if isinstance(event, on.Turned):
            return list(self._turned())
        if isinstance(event, on.Tick):
            return list(self._tick())
        if isinstance(event, on.Remembered):
            return list(self._remembered(event))
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

    # ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def is_busy(self) -> bool:
        """Whether there is more to do at the next turn, whether or not somebody says something."""
        return bool(self._reading or self._viewing)

    def _turned(self) -> Effects:
        """Of the journals that nobody sends, a little is read: a long one, or a thousand, must not keep those waiting
        who speak. Then what was applied is committed, and of one session's thousands of views some are written."""
        for key, client_id in list(self._reading)[: max(1, config.TURN_BYTES // config.FOLLOW_BYTES)]:
            del self._reading[key, client_id]
            session = self.sessions.get(key)
            if session is not None and session.reads(client_id):
                self._reading[key, client_id] = None  # it goes to the end of the row
                session.applies += 1
                yield do.Follow(key, client_id)
        for session in self.sessions.values():
            if session.uncommitted:
                yield self._commit(session)
        for key in list(self._viewing)[:1]:
            del self._viewing[key]
            session = self.sessions.get(key)
            if session is not None and session.viewing is not None:
                yield do.WriteViews(key)

    # ── what clients say ────────────────────────────────────────────────────────────────────────────────────────────

    def _heard(self, event: on.Heard) -> Effects:
        kind, *rest = event.message
        if kind == messages.STATUS:
            yield do.Report(event.peer, rest[0])
        elif kind == messages.STOP:
            self._stop_replies.append((event.peer, rest[0]))
            yield from self._stop()
        elif kind == messages.HELLO:
            yield from self._hello(event.peer, *rest)
        else:
            client_id = rest[0]
            session = self.sessions.get(self._homes.get(client_id, (0, 0)))
            client = session.clients.get(client_id) if session else None
            if session is None or client is None or client.peer != event.peer:
                yield do.Send(event.peer, (messages.WHO, client_id))
                return
            client.heard = self._now
            if kind == messages.HAVE:
                self._count_lost(session, client, rest[2])
            if session.phase == LIVE and client_id not in session.held:
                session.following.discard(client_id)  # whoever speaks sends it
                yield from self._SAID[kind](self, session, client, event, *rest[1:])

    def _hello(self, peer: on.Peer, client_id: bytes, who: dict[str, Any]) -> Effects:
        said = capabilities.said_by(who)
        if said.can is not None:
            # Before anything else is said: whoever hears something else first knows that there are no capabilities.
            yield do.Send(peer, (messages.CAN, client_id, capabilities.mine(), self.version))
        if self._stop_at is not None:
            yield do.Send(peer, (messages.STOPPING, client_id))
            return
        key = (who["dev"], who["ino"])
        session = self.sessions.get(key)
        if session is None:
            session = self.sessions[key] = Session(key, who["path"], scanned_at=self._now)
            yield do.OpenDirectory(key, who["path"])
        client = session.client(client_id)
        client.peer, client.heard, client.lives, client.said = peer, self._now, True, said
        self._homes[client_id] = key
        given = who.get("key") or {}
        remote = remote_of(given)
        if remote is not None and isinstance(given.get("token"), str):
            yield do.KeepKey(session.path, remote.url, remote.user, given["token"])
        if session.phase == LIVE and not client.stands:
            session.held.add(client_id)
            yield do.Scan(key)
        elif session.phase == LIVE and session.uncommitted:
            session.held.add(client_id)
        elif session.phase == LIVE and client_id not in session.held:
            yield self._welcome(session, client)
        elif session.phase == STALLED and session.trouble:
            yield do.Send(peer, (messages.TROUBLE, client_id, session.trouble))

    def _remembered(self, event: on.Remembered) -> Effects:
        """Recover a directory that nobody has asked for; it is let go when nothing is left in it."""
        if event.key not in self.sessions and self._stop_at is None:
            self.sessions[event.key] = Session(event.key, event.path, scanned_at=self._now)
            yield do.OpenDirectory(event.key, event.path)

    def _credit(self) -> int:
        least, most = config.CREDIT_BYTES
        return min(most, max(least, config.CREDIT_BUDGET_BYTES // max(1, len(self._homes))))

    def _welcome(self, session: Session, client: Client) -> Effect:
        assert client.peer is not None
        session.following.discard(client.id)
        found = (client.applied, client.running, client.covered, self._credit(), session.origin, self.incarnation)
        return do.Send(client.peer, (messages.WELCOME, client.id, *found))

    def _ack(self, session: Session, client: Client) -> Effects:
        """Say how far the client's stream is committed. What is applied and not yet committed is nobody's business: the
        ack is owed then, and follows the commit."""
        if client.peer is None:
            return
        if session.uncommitted:
            client.owed_ack = True
            return
        placed, refusals = client.placed, client.refusals
        client.placed, client.refusals, client.owed_ack = {}, [], False
        numbers = (client.applied, client.covered, self._credit())
        yield do.Send(client.peer, (messages.ACK, client.id, *numbers, placed, refusals))

    def _data(self, session: Session, client: Client, event: on.Heard, start: int, before: int, after: int) -> Effects:
        verdict = window.judge(client.applied, start, start + len(event.body))
        if verdict != window.CONTINUES:
            # A duplicate, an overlap or a gap: the sender hears where we are and goes on from there.
            yield from self._ack(session, client)
        elif before != client.running:
            reason = "the journal does not continue what was applied before under the same client id"
            about = {"path": session.path, "client": client.id.hex()}
            yield do.Note("error", f"{session.path}: {client.id.hex()}: {reason}", about)
            yield do.Send(event.peer, (messages.TROUBLE, client.id, reason))
        elif codec.run_on(event.body, before) != after or not event.body:
            yield from self._ack(session, client)
        else:
            yield self._apply(session, client, event.body, after)

    def _have(self, session: Session, client: Client, event: on.Heard, end: int, lost: int) -> Effects:
        client.seen_end = max(client.seen_end, end)
        yield from self._ack(session, client)

    def _count_lost(self, session: Session, client: Client, lost: int) -> None:
        """What a journal could not take is counted, also while the directory is in trouble: that is when it happens."""
        if lost > client.lost:
            session.lost += lost - client.lost
            self.counts.lost += lost - client.lost
            client.lost = lost
            self.last_error = f"{session.path}: {session.lost} calls could not be kept by a client's journal"

    def _flush(
        self,
        session: Session,
        client: Client,
        event: on.Heard,
        number: int,
        end: int,
        durable: int,
        hashed: int,
    ) -> Effects:
        session.flushes = [f for f in session.flushes if (f.client, f.number) != (client.id, number)]
        mine = [f for f in session.flushes if f.client == client.id]
        if len(mine) >= config.FLUSHES_MAX:
            session.flushes.remove(mine[0])  # whoever still waits for it asks again
        session.flushes.append(Flush(client.id, number, end, bool(durable), bool(hashed)))
        yield from self._settle_flushes(session)

    def _sync(self, session: Session, client: Client, event: on.Heard, number: int, end: int) -> Effects:
        mine = [each.number for each in session.syncs if each.client == client.id]
        if number not in mine and len(mine) < config.FLUSHES_MAX:
            session.syncs.append(Syncing(client.id, number, end))
        yield from self._ack(session, client)  # it may take hours: who asks hears that somebody is there
        why = self.uploads.trouble(session.path)
        if why is not None:
            yield do.Send(event.peer, (messages.BEHIND, client.id, why))
        yield from self._settle_syncs(session)

    def _leave(self, session: Session, client: Client, event: on.Heard) -> Effects:
        client.peer = None
        self._homes.pop(client.id, None)
        return iter(())

    _SAID: ClassVar[dict[str, Any]] = {
        messages.DATA: _data,
        messages.HAVE: _have,
        messages.FLUSH: _flush,
        messages.SYNC: _sync,
        messages.LEAVE: _leave,
    }

    # ── what the store says ─────────────────────────────────────────────────────────────────────────────────────────

    def _opened(self, session: Session, event: on.Opened) -> Effects:
        self._owners.forget(session.key)
        session.beat_at, session.behind_since = self._now, None
        session.phase, session.origin, session.trouble = RECOVERING, event.origin, None
        session.distrust = False
        session.remotes = event.remotes
        session.superseded = 0
        self.uploads.opened(session.path)
        session.commits = session.viewed = session.synced = session.covered = 0
        session.committed_applies = session.applies
        session.working = session.viewing = None
        session.bytes_since_checkpoint = 0
        session.following.clear()
        session.held.clear()
        # A checksum whose commit failed is not known any more: what the directory now says is not hashed, is hashed.
        session.hashing.clear()
        session.landing.clear()
        for client in session.clients.values():
            client.applied, client.running = 0, codec.seed(client.id)
            # Nothing is known any more of what was not committed: not what was placed where, nor whose end was said.
            client.placed, client.refusals, client.owed_ack, client.said_killed = {}, [], False, False
        for client_id, (applied, running) in event.positions.items():
            client = session.client(client_id)
            client.applied, client.running = applied, running
            client.covered = event.covered.get(client_id, 0)
        for client_id, state in event.states.items():
            if client_id in session.clients:
                session.clients[client_id].state = state
        # A recovery shows itself: views and durability of what was replayed are owed as after a commit.
        session.commits = 1
        session.committed_at = self._now
        session.vanished = event.vanished
        yield from self._take_journals(session, event.journals)
        session.recovery = [
            journal.client
            for journal in event.journals
            if not journal.finished and journal.end > session.clients[journal.client].applied
        ]
        yield from self._recover_on(session)

    def _recover_on(self, session: Session) -> Effects:
        if session.recovery:
            self._follow(session, session.recovery[0])
            return
        yield do.Settle(session.key)
        session.phase = LIVE
        session.retry_wait = 0.0
        for client_id in session.vanished:
            yield self._say(session, (ops.KILLED, self._wall, client_id))
        if session.vanished:
            yield self._commit(session)
        session.held = {client.id for client in session.clients.values() if client.peer is not None}
        yield do.Scan(session.key)

    def _welcome_held(self, session: Session) -> Effects:
        """Welcome those who wait, once every dead client's journal is applied and its end is written."""
        if session.uncommitted or any(
            not client.lives and (not client.drained or client.state == ops.RUNNING)
            for client in session.clients.values()
        ):
            return
        for client_id in sorted(session.held):
            client = session.clients.get(client_id)
            if client is not None and not client.stands:
                continue  # the scan that it waits for says whether it has a journal
            session.held.discard(client_id)
            if client is not None and client.peer is not None:
                yield self._welcome(session, client)

    # Each of these puts something into memory that only a commit puts on disk: from the moment it is asked for, nothing
    # is acked, shown, synced or checkpointed before that commit. So does a journal that is read on (_turned).

    def _say(self, session: Session, op: tuple[Any, ...]) -> Effect:
        session.applies += 1
        return do.Say(session.key, op)

    def _apply(self, session: Session, client: Client, data: bytes, running: int) -> Effect:
        session.applies += 1
        return do.Apply(session.key, client.id, data, running)

    def _commit(self, session: Session) -> Effect:
        return do.Commit(session.key, session.applies)

    def _follow(self, session: Session, client_id: bytes) -> None:
        """Read its journal on at the next turns, until it is exhausted."""
        self._reading[session.key, client_id] = None

    def _take_journals(self, session: Session, journals: list[on.JournalSeen]) -> Effects:
        for journal in journals:
            if journal.finished:
                yield do.DropJournal(session.key, journal.client)
                continue
            client = session.client(journal.client)
            if not client.stands and journal.position is not None:
                # One that could not be seen for a while was forgotten here, and not by its directory.
                client.applied, client.running, client.covered = journal.position
            client.seen_end = max(client.applied, journal.end)
            client.lives, client.locked, client.spooled = journal.lives, journal.locked, journal.spooled
            client.foreign = journal.sign is not None
            if client.foreign:
                self._judge_from_afar(client, journal)
            if client.heard < 0:
                client.heard = self._now

    def _judge_from_afar(self, client: Client, journal: on.JournalSeen) -> None:
        """Its lock may not reach as far as here. What it left is kept for longer than it takes to count as gone: one
        that was only cut off goes on writing into it."""
        assert journal.sign is not None
        silence = self._signs.silence(client.id, journal.sign, journal.age, self._now)
        client.lives = journal.locked or not self._signs.is_gone(silence)
        # Closed or not: a thread of it may have called once more, and nobody but its writer knows whether it was seen.
        client.locked = journal.locked or not self._signs.is_given_up(silence)

    def _not_opened(self, session: Session, event: on.NotOpened) -> Effects:
        if event.why == "trouble":
            self._owners.forget(session.key)
            yield from self._stall(session, event.reason)
            return
        if event.beat is not None:
            seen = (session.key, session.path, event.beat, event.age)
            is_gone = self._owners.is_gone(*seen, self._now, is_locked=event.locked)
            if event.owed or is_gone:
                why = "has shown no sign of life, and its lock is free" if is_gone else "did not finish a takeover"
                text = f"{session.path} is {event.reason.partition(',')[0]}, which {why}: taking over"
                yield do.Note("warning", text, {"path": session.path})
                waited = 0.0 if session.behind_since is None else self._now - session.behind_since
                yield do.TakeOver(session.key, session.path, event.beat, self._signs.is_gone(waited))
                return
        for client in session.clients.values():
            self._homes.pop(client.id, None)
            if client.peer is None:
                continue
            if event.why == "damaged":
                yield do.Send(client.peer, (messages.DAMAGED, client.id, event.reason))
            else:
                yield do.Send(client.peer, (messages.ELSEWHERE, client.id, event.endpoint, event.reason))
        del self.sessions[session.key]

    def _taken_over(self, session: Session, event: on.TakenOver) -> Effects:
        self._owners.forget(session.key)
        if event.behind and session.behind_since is None:
            session.behind_since = self._now
        if event.trouble is not None:
            yield from self._stall(session, event.trouble)
        elif self._stop_at is None:
            yield do.OpenDirectory(session.key, session.path, session.distrust)

    def _stall(self, session: Session, reason: str) -> Effects:
        first, most = config.RETRY_SECONDS
        session.phase = STALLED
        self.counts.failures += 1
        session.retry_wait = min(most, session.retry_wait * 2 or first)
        session.retry_at = self._now + session.retry_wait
        session.flushes, session.syncs = [], []
        session.committed_applies = session.applies
        if session.trouble != reason:
            session.trouble = self.last_error = reason
            yield do.Note("error", f"{session.path}: {reason}; trying again", {"path": session.path})
        for client in session.clients.values():
            if client.peer is not None:
                yield do.Send(client.peer, (messages.TROUBLE, client.id, reason))

    def _broke(self, session: Session, event: on.Broke) -> Effects:
        yield do.Release(session.key)
        session.distrust = session.distrust or event.distrust
        self.counts.failed_syncs += event.distrust
        yield from self._stall(session, event.reason)

    def _vanished(self, session: Session, event: on.Vanished) -> Effects:
        text = f"{session.path} was removed; clients that have it open begin anew"
        yield do.Note("warning", text, {"path": session.path})
        yield do.Release(session.key)
        self.uploads.forget(session.path)
        for client in session.clients.values():
            self._homes.pop(client.id, None)
            if client.peer is not None:
                yield do.Send(client.peer, (messages.GONE, client.id))
        del self.sessions[session.key]

    def _applied(self, session: Session, event: on.AppliedRun) -> Effects:
        if event.own:
            return
        client = session.client(event.client)
        client.owed_ack = True
        session.bytes_since_checkpoint += event.end - client.applied
        self.counts.applied_bytes += event.end - client.applied
        client.applied, client.running = event.end, event.running
        client.seen_end = max(client.seen_end, event.end)
        client.state = event.state
        session.remotes = event.remotes
        session.points += event.points
        self.points += event.points
        session.operations += event.operations
        self.operations += event.operations
        for track, spans in event.placed.items():
            client.placed.setdefault(track, []).extend(spans)
        for position, reason in event.refused.items():
            client.refused += 1
            self.counts.refused += 1
            client.refusals.append((position, reason))
            self.last_error = f"{session.path}: refused: {reason}"
            yield do.Note("warning", self.last_error, {"path": session.path, "client": client.id.hex()})

    def _committed(self, session: Session, event: on.Committed) -> Effects:
        session.committed_applies = event.upto
        if event.runs:
            session.commits += 1
            self.counts.commits += 1
            session.committed_at = self._now
            session.rests_until = 0.0
        for file_id in session.landing:
            session.hashing.pop(file_id, None)
        session.landing.clear()
        if session.phase == LIVE:  # before it is settled, other bytes may stand in a file's place
            yield from self._start_hashing(session, event.unhashed)
        for client in session.clients.values():
            if client.peer is not None and client.owed_ack:
                yield from self._ack(session, client)
            elif client.peer is None:
                client.placed, client.refusals = {}, []
        if session.phase == RECOVERING:
            yield from self._recover_on(session)
            return
        yield from self._welcome_held(session)
        yield from self._settle_flushes(session)
        yield from self._settle_syncs(session)

    def _exhausted(self, session: Session, event: on.Exhausted) -> Effects:
        client = session.client(event.client)
        client.exhausted_end = client.seen_end
        session.following.discard(event.client)
        if session.phase == RECOVERING:
            session.recovery.remove(event.client)  # the commit goes on with the next
        elif not client.lives:
            # Heard out: its end is written, and those who wait for that are welcomed.
            yield from self._look_after(session, client)
            yield from self._welcome_held(session)

    def _scanned(self, session: Session, event: on.Scanned) -> Effects:
        yield from self._take_journals(session, event.journals)
        standing = {journal.client for journal in event.journals}
        for client in list(session.clients.values()):
            client.stands = client.stands or client.id in standing
            if client.foreign:
                client.exhausted_end = -1  # what is seen of its file may be the size, and not the bytes yet
            if client.id in standing:
                yield from self._look_after(session, client)
            elif client.id in session.held and not client.stands:
                yield from self._turn_away(session, client)
            elif client.peer is None or self._now - client.heard > config.HEARD_SECONDS:
                self._forget(session, client)
        yield from self._welcome_held(session)

    def _turn_away(self, session: Session, client: Client) -> Effects:
        """Nothing is applied that is not in a journal: without one, replay could not bring it again, and what was
        committed after it would get other indexes than its callers were told."""
        session.held.discard(client.id)
        self._forget(session, client)
        if client.peer is not None:
            reason = f"the agent sees no journal of this process in {session.path}"
            yield do.Send(client.peer, (messages.ELSEWHERE, client.id, None, reason))

    def _look_after(self, session: Session, client: Client) -> Effects:
        """A journal stands there: follow it, end it, or drop it."""
        # One that has just begun is about to say hello. What was applied out of its file before that is acked to
        # nobody, and the receipts for it would never get their indexes.
        begins = client.state is None and client.lives and not client.foreign and not session.stopping
        silent = self._now - client.heard > config.HEARD_SECONDS or (client.peer is None and not begins)
        silent = silent or not client.lives
        if not client.drained:
            if silent and client.id not in session.following:
                session.following.add(client.id)
                self._follow(session, client.id)
            return
        if not client.lives and client.state == ops.RUNNING and not client.said_killed:
            client.said_killed = True
            client.state = ops.KILLED_STATE
            yield self._say(session, (ops.KILLED, self._wall, client.id))
            yield self._commit(session)
            self.counts.killed += 1
            text = f"{session.path}: a client vanished without a word ({client.id.hex()})"
            yield do.Note("warning", text, {"path": session.path, "client": client.id.hex()})
            return
        over = client.state != ops.RUNNING  # ended, or an agent's own that nobody has open
        # Locked: whoever has it open may still write, whatever we think of its life.
        if (over or not client.lives) and not client.locked and client.covered >= client.applied:
            yield do.DropJournal(session.key, client.id)

    def _dropped(self, session: Session, event: on.Dropped) -> Effects:
        client = session.clients.get(event.client)
        if client is not None:
            self._forget(session, client)
        return iter(())

    def _forget(self, session: Session, client: Client) -> None:
        self._signs.forget(client.id)
        session.clients.pop(client.id, None)
        session.flushes = [flush for flush in session.flushes if flush.client != client.id]
        session.syncs = [sync for sync in session.syncs if sync.client != client.id]
        self._homes.pop(client.id, None)

    # ── flushes, views, durability ──────────────────────────────────────────────────────────────────────────────────

    def _settle_flushes(self, session: Session) -> Effects:
        if session.uncommitted:
            return  # the commit comes back here
        for flush in session.flushes:
            client = session.clients.get(flush.client)
            if flush.need is None and client is not None and client.applied >= flush.end:
                flush.need = session.target
        due = [flush for flush in session.flushes if flush.need is not None and flush.need <= session.commits]
        for flush in due:
            if flush.hashed and not session.hashing:
                flush.need, flush.hashed = session.target, False
        due = [flush for flush in due if not flush.hashed and (flush.need or 0) <= session.commits]
        if any((flush.need or 0) > session.viewed for flush in due):
            if session.viewing is None:
                yield self._write_views(session)
            return  # ViewsWritten comes back here
        if any(flush.durable and (flush.need or 0) > session.synced for flush in due):
            if not session.spooled:
                yield from self._make_durable(session)
            elif session.working is None:
                yield self._write_checkpoint(session)  # what is durable outlives this node's disk, too
        for flush in due:
            if flush.durable and (flush.need or 0) > session.synced:
                continue
            session.flushes.remove(flush)
            client = session.clients.get(flush.client)
            if client is not None and client.peer is not None:
                yield do.Send(client.peer, (messages.FLUSHED, client.id, flush.number, None))

    def _make_durable(self, session: Session) -> Effects:
        if session.working is not None or session.uncommitted:
            return
        session.working, session.synced_at = session.commits, self._now
        yield do.Sync(session.key)

    def _checkpoint_seconds(self, session: Session) -> float:
        seconds = config.CHECKPOINT_REMOTE_SECONDS if session.remotes else config.CHECKPOINT_SECONDS
        return min(seconds, config.CHECKPOINT_SPOOL_SECONDS) if session.spooled else seconds

    def _write_views(self, session: Session) -> Effect:
        session.viewing, session.views_begun = session.commits, self._now
        return do.WriteViews(session.key)

    def _views_written(self, session: Session, event: on.ViewsWritten) -> Effects:
        if not event.done:
            self._viewing[session.key] = None
            return
        if session.viewing is not None:
            session.viewed, session.viewing = session.viewing, None
        session.viewed_at = self._now
        rest = (self._now - session.views_begun) / config.VIEW_SHARE
        session.views_rest = min(rest, config.VIEW_REST_SECONDS)
        yield from self._settle_flushes(session)

    def _synced(self, session: Session, event: on.Synced) -> Effects:
        self.counts.syncs += 1
        if session.working is not None:
            session.synced, session.working = session.working, None
        yield from self._settle_flushes(session)

    def _checkpointed(self, session: Session, event: on.Checkpointed) -> Effects:
        self.counts.checkpoints += 1
        if session.working is not None:
            session.synced = session.covered = session.working
        session.working, session.covered_at = None, self._now
        for client_id, position in event.covered.items():
            client = session.clients.get(client_id)
            if client is not None and position > client.covered:
                client.covered = position
                yield from self._ack(session, client)
        self.uploads.covered(session.path, session.remotes, event.kept, event.total, self._now)
        yield from self._settle_flushes(session)
        yield from self._settle_syncs(session)
        # A directory that nobody has open is looked at at once: dead journals go, and then the directory.
        if not session.stopping:
            yield do.Scan(session.key)

    def _settled(self, session: Session, event: on.Settled) -> Effects:
        yield from self._start_hashing(session, event.unhashed)

    def _start_hashing(self, session: Session, unhashed: list[tuple[str, str]]) -> Effects:
        for file_id, path in unhashed:
            if file_id not in session.hashing:
                session.hashing[file_id] = Hashing(path)
                yield do.Hash(session.key, file_id, path)

    def _hashed(self, session: Session, event: on.Hashed) -> Effects:
        if event.checksum is not None and session.phase == LIVE:
            session.landing.add(event.file_id)
            yield self._say(session, (ops.HASHED, self._wall, event.file_id, event.checksum))
            yield self._commit(session)
            return
        job = session.hashing.get(event.file_id)
        if job is not None and job.tries < config.HASH_TRIES and session.phase == LIVE:
            job.tries, job.again = job.tries + 1, self._now + config.RETRY_SECONDS[1]
            return
        session.hashing.pop(event.file_id, None)
        yield from self._settle_flushes(session)

    def _hash_again(self, session: Session) -> Effects:
        for file_id, job in session.hashing.items():
            if job.again is not None and self._now >= job.again:
                job.again = None
                yield do.Hash(session.key, file_id, job.path)

    # ── uploads ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _uploaded(self, event: on.Uploaded) -> Effects:
        path, url = self.uploads.path_of(event.number), self.uploads.url_of(event.number)
        if url is not None:
            self.counts.uploads[url, event.ended] += 1
        session = next((each for each in self.sessions.values() if each.path == path), None)
        yield from self._tell(self.uploads.uploaded(event, self._now, is_open=session is not None))
        if path is None:
            return
        if session is None:
            yield from self._forget_uploads(path)
        elif session.phase == LIVE:
            newest = self.uploads.superseded(path)
            if newest > session.superseded:
                session.superseded = newest
                yield do.DropSuperseded(session.key, newest)
            yield from self._settle_syncs(session)

    def _forget_uploads(self, path: str) -> Effects:
        """Nobody keeps the directory any more; when it is on every server, that was all."""
        if not self.uploads.is_unfinished(path):
            remotes = self.uploads.forget(path)
            if remotes:
                yield do.Forget(path, tuple((remote.url, remote.user) for remote in remotes))

    def _let_go(self, session: Session) -> Effects:
        yield do.Release(session.key, keep=self.uploads.is_unfinished(session.path))
        for client_id in session.clients:
            self._homes.pop(client_id, None)
        del self.sessions[session.key]
        yield from self._forget_uploads(session.path)

    def _tell(self, told: Iterator[Effect | Tell]) -> Effects:
        for each in told:
            if not isinstance(each, Tell):
                yield each
                continue
            self.last_error = f"{each.path}: {each.text}"
            yield do.Note("warning", self.last_error, {"path": each.path, "remote": each.remote})
            for session in self.sessions.values():
                if session.path == each.path:
                    for client in session.clients.values():
                        if client.peer is not None:
                            yield do.Send(client.peer, (messages.NOTICE, client.id, each.text))

    def _settle_syncs(self, session: Session) -> Effects:
        """Those who wait for the servers: until it is committed, covered by a checkpoint, and sent."""
        if session.uncommitted or session.hashing or session.phase != LIVE:
            return
        for sync in list(session.syncs):
            client = session.clients.get(sync.client)
            if client is None or client.applied < sync.end:
                continue
            if sync.need is None:
                sync.need = session.commits
            if session.covered < sync.need:
                if session.working is None:
                    yield self._write_checkpoint(session)
                continue
            if sync.owed is None:
                sync.owed = self.uploads.owed(session.path)
            if self.uploads.is_sent(session.path, sync.owed):
                session.syncs.remove(sync)
                problems = [problem for target in self.uploads.of(session.path) for problem in target.problems]
                said = "; ".join(problems) or (None if sync.owed else "the session has no remote")
                if client.peer is not None:
                    yield do.Send(client.peer, (messages.FLUSHED, client.id, sync.number, said))

    def _write_checkpoint(self, session: Session, *, tracks: bool = False) -> Effect:
        """``tracks``: with their views. While points come these would be old in a moment, and may be thousands."""
        session.working, session.bytes_since_checkpoint = session.commits, 0
        session.owes_views = not tracks
        return do.WriteCheckpoint(session.key, tracks)

    # ── time ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> Effects:
        for session in list(self.sessions.values()):
            if session.phase == STALLED and self._now >= session.retry_at and self._stop_at is None:
                session.phase = OPENING
                yield do.OpenDirectory(session.key, session.path, session.distrust)
            elif session.phase == LIVE and (self._now >= session.rests_until or session.stopping):
                yield from self._tick_session(session)
                rest = 0.0 if session.is_owing else config.REST_SECONDS
                session.rests_until = self._now + rest
        if self._stop_at is not None:
            yield from self._stop_on()
            return
        for key, path in self._owners.due(self._now):
            yield from self._remembered(on.Remembered(key, path))
        yield from self._tell(self.uploads.tick(self._now))

    def _tick_session(self, session: Session) -> Effects:
        now = self._now
        if now - session.beat_at >= self._beat_seconds:
            session.beat_at = now
            yield do.Beat(session.key)
        if (
            session.viewed < session.commits
            and session.viewing is None
            and not session.uncommitted
            and now - session.viewed_at >= max(self._every(config.VIEW_SECONDS), session.views_rest)
        ):
            yield self._write_views(session)
        if session.working is None and not session.uncommitted and not session.is_covered:
            if now - session.committed_at >= config.CHECKPOINT_QUIET_SECONDS or session.stopping:
                if session.viewed == session.commits:  # else thousands of views would be written at once
                    yield self._write_checkpoint(session, tracks=True)
                elif session.viewing is None:
                    yield self._write_views(session)
            elif session.covered < session.commits and (
                session.bytes_since_checkpoint >= config.CHECKPOINT_BYTES
                or now - session.covered_at >= self._checkpoint_seconds(session)
            ):
                yield self._write_checkpoint(session)
            elif session.synced < session.commits and now - session.synced_at >= config.SYNC_SECONDS:
                yield from self._make_durable(session)
        if (
            now - session.scanned_at >= config.SCAN_SECONDS
            and not session.stopping
            and (now - session.scanned_at >= self._every(config.SCAN_SECONDS) or session.has_foreign)
        ):
            session.scanned_at = now
            yield do.Scan(session.key)
        yield from self._hash_again(session)
        if now - session.committed_at >= config.RELEASE_SECONDS and self._is_idle(session):
            yield from self._let_go(session)

    def _every(self, seconds: float) -> float:
        """How often each session is seen to, of all that are open."""
        return max(seconds, len(self.sessions) / config.SESSIONS_A_SECOND)

    def _is_idle(self, session: Session) -> bool:
        return (
            all(client.is_left for client in session.clients.values())
            and not session.hashing
            and not session.flushes
            and session.is_covered
            and session.viewed == session.commits
            and session.working is None
            and not self.uploads.is_under_way(session.path)
        )

    def _stop(self) -> Effects:
        if self._stop_at is None:
            self._stop_at = self._now + config.STOP_SECONDS
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
        assert self._stop_at is not None
        for session in list(self.sessions.values()):
            settled = (
                session.phase == LIVE
                and not session.following
                and session.is_covered
                and session.viewed == session.commits
                and session.working is None
                and all(client.drained for client in session.clients.values())
            )
            if settled or session.phase in (STALLED, OPENING) or self._now >= self._stop_at:
                yield from self._let_go(session)
        if not self.sessions:
            for peer, number in self._stop_replies:
                yield do.Send(peer, (messages.REPORT, number, b"{}"))
            yield do.Exit()

    @property
    def is_stopping(self) -> bool:
        return self._stop_at is not None

    def stop(self, now: float, wall: int) -> list[Effect]:
        """A signal asked for the end."""
        self._now, self._wall = now, wall
        return list(self._stop())

    _SESSION_EVENTS: ClassVar[dict[type, Any]] = {
        on.Opened: _opened,
        on.NotOpened: _not_opened,
        on.TakenOver: _taken_over,
        on.AppliedRun: _applied,
        on.Committed: _committed,
        on.Settled: _settled,
        on.Exhausted: _exhausted,
        on.Scanned: _scanned,
        on.Dropped: _dropped,
        on.ViewsWritten: _views_written,
        on.Synced: _synced,
        on.Checkpointed: _checkpointed,
        on.Broke: _broke,
        on.Vanished: _vanished,
        on.Hashed: _hashed,
    }
