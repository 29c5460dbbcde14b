"""A history that somebody edited: a row that says nothing known must not keep the agent from the directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamlake.wire.state import HISTORIES, SESSION_LOG
from dreamlake_agent.repair import repair
from tests import reading
from tests.golden import make, world


def test_a_client_that_no_client_can_be_called_is_passed_over(tmp_path: Path) -> None:
    folder = make.directory("killed", tmp_path)
    (folder / ".dreamlake/owner").unlink()
    path = folder / SESSION_LOG
    path.write_bytes(path.read_bytes().replace(b'"client":"a11', b'"client":"x11', 1))
    repair(str(folder), lambda sentence: None)
    assert reading.values(folder, "train/loss")[-1] == 0.0625


@pytest.mark.parametrize("history", HISTORIES)
def test_a_row_without_its_time_or_id_is_passed_over(history: str, tmp_path: Path) -> None:
    folder = make.directory("recovered", tmp_path)
    path = folder / history
    path.write_bytes(
        path.read_bytes()
        .replace(b'"time"', b'"tima"', 1)
        .replace(b'"track"', b'"trick"', 1)
        .replace(b'"record"', b'"recoro"', 1)
    )
    (folder / "session.json").write_text("{}")  # not ours: it is held against every row of its history
    world.recover(folder)
    assert (folder / ".dreamlake" / "cut" / "session.json.0").read_text() == "{}"
