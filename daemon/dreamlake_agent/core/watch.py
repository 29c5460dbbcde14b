"""Watch: limits that are passed, to the log and to those who can do something about it. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dreamlake.wire import messages
from dreamlake_agent.core import effects as do
from dreamlake_agent.core.events import Disk, Key
from dreamlake_agent.core.lag import Lag
from dreamlake_agent.core.limits import BACKLOG, LAG, Limits, Measured, Over, Raised, Thresholds
from dreamlake_agent.core.session import Session
from dreamlake_agent.core.uploads import Uploads


class Watch:
    """One agent's. What was measured last stays to be read."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self.limits = Limits(thresholds)
        self.last = Measured()
        self._lag = Lag()

    def measured(
        self, disks: tuple[Disk, ...], sessions: Mapping[Key, Session], uploads: Uploads, now: float
    ) -> Iterator[do.Effect]:
        """Each limit once to the log, and once to every client whose session it is about, also one that comes later."""
        self.last = Measured(disks, uploads.waiting_bytes(), self._lag.look(sessions, now))
        for told in self.limits.judge(self.last, now):
            if isinstance(told, Over):
                yield do.Note("info", f"no longer so: {told.raised.text}", {"limit": told.raised.kind})
            else:
                yield do.Note("warning", told.text, {"limit": told.kind})
        owing = uploads.owing()
        for raised in self.limits.raised:
            for session in sessions.values():
                if _is_about(raised, session, owing):
                    yield from _notices(raised, session)


def _is_about(raised: Raised, session: Session, owing: set[str]) -> bool:
    if raised.kind == LAG:
        return False  # a training can do nothing about it
    return session.path in owing if raised.kind == BACKLOG else session.key[0] == raised.device


def _notices(raised: Raised, session: Session) -> Iterator[do.Effect]:
    for client in session.clients.values():
        if client.peer is not None and client.id not in raised.told:
            raised.told.add(client.id)
            yield do.Send(client.peer, (messages.NOTICE, client.id, raised.text))
