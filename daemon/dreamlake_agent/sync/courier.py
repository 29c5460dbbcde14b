"""Courier: whatever goes to one server, one directory after another. Each server has its own, in a thread of its own,
so that one that is away holds up no other."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from dreamlake.remote.lake import Lake, NotLetIn, Trouble, Unreachable
from dreamlake.wire.remotes import Remote
from dreamlake_agent.cli.progress import Show
from dreamlake_agent.remote.blobs import Digests
from dreamlake_agent.sync.errand import Large, Points, Told
from dreamlake_agent.sync.targets import Target

WATCH_SECONDS = 2.0  # how often a watched directory is looked at
AWAY_SECONDS = (
    1.0,
    60.0,
)  # pauses before a server that is away is asked again, or as little as half
_HINT = "run `dreamlake login {url}`, or set DREAMLAKE_API_KEY to a token that `dreamlake server token create` has made"

Tell = Callable[[Told], None]


class Courier:
    """``opened`` makes the connection; ``tell`` hears of each directory when it is done."""

    def __init__(
        self,
        remote: Remote,
        opened: Callable[[], Lake],
        show: Show,
        tell: Tell,
        stop: threading.Event,
        digests: Digests,
        *,
        may_fork: bool = False,
    ) -> None:
        self._remote, self._opened, self._show, self._tell, self._stop = remote, opened, show, tell, stop
        self._digests, self._may_fork = digests, may_fork
        self._lake: Lake | None = None
        self._lock = threading.Lock()
        self.errands: list[tuple[Points, Large]] = []

    def add(self, target: Target) -> None:
        points = Points(target, self._digests, may_fork=self._may_fork)
        self.errands.append((points, Large(points, self._digests)))

    def _reach(self) -> Lake:
        with self._lock:
            if self._lake is None:
                self._lake = self._opened()
            return self._lake

    def close(self) -> None:
        if self._lake is not None:
            self._lake.close()

    def say(self, trouble: Trouble) -> str:
        hint = f"; {_HINT.format(url=self._remote.url)}" if isinstance(trouble, NotLetIn) else ""
        return f"{trouble}{hint}"

    # ── once ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> None:
        """Say what would be sent."""
        self._each(lambda points, _large: self._tell(points.ask(self._reach())))

    def send(self) -> None:
        """Send everything: the large files when all the rest is there."""
        told: dict[Points, Told] = {}

        def first(points: Points, large: Large) -> None:
            self._show.name(points.target.path)
            found = points.send(
                self._reach(), self._stop.is_set, self._show.advance, self._show.expect if self._show.has_bar else None
            )
            if found.error is None and large.has_files():
                told[points] = found
            else:
                self._tell(found)

        def then(points: Points, large: Large) -> None:
            if points in told:
                found = told.pop(points)
                self._show.name(points.target.path)
                try:
                    found.add(large.send(self._reach(), self._stop.is_set, self._show.advance))
                except (NotLetIn, Unreachable) as trouble:
                    found.error = str(trouble)
                    self._tell(found)
                    raise
                self._tell(found)

        self._each(first)
        self._each(then, lambda points: told.pop(points, None))

    def _each(
        self,
        work: Callable[[Points, Large], None],
        so_far: Callable[[Points], Told | None] = lambda points: Told(points.target),
    ) -> None:
        down: Trouble | None = None
        for points, large in self.errands:
            if self._stop.is_set():
                return
            if down is None:
                try:
                    work(points, large)
                    continue
                except (NotLetIn, Unreachable) as trouble:
                    down = trouble
                    self._show.complain(self.say(trouble))
            told = so_far(points)
            if told is not None:
                told.error = str(down)
                self._tell(told)

    # ── and on ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def watch(self) -> list[Callable[[], None]]:
        """Two threads' work, until it is to stop."""
        return [self._watch_points, self._watch_large]

    def _watch_points(self) -> None:
        self._watch(lambda points, _large: points.send(self._reach(), self._stop.is_set, self._show.advance), 0)

    def _watch_large(self) -> None:
        self._watch(lambda _points, large: large.send(self._reach(), self._stop.is_set, self._show.advance), 1)

    def _watch(self, work: Callable[[Points, Large], Told], which: int) -> None:
        wait, is_away = AWAY_SECONDS[0], False
        while not self._stop.is_set():
            pause = WATCH_SECONDS
            try:
                for pair in list(self.errands):
                    if not self._stop.is_set() and pair[which].has_news():
                        self._tell(work(*pair))
                        if is_away:
                            self._show.say(f"{self._remote.url} answers again")
                        wait, is_away = AWAY_SECONDS[0], False
            except (NotLetIn, Unreachable) as trouble:
                if not is_away and which == 0:
                    self._show.complain(f"{self.say(trouble)}; it is tried again")
                is_away = True
                if isinstance(trouble, NotLetIn):
                    self._lake = None  # there may be another token by then
                asked = trouble.retry_after if isinstance(trouble, Unreachable) else 0.0
                pause, wait = max(asked, random.uniform(wait / 2, wait)), min(AWAY_SECONDS[1], wait * 2)
            self._stop.wait(pause)
