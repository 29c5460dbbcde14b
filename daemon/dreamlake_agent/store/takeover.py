"""Takeover: a directory whose owner may still write is made another agent's (docs/decisions/0025-epochs.md).

That owner cannot be stopped: it may be paused on another node, and go on in an hour. So what it has open must not be
what the directory's names lead to. In this order: an epoch of our own; the end of all before it, so that none of their
renames comes to anything; copies of the logs and of ``commits.log`` in the place of those that they have open; another
file to lock. Whoever opens the directory next recovers it as after any death.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from typing import Any

from dreamlake.reader.baseline import track_names
from dreamlake.reader.commits import COMMITS, LogMark, read_checkpoint
from dreamlake.reader.owners import OWNER, last_word
from dreamlake.reader.segments import JOURNALS
from dreamlake.wire import codec
from dreamlake.wire.state import HISTORIES, LOGS_LOG, data_log
from dreamlake.world.disk import (
    NEW,
    READ,
    READ_APPEND,
    Disk,
    begin_locked,
    folders_above,
    sync_folder,
)
from dreamlake_agent.store.owner import (
    Beat,
    OwnedElsewhere,
    Owner,
    beat_of,
    claim,
    fence,
    line_of,
    release,
    see_all,
    try_owner_lock,
)
from dreamlake_agent.store.rows import checksum


class NotYet(OSError):
    """This node does not see yet all that the checkpoint stands for: its caches are older."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EAGAIN, "not all that the checkpoint stands for can be seen here yet", path)


def take_over(
    disk: Disk,
    path: str,
    who: dict[str, Any],
    nonce: str,
    *,
    seen: Beat | None = None,
    say: Callable[[int], None] = lambda _bytes: None,
    whatever: bool = False,
) -> int:
    """Make the session directory at ``path`` nobody's, whoever owns it; returns the epoch in which that was done.

    ``seen``: only if its lock is free and its owner has not shown that it lives since this beat; else
    :class:`~dreamlake_agent.store.owner.OwnedElsewhere`. ``say`` hears how many bytes were copied, piece by piece.
    ``whatever``: also when logs are not what the checkpoint says, as somebody may have edited them. Raises
    :class:`NotYet` when that is so, and :class:`OSError`; whoever tries again begins anew.
    """
    at = disk.root(path)
    try:
        record = last_word(disk, at) or {}
        is_other = beat_of(record) != seen or record.get("released")
        if seen is not None and (is_other or try_owner_lock(disk, at) is not True):
            raise OwnedElsewhere(record)
        owner = claim(disk, at, who, nonce, record, renews=True)
        owner.distrust = bool(record.get("distrust"))
        fence(owner)
        see_all(disk, JOURNALS, at, nonce)
        renew(owner, who, nonce, say, whatever=whatever)
        owner.renews = False
        owner.fd = begin_locked(disk, OWNER, owner.path(f"{OWNER}.tmp"), line_of(owner.record(who)), at)
        sync_folder(disk, ".dreamlake", at)
        release(owner, who)
        return owner.epoch
    finally:
        disk.close(at)


def renew(
    owner: Owner,
    who: dict[str, Any],
    nonce: str,
    say: Callable[[int], None],
    *,
    whatever: bool,
) -> None:
    """Put a copy in the place of every file that an owner appends to."""
    disk, at = owner.disk, owner.at
    try:
        checkpoint = read_checkpoint(disk, at)
    except codec.Damaged:
        checkpoint = None
    marks = checkpoint.logs if checkpoint else {}
    folders = set[str]()
    for folder in (".dreamlake", "logs", "tracks"):
        with contextlib.suppress(FileNotFoundError):
            see_all(disk, folder, at, nonce)
    for log in dict.fromkeys([*appended(disk, at), *marks]):
        if _copy(owner, log, None if whatever else marks.get(log), say):
            folders.update(folders_above(log))
            owner.beat(who)
    for folder in sorted(folders):
        sync_folder(disk, folder, at)


def appended(disk: Disk, at: int) -> Iterator[str]:
    """Every file that an owner appends to; some may not be there."""
    yield from (*HISTORIES, LOGS_LOG, COMMITS)
    yield from map(data_log, track_names(disk, at))


def _copy(owner: Owner, log: str, mark: LogMark | None, say: Callable[[int], None]) -> bool:
    """Whether there was something to copy, all that ``mark`` stands for. Raises :class:`NotYet`."""
    disk, at = owner.disk, owner.at
    try:
        source = disk.open(log, READ, at)
    except (FileNotFoundError, NotADirectoryError):
        if mark is not None and mark.size:
            raise NotYet(log) from None
        return False
    temp = f"{owner.path(log)}.tmp"
    try:
        target = disk.open(temp, READ_APPEND | NEW, at)
        try:
            disk.copy(source, target)
            if mark is not None and checksum(disk, target, mark.size, say) != (mark.crc, mark.size):
                raise NotYet(log)
            disk.fsync(target)
        finally:
            disk.close(target)
    finally:
        disk.close(source)
    disk.rename(temp, log, at)
    return True
