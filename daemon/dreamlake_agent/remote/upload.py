"""Upload: one directory to one server, now; whoever calls it, however often, everything arrives once.

Logs first, then small files, then large ones.
"""

from __future__ import annotations

from collections.abc import Callable

from dreamlake.remote.lake import Lake
from dreamlake.wire.state import FILES_LOG
from dreamlake_agent.remote.blobs import SMALL_BYTES, Blobs, Digests
from dreamlake_agent.remote.logs import Logs
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.remote.source import Source

__all__ = ["Outcome", "Upload"]


class Upload:
    """Raises what :class:`~dreamlake.remote.lake.Lake` raises; what was acked by then stays acked."""

    def __init__(self, source: Source, lake: Lake, digests: Digests | None = None) -> None:
        self.outcome = Outcome()
        self.logs = Logs(source, lake, self.outcome)
        self.blobs = Blobs(source, lake, self.outcome, digests)

    def advance(self, tell: Callable[[int], None]) -> None:
        """``tell`` is told of bytes of logs and files as they arrive."""
        self.logs.advance = self.blobs.advance = tell

    def status(self) -> tuple[int, int]:
        """Ask where the server is; how many bytes of logs it lacks, and how many logs have forked."""
        return self.logs.status()

    def run(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Send what is missing; by the status that was asked just now, if it was."""
        self.logs.send(stop)
        if FILES_LOG not in self.outcome.forks:  # else the server's session speaks of other files
            self.blobs.send(most=SMALL_BYTES, stop=stop)
            self.blobs.send(least=SMALL_BYTES, stop=stop)
        return self.outcome
