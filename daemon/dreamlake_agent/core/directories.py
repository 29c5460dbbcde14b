"""A session directory, from when it is opened until it is let go: what the store says of it, and what follows."""

from __future__ import annotations

from dreamlake import config
from dreamlake.wire import codec, messages, ops
from dreamlake_agent.core import asks, journals, owed, replies
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.effects import Effects
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import LIVE, RECOVERING, STALLED, Session


def opened(memory: Memory, session: Session, event: on.Opened) -> Effects:
    memory.owners.forget(session.key)
    session.beat_at, session.behind_since = memory.now, None
    session.phase, session.origin, session.trouble = RECOVERING, event.origin, None
    session.distrust = False
    session.remotes = event.remotes
    session.superseded = 0
    memory.uploads.opened(session.path)
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
    session.committed_at = memory.now
    session.vanished = event.vanished
    yield from journals.take_journals(memory, session, event.journals)
    session.recovery = [
        journal.client
        for journal in event.journals
        if not journal.finished and journal.end > session.clients[journal.client].applied
    ]
    yield from recover_on(memory, session)


def recover_on(memory: Memory, session: Session) -> Effects:
    if session.recovery:
        memory.follow(session, session.recovery[0])
        return
    yield do.Settle(session.key)
    session.phase = LIVE
    session.retry_wait = 0.0
    for client_id in session.vanished:
        yield asks.say(session, (ops.KILLED, memory.wall, client_id))
    if session.vanished:
        yield asks.commit(session)
    session.held = {client.id for client in session.clients.values() if client.peer is not None}
    yield do.Scan(session.key)


def not_opened(memory: Memory, session: Session, event: on.NotOpened) -> Effects:
    if event.why == "trouble":
        memory.owners.forget(session.key)
        yield from stall(memory, session, event.reason)
        return
    if event.beat is not None:
        seen = (session.key, session.path, event.beat, event.age)
        is_gone = memory.owners.is_gone(*seen, memory.now, is_locked=event.locked)
        if event.owed or is_gone:
            why = "has shown no sign of life, and its lock is free" if is_gone else "did not finish a takeover"
            text = f"{session.path} is {event.reason.partition(',')[0]}, which {why}: taking over"
            yield do.Note("warning", text, {"path": session.path})
            waited = 0.0 if session.behind_since is None else memory.now - session.behind_since
            yield do.TakeOver(session.key, session.path, event.beat, memory.signs.is_gone(waited))
            return
    for client in session.clients.values():
        memory.homes.pop(client.id, None)
        if client.peer is None:
            continue
        if event.why == "damaged":
            yield do.Send(client.peer, (messages.DAMAGED, client.id, event.reason))
        else:
            yield do.Send(client.peer, (messages.ELSEWHERE, client.id, event.endpoint, event.reason))
    del memory.sessions[session.key]


def taken_over(memory: Memory, session: Session, event: on.TakenOver) -> Effects:
    memory.owners.forget(session.key)
    if event.behind and session.behind_since is None:
        session.behind_since = memory.now
    if event.trouble is not None:
        yield from stall(memory, session, event.trouble)
    elif memory.stop_at is None:
        yield do.OpenDirectory(session.key, session.path, session.distrust)


def stall(memory: Memory, session: Session, reason: str) -> Effects:
    first, most = config.RETRY_SECONDS
    session.phase = STALLED
    memory.counts.failures += 1
    session.retry_wait = min(most, session.retry_wait * 2 or first)
    session.retry_at = memory.now + session.retry_wait
    session.flushes, session.syncs = [], []
    session.committed_applies = session.applies
    if session.trouble != reason:
        session.trouble = memory.last_error = reason
        yield do.Note("error", f"{session.path}: {reason}; trying again", {"path": session.path})
    for client in session.clients.values():
        if client.peer is not None:
            yield do.Send(client.peer, (messages.TROUBLE, client.id, reason))


def broke(memory: Memory, session: Session, event: on.Broke) -> Effects:
    yield do.Release(session.key)
    session.distrust = session.distrust or event.distrust
    memory.counts.failed_syncs += event.distrust
    yield from stall(memory, session, event.reason)


def vanished(memory: Memory, session: Session, event: on.Vanished) -> Effects:
    text = f"{session.path} was removed; clients that have it open begin anew"
    yield do.Note("warning", text, {"path": session.path})
    yield do.Release(session.key)
    memory.uploads.forget(session.path)
    for client in session.clients.values():
        memory.homes.pop(client.id, None)
        if client.peer is not None:
            yield do.Send(client.peer, (messages.GONE, client.id))
    del memory.sessions[session.key]


def applied(memory: Memory, session: Session, event: on.AppliedRun) -> Effects:
    if event.own:
        return
    client = session.client(event.client)
    client.owed_ack = True
    session.bytes_since_checkpoint += event.end - client.applied
    memory.counts.applied_bytes += event.end - client.applied
    client.applied, client.running = event.end, event.running
    client.seen_end = max(client.seen_end, event.end)
    client.state = event.state
    session.remotes = event.remotes
    session.points += event.points
    memory.points += event.points
    session.operations += event.operations
    memory.operations += event.operations
    if client.placed:
        for track, spans in event.placed.items():
            client.placed.setdefault(track, []).extend(spans)
    else:
        client.placed = event.placed
    for position, reason in event.refused.items():
        client.refused += 1
        memory.counts.refused += 1
        client.refusals.append((position, reason))
        memory.last_error = f"{session.path}: refused: {reason}"
        yield do.Note("warning", memory.last_error, {"path": session.path, "client": client.id.hex()})


def committed(memory: Memory, session: Session, event: on.Committed) -> Effects:
    session.committed_applies = event.upto
    if event.runs:
        session.commits += 1
        memory.counts.commits += 1
        session.committed_at = memory.now
        session.rests_until = 0.0
    for file_id in session.landing:
        session.hashing.pop(file_id, None)
    session.landing.clear()
    if session.phase == LIVE:  # before it is settled, other bytes may stand in a file's place
        yield from owed.start_hashing(memory, session, event.unhashed)
    for client in session.clients.values():
        if client.peer is not None and client.owed_ack:
            yield from replies.ack(memory, session, client)
        elif client.peer is None:
            client.placed, client.refusals = {}, []
    if session.phase == RECOVERING:
        yield from recover_on(memory, session)
        return
    yield from journals.welcome_held(memory, session)
    yield from owed.settle_flushes(memory, session)
    yield from owed.settle_syncs(memory, session)


def remembered(memory: Memory, event: on.Remembered) -> Effects:
    """Recover a directory that nobody has asked for; it is let go when nothing is left in it."""
    if event.key not in memory.sessions and memory.stop_at is None:
        memory.sessions[event.key] = Session(event.key, event.path, scanned_at=memory.now)
        yield do.OpenDirectory(event.key, event.path)


def is_idle(memory: Memory, session: Session) -> bool:
    return (
        all(client.is_left for client in session.clients.values())
        and not session.hashing
        and not session.flushes
        and session.is_covered
        and session.viewed == session.commits
        and session.working is None
        and not memory.uploads.is_under_way(session.path)
    )


def let_go(memory: Memory, session: Session) -> Effects:
    yield do.Release(session.key, keep=memory.uploads.is_unfinished(session.path))
    for client_id in session.clients:
        memory.homes.pop(client_id, None)
    del memory.sessions[session.key]
    yield from forget_uploads(memory, session.path)


def forget_uploads(memory: Memory, path: str) -> Effects:
    """Nobody keeps the directory any more; when it is on every server, that was all."""
    if not memory.uploads.is_unfinished(path):
        remotes = memory.uploads.forget(path)
        if remotes:
            yield do.Forget(path, tuple((remote.url, remote.user) for remote in remotes))


def tick(memory: Memory, session: Session) -> Effects:
    now = memory.now
    if now - session.beat_at >= memory.beat_seconds:
        session.beat_at = now
        yield do.Beat(session.key)
    yield from owed.tick(memory, session)
    if (
        now - session.scanned_at >= config.SCAN_SECONDS
        and not session.stopping
        and (now - session.scanned_at >= memory.every(config.SCAN_SECONDS) or session.has_foreign)
    ):
        session.scanned_at = now
        yield do.Scan(session.key)
    yield from owed.hash_again(memory, session)
    if now - session.committed_at >= config.RELEASE_SECONDS and is_idle(memory, session):
        yield from let_go(memory, session)
