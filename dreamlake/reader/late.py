"""Late: bytes that an owner on another node has written, and that this node does not show yet.

A network file system may show a log shorter than its checkpoint says, or zeros where its lines will be, until it asks
its server again. It does so when the file is opened. A reader opens it again, for two seconds at most; then it goes on
without what it does not see, and says so: somebody may as well have cut or damaged the log.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger("dreamlake")

LATE_SECONDS = 2.0  # one reader waits so long, for all logs together
AGAIN_SECONDS = 60.0  # and does not wait again, in this process, for a log that was waited for in vain
_LOOK_SECONDS = 0.05
_VAIN_MAX = 4096

_in_vain: dict[str, float] = {}
_lock = threading.Lock()


class Patience:
    """How long one reader waits for what it does not see yet; of a directory that another node owns."""

    def __init__(
        self,
        path: str,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._sleep, self._clock = path, sleep, clock
        self._left = LATE_SECONDS

    def again(self, name: str, what: str) -> bool:
        """Whether to look at ``name`` again, after a moment; False, and one warning of ``what`` is seen, once that was
        in vain."""
        key = f"{self._path}/{name}"
        now = self._clock()
        with _lock:
            in_vain = now - _in_vain.get(key, -1e9) < AGAIN_SECONDS
        if in_vain:
            return False
        if self._left > 0:
            self._left -= _LOOK_SECONDS
            self._sleep(_LOOK_SECONDS)
            return True
        with _lock:
            said = key in _in_vain
            if len(_in_vain) >= _VAIN_MAX:
                _in_vain.clear()
            _in_vain[key] = now
        if not said:
            log.warning(
                "dreamlake: %s %s, still after %.0f s: what is whole of it is read. Its owner is on another node, so "
                "the rest may be seen later; if it is not, `dreamlake verify` says what is damaged",
                key,
                what,
                LATE_SECONDS,
            )
        return False


def is_stale(error: OSError) -> bool:
    """Whether a file was replaced or removed, on another node, while it was open here."""
    return error.errno == errno.ESTALE
