"""What clients say, and what follows."""

from __future__ import annotations

from typing import Any

from dreamlake import config
from dreamlake.wire import capabilities, codec, messages, window
from dreamlake.wire.remotes import remote_of
from dreamlake_agent.core import asks, owed, replies
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.effects import Effects
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import LIVE, STALLED, Client, Flush, Session, Syncing


def hello(memory: Memory, peer: on.Peer, client_id: bytes, who: dict[str, Any]) -> Effects:
    said = capabilities.said_by(who)
    if said.can is not None:
        # Before anything else is said: whoever hears something else first knows that there are no capabilities.
        yield do.Send(peer, (messages.CAN, client_id, capabilities.mine(), memory.version))
    if memory.stop_at is not None:
        yield do.Send(peer, (messages.STOPPING, client_id))
        return
    key = (who["dev"], who["ino"])
    session = memory.sessions.get(key)
    if session is None:
        session = memory.sessions[key] = Session(key, who["path"], scanned_at=memory.now)
        yield do.OpenDirectory(key, who["path"])
    client = session.client(client_id)
    client.peer, client.heard, client.lives, client.said = peer, memory.now, True, said
    memory.homes[client_id] = key
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
        yield replies.welcome(memory, session, client)
    elif session.phase == STALLED and session.trouble:
        yield do.Send(peer, (messages.TROUBLE, client_id, session.trouble))


def data(
    memory: Memory, session: Session, client: Client, event: on.Heard, start: int, before: int, after: int
) -> Effects:
    verdict = window.judge(client.applied, start, start + len(event.body))
    if verdict != window.CONTINUES:
        # A duplicate, an overlap or a gap: the sender hears where we are and goes on from there.
        yield from replies.ack(memory, session, client)
    elif before != client.running:
        reason = "the journal does not continue what was applied before under the same client id"
        about = {"path": session.path, "client": client.id.hex()}
        yield do.Note("error", f"{session.path}: {client.id.hex()}: {reason}", about)
        yield do.Send(event.peer, (messages.TROUBLE, client.id, reason))
    elif codec.run_on(event.body, before) != after or not event.body:
        yield from replies.ack(memory, session, client)
    else:
        yield asks.apply(session, client, event.body, after)


def have(memory: Memory, session: Session, client: Client, event: on.Heard, end: int, lost: int) -> Effects:
    client.seen_end = max(client.seen_end, end)
    yield from replies.ack(memory, session, client)


def count_lost(memory: Memory, session: Session, client: Client, lost: int) -> None:
    """What a journal could not take is counted, also while the directory is in trouble: that is when it happens."""
    if lost > client.lost:
        session.lost += lost - client.lost
        memory.counts.lost += lost - client.lost
        client.lost = lost
        memory.last_error = f"{session.path}: {session.lost} calls could not be kept by a client's journal"


def flush(
    memory: Memory,
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
    yield from owed.settle_flushes(memory, session)


def sync(memory: Memory, session: Session, client: Client, event: on.Heard, number: int, end: int) -> Effects:
    mine = [each.number for each in session.syncs if each.client == client.id]
    if number not in mine and len(mine) < config.FLUSHES_MAX:
        session.syncs.append(Syncing(client.id, number, end))
    yield from replies.ack(memory, session, client)  # it may take hours: who asks hears that somebody is there
    why = memory.uploads.trouble(session.path)
    if why is not None:
        yield do.Send(event.peer, (messages.BEHIND, client.id, why))
    yield from owed.settle_syncs(memory, session)


def leave(memory: Memory, session: Session, client: Client, event: on.Heard) -> Effects:
    client.peer = None
    memory.homes.pop(client.id, None)
    return iter(())
