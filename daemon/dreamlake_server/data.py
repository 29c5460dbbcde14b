"""Data: the folder of a server, and the lock that keeps a second one out of it.

::

    DATA/                 0700
    ├── server.lock       held (flock) while a server keeps its documents here; the pid is for people
    ├── meta.sqlite       documents and logs, without --mongo; written by the holder of the lock only
    ├── tokens.sqlite     tokens, without --mongo; written by `dreamlake server token`
    ├── blobs/            bytes by SHA-256, without --s3
    └── spool/            bytes on their way; files without names
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from dreamlake_server.settings import CannotStart

LOCK = "server.lock"
META = "meta.sqlite"
TOKENS = "tokens.sqlite"
BLOBS = "blobs"
SPOOL = "spool"

_OURS = {LOCK, META, TOKENS, BLOBS, SPOOL}


def make(folder: Path) -> Path:
    """The folder, made when it is missing, for this user alone. Absolute: a server may not depend on where it was
    started."""
    folder = folder.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            inside = set(os.listdir(folder)) - {"lost+found"}
            if inside and not inside & _OURS:
                # Somebody's home or /tmp, given by mistake, must not be closed to everybody else.
                raise CannotStart(f"{folder} holds other things: give --data a folder for the server alone")
            folder.chmod(0o700)
        (folder / SPOOL).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"cannot make or use the folder {folder}: {error.strerror}; give another --data") from None
    return folder


def existing(folder: Path) -> Path:
    """The folder, which a server or a first token must have made."""
    if not os.path.isfile(folder / TOKENS):
        raise CannotStart(f"no server keeps its data in {folder}: give --data, or --mongo where it runs with that")
    return folder.absolute()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else in this folder. :class:`CannotStart` when somebody is there; the system lets go when we die."""
    path = folder / LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CannotStart(f"cannot make {path}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            raise CannotStart(
                f"a server (pid {holder}) holds {folder}, which one process at a time may write: stop that one, or "
                "give another --data; many servers on one store take --mongo"
            ) from None
        except OSError as error:
            raise CannotStart(f"cannot lock {path}: {error.strerror}; put --data on a local disk") from None
        with contextlib.suppress(OSError):  # a full disk; the number is for people, the lock is what counts
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)
