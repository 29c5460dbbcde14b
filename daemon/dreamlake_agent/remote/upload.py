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
        self.lake, self.outcome = lake, Outcome()
        self.logs = Logs(source, lake, self.outcome)
        self.blobs = Blobs(source, lake, self.outcome, digests)

    def renew(self, source: Source) -> None:
        """The directory has gone on; what is done from now on is another outcome."""
        self.outcome = Outcome(forks=self.outcome.forks)
        self.logs.outcome = self.blobs.outcome = self.outcome
        self.logs.renew(source)
        self.blobs.renew(source, ask_again=not self.logs.is_asked)

    def status(self) -> tuple[int, int]:
        """Ask where the server is; how many bytes of logs it lacks, and how many logs have forked."""
        return self.logs.status()

    def send(
        self,
        stop: Callable[[], bool] = lambda: False,
        advance: Callable[[int], None] = lambda _bytes: None,
        expect: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Send the logs and small files that are missing; by the status that was asked just now, if it was.

        ``advance`` is told of bytes as they arrive, and ``expect`` how many there are, those of large files, too.
        """
        self.logs.advance = self.blobs.advance = advance
        if expect is not None:
            if not self.logs.is_asked:
                self.logs.status()
            expect(self.logs.behind)
        self.logs.send(stop)
        if self.has_files:
            if expect is not None:
                expect(self.blobs.lacking())
            self.blobs.send(most=SMALL_BYTES, stop=stop)
        return self.outcome

    def run(self, stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Send everything that is missing."""
        self.send(stop)
        if self.has_files:
            self.blobs.send(least=SMALL_BYTES, stop=stop)
        return self.outcome

    @property
    def has_files(self) -> bool:
        """Whether the server's session speaks of this directory's files: their history has not forked."""
        return FILES_LOG not in self.outcome.forks
