"""What is asked of the store that changes a session.

``say`` and ``apply`` put something into memory that only a commit puts on disk: from the moment one is asked for,
nothing is acked, shown, synced or checkpointed before that commit. So does a journal that is read on (at a turn).
"""

from __future__ import annotations

from typing import Any

from dreamlake_agent.core import effects as do
from dreamlake_agent.core.effects import Effect
from dreamlake_agent.core.session import Client, Session


def say(session: Session, op: tuple[Any, ...]) -> Effect:
    session.applies += 1
    return do.Say(session.key, op)


def apply(session: Session, client: Client, data: bytes, running: int) -> Effect:
    session.applies += 1
    return do.Apply(session.key, client.id, data, running)


def commit(session: Session) -> Effect:
    return do.Commit(session.key, session.applies)
