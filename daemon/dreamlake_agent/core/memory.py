"""What the agent knows between two events. Every part of the core reads and changes it; others set ``last_error``."""

from __future__ import annotations

from dreamlake import config
from dreamlake_agent.core import events as on
from dreamlake_agent.core.afar import Owners, Signs
from dreamlake_agent.core.counts import Counts
from dreamlake_agent.core.limits import Thresholds
from dreamlake_agent.core.session import Session
from dreamlake_agent.core.uploads import Uploads
from dreamlake_agent.core.watch import Watch


class Memory:
    """The sessions, who is connected, what is under way, and the time of the event that is being handled."""

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
        self.homes: dict[bytes, on.Key] = {}
        # journals that are read from their files, in turn, and sessions whose views are being written
        self.reading: dict[tuple[on.Key, bytes], None] = {}
        self.viewing: dict[on.Key, None] = {}
        self.now = 0.0
        self.wall = 0
        self.stop_at: float | None = None
        self.stop_replies: list[tuple[on.Peer, int]] = []
        self.last_error: str | None = None
        self.owners, self.signs = Owners(gone_seconds), Signs(gone_seconds)
        self.beat_seconds = config.beat_seconds(gone_seconds)
        self.uploads = Uploads()
        self.watch = Watch(thresholds)
        self.counts = Counts()
        self.points = 0
        self.operations = 0

    def follow(self, session: Session, client_id: bytes) -> None:
        """Read that client's journal on at the next turns, until it is exhausted."""
        self.reading[session.key, client_id] = None

    def every(self, seconds: float) -> float:
        """How often each session is seen to, of all that are open."""
        return max(seconds, len(self.sessions) / config.SESSIONS_A_SECOND)
