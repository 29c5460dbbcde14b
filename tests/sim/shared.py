"""A pretend disk that several nodes share, as a network file system with caches would have it.

:class:`~tests.sim.disk.SimDisk` is the server: what it holds is the truth. Each node sees it through caches of its own:

- **names and attributes** (lookups, listings, sizes, times) may be as old as ``Staleness.attributes_seconds``, but for
  what the node itself has changed. A name is known not to be there only where the node has looked for it. ``open``
  asks the server about the file, unless ``no_cto`` (no close-to-open consistency); it does not ask whether the name
  stands for another file by now, as long as the file that it knows is still there.
- **bytes** stay in the node's page cache until an fsync, the close of the file, or a while has passed; then they arrive
  in one piece or in several, in any order: whoever looks meanwhile finds zeros, or the size of before.
- a file that another node unlinked or replaced answers ESTALE as soon as the server is asked; what is written to it is
  lost, which fsync and close tell, and sometimes the write.

``mkdir``, ``rmdir``, exclusive creation, rename and unlink happen at the server, in one step. A removed folder refuses
everything at the server, whatever a node remembers of it. Locks are of one of four kinds (:data:`LOCKS`).

The person at the keyboard is at the server, unless ``nodes`` says otherwise.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import NoReturn

from dreamlake.world.disk import Stat, write_all
from tests.sim.caches import CLUSTER, LOCAL, LOCKS, LOST, NONE, SERVER, Node, Seen, Server, Staleness, overlay
from tests.sim.disk import SimProcess, checked, operation, parts_of, refuse
from tests.sim.platter import File, Folder, Inode

__all__ = ["CLUSTER", "LOCAL", "LOCKS", "LOST", "NONE", "SERVER", "SharedDisk", "SharedProcess", "Staleness"]


class SharedDisk(Server):
    """The server, and the nodes that share its disk."""

    def process(self, pid: int, node: str | None = None) -> SharedProcess:
        """The disk as a process on that node sees it; the node is told once."""
        if node is not None:
            self.node_of[pid] = node
        found = self._processes.get(pid)
        if found is None:
            found = self._processes[pid] = SharedProcess(self, pid)
        assert isinstance(found, SharedProcess)
        return found


class SharedProcess(SimProcess):
    """The operations, done by one process on one node."""

    disk: SharedDisk

    @property
    def node(self) -> Node:
        return self.disk.node(self.disk.node_of[self.pid])

    @operation
    def root(self, path: str) -> int:
        self.disk.reach(self.node)
        found = self.disk.walk(path)
        return self._descriptor(found) if isinstance(found, Folder) else refuse(errno.ENOTDIR, path)

    @operation
    def private(self, path: str) -> int:
        self.disk.reach(self.node)
        found = self.disk.walk(path)
        return self._descriptor(found) if isinstance(found, Folder) else refuse(errno.ENOTDIR, path)

    @operation
    def open(self, path: str, flags: int, at: int) -> int:
        parent, name = self._place(path, at)
        found = self._known(parent, name)
        if flags & os.O_EXCL or (found is None and flags & os.O_CREAT):
            return self._create(parent, name, path, flags, at)
        if found is None:
            refuse(errno.ENOENT, checked(name))
        if isinstance(found, Folder):
            if flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
                refuse(errno.EISDIR, path)
            return self._named(self._descriptor(found, flags), path, at)
        if not self.disk.staleness.no_cto:
            found = self._revalidated(parent, name, found)
            if not isinstance(found, File):
                refuse(errno.ESTALE, path)
        if flags & os.O_TRUNC:
            self._resize(found, 0)
        return self._named(self._descriptor(found, flags), path, at)

    def _create(self, parent: Folder, name: str, path: str, flags: int, at: int) -> int:
        self._ask(parent, path)
        found = parent.names.get(name)
        if found is not None and flags & os.O_EXCL:
            self.node.names.pop((parent.number, name), None)
            refuse(errno.EEXIST, path)
        if found is None:
            found = self.disk.make(File, parent, name)
            self.node.forget(parent)
        self._learn(parent, name, found)
        if isinstance(found, Folder):
            refuse(errno.EISDIR, path)
        self._look(found, fresh=True)
        if flags & os.O_TRUNC:
            self._resize(found, 0)
        return self._named(self._descriptor(found, flags), path, at)

    def _revalidated(self, parent: Folder, name: str, found: Inode) -> Inode:
        """Close-to-open: the server is asked about the file; about the name only when that file is no more."""
        self.disk.reach(self.node)
        if self.disk.is_stale(self.node, found):
            self.node.names.pop((parent.number, name), None)
            again = self._known(parent, name)
            found = again if again is not None else refuse(errno.ENOENT, name)
        self._look(found, fresh=True)
        return found

    @operation
    def folder(self, path: str, at: int) -> int:
        return self._descriptor(self._folder(parts_of(path), at))

    @operation
    def close(self, fd: int) -> None:
        opened = self._opened(fd)
        inode, wrote = opened.inode, opened.flags & os.O_ACCMODE != os.O_RDONLY
        seen = self.node.seen.get(inode.number)
        owes = wrote and seen is not None and bool(seen.dirty)
        self._close(fd)
        if owes:
            self.disk.reach(self.node)
            if self.disk.is_stale(self.node, inode):
                refuse(errno.ESTALE)

    @operation
    def pread(self, fd: int, size: int, offset: int) -> bytes:
        opened = self._opened(fd)
        if opened.flags & os.O_ACCMODE == os.O_WRONLY:
            refuse(errno.EBADF)
        if isinstance(opened.inode, Folder):
            refuse(errno.EISDIR)
        found = bytes(self._look(opened.inode).data[offset : offset + size])
        if len(found) > 1 and self.chance(self.disk.faults.short_read):
            found = found[: self.disk.random.randrange(1, len(found))]
        return found

    @operation
    def write(self, fd: int, data: bytes) -> int:
        opened, size = self._opened(fd), len(data)
        file, disk, node = opened.inode, self.disk, self.node
        if opened.flags & os.O_ACCMODE == os.O_RDONLY or isinstance(file, Folder):
            refuse(errno.EBADF)
        if size == 0:
            return 0
        if size > 1 and self.chance(disk.faults.short_write):
            size = disk.random.randrange(1, size)
        seen = node.seen.get(file.number) or self._look(file)
        if disk.is_stale(node, file) and not self.chance(disk.staleness.late_errors):
            refuse(errno.ESTALE)
        if not disk.is_stale(node, file) and not node.partitioned:
            self._look(file)  # where the end is, as far as this node knows
        start = len(seen.data) if opened.flags & os.O_APPEND else opened.position
        size = min(size, len(seen.data) + disk.room_bytes - start)
        if size <= 0:
            refuse(errno.ENOSPC)
        chunk = bytes(data[:size])
        overlay(seen.data, start, chunk)
        seen.mtime_ns = disk.now_ns
        opened.position = start + size
        if not seen.dirty:
            seen.due = disk.clock() + disk.random.uniform(0, disk.staleness.write_back_seconds)
        node.dirty[file.number] = seen
        seen.owes = True
        seen.dirty.append((start, chunk, disk.tag(self.pid, opened)))
        if node.name == SERVER or not disk.staleness.write_back_seconds:
            disk.write_back(node, seen)
        return size

    @operation
    def truncate(self, fd: int, size: int) -> None:
        opened = self._opened(fd)
        if opened.flags & os.O_ACCMODE == os.O_RDONLY or isinstance(opened.inode, Folder) or size < 0:
            refuse(errno.EINVAL)
        self._resize(opened.inode, size)
        self.disk.arrived(opened.inode, self.disk.tag(self.pid, opened))

    @operation
    def fsync(self, fd: int) -> None:
        opened, disk = self._opened(fd), self.disk
        inode = opened.inode
        disk.reach(self.node)
        seen = self.node.seen.get(inode.number)
        if disk.is_stale(self.node, inode):
            if seen is not None:
                seen.dirty.clear()
            refuse(errno.ESTALE)
        if seen is not None:
            disk.write_back(self.node, seen)
        if isinstance(inode, File) and self.node.name != SERVER:
            if seen is None or not seen.owes:
                return  # this kernel owes nothing and asks for nothing: what others wrote is their fsync's
            seen.owes = False
        failed = self.chance(disk.faults.fsync_error)
        disk.sync(inode, failed)
        inode.errors += failed
        if opened.errors != inode.errors:
            opened.errors = inode.errors
            refuse(disk.random.choice((errno.EIO, errno.EIO, errno.ENOSPC)))

    @operation
    def fstat(self, fd: int) -> Stat:
        return self._stat(self._opened(fd).inode)

    @operation
    def stat(self, path: str, at: int) -> Stat:
        parts = parts_of(path)
        parent = self._folder(parts[:-1], at)
        if not parts:
            return self._stat(parent)
        found = self._known(parent, parts[-1])
        if found is None:
            refuse(errno.ENOENT, checked(parts[-1]))
        seen = self.node.seen.get(found.number)
        if seen is None or self.disk.clock() >= seen.until:
            found = self._revalidated(parent, parts[-1], found)
        return self._stat(found)

    @operation
    def rename(self, source: str, target: str, at: int) -> None:
        (here, old), (there, new) = self._place(source, at), self._place(target, at)
        self._ask(here, source)
        self._ask(there, target)
        moved, victim = here.names.get(checked(old)), there.names.get(checked(new))
        if moved is None:
            self.node.forget(here, old)
            refuse(errno.ENOENT, source)
        if victim is moved:
            return
        if isinstance(moved, Folder) and there in moved.inodes():
            refuse(errno.EINVAL, target)
        if isinstance(victim, Folder) and here in victim.inodes():
            refuse(errno.ENOTEMPTY, target)
        if isinstance(victim, Folder) != isinstance(moved, Folder) and victim is not None:
            refuse(errno.EISDIR if isinstance(victim, Folder) else errno.ENOTDIR, target)
        if isinstance(victim, Folder) and victim.names:
            refuse(errno.ENOTEMPTY, target)
        self.disk.change((here, old, None), (there, new, moved))
        self.disk.removed(victim, self.node)
        self.node.forget(here, old)
        self.node.forget(there, new)
        self._learn(here, old, None)
        self._learn(there, new, moved)
        self.disk.renamed(self.pid, self._opened(at).inode, source, target)

    @operation
    def unlink(self, path: str, at: int) -> None:
        parent, name = self._place(path, at)
        self._ask(parent, path)
        self.node.forget(parent, name)
        found = parent.names.get(checked(name))
        if found is None:
            refuse(errno.ENOENT, path)
        if isinstance(found, Folder):
            refuse(errno.EISDIR, path)
        self.disk.change((parent, name, None))
        self.disk.removed(found, self.node)

    @operation
    def mkdirs(self, path: str, at: int) -> None:
        folder = self._folder([], at)
        for part in parts_of(path):
            inner = self._known(folder, part)
            if inner is None or self.disk.is_stale(self.node, inner):
                self._ask(folder, path)
                inner = folder.names.get(part) or self.disk.make(Folder, folder, part)
                self.node.forget(folder)
                self._learn(folder, part, inner)
            folder = inner if isinstance(inner, Folder) else refuse(errno.ENOTDIR, path)

    @operation
    def mkdir(self, path: str, at: int) -> None:
        parent, name = self._place(path, at)
        self._ask(parent, path)
        self.node.forget(parent, name)
        if name in parent.names:
            refuse(errno.EEXIST, path)
        self.disk.make(Folder, parent, name)

    @operation
    def rmdir(self, path: str, at: int) -> None:
        parent, name = self._place(path, at)
        self._ask(parent, path)
        self.node.forget(parent, name)
        found = parent.names.get(checked(name))
        if found is None:
            refuse(errno.ENOENT, path)
        if not isinstance(found, Folder):
            refuse(errno.ENOTDIR, path)
        if found.names:
            refuse(errno.ENOTEMPTY, path)
        self.disk.change((parent, name, None))
        self.disk.removed(found, self.node)

    @operation
    def listdir(self, path: str, at: int) -> list[str]:
        with suppress(FileNotFoundError):
            folder = self._folder(parts_of(path), at)
            known = self.node.listings.get(folder.number)
            if known is None or self.disk.clock() >= known[1]:
                self.disk.reach(self.node)
                if self.disk.is_stale(self.node, folder):
                    self._gone(folder, path)
                known = self.node.listings[folder.number] = (sorted(folder.names), self.disk.fresh_until(self.node))
            return list(known[0])
        return []

    @operation
    def lock(self, fd: int) -> bool:
        return self.disk.lock(self.node, self._opened(fd))

    @operation
    def touch(self, fd: int) -> None:
        inode = self._opened(fd).inode
        self.disk.reach(self.node)
        if self.disk.is_stale(self.node, inode):
            refuse(errno.ESTALE)
        inode.mtime_ns = self._look(inode).mtime_ns = self.disk.now_ns

    @operation
    def copy(self, source: int, target: int) -> int:
        inode = self._opened(source).inode
        if isinstance(inode, Folder):
            refuse(errno.EISDIR)
        data = bytes(self._look(inode).data)
        write_all(self, target, data)
        return len(data)

    # ── what the node knows, and what it asks ───────────────────────────────────────────────────────────────────────

    def _look(self, inode: Inode, *, fresh: bool = False) -> Seen:
        """The inode as this node sees it; what it has seen too long ago it asks for again."""
        disk, node = self.disk, self.node
        seen = node.seen.get(inode.number)
        if seen is not None and not fresh and disk.clock() < seen.until:
            return seen
        disk.reach(node)
        if disk.is_stale(node, inode):
            refuse(errno.ESTALE)
        if seen is None:
            seen = node.seen[inode.number] = Seen(inode)
        if isinstance(inode, File) and seen.version != inode.version:
            seen.data, seen.version = bytearray(inode.data), inode.version
            for offset, data, _tag in seen.dirty:
                overlay(seen.data, offset, data)
        seen.mtime_ns, seen.nlink = inode.mtime_ns, inode.nlink
        seen.until = disk.fresh_until(node)
        return seen

    def _stat(self, inode: Inode) -> Stat:
        seen, is_dir = self._look(inode), isinstance(inode, Folder)
        return Stat(1, inode.number, len(seen.data), seen.nlink, seen.mtime_ns, is_dir, not is_dir)

    def _known(self, folder: Inode, name: str) -> Inode | None:
        """What the name stands for, as far as this node knows."""
        if not isinstance(folder, Folder):
            refuse(errno.ENOTDIR, name)
        known = self.node.names.get((folder.number, name))
        if known is not None and self.disk.clock() < known[1]:
            return known[0]
        self.disk.reach(self.node)
        if self.disk.is_stale(self.node, folder):
            self._gone(folder, name)
        found = folder.names.get(checked(name))
        self._learn(folder, name, found)
        return found

    def _learn(self, folder: Folder, name: str, found: Inode | None) -> None:
        self.node.names[folder.number, name] = (found, self.disk.fresh_until(self.node))

    def _ask(self, folder: Folder, path: str) -> None:
        """The server is about to change the folder, by its handle."""
        self.disk.reach(self.node)
        if folder.nlink == 0:
            self._gone(folder, path)

    def _gone(self, folder: Folder, path: str) -> NoReturn:
        stale = self.disk.is_stale(self.node, folder)
        refuse(self.disk.random.choice((errno.ENOENT, errno.ESTALE)) if stale else errno.ENOENT, path)

    def _folder(self, parts: list[str], at: int) -> Folder:
        start = self._opened(at).inode
        for again in (False, True):  # a folder on the way that is no more is looked up once more, as Linux does
            node = start
            for part in parts:
                if again:
                    self.node.names.pop((node.number, part), None)
                found = self._known(node, part)
                node = found if found is not None else refuse(errno.ENOENT, checked(part))
            if not self.disk.is_stale(self.node, node):
                break
        return node if isinstance(node, Folder) else refuse(errno.ENOTDIR)

    def _resize(self, file: File, size: int) -> None:
        disk, node = self.disk, self.node
        disk.reach(node)
        if disk.is_stale(node, file):
            refuse(errno.ESTALE)
        seen = self._look(file)
        disk.write_back(node, seen)
        disk.cut(file, size)
        self._look(file, fresh=True).owes = True

    def _close(self, fd: int) -> None:
        opened = self.files[fd]
        if opened.descriptors == 1:
            seen = self.node.seen.get(opened.inode.number)
            if seen is not None and opened.flags & os.O_ACCMODE != os.O_RDONLY:
                self.disk.write_back(self.node, seen)
            self.disk.unlock(opened)
        super()._close(fd)

    def alive(self) -> None:
        super().alive()
        self.disk.breathe()
