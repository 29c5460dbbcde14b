"""Nobody writes a session directory without owning it: looked at in every disk call of every agent."""

from __future__ import annotations

import os

from dreamlake.world.disk import CREATE
from tests.sim.disk import Open, SimDisk
from tests.sim.platter import Folder, Inode
from tests.sim.promises import Violation

# What an agent may touch before it owns the directory: its own journal, and the record that says who does.
_FREE = (".dreamlake/journals", ".dreamlake/incoming", ".dreamlake/owner")


class Ownership:
    """Holds every write of an agent against the lock of ``.dreamlake/owner``."""

    def __init__(self, disk: SimDisk, path: str) -> None:
        self._disk, self._path = disk, path

    def check(self, pid: int, name: str, given: tuple[object, ...]) -> None:
        if name not in ("write", "truncate", "rename", "unlink", "mkdirs", "open"):
            return
        if name == "open" and not int(str(given[1])) & (CREATE | os.O_TRUNC):
            return
        if not self._disk.exists(self._path):
            return
        path = self._place(pid, given[0]) if name in ("write", "truncate") else str(given[0])
        if path is None or path.startswith(_FREE) or path == ".dreamlake" or self._owns(pid):
            return
        raise Violation(f"agent {pid} does {name}({path}) in a directory that it does not own")

    def _owns(self, pid: int) -> bool:
        if not self._disk.exists(f"{self._path}/.dreamlake/owner"):
            return False
        holder = self._disk.walk(f"{self._path}/.dreamlake/owner").holder
        return isinstance(holder, Open) and holder in self._disk.process(pid).files.values()

    def _place(self, pid: int, fd: object) -> str | None:
        """Where below the session the file of a descriptor stands; None when it has no name there."""
        opened = self._disk.process(pid).files.get(int(str(fd)))
        root = self._disk.walk(self._path)
        return _find(root, opened.inode, "") if opened and isinstance(root, Folder) else None


def _find(folder: Folder, wanted: Inode, path: str) -> str | None:
    for name, inode in folder.names.items():
        if inode is wanted:
            return path + name
        found = _find(inode, wanted, f"{path}{name}/") if isinstance(inode, Folder) else None
        if found is not None:
            return found
    return None
