"""Released versions, beside today's: each in a folder of its own, which a process is told of by its environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SOURCES = TESTS.parent
FIRST = "0.3.0"  # the first that people have


def unpacked(version: str, into: Path) -> Path:
    """A released wheel, as pip would install it."""
    with zipfile.ZipFile(TESTS / "golden" / "releases" / f"dreamlake-{version}-py3-none-any.whl") as wheel:
        wheel.extractall(into)
    return into


def copied(into: Path) -> Path:
    """Today's, as pip would install it."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCES / "dreamlake", into / "dreamlake", ignore=leave)
    shutil.copytree(SOURCES / "daemon" / "dreamlake_agent", into / "dreamlake_agent", ignore=leave)
    return into


def environment(installed: Path | None) -> dict[str, str]:
    """What makes a process run what is installed there; None: what these tests are of."""
    return {} if installed is None else {"PYTHONPATH": str(installed)}


def cli(installed: Path | None, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of that version. Not from our own folder: ``-m`` looks there first."""
    return subprocess.run(
        [sys.executable, "-m", "dreamlake.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **environment(installed)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def agent(installed: Path | None, command: str, cwd: Path) -> str:
    """``dreamlake agent …`` of that version, which must do it."""
    done = cli(installed, "agent", command, cwd=cwd)
    assert done.returncode == 0, done
    return done.stdout
