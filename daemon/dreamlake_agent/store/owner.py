"""The owner: exactly one agent writes a session directory (docs/decisions/0025-epochs.md).

Who owns it has locked ``.dreamlake/owner`` (flock), and has an epoch: ``.dreamlake/epochs/<n>/``, with a folder of its
own in it, its desk. The lock speaks to this node; the desk to every node that sees the disk. Whatever an owner renames
comes from its desk or goes there first, so that it comes to nothing once somebody has removed the desk.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dreamlake.reader.owners import (
    BEAT,
    EPOCHS,
    OWNER,
    beat_path,
    epoch_of,
    epoch_path,
    epochs,
    last_word,
)
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.superseded import INCOMING, SUPERSEDED
from dreamlake.world import processes
from dreamlake.world.disk import (
    APPEND,
    CREATE,
    READ_APPEND,
    Disk,
    let_go,
    read_file,
    replace_file,
    try_lock,
    write_all,
)

ORIGIN = ".dreamlake/origin"
BEGUN = ".new"  # an epoch that is no claim yet

Beat = tuple[int, int]  # an epoch, and how often its owner has shown that it lives
Verdict = Callable[[dict[str, Any]], str]


class OwnedElsewhere(Exception):
    """Another agent owns the directory; ``record`` is what it says of itself.

    ``may_be_gone``: it is of another node, and its lock is free: when no further beat comes, it is gone. ``age``: how
    many seconds ago the last one came, by the clock of whoever keeps the disk. ``is_owed``: a takeover was begun, and
    has to be done again.
    """

    def __init__(
        self, record: dict[str, Any], *, may_be_gone: bool = False, age: float = 0.0, is_owed: bool = False
    ) -> None:
        super().__init__(f"owned by pid {record.get('pid')} on {record.get('host')}")
        self.record, self.may_be_gone, self.age, self.is_owed = record, may_be_gone, age, is_owed
        endpoint = record.get("endpoint")
        self.endpoint = endpoint if isinstance(endpoint, str) else None

    @property
    def beat(self) -> Beat:
        return beat_of(self.record)

    def is_predecessor_of(self, who: dict[str, Any]) -> bool:
        """Whether it was at our own place before us, and not at a place of the same name that we do not see: another
        machine's, or that of a job with a /tmp of its own."""
        same = self._is_near(who) and self._shares(who, "host", "mnt")
        return same and self.endpoint is not None and self.endpoint == who["endpoint"]

    def endpoint_for(self, who: dict[str, Any]) -> str | None:
        """Where to send a client to; None when it could not go there, or would only come to us again."""
        return self.endpoint if self._is_near(who) and self.endpoint != who["endpoint"] else None

    def reason_for(self, who: dict[str, Any]) -> str:
        """What a client is told."""
        apart = self.endpoint_for(who) is None
        return f"{self}, an agent that cannot be reached from here and reads the journal itself" if apart else str(self)

    def is_far(self, who: dict[str, Any]) -> bool:
        """Whether it is of another node, as far as it says."""
        return not processes.is_here(self.record, who)

    def _is_near(self, who: dict[str, Any]) -> bool:
        return processes.is_here({**who, **self.record}, who) and self._shares(who, "host")

    def _shares(self, who: dict[str, Any], *names: str) -> bool:
        # What one of the two does not say (an agent of 0.3.0, a pretend one) tells nothing.
        return all(None in (self.record.get(name), who.get(name)) or self.record[name] == who[name] for name in names)


def beat_of(record: dict[str, Any]) -> Beat:
    beat = record.get("beat")
    return epoch_of(record), beat if type(beat) is int else 0


@dataclass
class Owner:
    """A directory that is ours until the descriptor is closed, or somebody removes ``desk``.

    ``distrust``: an fsync failed here, and no checkpoint has been written since. It is in the record, because the next
    owner must know: the kernel tells of a failed fsync once, and whoever asks again is told that all is well.
    ``renews``: it takes over from one that may still write, and the logs are still that one's.
    """

    disk: Disk
    at: int
    epoch: int
    desk: str
    fd: int = -1
    distrust: bool = False
    renews: bool = False
    beats: int = 0
    beaten_ns: int = 0  # when that was, by the clock of whoever keeps the disk
    _proofs: int = 0

    def path(self, name: str) -> str:
        """Where something of that name is on its way to its place."""
        return f"{self.desk}/{name.replace('/', '__')[-200:]}"

    def beat(self, who: dict[str, Any]) -> None:
        """Show that we live. Raises :class:`FileNotFoundError` when the directory is not ours any more."""
        self.beats += 1
        beat = f"{self.desk}/{BEAT}"
        replace_file(self.disk, beat, line_of({**self.record(who), "beat": self.beats}), self.at, durable=False)
        self.beaten_ns = self.disk.stat(beat, self.at).mtime_ns

    def record(self, who: dict[str, Any]) -> dict[str, Any]:
        more = {name: True for name in ("distrust", "renews") if getattr(self, name)}
        return {**who, "epoch": self.epoch, **more}

    def prove(self) -> None:
        """Raise :class:`OSError` unless the directory is ours now: what was opened by its name before is what was ours.
        A rename is done where the disk is, whatever this node believes to see."""
        one, other = (f"{self.desk}/proof.{(self._proofs + each) % 2}" for each in (0, 1))
        self.disk.rename(one, other, self.at)
        self._proofs += 1

    def replace(self, path: str, data: bytes, *, durable: bool) -> None:
        """:func:`~dreamlake.world.disk.replace_file`, by way of the desk."""
        replace_file(self.disk, path, data, self.at, durable=durable, temp=f"{self.path(path)}.tmp")


def line_of(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


# ── owning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def acquire(disk: Disk, at: int, who: dict[str, Any], nonce: str, verdict: Verdict = processes.verdict) -> Owner:
    """Own the directory open as ``at``, or raise :class:`OwnedElsewhere`. ``nonce``: digits that nobody else has."""
    disk.mkdirs(JOURNALS, at)
    with _locked(disk, at) as (fd, is_locked):
        record = last_word(disk, at)
        if is_locked is False or (record is not None and not is_free(record, who, verdict, is_locked=is_locked)):
            record = record or {}
            gone = is_locked is True and not processes.is_here(record, who)
            raise OwnedElsewhere(record, may_be_gone=gone, age=_age(disk, at, record, fd) if gone else 0.0)
        if record is not None and record.get("renews") and not record.get("released"):
            raise OwnedElsewhere(record, is_owed=True)
        owner = claim(disk, at, who, nonce, record)
        owner.fd = fd
        owner.distrust = bool((record or {}).get("distrust"))
        try:
            fence(owner)
            write_record(owner, who)
            see_all(disk, JOURNALS, at, nonce)
        except BaseException:
            end(owner)
            raise
        return owner


def try_owner_lock(disk: Disk, at: int) -> bool | None:
    """Whether the owner's lock is free, as far as that can be seen from here; None where there are no locks."""
    try:
        fd = disk.open(OWNER, READ_APPEND, at)
    except FileNotFoundError:
        return True
    try:
        return try_lock(disk, fd)
    finally:
        disk.close(fd)


def _age(disk: Disk, at: int, record: dict[str, Any], fd: int) -> float:
    """How long ago the last beat came, of an owner whose file we have locked."""
    path = beat_path(disk, at, epoch_of(record))
    if path is None:
        return 0.0
    disk.touch(fd)
    return max(0, disk.fstat(fd).mtime_ns - disk.stat(path, at).mtime_ns) / 1e9


def is_free(record: dict[str, Any], who: dict[str, Any], verdict: Verdict, *, is_locked: bool | None) -> bool:
    """Whether nobody owns the directory that was owned as ``record`` says. ``is_locked``: we have its lock now; None
    where there are none."""
    if record.get("released") or not (isinstance(record.get("host"), str) or "node" in record):
        return True  # let go, or about to be: an epoch is never seen without its owner's desk before its end
    if not processes.is_here(record, who):
        return False  # the lock may not reach as far as that
    is_ours = all(record.get(name) == who.get(name) for name in ("pid", "start"))  # what we could not finish
    if record.get("renews") and verdict(record) == processes.ALIVE:
        return is_ours  # a takeover needs no lock
    return is_locked is True or verdict(record) == processes.GONE or (is_locked is None and is_ours)


@contextlib.contextmanager
def _locked(disk: Disk, at: int) -> Iterator[tuple[int, bool | None]]:
    """The owner's file, open, and whether we have its lock. It stays open when all goes well within."""
    while True:
        fd = disk.open(OWNER, READ_APPEND | CREATE, at)
        try:
            is_locked = try_lock(disk, fd)
            # Somebody may have removed the file between our open and our lock: a lock on a file without a name is none.
            try:
                same = disk.stat(OWNER, at).ino == disk.fstat(fd).ino
            except FileNotFoundError:
                same = False
            if same or is_locked is False:
                yield fd, is_locked
                return
            disk.close(fd)
        except BaseException:
            disk.close(fd)
            raise


def claim(
    disk: Disk,
    at: int,
    who: dict[str, Any],
    nonce: str,
    record: dict[str, Any] | None,
    *,
    renews: bool = False,
) -> Owner:
    """Begin the next epoch, or raise :class:`OwnedElsewhere`. It is made whole and then given its name: a folder with
    something in it is replaced by no rename, so that of all who try, on whatever node, one has it."""
    disk.mkdirs(EPOCHS, at)
    nonce = processes.node(who) + nonce
    if max(epochs(disk, at), default=0) > epoch_of(record):  # somebody has claimed it since we looked
        raise OwnedElsewhere(last_word(disk, at) or {})
    number = 1 + epoch_of(record)
    begun = f"{EPOCHS}/{nonce}{BEGUN}"
    owner = Owner(disk, at, number, f"{begun}/{nonce}", renews=renews)
    disk.mkdirs(owner.desk, at)
    try:
        owner.beat(who)
        disk.close(disk.open(f"{owner.desk}/proof.0", APPEND | CREATE, at))
        disk.rename(begun, epoch_path(number), at)
    except OSError as error:
        with contextlib.suppress(OSError):
            remove_epoch(disk, at, begun)
        # It is there already; or whoever has won has cleared ours away.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise OwnedElsewhere(last_word(disk, at) or {}) from None
        raise
    owner.desk = f"{epoch_path(number)}/{nonce}"
    if max(epochs(disk, at), default=0) > number:  # what we saw before was not all that there was
        end(owner)
        raise OwnedElsewhere(last_word(disk, at) or {})
    return owner


def see_all(disk: Disk, folder: str, at: int, nonce: str) -> None:
    """Change a folder, so that what this node believes to be in it is not what it saw a while ago."""
    disk.mkdir(f"{folder}/{nonce}", at)
    disk.rmdir(f"{folder}/{nonce}", at)


def write_record(owner: Owner, who: dict[str, Any], *, released: bool = False) -> None:
    """Say in the owner's file who owns the directory."""
    record = owner.record(who)
    if released:
        record["released"] = True
    owner.disk.truncate(owner.fd, 0)
    write_all(owner.disk, owner.fd, line_of(record))


def tell(owner: Owner, who: dict[str, Any]) -> None:
    """What is said of the owner has changed."""
    write_record(owner, who)
    owner.beat(who)


def release(owner: Owner, who: dict[str, Any]) -> None:
    """Let the directory go: the record says so, then the epoch ends, then the lock is free."""
    try:
        write_record(owner, who, released=True)
        end(owner)
    except OSError:
        pass  # a full disk; a reader then asks whether our process lives
    finally:
        let_go(owner.disk, owner.fd)


# ── ending epochs ───────────────────────────────────────────────────────────────────────────────────────────────────

_ROUNDS = 100  # with an owner that makes files as quickly as they are removed


def end(owner: Owner) -> None:
    """Remove our own epoch."""
    with contextlib.suppress(FileNotFoundError):
        remove_epoch(owner.disk, owner.at, epoch_path(owner.epoch), only=owner.desk.rpartition("/")[2])


def fence(owner: Owner) -> None:
    """End every epoch before ours, so that no rename of theirs comes to anything any more. Raises :class:`OSError`."""
    disk, at = owner.disk, owner.at
    for number in epochs(disk, at):
        if number < owner.epoch:
            remove_epoch(disk, at, epoch_path(number))
    for name in disk.listdir(EPOCHS, at):
        if name.endswith(BEGUN):  # of one that died, or that has lost against us and will see it
            remove_epoch(disk, at, f"{EPOCHS}/{name}")


def remove_epoch(disk: Disk, at: int, path: str, *, only: str | None = None) -> None:
    """Remove an epoch's folder (or, in it, ``only`` that desk and then the folder), and bring back what was on its way.
    Its owner may live, and go on making files in it until its desk is gone."""
    for _ in range(_ROUNDS):
        try:
            for nonce in disk.listdir(path, at):
                if only is None or nonce == only:
                    _remove_desk(disk, at, f"{path}/{nonce}")
            disk.rmdir(path, at)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise OSError(errno.EBUSY, "an owner's folder fills as quickly as it is emptied", path)


def _remove_desk(disk: Disk, at: int, desk: str) -> None:
    for name in disk.listdir(desk, at):
        with contextlib.suppress(FileNotFoundError):
            folder = home_of(name)
            if folder is None:
                disk.unlink(f"{desk}/{name}", at)
                continue
            try:
                disk.rename(f"{desk}/{name}", f"{folder}/{name}", at)
            except FileNotFoundError:
                disk.mkdirs(folder, at)
                disk.rename(f"{desk}/{name}", f"{folder}/{name}", at)
    with contextlib.suppress(FileNotFoundError):
        disk.rmdir(desk, at)


def home_of(name: str) -> str | None:
    """Where a file belongs that was on its way when its owner's epoch ended; None for what nobody needs any more."""
    if name.endswith(".tmp") or name == BEAT or name.startswith("proof."):
        return None
    first = name.partition("-")[0]
    if len(first) == 32 and all(character in "0123456789abcdef" for character in first):
        return INCOMING
    return SUPERSEDED if first.isdecimal() else None


def origin_of(owner: Owner, fresh: str) -> str:
    """The directory's identity: made once, by its first owner, and never again."""
    try:
        found = read_file(owner.disk, ORIGIN, owner.at, 4096).decode("ascii", "replace").strip()
        if len(found) == 32 and all(character in "0123456789abcdef" for character in found):
            return found
    except FileNotFoundError:
        pass
    owner.replace(ORIGIN, fresh.encode() + b"\n", durable=True)
    return fresh
