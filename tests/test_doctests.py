"""The examples in docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_layers import FILES

# Their examples open a session, so there is an agent for them.
NEED_AN_AGENT = {"dreamlake.session", "dreamlake.decorator", "dreamlake.tracks"}


def with_examples(module: str) -> bool:
    return ">>>" in FILES[module].read_text("utf-8")


MODULES = [module for module in FILES if with_examples(module)]


def run(module: ModuleType) -> doctest.TestResults:
    return doctest.testmod(module, optionflags=doctest.FAIL_FAST)


def test_there_are_examples() -> None:
    assert set(MODULES) >= NEED_AN_AGENT | {"dreamlake.wire.names", "dreamlake.wire.jsons", "dreamlake.parameters"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in NEED_AN_AGENT:
        request.getfixturevalue("home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = run(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
