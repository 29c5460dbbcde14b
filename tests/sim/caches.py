"""The server of a shared pretend disk, and what each node's caches hold of it (:mod:`tests.sim.shared`)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.sim.disk import USER, Faults, Open, SimDisk, SimProcess, refuse
from tests.sim.platter import File, Folder, Inode, resize

_EARLY = 0.05  # per call: a piece of what is in a page cache is on its way
SERVER = ""  # the node that is the server itself: it has no cache
CLUSTER, LOCAL, NONE, LOST = LOCKS = ("cluster", "local", "none", "lost")


@dataclass
class Staleness:
    """How far a node's view may be from the server's. May be changed at any time."""

    attributes_seconds: float = 0.0
    no_cto: bool = False
    write_back_seconds: float = 0.0  # what is written stays on its node for so long at most; 0: it arrives at once
    in_order: bool = True  # and then it arrives in order
    lock_wants_write: bool = False  # flock of a file that is open for reading only: EBADF, as on NFS
    late_errors: float = 0.0  # of writes to a file that is no more: told at fsync or close only


@dataclass
class Seen:
    """An inode as one node sees it."""

    inode: Inode
    data: bytearray = field(default_factory=bytearray)
    version: int = -1
    dirty: list[tuple[int, bytes, object]] = field(default_factory=list)  # (offset, bytes, tag), oldest first
    due: float = 0.0  # when the rest of it is written back at the latest
    mtime_ns: int = 0
    nlink: int = 1
    owes: bool = False  # something was written here, or cut, since the last fsync
    until: float = -1.0  # attributes and bytes are believed until then


class Node:
    """One node's caches."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: dict[int, Seen] = {}
        self.dirty: dict[int, Seen] = {}  # those of which something is not written back
        self.names: dict[tuple[int, str], tuple[Inode | None, float]] = {}
        self.listings: dict[int, tuple[list[str], float]] = {}
        self.partitioned = False

    def forget(self, folder: Folder, *names: str) -> None:
        """What this node has just changed itself, it sees."""
        self.listings.pop(folder.number, None)
        for name in names:
            self.names.pop((folder.number, name), None)


@dataclass
class _Lock:
    opened: Open
    node: str
    until: float | None = None  # of one whose node has died: the server keeps it so long


class Server(SimDisk):
    """The server, and what its nodes believe of it."""

    def __init__(
        self,
        random: Random,
        faults: Faults | None = None,
        *,
        staleness: Staleness | None = None,
        locks: str = CLUSTER,
        clock: Callable[[], float] | None = None,
        nodes: dict[int, str] | None = None,
    ) -> None:
        super().__init__(random, faults)
        self.staleness, self.lock_mode = staleness or Staleness(), locks
        self.clock = clock or (lambda: self.now_ns / 1e9)
        self.node_of: dict[int, str] = {USER: SERVER, **(nodes or {})}
        self.nodes: dict[str, Node] = {}
        # what was written carries a tag, which is told when it has arrived
        self.tag: Callable[[int, Open], Any] = lambda pid, opened: None
        self.arrived: Callable[[File, Any], None] = lambda file, tag: None
        # (pid, the folder that it renames in, from where, to where), when it is done
        self.renamed: Callable[[int, Inode, str, str], None] = lambda pid, root, source, target: None
        self._removed_by: dict[int, str] = {}  # inodes without a name, and the node that took it
        self._locks: dict[tuple[int, str], _Lock] = {}

    def node(self, name: str) -> Node:
        return self.nodes.setdefault(name, Node(name))

    def fork(self, parent: int, child: int) -> SimProcess:
        self.node_of[child] = self.node_of[parent]
        return super().fork(parent, child)

    # ── what happens to nodes ───────────────────────────────────────────────────────────────────────────────────────

    def partition(self, name: str) -> None:
        self.node(name).partitioned = True
        self.note(f"{name} is cut off")

    def heal(self, name: str) -> None:
        self.node(name).partitioned = False
        self.note(f"{name} is back")

    def node_dies(self, name: str, lease_seconds: float = 0.0) -> None:
        """Power loss of one node: what it had not written back is gone; the server keeps its locks for a while."""
        for number, node in list(self._locks):
            lock = self._locks[number, node]
            if lock.node == name:
                if lease_seconds > 0 and node == SERVER:
                    lock.until, lock.opened = self.clock() + lease_seconds, Open(lock.opened.inode, 0)
                else:
                    del self._locks[number, node]
        self.nodes[name] = Node(name)
        for pid in [pid for pid in self._processes if self.node_of[pid] == name]:
            self.kill(pid)
        self.note(f"{name} dies")

    def lose_locks(self, name: str) -> None:
        """The server believes that the node has gone, and gives its locks away; its processes are not told."""
        for key in [key for key, lock in self._locks.items() if lock.node == name and key[1] == SERVER]:
            del self._locks[key]
        self.note(f"{name} loses its locks")

    def remove_tree(self, path: str) -> None:
        found, parent = self.walk(path), self._folder(os.path.dirname(path))
        super().remove_tree(path)
        node = self.node(self.node_of[USER])
        self.removed(found, node)
        node.forget(parent, os.path.basename(path))

    def settle_nodes(self) -> None:
        """Write back what nodes that are not cut off hold."""
        for node in self.nodes.values():
            for seen in list(node.dirty.values()):
                self.write_back(node, seen)

    # ── for SharedProcess ───────────────────────────────────────────────────────────────────────────────────────────

    def reach(self, node: Node) -> None:
        """Ask the server something."""
        if node.partitioned:
            refuse(self.random.choice((errno.EIO, errno.ETIMEDOUT)))

    def is_stale(self, node: Node, inode: Inode) -> bool:
        """Whether another node has taken the inode's last name."""
        return inode.nlink == 0 and self._removed_by.get(inode.number) != node.name

    def removed(self, inode: Inode | None, node: Node) -> None:
        """That node has taken a name of it."""
        if inode is not None and inode.nlink == 0:
            self._removed_by[inode.number] = node.name
            seen = node.seen.get(inode.number)
            if seen is not None:
                seen.nlink = 0

    def fresh_until(self, node: Node) -> float:
        """Until when what the server says now is believed."""
        limit = self.staleness.attributes_seconds if node.name != SERVER else 0.0
        return self.clock() + (self.random.uniform(min(3.0, limit), limit) if limit else 0.0)

    def breathe(self) -> None:
        """What has waited long enough in a page cache goes to the server; now and then, a piece of what has not."""
        for node in self.nodes.values():
            for seen in list(node.dirty.values()) if not node.partitioned else ():
                if not seen.dirty:
                    node.dirty.pop(seen.inode.number, None)
                elif self.clock() >= seen.due:
                    self.write_back(node, seen)
                elif self.random.random() < _EARLY:
                    self._write_some(node, seen)

    def _write_some(self, node: Node, seen: Seen) -> None:
        at = 0 if self.staleness.in_order else self.random.randrange(len(seen.dirty))
        offset, data, tag = seen.dirty[at]
        size = self.random.choice((len(data), self.random.randint(0, len(data))))
        seen.dirty[at : at + 1] = [(offset + size, data[size:], tag)] if size < len(data) else []
        self._arrive(node, seen, offset, data[:size], tag)

    def write_back(self, node: Node, seen: Seen) -> None:
        """All that the node holds of the file, unless it is cut off."""
        if not node.partitioned:
            node.dirty.pop(seen.inode.number, None)
            dirty, seen.dirty = seen.dirty, []
            for offset, data, tag in dirty:
                self._arrive(node, seen, offset, data, tag)

    def _arrive(self, node: Node, seen: Seen, offset: int, data: bytes, tag: object) -> None:
        file = seen.inode
        if not data or not isinstance(file, File) or file.nlink == file.descriptions == 0 or self.is_stale(node, file):
            return  # of one that is no more nobody has anything; who has it open there hears so at fsync or close
        unchanged = seen.version == file.version
        self.put(file, data, offset)
        self.arrived(file, tag)
        if unchanged:
            seen.version = file.version

    def reclaim(self, inode: Inode) -> None:
        super().reclaim(inode)
        if inode.nlink == inode.descriptions == 0:
            for node in self.nodes.values():
                node.seen.pop(inode.number, None)
                node.dirty.pop(inode.number, None)

    def put(self, file: File, data: bytes, offset: int) -> None:
        old = len(file.data)
        file.put(data, offset)
        file.mtime_ns = self.now_ns
        self.used_bytes += len(file.data) - old

    def cut(self, file: File, size: int) -> None:
        self.used_bytes += size - len(file.data)
        file.cut(size)
        file.mtime_ns = self.now_ns

    # locks

    def lock(self, node: Node, opened: Open) -> bool:
        if self.lock_mode == NONE:
            refuse(errno.ENOLCK)
        if self.staleness.lock_wants_write and opened.flags & os.O_ACCMODE == os.O_RDONLY:
            refuse(errno.EBADF)
        number, keys = opened.inode.number, [node.name]  # a node's own kernel knows of its own processes' locks,
        if self.lock_mode != LOCAL:
            self.reach(node)
            if self.is_stale(node, opened.inode):
                refuse(errno.ESTALE)
            keys.append(SERVER)  # and the server of all that it has not forgotten
        for key in keys:
            held = self._locks.get((number, key))
            if held is not None and held.opened is not opened and (held.until is None or self.clock() < held.until):
                return False
        for key in keys:
            self._locks[number, key] = _Lock(opened, node.name)
        return True

    def unlock(self, opened: Open) -> None:
        for key in [key for key, lock in self._locks.items() if lock.opened is opened]:
            del self._locks[key]

    def holder(self, inode: Inode) -> list[Open]:
        """Every open file that holds a lock of it, as somebody's kernel sees it."""
        return [lock.opened for (number, _), lock in self._locks.items() if number == inode.number]


def overlay(data: bytearray, offset: int, chunk: bytes) -> None:
    if offset > len(data):
        resize(data, offset)
    data[offset : offset + len(chunk)] = chunk
