"""Running what a user would run: a Python script in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT_SECONDS = 60
WARNINGS_ARE_ERRORS = ("-W", "error")


def command(script: str | Path, *args: object, flags: tuple[str, ...] = WARNINGS_ARE_ERRORS) -> list[str]:
    """`script` is a program's path or a program's text."""
    what = [str(script)] if isinstance(script, Path) else ["-c", textwrap.dedent(script)]
    return [sys.executable, *flags, *what, *map(str, args)]


def environment(changes: dict[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(changes or {})}


def run(
    script: str | Path,
    *args: object,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    flags: tuple[str, ...] = WARNINGS_ARE_ERRORS,
    expect: int | None = 0,
    timeout: float = SCRIPT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; any exit status but `expect` (None: whatever comes) fails the test."""
    done = subprocess.run(
        command(script, *args, flags=flags),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert expect is None or done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done
