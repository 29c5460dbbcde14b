"""What a client is told."""

from __future__ import annotations

from collections.abc import Iterator

from dreamlake import config
from dreamlake.wire import messages
from dreamlake_agent.core import effects as do
from dreamlake_agent.core.effects import Effect, Effects
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import Client, Session
from dreamlake_agent.core.uploads import Tell


def credit(memory: Memory) -> int:
    least, most = config.CREDIT_BYTES
    return min(most, max(least, config.CREDIT_BUDGET_BYTES // max(1, len(memory.homes))))


def welcome(memory: Memory, session: Session, client: Client) -> Effect:
    assert client.peer is not None
    session.following.discard(client.id)
    found = (client.applied, client.running, client.covered, credit(memory), session.origin, memory.incarnation)
    return do.Send(client.peer, (messages.WELCOME, client.id, *found))


def ack(memory: Memory, session: Session, client: Client) -> Effects:
    """Say how far the client's stream is committed. What is applied and not yet committed is nobody's business: the
    ack is owed then, and follows the commit."""
    if client.peer is None:
        return
    if session.uncommitted:
        client.owed_ack = True
        return
    placed, refusals = client.placed, client.refusals
    client.placed, client.refusals, client.owed_ack = {}, [], False
    numbers = (client.applied, client.covered, credit(memory))
    yield do.Send(client.peer, (messages.ACK, client.id, *numbers, placed, refusals))


def tell(memory: Memory, told: Iterator[Effect | Tell]) -> Effects:
    for each in told:
        if not isinstance(each, Tell):
            yield each
            continue
        memory.last_error = f"{each.path}: {each.text}"
        yield do.Note("warning", memory.last_error, {"path": each.path, "remote": each.remote})
        for session in memory.sessions.values():
            if session.path == each.path:
                for client in session.clients.values():
                    if client.peer is not None:
                        yield do.Send(client.peer, (messages.NOTICE, client.id, each.text))
