"""Sockets: the wait of the link, in a process as crowded as a training."""

from __future__ import annotations

import os
import resource
import time

import pytest

from dreamlake.world.sockets import ZmqLines

SELECT_ENDS = 1024  # FD_SETSIZE: no higher descriptor fits into select(2)
NEEDED = SELECT_ENDS + 100


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= NEEDED, reason="no room for a high descriptor")
def test_the_link_dozes_also_where_more_than_a_thousand_files_are_open() -> None:
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(SELECT_ENDS)]
    try:
        lines = ZmqLines()
        try:
            assert lines._waker.fd >= SELECT_ENDS
            lines.wake()
            began = time.monotonic()
            lines.doze(30.0)
            assert time.monotonic() - began < 15.0  # woken, and not by the end of the time
        finally:
            lines.close()
    finally:
        for fd in held:
            os.close(fd)
