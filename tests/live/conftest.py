"""What the tests of this folder need of the machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.another import removed
from tests.live.volume import CannotMount, Volume, new_volume
from tests.waiting import wait_for


@pytest.fixture
def volume() -> Iterator[Volume]:
    try:
        with new_volume(64) as volume:
            yield volume
    except CannotMount as reason:
        pytest.skip(f"no file system whose power could be cut: {reason}")


@pytest.fixture
def commons() -> Iterator[Path]:
    """A folder that everybody may enter, and write to, as a project's on a shared disk."""
    made = Path(tempfile.mkdtemp(prefix="dlc", dir="/tmp"))
    made.chmod(0o777)
    yield made
    wait_for(lambda: removed(made))
