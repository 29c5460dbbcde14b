"""One open session, and where it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake import Session


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


@pytest.fixture
def session(home: Path, root: Path) -> Iterator[Session]:
    opened = Session("run", "project", local_path=str(root)).open()
    yield opened
    opened.close()
