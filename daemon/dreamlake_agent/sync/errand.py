"""Errand: one directory on its way to one server, over any number of rounds.

Each directory has two: its logs and small files, and its large files, which hold up nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake.errors import DreamlakeError
from dreamlake.reader.commits import CHECKPOINT
from dreamlake.remote.lake import Lake, NotLetIn, Unreachable
from dreamlake.world.disk import REAL_DISK, Stat
from dreamlake_agent.remote.blobs import SMALL_BYTES, Blobs, Digests
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.remote.source import Source
from dreamlake_agent.remote.upload import Upload
from dreamlake_agent.sync.fork import fork
from dreamlake_agent.sync.targets import Target, away, settle, unsettled

_COUNTS = ("records", "bytes", "files", "file_bytes", "refused")


@dataclass
class Told:
    """How a round of an errand went."""

    target: Target
    session: str | None = None
    outcome: Outcome = field(default_factory=Outcome)
    error: str | None = None  # the whole directory could not be sent
    behind: tuple[int, int] | None = None  # bytes of logs and of files, where it was only asked
    is_new_origin: bool = False

    @property
    def is_well(self) -> bool:
        return self.error is None and not self.outcome.problems and not self.outcome.forks

    def add(self, other: Told) -> None:
        """What came of the same target's other errand."""
        for name in _COUNTS:
            setattr(self.outcome, name, getattr(self.outcome, name) + getattr(other.outcome, name))
        self.outcome.problems += other.outcome.problems
        self.error = self.error or other.error

    def plain(self) -> dict[str, Any]:
        """For scripts."""
        remote = self.target.remote
        found: dict[str, Any] = {"path": os.path.abspath(self.target.path), "remote": remote.url if remote else None}
        if self.session is not None:
            found["session"] = self.session
        if self.error is not None:
            return {**found, "error": self.error}
        if self.behind is not None:
            return {**found, "behind": self.behind[0], "file_bytes": self.behind[1], "forks": self.outcome.forks}
        counts = {name: getattr(self.outcome, name) for name in _COUNTS}
        return {**found, **counts, "forks": self.outcome.forks, "problems": self.outcome.problems}


@contextlib.contextmanager
def _telling(told: Told) -> Iterator[None]:
    try:
        yield
    except NotLetIn:
        raise
    except Unreachable as trouble:
        if trouble.whole:
            raise
        told.error = str(trouble)
    except (DreamlakeError, OSError) as error:
        told.error = str(error)


class Errand:
    """What it raises is about the server as a whole: :class:`~dreamlake.remote.lake.NotLetIn`, and
    :class:`~dreamlake.remote.lake.Unreachable` with ``whole``. Anything else is told."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._settled: tuple[object, ...] = ()  # what waited in journals and could not be applied
        self._sent: Stat | None = None  # the checkpoint that was sent

    def has_news(self) -> bool:
        """Whether there is something to be done since the last round that went well."""
        waiting = unsettled(self.target.path)
        return (bool(waiting) and waiting != self._settled) or self._sent is None or self._sent != self._checkpoint()

    def _checkpoint(self) -> Stat | None:
        with contextlib.suppress(OSError):
            at = REAL_DISK.root(self.target.path)
            try:
                return REAL_DISK.stat(CHECKPOINT, at)
            finally:
                REAL_DISK.close(at)
        return None

    @contextlib.contextmanager
    def _source(self, told: Told) -> Iterator[Source]:
        """The directory as its checkpoint has it now."""
        self._sent = None
        now = self._checkpoint()
        source = Source(REAL_DISK, self.target.path)
        try:
            told.session = f"{source.workspace}/{source.name}"
            yield source
        finally:
            source.close()
        self._sent = now

    def _settle(self, told: Told) -> None:
        waiting = unsettled(self.target.path)
        if waiting and waiting != self._settled:
            try:
                settle(self.target.path)
            except (DreamlakeError, OSError) as error:
                told.outcome.problems.append(f"what waits in journals could not be applied, and is not sent: {error}")
            self._settled = unsettled(self.target.path)
        told.outcome.problems += [f"{each}; it is not sent" for each in away(self.target.path)]


class Points(Errand):
    """Logs, then small files."""

    def __init__(self, target: Target, digests: Digests, *, may_fork: bool = False) -> None:
        super().__init__(target)
        self._digests, self._may_fork = digests, may_fork
        self._upload: Upload | None = None

    def ask(self, lake: Lake) -> Told:
        """What would be sent."""
        told = Told(self.target)
        with _telling(told), self._source(told) as source:
            upload = self._renewed(source, lake, told)
            behind, _forks = upload.status()
            told.behind = (behind, upload.blobs.lacking())
        return told

    def send(
        self,
        lake: Lake,
        stop: Callable[[], bool],
        advance: Callable[[int], None],
        expect: Callable[[int], None] | None = None,
    ) -> Told:
        """As :meth:`dreamlake_agent.remote.upload.Upload.send`."""
        told = Told(self.target)
        self._settle(told)
        with _telling(told), self._source(told) as source:
            upload = self._renewed(source, lake, told)
            if not self._may_fork or not upload.status()[1]:
                upload.send(stop, advance, expect)
                return told
        if told.error is not None:
            return told
        self._may_fork, self._upload = False, None
        with _telling(told):
            fork(self.target.path, lake)
            told = self.send(lake, stop, advance, expect)
            told.is_new_origin = True
        return told

    def _renewed(self, source: Source, lake: Lake, told: Told) -> Upload:
        if self._upload is None or self._upload.lake is not lake:
            self._upload = Upload(source, lake, self._digests)
        else:
            self._upload.renew(source)
        self._upload.outcome.problems += told.outcome.problems
        told.outcome = self._upload.outcome
        return self._upload

    @property
    def has_files(self) -> bool:
        """Whether files are sent; see :attr:`dreamlake_agent.remote.upload.Upload.has_files`."""
        return self._upload is not None and self._upload.has_files


class Large(Errand):
    """Large files; ``points`` is the same directory's other errand."""

    def __init__(self, points: Points, digests: Digests) -> None:
        super().__init__(points.target)
        self._points, self._digests = points, digests
        self._kept: tuple[Lake, Blobs] | None = None

    def has_news(self) -> bool:
        return self._points._sent is not None and self._sent != self._checkpoint()

    def has_files(self) -> bool:
        """Whether there is any, sent or not."""
        found = False
        told = Told(self.target)
        with _telling(told), self._source(told) as source:
            found = any(each.size >= SMALL_BYTES for each in source.files())
        self._sent = None
        return found

    def send(self, lake: Lake, stop: Callable[[], bool], advance: Callable[[int], None]) -> Told:
        told = Told(self.target)
        if not self._points.has_files:
            return told
        with _telling(told), self._source(told) as source:
            if self._kept is None or self._kept[0] is not lake:
                self._kept = lake, Blobs(source, lake, digests=self._digests)
            blobs = self._kept[1]
            blobs.outcome, blobs.advance = told.outcome, advance
            blobs.renew(source)
            blobs.send(least=SMALL_BYTES, stop=stop)
        return told
