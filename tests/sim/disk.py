"""A pretend disk, in memory, on which the shipped code runs unmodified while everything happens to it.

What power loss leaves is drawn in :mod:`tests.sim.platter`; here are the processes, their descriptors and
locks, the faults of each call, and what the user does to the same folders by absolute path.

A process dies when a hook raises :class:`Died`, before or after any operation; every later call of that
process raises :class:`Died` again and does nothing, so that a ``finally`` in the shipped code cannot act for
the dead. ``Died(torn=True)`` from ``before`` cuts an operation that is not one step: of the bytes of a
``write`` a prefix arrives, of the folders of a ``mkdirs`` the outer ones.

Not modelled: EINTR (Python retries it itself, PEP 475, so the seam never shows it), symbolic and hard links,
permissions, threads. Inode numbers and descriptors are never given twice, so that one used after its end is
found out. All chance comes from the one ``Random``: same seed and same calls, same trace.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

from dreamlake.world.disk import APPEND, CREATE, EMPTY, Stat, read_file, write_all
from tests.sim.platter import Changes, Entry, File, Folder, Inode

NAME_BYTES_MAX = 255
TRACE_LINES = 4096  # kept to be read; the digest covers all
USER = 0  # the pid of the person at the keyboard, whom no fault and no hook touches

_MAY_FAIL = frozenset(
    {"open", "folder", "pread", "write", "truncate", "stat", "rename", "unlink", "mkdirs", "mkdir", "rmdir", "listdir"}
)

P = ParamSpec("P")
R = TypeVar("R")
N = TypeVar("N", File, Folder)
Hook = Callable[[int, str, tuple[object, ...]], None]  # (pid, operation, arguments)


class Died(BaseException):
    """The calling process is dead. No ``except Exception`` may outlive it."""

    def __init__(self, *, torn: bool = False) -> None:
        super().__init__("the process died")
        self.torn = torn


@dataclass
class Faults:
    """How often, per call, a thing goes wrong. May be changed at any time."""

    short_write: float = 0.0
    short_read: float = 0.0
    eio: float = 0.0  # and nothing was done
    fsync_error: float = 0.0  # what was dirty is clean from now on, but only some of it is on the platter
    forget_names: bool = True  # also of a folder; a journalling file system would rather end than forget one


class Open:
    """An open file description: what descriptors stand for, shared by those that a fork copies."""

    def __init__(self, inode: Inode, flags: int) -> None:
        self.inode, self.flags = inode, flags
        self.position, self.descriptors = 0, 1
        self.named: tuple[Inode, str] | None = None  # the folder it was opened in, and how it was called there
        self.errors = inode.errors  # told so far; what was told to others before we came is never told to us


class SimDisk:
    """The disk, its processes and its user."""

    def __init__(self, random: Random, faults: Faults | None = None) -> None:
        self.random, self.faults = random, faults or Faults()
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.capacity_bytes: int | None = None
        self.used_bytes = 0
        self.now_ns = 1_700_000_000_000_000_000  # the world moves it; two writes at one instant look alike
        self.recent: deque[str] = deque(maxlen=TRACE_LINES)
        self._digest = blake2b(digest_size=16)
        self._processes: dict[int, SimProcess] = {}
        self._changes = Changes()
        self._last_ino, self._last_fd = 1, 2
        self._root = Folder(self._last_ino, self.now_ns)
        self._root.nlink = 1

    @property
    def trace(self) -> str:
        """One word for everything that happened so far."""
        return self._digest.hexdigest()

    # Processes

    def process(self, pid: int) -> SimProcess:
        """The disk as one process sees it. After its death the pid may be given to a new process."""
        if pid not in self._processes:
            self._processes[pid] = SimProcess(self, pid)
        return self._processes[pid]

    def fork(self, parent: int, child: int) -> SimProcess:
        """A child with its parent's descriptors, and a share in its parent's locks."""
        born = self.process(child)
        born.files = dict(self.process(parent).files)
        for opened in born.files.values():
            opened.descriptors += 1
        self.note(f"{parent} forks {child}")
        return born

    def kill(self, pid: int) -> None:
        """Close all that the process had open, which frees the locks that no fork shares. Idempotent."""
        process = self._processes.pop(pid, None)
        if process is not None:
            process.dead = True
            process.close_all()
            self.note(f"{pid} killed")

    # The machine

    def power_loss(self) -> None:
        """Kill every process, and keep what chance says had reached the platter."""
        for pid in list(self._processes):
            self.kill(pid)
        self._changes.tear(self.random)
        self.used_bytes = 0
        for inode in list(self._root.inodes(durable=True)):
            inode.nlink = 1  # it has a name again, whatever was unlinked; there are no hard links
            if isinstance(inode, Folder):
                inode.names = dict(inode.platter)
            else:
                inode.tear(self.random)
                inode.data = bytearray(inode.platter)
                self.used_bytes += len(inode.data)
        self.note(f"power loss, {self.used_bytes} bytes left")

    def settle(self) -> None:
        """sync(2): all is durable, whoever wrote it."""
        self._changes.sync()
        for inode in self._root.inodes():
            if isinstance(inode, File):
                inode.sync()

    def settle_names(self) -> None:
        """What was made, moved and removed stays so, whatever becomes of the bytes."""
        self._changes.sync()

    def fill(self) -> None:
        """Leave no room; ``capacity_bytes = None`` gives it back."""
        self.capacity_bytes = self.used_bytes

    # The user: absolute paths, no faults, nothing synced

    def mkdirs(self, path: str) -> None:
        self._as_user(lambda user, root: user.mkdirs(path.lstrip("/"), root))

    def write(self, path: str, data: bytes) -> None:
        """Make a file, or edit one in place (same inode)."""
        flags = APPEND | CREATE | EMPTY
        self._as_user(lambda user, root: write_all(user, user.open(path.lstrip("/"), flags, root), data))

    def read(self, path: str) -> bytes:
        return self._as_user(lambda user, root: read_file(user, path.lstrip("/"), root, 1 << 40))

    def move(self, source: str, target: str) -> None:
        """mv: same inodes, so that a process that holds a folder goes on in it."""
        self._as_user(lambda user, root: user.rename(source.lstrip("/"), target.lstrip("/"), root))

    def exists(self, path: str) -> bool:
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.walk(path) is not None
        return False

    def tree(self, path: str) -> dict[str, bytes]:
        """Every file below a folder: path relative to it → bytes, in order of path."""
        found: dict[str, bytes] = {}
        for name, inode in sorted(self._folder(path).names.items()):
            if isinstance(inode, Folder):
                found.update({f"{name}/{k}": data for k, data in self.tree(f"{path}/{name}").items()})
            else:
                found[name] = bytes(inode.data)
        return dict(sorted(found.items()))

    def copy_tree(self, source: str, target: str) -> None:
        """cp -r: new inodes, same bytes."""
        self.mkdirs(target)
        for name, inode in sorted(self._folder(source).names.items()):
            if isinstance(inode, Folder):
                self.copy_tree(f"{source}/{name}", f"{target}/{name}")
            else:
                self.write(f"{target}/{name}", bytes(inode.data))

    def remove_tree(self, path: str) -> None:
        """rm -r: what is open stays readable, with no name."""
        found = self.walk(path)
        for inner in sorted(found.names) if isinstance(found, Folder) else ():
            self.remove_tree(f"{path}/{inner}")
        self.note(f"user removes {path}")
        self.change((self._folder(os.path.dirname(path)), os.path.basename(path), None))

    def _as_user(self, work: Callable[[SimProcess, int], R]) -> R:
        user = self.process(USER)
        try:
            return work(user, user.root("/"))
        finally:
            user.close_all()

    # For SimProcess

    def walk(self, path: str) -> Inode:
        node: Inode = self._root
        for part in os.path.normpath("/" + path).split("/"):
            node = entry_of(node, part) if part else node
        return node

    def make(self, kind: type[N], parent: Folder, name: str) -> N:
        if parent.nlink == 0:
            refuse(errno.ENOENT, name)
        if self.room_bytes == 0 and self.random.random() < 0.5:  # a full disk may still have room for a name
            refuse(errno.ENOSPC, name)
        self._last_ino += 1
        made = kind(self._last_ino, self.now_ns)
        self.change((parent, checked(name), made))
        return made

    @property
    def room_bytes(self) -> int:
        return max(0, self.capacity_bytes - self.used_bytes) if self.capacity_bytes is not None else 1 << 60

    def change(self, *entries: Entry) -> None:
        gone = [folder.names.pop(name) for folder, name, _ in entries if name in folder.names]
        for inode in gone:
            inode.nlink -= 1
        for folder, name, inode_now in entries:
            folder.mtime_ns = self.now_ns
            if inode_now is not None:
                folder.names[name] = inode_now
                inode_now.nlink += 1
        self._changes.add(*entries)
        for inode in gone:
            self.reclaim(inode)

    def reclaim(self, inode: Inode) -> None:
        if isinstance(inode, File) and inode.nlink == 0 and inode.descriptions == 0:
            self.used_bytes -= len(inode.data)

    def sync(self, inode: Inode, failed: bool) -> None:
        if isinstance(inode, Folder):
            if not failed:
                self._changes.sync(inode)
            elif self.faults.forget_names:
                self._changes.tear(self.random, inode)
        else:
            inode.tear(self.random) if failed else inode.sync()

    def next_fd(self) -> int:
        self._last_fd += 1
        return self._last_fd

    def _folder(self, path: str) -> Folder:
        found = self.walk(path)
        return found if isinstance(found, Folder) else refuse(errno.ENOTDIR, path)

    def note(self, line: str) -> None:
        self._digest.update(line.encode("utf-8", "surrogateescape"))
        self.recent.append(line)


def operation(work: Callable[Concatenate[SimProcess, P], R]) -> Callable[Concatenate[SimProcess, P], R]:
    """One call of the seam: hooks around it, EIO instead of it, a line in the trace after it."""
    name = work.__name__

    def call(self: SimProcess, /, *args: P.args, **named: P.kwargs) -> R:
        disk, given = self.disk, (*args, *named.values())
        self.alive()
        outcome: object = "died"
        try:
            self.hook(disk.before, name, given)
            try:
                if name in _MAY_FAIL and self.chance(disk.faults.eio):
                    refuse(errno.EIO, name)
                outcome = result = work(self, *args, **named)
            except OSError as error:
                outcome = errno.errorcode[error.errno or 0]
                raise
            finally:
                self.hook(disk.after, name, given)
            return result
        except Died as died:
            if died.torn and outcome == "died" and not self.dead:
                self.cut_short(name, given)
            if not self.dead:
                disk.kill(self.pid)
            raise
        finally:
            disk.note(f"{self.pid} {name}({', '.join([_brief(each) for each in given])}) = {_brief(outcome)}")

    return call


class SimProcess:
    """The operations of :class:`dreamlake.world.disk.Disk`, done by one process."""

    def __init__(self, disk: SimDisk, pid: int) -> None:
        self.disk, self.pid, self.dead = disk, pid, False
        self.files: dict[int, Open] = {}

    @operation
    def root(self, path: str) -> int:
        found = self.disk.walk(path)
        return self._descriptor(found) if isinstance(found, Folder) else refuse(errno.ENOTDIR, path)

    @operation
    def private(self, path: str) -> int:
        found = self.disk.walk(path)
        return self._descriptor(found) if isinstance(found, Folder) else refuse(errno.ENOTDIR, path)

    @operation
    def open(self, path: str, flags: int, at: int) -> int:
        parent, name = self._place(path, at)
        if name not in parent.names and flags & os.O_CREAT:
            return self._named(self._descriptor(self.disk.make(File, parent, name), flags), path, at)
        found = entry_of(parent, name)
        if flags & os.O_CREAT and flags & os.O_EXCL:
            refuse(errno.EEXIST, path)
        if isinstance(found, Folder):
            if flags & (os.O_ACCMODE | os.O_CREAT | os.O_TRUNC):
                refuse(errno.EISDIR, path)
        elif flags & os.O_TRUNC:
            self._resize(found, 0)
        return self._named(self._descriptor(found, flags), path, at)

    @operation
    def folder(self, path: str, at: int) -> int:
        return self._descriptor(self._folder(parts_of(path), at))

    @operation
    def close(self, fd: int) -> None:
        self._opened(fd)
        self._close(fd)

    @operation
    def pread(self, fd: int, size: int, offset: int) -> bytes:
        opened = self._opened(fd)
        if opened.flags & os.O_ACCMODE == os.O_WRONLY:
            refuse(errno.EBADF)
        if isinstance(opened.inode, Folder):
            refuse(errno.EISDIR)
        found = bytes(opened.inode.data[offset : offset + size])
        if len(found) > 1 and self.chance(self.disk.faults.short_read):
            found = found[: self.disk.random.randrange(1, len(found))]
        return found

    @operation
    def write(self, fd: int, data: bytes) -> int:
        opened, size = self._opened(fd), len(data)
        file = opened.inode
        if opened.flags & os.O_ACCMODE == os.O_RDONLY or isinstance(file, Folder):
            refuse(errno.EBADF)
        if size == 0:
            return 0
        if size > 1 and self.chance(self.disk.faults.short_write):
            size = self.disk.random.randrange(1, size)
        old = len(file.data)
        start = old if opened.flags & os.O_APPEND else opened.position
        size = min(size, old + self.disk.room_bytes - start)
        if size <= 0:
            refuse(errno.ENOSPC)
        file.put(data[:size], start)
        file.mtime_ns = self.disk.now_ns
        self.disk.used_bytes += len(file.data) - old
        opened.position = start + size
        return size

    @operation
    def truncate(self, fd: int, size: int) -> None:
        opened = self._opened(fd)
        if opened.flags & os.O_ACCMODE == os.O_RDONLY or isinstance(opened.inode, Folder) or size < 0:
            refuse(errno.EINVAL)
        self._resize(opened.inode, size)

    def write_out(self, fd: int) -> None:
        """It may have been written at any time; only fsync says so."""

    @operation
    def fsync(self, fd: int) -> None:
        opened, failed = self._opened(fd), self.chance(self.disk.faults.fsync_error)
        self.disk.sync(opened.inode, failed)
        opened.inode.errors += failed
        if opened.errors != opened.inode.errors:  # each open file hears once of an error, whoever's fsync met it
            opened.errors = opened.inode.errors
            refuse(self.disk.random.choice((errno.EIO, errno.EIO, errno.ENOSPC)))  # NFS tells of no space here

    @operation
    def fstat(self, fd: int) -> Stat:
        return to_stat(self._opened(fd).inode)

    @operation
    def stat(self, path: str, at: int) -> Stat:
        parts = parts_of(path)
        parent = self._folder(parts[:-1], at)
        return to_stat(entry_of(parent, parts[-1]) if parts else parent)

    @operation
    def rename(self, source: str, target: str, at: int) -> None:
        (here, old), (there, new) = self._place(source, at), self._place(target, at)
        moved, victim = entry_of(here, old), there.names.get(checked(new))
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

    @operation
    def unlink(self, path: str, at: int) -> None:
        parent, name = self._place(path, at)
        if isinstance(entry_of(parent, name), Folder):
            refuse(errno.EISDIR, path)
        self.disk.change((parent, name, None))

    @operation
    def mkdirs(self, path: str, at: int) -> None:
        node = self._folder([], at)
        for part in parts_of(path):
            inner = node.names.get(part) or self.disk.make(Folder, node, part)
            node = inner if isinstance(inner, Folder) else refuse(errno.ENOTDIR, path)

    @operation
    def mkdir(self, path: str, at: int) -> None:
        parent, name = self._place(path, at)
        if name in parent.names:
            refuse(errno.EEXIST, path)
        self.disk.make(Folder, parent, name)

    @operation
    def rmdir(self, path: str, at: int) -> None:
        parent, name = self._place(path, at)
        found = entry_of(parent, name)
        if not isinstance(found, Folder):
            refuse(errno.ENOTDIR, path)
        if found.names:
            refuse(errno.ENOTEMPTY, path)
        self.disk.change((parent, name, None))

    @operation
    def listdir(self, path: str, at: int) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(self._folder(parts_of(path), at).names)
        return []

    @operation
    def lock(self, fd: int) -> bool:
        opened = self._opened(fd)
        opened.inode.holder = opened.inode.holder or opened
        return opened.inode.holder is opened

    @operation
    def touch(self, fd: int) -> None:
        self._opened(fd).inode.mtime_ns = self.disk.now_ns

    @operation
    def copy(self, source: int, target: int) -> int:
        data = self._opened(source).inode
        if isinstance(data, Folder):
            refuse(errno.EISDIR)
        write_all(self, target, bytes(data.data))
        return len(data.data)

    # For the disk and for operation

    def alive(self) -> None:
        if self.dead:
            raise Died

    def hook(self, hook: Hook | None, name: str, given: tuple[object, ...]) -> None:
        if hook is not None and self.pid != USER:
            hook(self.pid, name, given)
        self.alive()  # a hook may also have killed the process, or cut the power

    def chance(self, rate: float) -> bool:
        return rate > 0 and self.pid != USER and self.disk.random.random() < rate

    def cut_short(self, name: str, given: tuple[object, ...]) -> None:
        """Do some of the operation in which the process is about to die."""
        disk, (what, where, *_) = self.disk, (*given, None, None)
        hooks, disk.before, disk.after = (disk.before, disk.after), None, None
        with suppress(OSError):
            if name == "write" and isinstance(what, int) and isinstance(where, bytes | bytearray | memoryview):
                self.write(what, where[: disk.random.randint(0, len(where))])
            elif name == "mkdirs" and isinstance(what, str) and isinstance(where, int):
                parts = what.split("/")
                self.mkdirs("/".join(parts[: disk.random.randint(0, len(parts))]), where)
        disk.before, disk.after = hooks

    def close_all(self) -> None:
        for fd in list(self.files):
            self._close(fd)

    # Inside

    def _close(self, fd: int) -> None:
        opened = self.files.pop(fd)
        opened.descriptors -= 1
        if opened.descriptors == 0:
            if opened.inode.holder is opened:
                opened.inode.holder = None
            opened.inode.descriptions -= 1
            self.disk.reclaim(opened.inode)

    def _opened(self, fd: int) -> Open:
        return self.files[fd] if fd in self.files else refuse(errno.EBADF)

    def _folder(self, parts: list[str], at: int) -> Folder:
        node = self._opened(at).inode
        for part in parts:
            node = entry_of(node, part)
        return node if isinstance(node, Folder) else refuse(errno.ENOTDIR)

    def _place(self, path: str, at: int) -> tuple[Folder, str]:
        parts = parts_of(path)
        return (self._folder(parts[:-1], at), parts[-1]) if parts else refuse(errno.EISDIR, path)

    def _descriptor(self, inode: Inode, flags: int = os.O_RDONLY) -> int:
        fd = self.disk.next_fd()
        self.files[fd] = Open(inode, flags)
        inode.descriptions += 1
        return fd

    def _named(self, fd: int, path: str, at: int) -> int:
        self.files[fd].named = (self._opened(at).inode, path)
        return fd

    def _resize(self, file: File, size: int) -> None:
        self.disk.used_bytes += size - len(file.data)
        file.cut(size)
        file.mtime_ns = self.disk.now_ns


def refuse(code: int, path: str | None = None) -> NoReturn:
    raise OSError(code, os.strerror(code), path)


def parts_of(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    escapes = path.startswith("/") or ".." in parts or "\0" in path
    return refuse(errno.EPERM, path) if escapes else parts


def checked(name: str) -> str:
    return name if len(os.fsencode(name)) <= NAME_BYTES_MAX else refuse(errno.ENAMETOOLONG, name)


def entry_of(node: Inode, name: str) -> Inode:
    if not isinstance(node, Folder):
        refuse(errno.ENOTDIR, name)
    return node.names[name] if name in node.names else refuse(errno.ENOENT, checked(name))


def to_stat(inode: Inode) -> Stat:
    size = len(inode.data) if isinstance(inode, File) else 0
    is_dir = isinstance(inode, Folder)
    return Stat(1, inode.number, size, inode.nlink, inode.mtime_ns, is_dir, not is_dir)


def _brief(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)}:{zlib.crc32(value):08x}"
    return f"{value.ino}:{value.size}" if isinstance(value, Stat) else str(value)
