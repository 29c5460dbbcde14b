"""Fork: a directory that went on from a copy of another one becomes an origin of its own.

What it shares with what the server has of its old origin becomes its base (docs/disk.md §5): that is sent already, and
this directory sends what came after it. The checkpoint's origin is the moment of the change; a death before it leaves
the old identity, after it the new one, and the base is right for both.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from itertools import islice

import dreamlake
from dreamlake.errors import DreamlakeError
from dreamlake.reader.base import BASE, Base, encode_base, read_base
from dreamlake.reader.commits import (
    CHECKPOINT,
    COMMITS,
    ORIGIN,
    Checkpoint,
    encode_checkpoint,
    read_checkpoint,
    read_commits,
)
from dreamlake.remote.follow import Follow, Head, Piece
from dreamlake.remote.lake import Lake
from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.names import DREAMLAKE
from dreamlake.wire.projection import time_of
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK, sync_folder
from dreamlake_agent.remote.source import OtherBytes, Source
from dreamlake_agent.repair import repair
from dreamlake_agent.store.owner import OwnedElsewhere, Owner, acquire, release

Shared = dict[str, tuple[int, Mark]]


class CannotFork(DreamlakeError):
    """The directory keeps its identity; the message says why and what to try."""


def fork(path: str, lake: Lake) -> Base:
    """Make the directory at ``path`` a new origin, which begins where it left the history that the server has; its new
    base. It is recovered first.

    Raises :class:`CannotFork`, :class:`~dreamlake_agent.repair.Refused`, :class:`OSError`, and what ``lake`` raises.
    """
    path = os.path.realpath(path)
    repair(path, lambda _text: None)
    who = {**processes.myself(), "endpoint": None, "version": dreamlake.__version__}
    at = REAL_DISK.root(path)
    try:
        try:
            owner = acquire(REAL_DISK, at, who, secrets.token_hex(8))
        except OwnedElsewhere as error:
            raise CannotFork(
                f"{path} belongs to a live agent (pid {error.record.get('pid')} on {error.record.get('host')}); end "
                "what writes into it, wait until the agent has let it go, and try again"
            ) from None
        try:
            base = _fork(owner, path, lake)
        finally:
            release(owner, who)
    finally:
        REAL_DISK.close(at)
    repair(path, lambda _text: None)  # the views say which session it is
    return base


def _fork(owner: Owner, path: str, lake: Lake) -> Base:
    disk, at = owner.disk, owner.at
    checkpoint = read_checkpoint(disk, at)
    commits = read_commits(disk, at, checkpoint.origin) if checkpoint else None
    if checkpoint is None or (commits is not None and commits.next_seq > checkpoint.seq):
        raise CannotFork(f"{path} was written into meanwhile: try again")
    source = Source(disk, path)
    try:
        before = read_base(disk, at, source.origin)
        shared = _shared(source, Follow(lake, source.workspace, source.name), before)
        origins = {**before.origins, source.origin: _told(source, shared, before)}
    finally:
        source.close()
    after = Base(shared, origins, before.elsewhere)
    _change(owner, checkpoint, before, secrets.token_hex(16), after)
    return after


def _change(owner: Owner, checkpoint: Checkpoint, before: Base, origin: str, after: Base) -> None:
    """The order is docs/disk.md §5's. Without ``origin`` and ``commits.log`` a directory is what its checkpoint says,
    and the next owner makes them again."""
    owner.replace(BASE, encode_base(before, (origin, after)), durable=True)
    for name in (ORIGIN, COMMITS):
        try:
            owner.disk.unlink(name, owner.at)
        except FileNotFoundError:
            pass
    sync_folder(owner.disk, DREAMLAKE, owner.at)
    owner.replace(CHECKPOINT, encode_checkpoint(replace(checkpoint, origin=origin)), durable=True)
    owner.replace(ORIGIN, origin.encode() + b"\n", durable=True)
    owner.replace(BASE, encode_base(after), durable=True)


# ── what is shared ──────────────────────────────────────────────────────────────────────────────────────────────────


def _shared(source: Source, follow: Follow, before: Base) -> Shared:
    """Log → the records that the server has of this origin, as far as they are the directory's own."""
    heads = follow.origins().get(source.origin)
    if heads is None:
        raise CannotFork(
            f"{source.path} is not on the server yet, and has nothing to part from: sync it without --fork"
        )
    found: Shared = {}
    for log in source.ends:
        head, begin = heads.get(log, Head(0, Mark())), before.logs.get(log, (0, Mark()))
        try:
            count, mark = _shared_of(source, follow, log, head, begin)
        except OtherBytes as error:
            raise CannotFork(f"{source.path} is damaged ({error}): see `dreamlake verify {source.path}`") from None
        if count:
            found[log] = (count, mark)
    return found


def _shared_of(source: Source, follow: Follow, log: str, head: Head, begin: tuple[int, Mark]) -> tuple[int, Mark]:
    if source.has(log, head.mark):
        return max((head.count, head.mark), begin, key=lambda each: each[0])
    if head.base > begin[0]:
        raise CannotFork(
            f"{log} of {source.path} begins at another place than on the server: it was pulled from another one"
        )
    count, mark = begin
    last = head.count  # the histories differ before this
    while count < last:
        middle = (count + last) // 2
        piece = next(follow.pieces(source.origin, log, middle, None), None)
        if piece is None or piece.first + piece.count >= last:
            break
        if source.has(log, piece.next, mark):
            count, mark = piece.first + piece.count, piece.next
        else:
            last = piece.first + piece.count
    for piece in follow.pieces(source.origin, log, count, None if count == head.base else mark, last):
        same, mark = _same(source, log, piece, mark)
        count += same
        if same < piece.count:
            break
    return count, mark


def _same(source: Source, log: str, piece: Piece, mark: Mark) -> tuple[int, Mark]:
    """How many records of a piece are those that the log has from ``mark`` on, and the mark behind them."""
    if piece.lines == [b""]:  # set aside by the server; our line counts as it if it has the same mark
        return (1, piece.next) if source.has(log, piece.next, mark) else (0, mark)
    size = sum(map(len, piece.lines)) + piece.count
    ours = source.read(log, mark.size, size).split(b"\n")[:-1]
    same = 0
    for mine, theirs in zip(ours, piece.lines, strict=False):
        if mine != theirs:
            break
        same += 1
    return same, mark.after(b"".join(line + b"\n" for line in ours[:same]))


def _told(source: Source, shared: Shared, before: Base) -> dict[str, tuple[int, str]]:
    """Log → the count, and the latest time in what is shared and was this origin's own."""
    found = {}
    for log, (count, _mark) in shared.items():
        first, begin = before.logs.get(log, (0, Mark()))
        latest = ""
        for line in islice(source.lines(log, begin.size), count - first):
            row = jsons.object_of(line)
            if row is not None:
                latest = max(latest, time_of(row) or "")
        found[log] = (count, latest)
    return found
