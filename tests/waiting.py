"""Waiting for a thing: the only place in the tests which may sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

POLL_SECONDS = 0.02


def wait_for(predicate: Callable[[], Seen], timeout: float = 20) -> Seen:
    """Call `predicate` until it gives something true, and return that.

    A predicate may raise `OSError`, `ValueError`, `KeyError` or `AssertionError` while the thing is not
    there yet; the last of them is shown when the time (`timeout`, in seconds) is over.
    """
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = seen = predicate()
            if seen:
                return seen
        except (OSError, ValueError, KeyError, AssertionError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s in vain; last seen: {last!r}")
        time.sleep(POLL_SECONDS)
