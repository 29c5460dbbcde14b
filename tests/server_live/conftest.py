"""What the tests of this folder stand on."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("tests.server_live.account", "tests.server_live.crowd")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is what its arguments say, whatever the shell that runs the tests has set."""
    for name in list(os.environ):
        if name.startswith(("DREAMLAKE_", "AWS_")) and "_TEST_" not in name:
            monkeypatch.delenv(name)
