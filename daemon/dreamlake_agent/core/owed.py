"""What is owed once something is committed, and who waits: views, durability, checkpoints, checksums, sending."""

from __future__ import annotations

from dreamlake import config
from dreamlake.wire import messages, ops
from dreamlake_agent.core import asks, replies
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.effects import Effect, Effects
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import LIVE, Hashing, Session


def settle_flushes(memory: Memory, session: Session) -> Effects:
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
            yield write_views(memory, session)
        return  # ViewsWritten comes back here
    if any(flush.durable and (flush.need or 0) > session.synced for flush in due):
        if not session.spooled:
            yield from make_durable(memory, session)
        elif session.working is None:
            yield write_checkpoint(session)  # what is durable outlives this node's disk, too
    for flush in due:
        if flush.durable and (flush.need or 0) > session.synced:
            continue
        session.flushes.remove(flush)
        client = session.clients.get(flush.client)
        if client is not None and client.peer is not None:
            yield do.Send(client.peer, (messages.FLUSHED, client.id, flush.number, None))


def settle_syncs(memory: Memory, session: Session) -> Effects:
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
                yield write_checkpoint(session)
            continue
        if sync.owed is None:
            sync.owed = memory.uploads.owed(session.path)
        if memory.uploads.is_sent(session.path, sync.owed):
            session.syncs.remove(sync)
            problems = [problem for target in memory.uploads.of(session.path) for problem in target.problems]
            said = "; ".join(problems) or (None if sync.owed else "the session has no remote")
            if client.peer is not None:
                yield do.Send(client.peer, (messages.FLUSHED, client.id, sync.number, said))


def make_durable(memory: Memory, session: Session) -> Effects:
    if session.working is not None or session.uncommitted:
        return
    session.working, session.synced_at = session.commits, memory.now
    yield do.Sync(session.key)


def checkpoint_seconds(session: Session) -> float:
    seconds = config.CHECKPOINT_REMOTE_SECONDS if session.remotes else config.CHECKPOINT_SECONDS
    return min(seconds, config.CHECKPOINT_SPOOL_SECONDS) if session.spooled else seconds


def write_checkpoint(session: Session, *, tracks: bool = False) -> Effect:
    """``tracks``: with their views. While points come these would be old in a moment, and may be thousands."""
    session.working, session.bytes_since_checkpoint = session.commits, 0
    session.owes_views = not tracks
    return do.WriteCheckpoint(session.key, tracks)


def write_views(memory: Memory, session: Session) -> Effect:
    session.viewing, session.views_begun = session.commits, memory.now
    return do.WriteViews(session.key)


def views_written(memory: Memory, session: Session, event: on.ViewsWritten) -> Effects:
    if not event.done:
        memory.viewing[session.key] = None
        return
    if session.viewing is not None:
        session.viewed, session.viewing = session.viewing, None
    session.viewed_at = memory.now
    rest = (memory.now - session.views_begun) / config.VIEW_SHARE
    session.views_rest = min(rest, config.VIEW_REST_SECONDS)
    yield from settle_flushes(memory, session)


def synced(memory: Memory, session: Session, event: on.Synced) -> Effects:
    memory.counts.syncs += 1
    if session.working is not None:
        session.synced, session.working = session.working, None
    yield from settle_flushes(memory, session)


def checkpointed(memory: Memory, session: Session, event: on.Checkpointed) -> Effects:
    memory.counts.checkpoints += 1
    if session.working is not None:
        session.synced = session.covered = session.working
    session.working, session.covered_at = None, memory.now
    for client_id, position in event.covered.items():
        client = session.clients.get(client_id)
        if client is not None and position > client.covered:
            client.covered = position
            yield from replies.ack(memory, session, client)
    memory.uploads.covered(session.path, session.remotes, event.kept, event.total, memory.now)
    yield from settle_flushes(memory, session)
    yield from settle_syncs(memory, session)
    # A directory that nobody has open is looked at at once: dead journals go, and then the directory.
    if not session.stopping:
        yield do.Scan(session.key)


def settled(memory: Memory, session: Session, event: on.Settled) -> Effects:
    yield from start_hashing(memory, session, event.unhashed)


def start_hashing(memory: Memory, session: Session, unhashed: list[tuple[str, str]]) -> Effects:
    for file_id, path in unhashed:
        if file_id not in session.hashing:
            session.hashing[file_id] = Hashing(path)
            yield do.Hash(session.key, file_id, path)


def hashed(memory: Memory, session: Session, event: on.Hashed) -> Effects:
    if event.checksum is not None and session.phase == LIVE:
        session.landing.add(event.file_id)
        yield asks.say(session, (ops.HASHED, memory.wall, event.file_id, event.checksum))
        yield asks.commit(session)
        return
    job = session.hashing.get(event.file_id)
    if job is not None and job.tries < config.HASH_TRIES and session.phase == LIVE:
        job.tries, job.again = job.tries + 1, memory.now + config.RETRY_SECONDS[1]
        return
    session.hashing.pop(event.file_id, None)
    yield from settle_flushes(memory, session)


def hash_again(memory: Memory, session: Session) -> Effects:
    for file_id, job in session.hashing.items():
        if job.again is not None and memory.now >= job.again:
            job.again = None
            yield do.Hash(session.key, file_id, job.path)


def tick(memory: Memory, session: Session) -> Effects:
    """What has waited for long enough."""
    now = memory.now
    if (
        session.viewed < session.commits
        and session.viewing is None
        and not session.uncommitted
        and now - session.viewed_at >= max(memory.every(config.VIEW_SECONDS), session.views_rest)
    ):
        yield write_views(memory, session)
    if session.working is None and not session.uncommitted and not session.is_covered:
        if now - session.committed_at >= memory.every(config.CHECKPOINT_QUIET_SECONDS) or session.stopping:
            if session.viewed == session.commits:  # else thousands of views would be written at once
                yield write_checkpoint(session, tracks=True)
            elif session.viewing is None:
                yield write_views(memory, session)
        elif session.covered < session.commits and (
            session.bytes_since_checkpoint >= config.CHECKPOINT_BYTES
            or now - session.covered_at >= checkpoint_seconds(session)
        ):
            yield write_checkpoint(session)
        elif session.synced < session.commits and now - session.synced_at >= config.SYNC_SECONDS:
            yield from make_durable(memory, session)
