"""Nobody changes what is another owner's: held against epochs, in every call that every process of every node makes.

What an owner writes is its page cache's business until it arrives at the server; so each piece carries the epoch in
which it was written, and is looked at when it arrives.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dreamlake.reader.owners import EPOCHS
from tests.sim.disk import Open
from tests.sim.platter import File, Folder, Inode
from tests.sim.shared import SharedDisk

_CLAIMED = re.compile(re.escape(EPOCHS) + r"/(\d+)\Z")
_APPENDED = re.compile(r"(?!\.dreamlake/(epochs|cut|journals|incoming|superseded)/).*(\.jsonl|commits\.log)\Z")
# What an owner renames without being the owner of what stands there: a journal's temp to its name.
_FREE = (EPOCHS, ".dreamlake/journals")

Written = tuple[int, str]  # in which epoch, to which path


class Epochs:
    """Who has claimed which epoch of which directory, and what each has written."""

    def __init__(self, disk: SharedDisk) -> None:
        self.claimed: dict[tuple[int, int], int] = {}  # (pid, the directory's inode) → its latest epoch
        self.owners: dict[tuple[int, int], int] = {}  # (the directory's inode, epoch) → pid
        self._latest: dict[int, int] = {}  # a log's inode → the latest epoch of which something arrived
        self.violation: str | None = None  # told by whoever has the next step: this may be found in anybody's call
        self.on_claim: Callable[[int, Inode, int], None] = lambda pid, root, epoch: None
        disk.tag, disk.arrived, disk.renamed = self._tag, self._arrived, self._renamed

    def epoch_of(self, pid: int, root: Inode) -> int:
        return self.claimed.get((pid, root.number), 0)

    def forget(self) -> None:
        """All who had claimed anything are dead, and power loss may have taken their claims."""
        self.claimed.clear()
        self.owners.clear()
        self._latest.clear()

    def last_owner(self, root: Inode) -> int:
        """The pid of whoever had the latest epoch."""
        return self.owners[root.number, max(epoch for number, epoch in self.owners if number == root.number)]

    def standing(self, root: Inode) -> list[int]:
        """The epochs that have a folder, as the server has it."""
        folder: Inode | None = root
        for name in EPOCHS.split("/"):
            folder = folder.names.get(name) if isinstance(folder, Folder) else None
        return sorted(int(name) for name in folder.names if name.isdecimal()) if isinstance(folder, Folder) else []

    def _renamed(self, pid: int, root: Inode, source: str, target: str) -> None:
        """Was it a claim, or done by one whose epoch has ended?"""
        claimed = _CLAIMED.match(target)
        if claimed and source.startswith(EPOCHS):
            epoch = int(claimed[1])
            if (root.number, epoch) in self.owners:
                self._found(f"epoch {epoch} is claimed by {pid}, and was by {self.owners[root.number, epoch]}")
            self.claimed[pid, root.number] = epoch
            self.owners[root.number, epoch] = pid
            self.on_claim(pid, root, epoch)
        elif not target.startswith(_FREE) and (pid, root.number) in self.claimed:
            epoch = self.claimed[pid, root.number]
            if epoch not in self.standing(root):
                self._found(f"{pid} has put {source} to {target}, and its epoch {epoch} has ended")

    def _tag(self, pid: int, opened: Open) -> Written:
        root, path = opened.named or (opened.inode, "")
        return self.epoch_of(pid, root), path

    def _arrived(self, file: File, written: Written) -> None:
        epoch, path = written
        if file.nlink == 0 or not _APPENDED.match(path):
            return
        if epoch == 0:
            self._found(f"{path} was written by one that had never claimed it")
        latest = self._latest.get(file.number, 0)
        if epoch < latest:
            self._found(f"{path} was written in epoch {epoch}, after what was written in epoch {latest}")
        self._latest[file.number] = max(epoch, latest)

    def _found(self, text: str) -> None:
        self.violation = self.violation or text
