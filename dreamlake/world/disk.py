"""The disk, as the journal, the store and the reader see it.

One flat list of operations, each close to one system call, so that a process can die between any two of them. Paths are
relative to an open folder (``at``) and never leave it: no component may be ``..`` or a symbolic link. The pretend disk
of ``tests/sim`` offers the same operations and is held to the same contract (``tests/world/test_disk.py``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat as _stat
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

READ = os.O_RDONLY
WRITE = os.O_WRONLY
APPEND = os.O_WRONLY | os.O_APPEND
READ_APPEND = os.O_RDWR | os.O_APPEND
CREATE = os.O_CREAT
NEW = os.O_CREAT | os.O_EXCL
EMPTY = os.O_TRUNC

_SYSTEM_NAMESPACE_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_FICLONE = 0x40049409  # linux/fs.h: share the extents of a file (btrfs, xfs, bcachefs)
_COPY_CHUNK_BYTES = 8 << 20
_WRITE_OUT_BYTES = 64 << 10
# On Linux it begins to write what is dirty, and drops from the cache what is not: of the end only, which is the size of
# what a log has grown by.
_WRITE_OUT = os.POSIX_FADV_DONTNEED if sys.platform == "linux" else None


@dataclass(frozen=True)
class Stat:
    """What the project asks of a file: identity, size in bytes, links, mtime in nanoseconds, kind."""

    dev: int
    ino: int
    size: int
    nlink: int
    mtime_ns: int
    is_dir: bool
    is_file: bool


class Disk(Protocol):
    """The operations. All raise :class:`OSError`; ``write`` may be short; ``rename`` replaces."""

    def root(self, path: str) -> int: ...
    def private(self, path: str) -> int: ...
    def open(self, path: str, flags: int, at: int) -> int: ...
    def folder(self, path: str, at: int) -> int: ...
    def close(self, fd: int) -> None: ...
    def pread(self, fd: int, size: int, offset: int) -> bytes: ...
    def write(self, fd: int, data: bytes) -> int: ...
    def truncate(self, fd: int, size: int) -> None: ...
    def write_out(self, fd: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def fstat(self, fd: int) -> Stat: ...
    def stat(self, path: str, at: int) -> Stat: ...
    def rename(self, source: str, target: str, at: int) -> None: ...
    def unlink(self, path: str, at: int) -> None: ...
    def mkdirs(self, path: str, at: int) -> None: ...
    def mkdir(self, path: str, at: int) -> None: ...
    def rmdir(self, path: str, at: int) -> None: ...
    def listdir(self, path: str, at: int) -> list[str]: ...
    def lock(self, fd: int) -> bool: ...
    def touch(self, fd: int) -> None: ...
    def copy(self, source: int, target: int) -> int: ...


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise PermissionError(errno.EPERM, "path leaves its folder", path)
    return parts


def _named(path: str) -> list[str]:
    """The components of a path that must name something below the folder."""
    parts = _parts(path)
    if not parts:
        raise IsADirectoryError(errno.EISDIR, "path is the folder itself", path)
    return parts


class RealDisk:
    """The operating system's file system. Stateless; safe from any thread."""

    close = staticmethod(os.close)
    pread = staticmethod(os.pread)
    write = staticmethod(os.write)
    truncate = staticmethod(os.ftruncate)
    fsync = staticmethod(os.fsync)

    def root(self, path: str) -> int:
        """Open the folder at an absolute path of the outside world, following links in it."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def private(self, path: str) -> int:
        """``root`` of a folder that is ours and that nobody else may enter; :class:`PermissionError` for any other."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SYSTEM_NAMESPACE_FLAGS)
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or _stat.S_IMODE(found.st_mode) & 0o077:
            os.close(fd)
            raise PermissionError(errno.EPERM, "the folder is not ours alone", path)
        return fd

    def _parent(self, parts: list[str], at: int) -> int:
        # One openat per component: the only portable way to refuse a symbolic link in the middle of a path.
        if not parts:
            return os.dup(at)
        fd = _folder(parts[0], at)
        for part in parts[1:]:
            try:
                inner = _folder(part, fd)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def open(self, path: str, flags: int, at: int) -> int:
        parts = _named(path)
        parent = self._parent(parts[:-1], at)
        try:
            # O_NONBLOCK: a FIFO that somebody put where a log belongs must not hang us. No effect on regular files.
            fd = os.open(parts[-1], flags | _SYSTEM_NAMESPACE_FLAGS | os.O_NONBLOCK, 0o666, dir_fd=parent)
        finally:
            os.close(parent)
        mode = os.fstat(fd).st_mode
        if not (_stat.S_ISREG(mode) or _stat.S_ISDIR(mode)):  # a device, too: it may have no end
            os.close(fd)
            raise OSError(errno.EINVAL, "neither a regular file nor a folder", path)
        return fd

    def folder(self, path: str, at: int) -> int:
        """Open a folder below ``at``."""
        return self._parent(_parts(path), at)

    def fstat(self, fd: int) -> Stat:
        return _to_stat(os.fstat(fd))

    def stat(self, path: str, at: int) -> Stat:
        parts = _parts(path)
        parent = self._parent(parts[:-1], at)
        try:
            return _to_stat(os.stat(parts[-1] if parts else ".", dir_fd=parent, follow_symlinks=False))
        finally:
            os.close(parent)

    def rename(self, source: str, target: str, at: int) -> None:
        here, there = _named(source), _named(target)
        source_parent = self._parent(here[:-1], at)
        try:
            target_parent = self._parent(there[:-1], at)
            try:
                os.rename(here[-1], there[-1], src_dir_fd=source_parent, dst_dir_fd=target_parent)
            finally:
                os.close(target_parent)
        finally:
            os.close(source_parent)

    def unlink(self, path: str, at: int) -> None:
        parts = _named(path)
        parent = self._parent(parts[:-1], at)
        try:
            os.unlink(parts[-1], dir_fd=parent)
        finally:
            os.close(parent)

    def mkdirs(self, path: str, at: int) -> None:
        """Make a folder and its parents; a folder that is there already is fine."""
        fd = os.dup(at)
        try:
            for part in _parts(path):
                try:
                    os.mkdir(part, 0o777, dir_fd=fd)
                except FileExistsError:
                    pass
                inner = _folder(part, fd)
                os.close(fd)
                fd = inner
        finally:
            os.close(fd)

    def mkdir(self, path: str, at: int) -> None:
        """Make one folder. Of all who try at once, on whatever machine, one makes it: the others hear
        :class:`FileExistsError`."""
        parts = _named(path)
        parent = self._parent(parts[:-1], at)
        try:
            os.mkdir(parts[-1], 0o777, dir_fd=parent)
        finally:
            os.close(parent)

    def rmdir(self, path: str, at: int) -> None:
        """Remove an empty folder; from here on nothing can be made in it, nor renamed out of it, by whoever has it
        open."""
        parts = _named(path)
        parent = self._parent(parts[:-1], at)
        try:
            os.rmdir(parts[-1], dir_fd=parent)
        finally:
            os.close(parent)

    def listdir(self, path: str, at: int) -> list[str]:
        """Names in a folder, sorted; an absent folder has none."""
        try:
            fd = self.folder(path, at)
        except FileNotFoundError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def lock(self, fd: int) -> bool:
        """Take the exclusive lock of an open file without waiting; False when another open file holds it. A network
        file system may want it open for writing, or have no locks (:func:`try_lock`)."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write_out(self, fd: int) -> None:
        """Begin to write to the disk what the end of an open file has that is not there, and wait for nothing: after it
        comes fsync, which tells of what went wrong. Nothing where the system cannot."""
        if _WRITE_OUT is not None:
            with suppress(OSError):
                os.posix_fadvise(fd, max(0, os.fstat(fd).st_size - _WRITE_OUT_BYTES), 0, _WRITE_OUT)

    def touch(self, fd: int) -> None:
        """Give an open file the present time, by the clock of whoever keeps the disk."""
        os.utime(fd)

    def copy(self, source: int, target: int) -> int:
        """Copy an open file into an empty one, disk to disk; returns the bytes copied."""
        return clone(source, target)


def _folder(name: str, at: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | _SYSTEM_NAMESPACE_FLAGS, dir_fd=at)


def _to_stat(found: os.stat_result) -> Stat:
    return Stat(
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_nlink,
        found.st_mtime_ns,
        _stat.S_ISDIR(found.st_mode),
        _stat.S_ISREG(found.st_mode),
    )


# What a file system answers that has no locks: Lustre without -o flock, some under FUSE, NFS without its lock service.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def try_lock(disk: Disk, fd: int) -> bool | None:
    """:meth:`Disk.lock`, or None where the file system has no locks, so that nobody knows."""
    try:
        return disk.lock(fd)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise


def let_go(disk: Disk, fd: int) -> None:
    """Close a file of which nothing is waited for any more. On a network file system that may fail: it tells of bytes
    that could not be written, as fsync does."""
    try:
        disk.close(fd)
    except OSError:
        pass


def write_all(disk: Disk, fd: int, data: bytes) -> None:
    """Write every byte, going on after short writes; the first error is raised with the file partly written."""
    view = data
    while view:
        written = disk.write(fd, view)
        if written <= 0:
            raise OSError(errno.EIO, "write made no progress")
        view = view[written:]


def replace_file(disk: Disk, path: str, data: bytes, at: int, *, durable: bool, temp: str | None = None) -> None:
    """Put ``data`` at ``path`` in one step: a reader sees the old bytes or the new ones, never a mixture. ``temp``: how
    it is called until then, in place of ``path`` and ``.tmp``.

    temp + write so that a crash leaves the old file; fsync before the rename so that the new name never stands for
    bytes that are not there; fsync of the folder after it so that the name itself survives power loss.
    """
    temp = temp or path + ".tmp"
    fd = disk.open(temp, APPEND | CREATE | EMPTY, at)
    try:
        write_all(disk, fd, data)
        if durable:
            disk.fsync(fd)
    finally:
        disk.close(fd)
    disk.rename(temp, path, at)
    if durable:
        sync_folder(disk, path.rpartition("/")[0], at)


def begin_locked(disk: Disk, path: str, unnamed: str, data: bytes, at: int) -> int:
    """A new file, locked and with ``data`` whole before it has its name, ``unnamed`` until then: whoever sees it sees
    that somebody has it open. The kernel lets go of the lock with the process. Another node may see the name before the
    bytes, and the lock never."""
    fd = disk.open(unnamed, READ_APPEND | CREATE | EMPTY, at)
    try:
        try_lock(disk, fd)
        write_all(disk, fd, data)
        disk.rename(unnamed, path, at)
    except BaseException:
        disk.close(fd)
        raise
    return fd


def sync_folder(disk: Disk, path: str, at: int) -> None:
    """Make the names in a folder survive power loss."""
    fd = disk.folder(path, at)
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)


def read_file(disk: Disk, path: str, at: int, limit: int) -> bytes:
    """A whole small file; :class:`OSError` (EFBIG) when it is larger than ``limit`` bytes."""
    fd = disk.open(path, READ, at)
    try:
        size = disk.fstat(fd).size
        if size > limit:
            raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", path)
        chunks: list[bytes] = []
        offset = 0
        while chunk := disk.pread(fd, 1 << 20, offset):
            chunks.append(chunk)
            offset += len(chunk)
            if offset > limit:
                raise OSError(errno.EFBIG, f"larger than the limit of {limit} bytes", path)
        return b"".join(chunks)
    finally:
        disk.close(fd)


def folders_above(path: str) -> list[str]:
    """Every folder that stands in the name of a file, the innermost first.

    >>> folders_above("files/best/model.pth")
    ['files/best', 'files', '.']
    """
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path or ".")
    return found


def path_of(fd: int) -> str | None:
    """Where an open folder stands now, whoever moved it; None where the system does not say, or it has no name, or none
    that is UTF-8."""
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        path.encode()
        return path if os.path.samestat(os.stat(path), os.fstat(fd)) else None
    except (OSError, UnicodeEncodeError):
        return None


def clone(source: int, target: int) -> int:
    """Copy an open file into an empty one, disk to disk; returns the bytes copied.

    Shares the extents where the file system can (``FICLONE``), else ``copy_file_range`` (no bytes through this
    process), else plain reads and writes in chunks of 8 MiB.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return os.fstat(target).st_size
    except OSError:
        pass
    total = 0
    if hasattr(os, "copy_file_range"):
        try:
            while copied := os.copy_file_range(source, target, 1 << 30, total, total):
                total += copied
            if total:
                return total
        except OSError as error:
            if total or error.errno not in _CANNOT_COPY_RANGE:
                raise
    os.lseek(target, 0, os.SEEK_SET)
    while chunk := os.pread(source, _COPY_CHUNK_BYTES, total):
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        total += len(chunk)
    return total


# What a kernel or file system answers when it cannot copy ranges between these two files at all.
_CANNOT_COPY_RANGE = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}

REAL_DISK = RealDisk()
