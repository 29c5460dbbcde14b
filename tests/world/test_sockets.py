"""Sockets: the wait of the link, in a process as crowded as a training."""

from __future__ import annotations

import fcntl
import os
import resource

import pytest

from dreamlake.world.sockets import ZmqLines

HIGH = 1500  # beyond FD_SETSIZE (1024), where select(2) ends


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= HIGH, reason="no room for a high descriptor")
def test_the_link_dozes_also_where_more_than_a_thousand_files_are_open() -> None:
    lines = ZmqLines()
    try:
        low, lines._wake_in = lines._wake_in, fcntl.fcntl(lines._wake_in, fcntl.F_DUPFD_CLOEXEC, HIGH)
        os.close(low)
        lines.wake()
        lines.doze(0.0)
    finally:
        lines.close()
