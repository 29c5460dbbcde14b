"""What tests of remote mode stand on: a server in this process, and sessions that no agent keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.serving import Serving, opened


@pytest.fixture
def root(root: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where sessions are; where the nearest mark is `no_agent`, nothing starts an agent for them."""
    if request.node.get_closest_marker("no_agent"):
        request.getfixturevalue("home")
        monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    return root


@pytest.fixture
def serving() -> Iterator[Serving]:
    with opened() as found:
        yield found
