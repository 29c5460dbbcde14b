"""Others: what other directories of a session have sent to its server; asked with little patience, heard once.

A read of a training waits for this, so a server that does not answer is asked once, and then left alone for a while:
meanwhile everything is answered from what is here. Histories are kept in memory, and where a page of a track has ended;
the points are not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dreamlake import config
from dreamlake.remote.follow import Follow, Head, OtherHistory, Piece
from dreamlake.remote.lake import Lake, NotLetIn, Refused, Trouble
from dreamlake.wire.marks import Mark

log = logging.getLogger("dreamlake")

Heads = dict[str, dict[str, Head]]
_V = TypeVar("_V")


class Kept(Generic[_V]):
    """What was used last, up to a number of bytes; the newest always. What is forgotten is read again."""

    def __init__(self, size_max: int) -> None:
        self._size_max, self._size = size_max, 0
        self._kept: OrderedDict[Any, tuple[_V, int]] = OrderedDict()

    def get(self, key: Any) -> _V | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Any, value: _V, size: int) -> None:
        self._size += size - (self._kept.pop(key)[1] if key in self._kept else 0)
        self._kept[key] = (value, size)
        while self._size > self._size_max and len(self._kept) > 1:
            self._size -= self._kept.popitem(last=False)[1][1]


@dataclass(frozen=True)
class History:
    """A log of an origin, as far as it was read: its lines, and the mark behind them."""

    lines: tuple[bytes, ...] = ()
    mark: Mark | None = None


class Others:
    """The other origins of one session, for one session object of one process.

    ``open_lake`` opens the server with what there is for it now: a token may come while the session is open. Whoever
    calls, but for :meth:`blob`, holds ``lock``: a failure closes the connection.
    """

    def __init__(
        self,
        open_lake: Callable[[], Lake],
        workspace: str,
        name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid = os.getpid()  # a forked child needs a connection of its own
        self._open_lake, self._workspace, self._name, self._clock = open_lake, workspace, name, clock
        self.lock = threading.RLock()
        self._lake: Lake | None = None
        self._close: Callable[[], object] = lambda: None
        self._heads: Heads | None = None
        self._away: Trouble | None = None
        self._ask_at = self._warn_at = float("-inf")
        self._histories: Kept[History] = Kept(config.REMOTE_KEPT_BYTES)
        self.places: Kept[Any] = Kept(config.REMOTE_KEPT_BYTES)

    @property
    def is_ours(self) -> bool:
        """False in a forked child."""
        return self._pid == os.getpid()

    @property
    def away(self) -> Trouble | None:
        """Why the server could not be asked last; None when it could."""
        return self._away

    def heads(self, own: str | None) -> Heads | None:
        """What the server has of every origin but ``own``, as of now, or, when it is away, as it was heard last; None
        when it was never heard."""
        if self._away is None or self._clock() >= self._ask_at:
            try:
                self._heads = self._follow().origins()
                self._away = None
            except Trouble as trouble:
                self.failed(trouble)
        if self._away is not None:
            self._warn()
        return None if self._heads is None else {origin: self._heads[origin] for origin in self._heads if origin != own}

    def failed(self, trouble: Trouble) -> None:
        """The server could not be asked: it is not asked again before REMOTE_AGAIN_SECONDS have passed."""
        self._away, self._ask_at = trouble, self._clock() + config.REMOTE_AGAIN_SECONDS
        self._close()
        self._lake = None
        self._warn()

    def _warn(self) -> None:
        now = self._clock()
        if now < self._warn_at:
            return
        self._warn_at = now + config.REMOTE_WARNING_SECONDS
        log.warning(
            "dreamlake: reads of %s/%s are answered from what is on this machine: %s",
            self._workspace,
            self._name,
            self.why,
        )

    @property
    def why(self) -> str:
        """Why the server could not be asked, and what to try."""
        if isinstance(self._away, NotLetIn):
            return f"{self._away}. Give api_key=, set DREAMLAKE_API_KEY, or run `dreamlake login`"
        return str(self._away)

    def _follow(self) -> Follow:
        if self._lake is None:
            self._lake = self._open_lake()
            self._close = weakref.finalize(self, self._lake.close)  # an object that is forgotten leaves no socket
        return Follow(self._lake, self._workspace, self._name)

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def history(self, origin: str, log: str, head: Head) -> tuple[bytes, ...]:
        """The lines of a log that is small, from its base on; those that are kept, when the server is away."""
        start = History(mark=None if head.base else Mark())
        known = self._histories.get((origin, log)) or start
        if self._away is not None:
            return known.lines
        try:
            longer = self._longer(known, origin, log, head)
        except OtherHistory:  # the server was restored from a backup
            longer = self._longer(start, origin, log, head)
        if longer is not known:
            self._histories.put((origin, log), longer, sum(map(len, longer.lines)))
        return longer.lines

    def _longer(self, known: History, origin: str, log: str, head: Head) -> History:
        found = list(self.pieces(origin, log, head.base + len(known.lines), known.mark, head))
        if not found:
            return known
        return History((*known.lines, *(line for piece in found for line in piece.lines)), found[-1].next)

    def pieces(self, origin: str, log: str, first: int, mark: Mark | None, head: Head) -> Iterator[Piece]:
        """The records [first, head.count) of a log, as they come. Raises
        :class:`~dreamlake.remote.follow.OtherHistory` where they do not continue ``mark``."""
        if first == head.count and mark not in (None, head.mark):
            raise OtherHistory(f"the server has another history of {log} before record {first}")
        yield from self._follow().pieces(origin, log, first, mark, head.count)

    # ── bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def blob(self, sha256: str) -> Iterator[bytes]:
        """The bytes of a file. :class:`FileNotFoundError` when the server does not have them."""
        try:
            with self._open_lake() as lake:
                yield from lake.read(f"/v1/blobs/{sha256}")
        except Refused as refused:
            if refused.status != 404:
                raise
            raise FileNotFoundError(str(refused)) from None
