"""Times: nanoseconds since 1970 on the wire, ISO 8601 with microseconds and "Z" in files."""

from __future__ import annotations

import datetime
from functools import lru_cache

_EPOCH = datetime.datetime(1970, 1, 1)


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    # A thousand points of one second share this text: formatting it costs more than the rest of the line.
    return (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")


def time_text(ns: int) -> str:
    """
    >>> time_text(1_767_225_600_000_001_999)
    '2026-01-01T00:00:00.000001Z'
    """
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


def time_ns(text: str | None) -> int | None:
    """The nanoseconds that a time in a file stands for; None for a text that is no time.

    >>> time_ns("2026-01-01T00:00:00.000001Z")
    1767225600000001000
    """
    if not isinstance(text, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(text[:-1] if text.endswith("Z") else text)
    except ValueError:
        return None
    if found.tzinfo is not None:
        found = found.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return (found - _EPOCH) // datetime.timedelta(microseconds=1) * 1000
