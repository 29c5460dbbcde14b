"""Durable: files and names of a directory that are to outlive a loss of power."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from dreamlake.world.disk import READ, Disk

AT_ONCE = 64  # files; a worker has so many descriptors


def sync_files(disk: Disk, paths: Iterable[str], at: int) -> None:
    """Make the bytes of files last; one that is not there is passed over.

    Some at a time are begun before the first of them is waited for: a file system with a journal then commits for all
    of these at once, and not for each (docs/decisions/0027-what-made-it-faster.md).
    """
    rest = iter(paths)
    while some := list(islice(rest, AT_ONCE)):
        fds: list[int] = []
        try:
            for path in some:
                try:
                    fds.append(disk.open(path, READ, at))
                except FileNotFoundError:
                    pass
            for fd in fds if len(fds) > 1 else ():
                disk.write_out(fd)
            for fd in fds:
                disk.fsync(fd)
        finally:
            for fd in fds:
                disk.close(fd)


def sync_file(disk: Disk, path: str, at: int) -> None:
    """Make the bytes of a file last. Raises :class:`FileNotFoundError`."""
    _sync(disk, disk.open(path, READ, at))


def sync_names(disk: Disk, path: str) -> None:
    """A directory by its name: the session's in the workspace's, that in the root, the root in what it is in. A client
    may have made any of them."""
    for _ in range(3):
        path = path.rpartition("/")[0]
        try:
            folder = disk.root(path or "/")
        except (PermissionError, FileNotFoundError):
            continue  # not ours to read, so not made by us; or moved away
        _sync(disk, folder)


def _sync(disk: Disk, fd: int) -> None:
    try:
        disk.fsync(fd)
    finally:
        disk.close(fd)
