"""Owners: who has a session directory, as the directory itself says (docs/decisions/0025-epochs.md).

An owner's epoch is a folder, ``.dreamlake/epochs/<n>/``, and in it one of the owner's own, ``<nonce>/``, with its beat.
The highest epoch's beat is the last word. ``.dreamlake/owner`` says the same on the owner's own node, keeps saying it
when the directory was let go, and is all that there is of agents before 0.4.
"""

from __future__ import annotations

import errno
import re
from typing import Any

from dreamlake.wire import jsons
from dreamlake.world import processes
from dreamlake.world.disk import Disk, read_file

EPOCHS = ".dreamlake/epochs"
OWNER = ".dreamlake/owner"
BEAT = "beat"
RECORD_BYTES_MAX = 64 << 10
NODE_CHARS = 8  # of an owner's folder: of which node it is
_NAME = re.compile(r"[1-9][0-9]{0,15}\Z")
_LOOKS = 4  # at a file that is replaced while we look
_REPLACED = {errno.ENOENT, errno.ESTALE}


def epoch_path(epoch: int) -> str:
    """The folder whose making was the claim of owner number ``epoch``."""
    return f"{EPOCHS}/{epoch}"


def epochs(disk: Disk, at: int) -> list[int]:
    """The epochs that have a folder, the oldest first. Raises :class:`OSError` when the disk does not say."""
    return sorted(int(name) for name in disk.listdir(EPOCHS, at) if _NAME.match(name))


def epoch_of(record: dict[str, Any] | None) -> int:
    """The epoch that a record says; 0 where it says none."""
    found = (record or {}).get("epoch")
    return found if type(found) is int and 0 < found < 1 << 53 else 0


def read_record(disk: Disk, path: str, at: int) -> dict[str, Any] | None:
    """What an owner says of itself in a file; None when there is none, or it is half written.

    Raises :class:`OSError` when the disk does not say: an owner that cannot be read now is not one that is not there.
    """
    for _ in range(_LOOKS):
        try:
            found = jsons.loads(read_file(disk, path, at, RECORD_BYTES_MAX))
            jsons.dumps(found)  # what it says is said to clients
        except (ValueError, TypeError):
            return None
        except OSError as error:
            if error.errno in _REPLACED:
                continue
            if error.errno in (errno.EIO, errno.ETIMEDOUT, errno.EACCES, errno.EMFILE, errno.ENFILE):
                raise
            return None  # something else stands in its place: a folder, a link, a file that is too large
        return found if isinstance(found, dict) else None
    return None


def beat_path(disk: Disk, at: int, epoch: int) -> str | None:
    """Where the owner of that epoch shows that it lives; None of one that is about to end, or had no epoch."""
    try:
        nonces = disk.listdir(epoch_path(epoch), at)
    except OSError as error:
        if error.errno in (*_REPLACED, errno.ENOTDIR):
            return None
        raise
    return f"{epoch_path(epoch)}/{nonces[0]}/{BEAT}" if nonces else None


def read_beat(disk: Disk, at: int, epoch: int) -> dict[str, Any]:
    """What the owner of that epoch last said of itself. When that cannot be read (power loss took it), only its
    ``node``, which its folder is called by; nothing of one that is about to end."""
    path = beat_path(disk, at, epoch)
    if path is None:
        return {}
    beat = read_record(disk, path, at)
    return {"node": path.split("/")[-2][:NODE_CHARS]} if beat is None else beat


def last_word(disk: Disk, at: int) -> dict[str, Any] | None:
    """What the latest owner of the directory last said of itself, with its ``epoch``; nothing but that when it has said
    nothing yet. None where there was no owner. Raises :class:`OSError` when the disk does not say."""
    record = read_record(disk, OWNER, at)
    highest = max(epochs(disk, at), default=0)
    if highest and highest >= epoch_of(record):
        beat = read_beat(disk, at, highest)
        if record is not None and highest == epoch_of(record) and ("host" not in beat or record.get("released")):
            return record  # it is letting go, or has
        return {**beat, "epoch": highest}
    return record


def owner_of(disk: Disk, at: int) -> dict[str, Any] | None:
    """The agent that owns the directory now, unless it is seen to be gone; else None. One of another node cannot be
    seen."""
    try:
        record = last_word(disk, at)
    except OSError:
        return None
    if record is None or record.get("released") or processes.verdict(record) == processes.GONE:
        return None
    return record


def is_elsewhere(record: dict[str, Any] | None, me: dict[str, Any] | None = None) -> bool:
    """Whether an owner is on another node than this one (or ``me``): what it writes may be seen here late, and the
    other way round."""
    return record is not None and not processes.is_here(record, me)
