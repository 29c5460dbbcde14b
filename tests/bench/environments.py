"""An environment for each tracker, made when it is first needed: below ``.bench`` in the checkout."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]
SYSTEMS = Path(__file__).parent / "systems"


class CannotInstall(Exception):
    """pip could not install a tracker; the message is its own."""


def requirements(system: str) -> tuple[str, ...]:
    """What an adapter says that it needs, without importing it."""
    for node in ast.parse((SYSTEMS / f"{system}.py").read_text("utf-8")).body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == "REQUIREMENTS":
            found: tuple[str, ...] = ast.literal_eval(node.value)  # type: ignore[union-attr]
            return found
    raise ValueError(f"{system} names no REQUIREMENTS")


def python_of(system: str) -> str:
    """The interpreter of a tracker's environment."""
    wanted = requirements(system)
    if not wanted:
        return sys.executable
    folder = TOP / ".bench" / system
    python, stamp = folder / "bin" / "python", folder / "installed"
    listed = "\n".join((*wanted, "numpy"))
    if not stamp.exists() or stamp.read_text("utf-8") != listed:
        print(f"installing {', '.join(wanted)} into .bench/{system} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *listed.split("\n")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise CannotInstall(done.stderr.strip()[-2000:])
        stamp.write_text(listed, "utf-8")
    return str(python)


def version_of(system: str) -> str:
    """The version that is measured."""
    wanted = requirements(system)
    return wanted[0].partition("==")[2] if wanted else ""
