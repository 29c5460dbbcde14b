"""What one node knows of the server's files, and when it asks: the sight of :mod:`tests.services.stale_fs`."""

from __future__ import annotations

import argparse
import errno
import os
import time
from dataclasses import dataclass, field

from tests.services.stale_kernel import ROOT, Parked


@dataclass(eq=False)
class Node:
    """A file or folder of the server, as this node knows it. `fd` is its handle, good wherever it is moved."""

    number: int
    fd: int
    known: os.stat_result
    asked: float
    lookups: int = 0
    handles: int = 0
    names: dict[bytes, tuple[Node | None, float]] = field(default_factory=dict)
    listing: tuple[list[bytes], float] | None = None
    changed: int = 0  # when it had last been changed, as far as is known
    called: set[tuple[int, bytes]] = field(default_factory=set)
    waiting: list[tuple[int, bytearray]] = field(default_factory=list)
    since: float = 0.0
    writer: int = -1
    error: int = 0
    removed_here: bool = False
    silly: tuple[Node, bytes] | None = None

    def end(self) -> int:
        """Behind the last byte that waits."""
        return max((offset + len(data) for offset, data in self.waiting), default=0)

    def shown(self) -> os.stat_result:
        end = self.end()
        if end <= self.known.st_size:
            return self.known
        values = list(self.known)
        values[6] = end
        # the fields by name, with nanoseconds, stand behind those by number
        return os.stat_result(values, {name: getattr(self.known, name) for name in _BY_NAME})


_BY_NAME = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")


class Sight:
    """`state`: ``well``, ``hang`` (what needs the network waits), ``fail`` (it fails)."""

    def __init__(self, backing: str, options: argparse.Namespace) -> None:
        self.options = options
        self.state = "well"
        fd = os.open(backing, os.O_PATH | os.O_DIRECTORY)
        self.root = Node(ROOT, fd, os.fstat(fd), 0.0, lookups=1)
        self.nodes = {ROOT: self.root}
        self.by_file = {(self.root.known.st_dev, self.root.known.st_ino): self.root}
        self._count = ROOT

    def ask(self, *nodes: Node) -> None:
        """Whatever comes next goes to the server, by the handles of these nodes."""
        if self.state == "hang":
            raise Parked
        if self.state == "fail":
            raise OSError(errno.EIO, "the network")
        for node in nodes:
            self._found(node)

    def _found(self, node: Node) -> os.stat_result:
        found = os.fstat(node.fd)
        if found.st_nlink == 0 and not node.removed_here and not self.options.keeps:
            self._disbelieve(node)
            raise OSError(errno.ESTALE, "gone at the server")
        return found

    def _fresh(self, since: float) -> bool:
        stale: float = self.options.stale
        return time.monotonic() - since < stale

    def _disbelieve(self, node: Node) -> None:
        for parent, name in node.called:
            if parent in self.nodes:
                self.nodes[parent].names.pop(name, None)
        node.called.clear()

    def _look(self, node: Node, *, anew: bool = False) -> os.stat_result:
        if anew or not self._fresh(node.asked):
            self.ask()
            node.known, node.asked = self._found(node), time.monotonic()
        return node.shown()

    def _adopt(self, fd: int) -> Node:
        """The node behind an open handle, which becomes the node's or is closed."""
        found = os.fstat(fd)
        node = self.by_file.get((found.st_dev, found.st_ino))
        if node is not None:
            os.close(fd)
            node.known, node.asked = found, time.monotonic()
            return node
        self._count += 1
        node = Node(self._count, fd, found, time.monotonic())
        self.nodes[node.number] = self.by_file[found.st_dev, found.st_ino] = node
        return node

    def _changes(self, *folders: Node) -> None:
        """Before this node changes folders: what else does it hear of them?"""
        self.ask(*folders)
        for folder in folders:
            if not self.options.deaf:
                folder.listing = None
                if os.fstat(folder.fd).st_mtime_ns != folder.changed:
                    folder.names = {}

    def _remember(self, parent: Node, name: bytes, node: Node | None) -> None:
        parent.changed = os.fstat(parent.fd).st_mtime_ns
        parent.names[name] = (node, time.monotonic())
        if node is not None:
            node.called.add((parent.number, name))
        if parent.listing is not None:
            names = [each for each in parent.listing[0] if each != name] + [name] * (node is not None)
            parent.listing = (names, parent.listing[1])

    def _lookup(self, parent: Node, name: bytes) -> Node:
        believed = parent.names.get(name)
        if believed is not None and self._fresh(believed[1]):
            node = believed[0]
            if node is None:
                raise FileNotFoundError(errno.ENOENT, "as far as is known")
            try:
                self._look(node)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
            else:
                return node
        self.ask(parent)
        if not parent.names:
            parent.changed = os.fstat(parent.fd).st_mtime_ns
        try:
            node = self._adopt(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent.fd))
        except FileNotFoundError:
            parent.names[name] = (None, time.monotonic())
            raise
        parent.names[name] = (node, time.monotonic())
        node.called.add((parent.number, name))
        return node
