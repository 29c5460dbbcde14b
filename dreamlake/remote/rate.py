"""Rate: how many bytes a second may leave, and who waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dreamlake import config

PIECE_BYTES = 64 << 10
_PIECES_A_SECOND = 8  # at least, so that a slow rate is a trickle, and no silence that a server gives up on


def bytes_per_second(text: str) -> int:
    """A rate as people write it; K, M and G are powers of 1024, as curl has them. :class:`ValueError` for what is none.

    >>> bytes_per_second("500K"), bytes_per_second("1.5m"), bytes_per_second("4096")
    (512000, 1572864, 4096)
    """
    try:
        return config.size_of(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no rate: give bytes a second, such as 500K or 10M") from None


class Throttle:
    """Lets ``rate`` bytes a second pass, of all threads together."""

    def __init__(
        self,
        rate: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._lock = threading.Lock()
        self._free = 0.0  # when all that was let through so far has had its time
        self.piece_bytes = max(1, min(PIECE_BYTES, rate // _PIECES_A_SECOND))

    def take(self, count: int) -> None:
        """Returns when ``count`` bytes may go. Who comes first goes first, and nobody saves up what he did not use."""
        with self._lock:
            now = self._clock()
            starts = max(now, self._free)
            self._free = starts + count / self._rate
        if starts > now:
            self._sleep(starts - now)
