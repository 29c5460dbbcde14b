"""The journals of a session: which are followed, whose end is written, which go, and who is welcome."""

from __future__ import annotations

from dreamlake import config
from dreamlake.wire import messages, ops
from dreamlake_agent.core import asks, replies
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.effects import Effects
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import RECOVERING, Client, Session


def take_journals(memory: Memory, session: Session, journals: list[on.JournalSeen]) -> Effects:
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
            judge_from_afar(memory, client, journal)
        if client.heard < 0:
            client.heard = memory.now


def judge_from_afar(memory: Memory, client: Client, journal: on.JournalSeen) -> None:
    """Its lock may not reach as far as here. What it left is kept for longer than it takes to count as gone: one
    that was only cut off goes on writing into it."""
    assert journal.sign is not None
    silence = memory.signs.silence(client.id, journal.sign, journal.age, memory.now)
    client.lives = journal.locked or not memory.signs.is_gone(silence)
    # Closed or not: a thread of it may have called once more, and nobody but its writer knows whether it was seen.
    client.locked = journal.locked or not memory.signs.is_given_up(silence)


def scanned(memory: Memory, session: Session, event: on.Scanned) -> Effects:
    yield from take_journals(memory, session, event.journals)
    standing = {journal.client for journal in event.journals}
    for client in list(session.clients.values()):
        client.stands = client.stands or client.id in standing
        if client.foreign:
            client.exhausted_end = -1  # what is seen of its file may be the size, and not the bytes yet
        if client.id in standing:
            yield from look_after(memory, session, client)
        elif client.id in session.held and not client.stands:
            yield from turn_away(memory, session, client)
        elif client.peer is None or memory.now - client.heard > config.HEARD_SECONDS:
            forget(memory, session, client)
    yield from welcome_held(memory, session)


def turn_away(memory: Memory, session: Session, client: Client) -> Effects:
    """Nothing is applied that is not in a journal: without one, replay could not bring it again, and what was
    committed after it would get other indexes than its callers were told."""
    session.held.discard(client.id)
    forget(memory, session, client)
    if client.peer is not None:
        reason = f"the agent sees no journal of this process in {session.path}"
        yield do.Send(client.peer, (messages.ELSEWHERE, client.id, None, reason))


def look_after(memory: Memory, session: Session, client: Client) -> Effects:
    """A journal stands there: follow it, end it, or drop it."""
    # One that has just begun is about to say hello. What was applied out of its file before that is acked to
    # nobody, and the receipts for it would never get their indexes.
    begins = client.state is None and client.lives and not client.foreign and not session.stopping
    silent = memory.now - client.heard > config.HEARD_SECONDS or (client.peer is None and not begins)
    silent = silent or not client.lives
    if not client.drained:
        if silent and client.id not in session.following:
            session.following.add(client.id)
            memory.follow(session, client.id)
        return
    if not client.lives and client.state == ops.RUNNING and not client.said_killed:
        client.said_killed = True
        client.state = ops.KILLED_STATE
        yield asks.say(session, (ops.KILLED, memory.wall, client.id))
        yield asks.commit(session)
        memory.counts.killed += 1
        text = f"{session.path}: a client vanished without a word ({client.id.hex()})"
        yield do.Note("warning", text, {"path": session.path, "client": client.id.hex()})
        return
    over = client.state != ops.RUNNING  # ended, or an agent's own that nobody has open
    # Locked: whoever has it open may still write, whatever we think of its life.
    if (over or not client.lives) and not client.locked and client.covered >= client.applied:
        yield do.DropJournal(session.key, client.id)


def exhausted(memory: Memory, session: Session, event: on.Exhausted) -> Effects:
    client = session.client(event.client)
    client.exhausted_end = client.seen_end
    session.following.discard(event.client)
    if session.phase == RECOVERING:
        session.recovery.remove(event.client)  # the commit goes on with the next
    elif not client.lives:
        # Heard out: its end is written, and those who wait for that are welcomed.
        yield from look_after(memory, session, client)
        yield from welcome_held(memory, session)


def dropped(memory: Memory, session: Session, event: on.Dropped) -> Effects:
    client = session.clients.get(event.client)
    if client is not None:
        forget(memory, session, client)
    return iter(())


def forget(memory: Memory, session: Session, client: Client) -> None:
    memory.signs.forget(client.id)
    session.clients.pop(client.id, None)
    session.flushes = [flush for flush in session.flushes if flush.client != client.id]
    session.syncs = [sync for sync in session.syncs if sync.client != client.id]
    memory.homes.pop(client.id, None)


def welcome_held(memory: Memory, session: Session) -> Effects:
    """Welcome those who wait, once every dead client's journal is applied and its end is written."""
    if session.uncommitted or any(
        not client.lives and (not client.drained or client.state == ops.RUNNING) for client in session.clients.values()
    ):
        return
    for client_id in sorted(session.held):
        client = session.clients.get(client_id)
        if client is not None and not client.stands:
            continue  # the scan that it waits for says whether it has a journal
        session.held.discard(client_id)
        if client is not None and client.peer is not None:
            yield replies.welcome(memory, session, client)
