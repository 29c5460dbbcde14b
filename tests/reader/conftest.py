"""A folder to read from, and its descriptor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake.world.disk import REAL_DISK


@pytest.fixture
def at(tmp_path: Path) -> Iterator[int]:
    fd = REAL_DISK.root(str(tmp_path))
    yield fd
    REAL_DISK.close(fd)
