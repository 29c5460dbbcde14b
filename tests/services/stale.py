"""A bad network file system, mounted: see :mod:`tests.services.stale_fs`. Only root can have one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.live.volume import CannotMount

_CHECKOUT = Path(__file__).parents[2]


class Mount:
    """One node's view of `backing`, at `at`. Its words are those of `stale_fs`."""

    def __init__(self, backing: Path, at: Path, *options: object) -> None:
        if os.geteuid() != 0:
            raise CannotMount("only root may mount a file system")
        if not os.path.exists("/dev/fuse"):
            raise CannotMount("there is no /dev/fuse")
        self.at = at
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.stale_fs", str(backing), str(at), *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=_CHECKOUT,
        )
        if self._heard() != "ready":
            said = self._process.communicate()[1]
            raise CannotMount(said.strip().rpartition("\n")[2])

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        heard = self._heard()
        assert heard == f"done {word}", (heard, self._process.poll() is not None and self._process.communicate()[1])

    def end(self) -> None:
        """What is still open there fails from here on. Raises when the file system had ended by itself."""
        said = self._process.communicate()[1]
        assert self._process.returncode == 0, said


@contextlib.contextmanager
def mounted(backing: Path, at: Path, *options: object) -> Iterator[Mount]:
    at.mkdir(exist_ok=True)
    mount = Mount(backing, at, *options)
    try:
        yield mount
    finally:
        mount.end()
