"""The registry: session directories of this user on this host that may hold something no agent has applied.

One small file per directory in the state folder, so that the next agent finds them unaided: a client adds the
directory when it can have no agent, an agent while it owns it. Losing the registry loses nothing but that: opening the
session, ``show`` and ``list`` find what is in journals without it.
"""

from __future__ import annotations

import contextlib
import os

from dreamlake import config
from dreamlake.wire.digest import sha256_hex

_FOLDER = "directories"
_PATH_BYTES_MAX = 4096


class Registry:
    """The directories that the next agent should look at."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder if folder is not None else os.path.join(config.state_folder(), _FOLDER)

    def _file(self, path: str) -> str:
        return os.path.join(self._folder, sha256_hex(os.fsencode(path))[:32])

    def add(self, path: str) -> None:
        """Remember a session directory (its real path). :class:`OSError` when the state folder cannot be written."""
        config.own_folder(os.path.dirname(self._folder))
        config.own_folder(self._folder)
        file = self._file(path)
        temp = f"{file}.{os.getpid()}"
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.fsencode(path))
        finally:
            os.close(fd)
        os.replace(temp, file)

    def drop(self, path: str) -> None:
        """Everything in the directory is applied."""
        with contextlib.suppress(OSError):
            os.unlink(self._file(path))

    def changed(self) -> int:
        """A number that is another one when something was added or dropped."""
        try:
            return os.stat(self._folder).st_mtime_ns
        except OSError:
            return 0

    def written(self) -> dict[str, int]:
        """The directories remembered that are there, with a number that is another one when one was added again."""
        found: dict[str, int] = {}
        for path in self.paths(forget=False):
            with contextlib.suppress(OSError):
                found[path] = os.stat(self._file(path)).st_mtime_ns
        return found

    def paths(self, *, forget: bool = True) -> list[str]:
        """The directories remembered, sorted, without those that are gone; which are forgotten, unless this is another
        host's registry: they may be there."""
        found: list[str] = []
        try:
            names = os.listdir(self._folder)
        except OSError:
            return found
        for name in names:
            file = os.path.join(self._folder, name)
            try:
                with open(file, "rb") as entry:
                    path = os.fsdecode(entry.read(_PATH_BYTES_MAX))
            except OSError:
                continue
            if os.path.isdir(os.path.join(path, ".dreamlake")):
                found.append(path)
            elif forget:
                with contextlib.suppress(OSError):
                    os.unlink(file)
        return sorted(found)
