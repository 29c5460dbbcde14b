"""Nobody writes a session directory without owning it: looked at in every disk call of every agent."""

from __future__ import annotations

import os

from dreamlake.world.disk import CREATE
from tests.sim.disk import Open, SimDisk
from tests.sim.platter import Folder
from tests.sim.promises import Violation

# What an agent may touch before it owns the directory: its own journal, and the record that says who does.
_FREE = (".dreamlake/journals", ".dreamlake/incoming", ".dreamlake/owner")


def check_ownership(disk: SimDisk, pid: int, name: str, given: tuple[object, ...]) -> None:
    """Hold what an agent is about to do against the lock of ``.dreamlake/owner`` in the folder in which it does it."""
    if name not in ("write", "truncate", "rename", "unlink", "mkdirs", "open"):
        return
    if name == "open" and not int(str(given[1])) & (CREATE | os.O_TRUNC):
        return
    files = disk.process(pid).files
    if name in ("write", "truncate"):
        opened = files.get(int(str(given[0])))
        if opened is None or opened.named is None or opened.inode.nlink == 0:
            return
        root, path = opened.named
    else:
        folder = files.get(int(str(given[-1])))
        root, path = folder.inode if folder else None, str(given[1] if name == "rename" else given[0])
    if not isinstance(root, Folder) or root.nlink == 0 or path.startswith(_FREE) or path == ".dreamlake":
        return
    if not _owns(disk, pid, root):
        raise Violation(f"agent {pid} does {name}({path}) in a directory that it does not own")


def _owns(disk: SimDisk, pid: int, root: Folder) -> bool:
    inner = root.names.get(".dreamlake")
    owner = inner.names.get("owner") if isinstance(inner, Folder) else None
    holder = owner.holder if owner else None
    return isinstance(holder, Open) and holder in disk.process(pid).files.values()
