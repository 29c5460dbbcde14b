"""Limits: what one example may take. A length that somebody wrote into four bytes must not become memory or time."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MEMORY_BYTES = 256 << 20  # more address space than the process had before the example
CPU_SECONDS = 10.0  # of this process, so that a busy machine makes no example fail


class TooLong(BaseException):
    """No ``except Exception`` of the shipped code may outlive it."""


def _address_space() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # no /proc: the limit is then only the time
        return -1


def _too_long(_number: int, _frame: Any) -> None:
    raise TooLong


@contextmanager
def limited() -> Iterator[None]:
    """``MemoryError`` past ``MEMORY_BYTES``, ``AssertionError`` past ``CPU_SECONDS``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = _address_space()
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    if now >= 0:
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, hard))
    try:
        yield
    except TooLong:
        raise AssertionError(f"took more than {CPU_SECONDS} seconds of the processor") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
