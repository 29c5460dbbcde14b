"""A network file system as bad as they come: one node's view of a folder that other nodes see otherwise.

``python -m tests.services.stale_fs BACKING AT [OPTIONS]`` mounts BACKING, the server's disk, at AT; each node has a
mount of its own. After NFS, whose client the names of the options mean:

- attributes, lookups (also of what is not there) and listings are believed for ``--stale`` seconds; opening a file asks
  anew (unless ``--no-cto``), as does a name whose file turns out to be gone; a node that changes a folder hears whether
  it was changed before, and then believes nothing of it (unless ``--deaf``);
- what is written waits in the node for ``--late`` seconds, or until fsync or close; with ``--zeros`` the file has its
  new size at once, and zeros where the bytes are late;
- an append goes to the end as the node knows it: two nodes that append to one file write over each other;
- a file that another node removed or replaced is ESTALE to whoever has it open (unless ``--keeps``); one that this node
  has open and removes is only renamed (``.nfs…``), which hinders an rmdir;
- ``--locks``: ``local`` (each node its own), ``cluster``, ``none``.

Told on standard input: ``hang`` (the network is away: what needs it waits), ``fail`` (EIO), ``heal``, ``drop`` (forget
what is believed), ``lose`` (what was not written yet is gone, and the node with it), ``unlock`` (the lease ran out).
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import resource
import stat
import time
from dataclasses import dataclass

from tests.services.stale_kernel import Change, Parked, serve
from tests.services.stale_sight import Node, Sight

_KINDS = {fcntl.F_RDLCK: fcntl.LOCK_SH, fcntl.F_WRLCK: fcntl.LOCK_EX, fcntl.F_UNLCK: fcntl.LOCK_UN}


@dataclass
class Handle:
    node: Node
    fd: int
    flags: int
    names: list[bytes]


class Stale(Sight):
    """:class:`tests.services.stale_kernel.Files`."""

    def __init__(self, backing: str, options: argparse.Namespace) -> None:
        super().__init__(backing, options)
        self.forwards_locks = options.locks != "local"
        self.handles: dict[int, Handle] = {}

    # names

    def lookup(self, parent: int, name: bytes) -> tuple[int, os.stat_result]:
        node = self._lookup(self.nodes[parent], name)
        node.lookups += 1
        return node.number, node.shown()

    def forget(self, node: int, count: int) -> None:
        self.nodes[node].lookups -= count

    def mkdir(self, parent: int, name: bytes, mode: int) -> tuple[int, os.stat_result]:
        above = self.nodes[parent]
        self._changes(above)
        try:
            os.mkdir(name, mode, dir_fd=above.fd)
        except FileExistsError:
            above.names.pop(name, None)
            raise
        node = self._adopt(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=above.fd))
        self._remember(above, name, node)
        node.lookups += 1
        return node.number, node.shown()

    def _put_aside(self, parent: Node, name: bytes) -> bool:
        """Before this node removes a file: as long as somebody here has it open it has another name. True: renamed."""
        try:
            found = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        node = self.by_file.get((found.st_dev, found.st_ino))
        if node is None or not stat.S_ISREG(found.st_mode):
            return False
        self._disbelieve(node)
        if not node.handles:
            node.removed_here = True
            return False
        self._count += 1
        other = b".nfs%016x%08x" % (found.st_ino, self._count)
        os.rename(name, other, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
        self._remember(parent, other, node)
        node.silly = (parent, other)
        return True

    def unlink(self, parent: int, name: bytes) -> None:
        above = self.nodes[parent]
        self._changes(above)
        try:
            if not self._put_aside(above, name):
                os.unlink(name, dir_fd=above.fd)
        finally:
            self._remember(above, name, None)

    def rmdir(self, parent: int, name: bytes) -> None:
        above = self.nodes[parent]
        self._changes(above)
        os.rmdir(name, dir_fd=above.fd)
        self._remember(above, name, None)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        source, target = self.nodes[parent], self.nodes[new_parent]
        believed = source.names.get(name)
        node = believed[0] if believed else None
        self._changes(source, target)
        try:
            os.stat(name, dir_fd=source.fd, follow_symlinks=False)
            self._put_aside(target, new_name)
            os.rename(name, new_name, src_dir_fd=source.fd, dst_dir_fd=target.fd)
        except OSError:
            source.names.pop(name, None)
            target.names.pop(new_name, None)
            raise
        self._remember(source, name, None)
        if node is not None:
            self._remember(target, new_name, node)
        else:
            target.names.pop(new_name, None)

    def opendir(self, node: int) -> int:
        folder = self.nodes[node]
        if folder.listing is None or not self._fresh(folder.listing[1]):
            self.ask(folder)
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder.fd)
            try:
                folder.listing = ([os.fsencode(name) for name in os.listdir(fd)], time.monotonic())
            finally:
                os.close(fd)
        return self._handle(folder, -1, 0, list(folder.listing[0]))

    def names(self, handle: int) -> list[bytes]:
        return self.handles[handle].names

    # bytes

    def attributes(self, node: int) -> os.stat_result:
        return self._look(self.nodes[node])

    def change(self, node: int, what: Change) -> os.stat_result:
        file = self.nodes[node]
        self.ask(file)
        path = f"/proc/self/fd/{file.fd}"
        if what.size is not None:
            self._write_back(file)
            os.truncate(path, what.size)
        if what.mode is not None:
            os.chmod(path, what.mode)
        if what.now:
            os.utime(path)
        elif what.mtime is not None:
            os.utime(path, (what.mtime, what.mtime))
        return self._look(file, anew=True)

    def _handle(self, node: Node, fd: int, flags: int, names: list[bytes]) -> int:
        self._count += 1
        self.handles[self._count] = Handle(node, fd, flags, names)
        node.handles += 1
        return self._count

    def open(self, node: int, flags: int) -> int:
        file = self.nodes[node]
        self.ask(file)
        if not self.options.no_cto:
            self._look(file, anew=True)
        if flags & os.O_TRUNC:
            file.waiting = []
        fd = os.open(f"/proc/self/fd/{file.fd}", flags & (os.O_ACCMODE | os.O_TRUNC))
        if flags & os.O_TRUNC:
            self._look(file, anew=True)
        return self._handle(file, fd, flags, [])

    def create(self, parent: int, name: bytes, flags: int, mode: int) -> tuple[int, os.stat_result, int]:
        above = self.nodes[parent]
        self._changes(above)
        asked = flags & (os.O_ACCMODE | os.O_TRUNC | os.O_EXCL) | os.O_CREAT | os.O_NOFOLLOW
        try:
            fd = os.open(name, asked, mode, dir_fd=above.fd)
        except FileExistsError:
            above.names.pop(name, None)
            raise
        file = self._adopt(os.open(f"/proc/self/fd/{fd}", os.O_PATH))
        if flags & os.O_TRUNC:
            file.waiting = []
        self._remember(above, name, file)
        file.lookups += 1
        return file.number, file.shown(), self._handle(file, fd, flags, [])

    def read(self, handle: int, size: int, offset: int) -> bytes:
        opened = self.handles[handle]
        file = opened.node
        size = min(size, self._look(file).st_size - offset)
        if size <= 0:
            return b""
        self.ask(file)
        data = bytearray(os.pread(opened.fd, size, offset))
        data.extend(bytes(max(0, min(size, file.end() - offset) - len(data))))
        for at, piece in file.waiting:
            first, last = max(at, offset), min(at + len(piece), offset + size)
            if first < last:
                data[first - offset : last - offset] = piece[first - at : last - at]
        return bytes(data)

    def write(self, handle: int, data: bytes, offset: int) -> int:
        opened = self.handles[handle]
        file = opened.node
        if opened.flags & os.O_APPEND:
            offset = self._look(file).st_size
        if file.writer < 0:
            file.writer = os.open(f"/proc/self/fd/{file.fd}", os.O_RDWR)
        if not file.waiting:
            file.since = time.monotonic()
        if file.waiting and file.waiting[-1][0] + len(file.waiting[-1][1]) == offset:
            file.waiting[-1][1].extend(data)
        else:
            file.waiting.append((offset, bytearray(data)))
        if self.options.zeros and self.state == "well":
            if file.end() > os.fstat(file.writer).st_size:
                os.ftruncate(file.writer, file.end())
        elif not self.options.late:
            self._write_back(file)
        return len(data)

    def _write_back(self, file: Node) -> None:
        if file.waiting:
            self.ask()
            waiting, file.waiting = file.waiting, []
            self._found(file)
            for offset, data in waiting:
                os.pwrite(file.writer, data, offset)
            file.known, file.asked = os.fstat(file.fd), time.monotonic()
        if file.error:
            error, file.error = file.error, 0
            raise OSError(error, "an earlier write")

    def flush(self, handle: int) -> None:
        """At a close, of what was open for writing."""
        if self.handles[handle].flags & os.O_ACCMODE != os.O_RDONLY:
            self._write_back(self.handles[handle].node)

    def fsync(self, handle: int) -> None:
        self._write_back(self.handles[handle].node)

    def release(self, handle: int) -> None:
        opened = self.handles.pop(handle)
        node = opened.node
        node.handles -= 1
        if opened.fd >= 0:
            os.close(opened.fd)
        if node.handles == 0 and node.silly is not None:
            parent, name = node.silly
            node.silly, node.removed_here = None, True
            try:
                os.unlink(name, dir_fd=parent.fd)
            except OSError:
                pass  # somebody else was quicker, or the folder is gone
            self._remember(parent, name, None)

    # the rest

    def lock(self, handle: int, kind: int, wait: bool) -> None:
        if self.options.locks == "none":
            raise OSError(errno.ENOSYS, "no locks here")
        self.ask()
        try:
            fcntl.flock(self.handles[handle].fd, _KINDS[kind] | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait:
                raise Parked from None
            raise

    def statfs(self) -> os.statvfs_result:
        self.ask()
        return os.statvfs(f"/proc/self/fd/{self.root.fd}")

    def tick(self) -> None:
        """Write what has waited long enough, and let go of what nobody has known of for long."""
        now = time.monotonic()
        if self.state == "hang":
            return
        for node in list(self.nodes.values()):
            if node.waiting and now - node.since >= self.options.late:
                try:
                    self._write_back(node)
                except OSError as error:
                    node.waiting, node.error = [], error.errno or errno.EIO
            if node.lookups <= 0 and not node.handles and not node.waiting and now - node.asked > self.options.stale:
                self._let_go(node)

    def _let_go(self, node: Node) -> None:
        self._disbelieve(node)
        del self.nodes[node.number]
        self.by_file = {file: each for file, each in self.by_file.items() if each is not node}
        os.close(node.fd)
        if node.writer >= 0:
            os.close(node.writer)

    def told(self, word: str) -> str:
        if word == "unlock":
            for handle in self.handles.values():
                if handle.fd >= 0:
                    fcntl.flock(handle.fd, fcntl.LOCK_UN)
        elif word in ("drop", "lose"):
            for node in self.nodes.values():
                node.names, node.listing, node.asked = {}, None, 0.0
                if word == "lose":
                    node.waiting = []
            self.state = "fail" if word == "lose" else self.state
        else:
            self.state = {"hang": "hang", "fail": "fail", "heal": "well"}[word]
        return f"done {word}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("backing")
    parser.add_argument("at")
    parser.add_argument("--stale", type=float, default=0.0)
    parser.add_argument("--late", type=float, default=0.0)
    parser.add_argument("--zeros", action="store_true")
    parser.add_argument("--keeps", action="store_true")
    parser.add_argument("--no-cto", action="store_true")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--locks", choices=("local", "cluster", "none"), default="local")
    options = parser.parse_args()
    os.umask(0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    serve(Stale(options.backing, options), options.at)


if __name__ == "__main__":
    main()
