"""What the tests of this folder need of the machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.volume import CannotMount, Volume, new_volume


@pytest.fixture
def volume() -> Iterator[Volume]:
    try:
        with new_volume(64) as volume:
            yield volume
    except CannotMount as reason:
        pytest.skip(f"no file system whose power could be cut: {reason}")
