"""The owner: exactly one agent writes a session directory.

``.dreamlake/owner`` is locked (flock) by the agent that owns the directory for as long as it does, and says who that
is. Before the lock is held nothing is cut, written or renamed. A record without a lock is history.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dreamlake.wire import jsons
from dreamlake.world.disk import CREATE, READ_APPEND, Disk, read_file, replace_file, write_all

OWNER = ".dreamlake/owner"
ORIGIN = ".dreamlake/origin"
_RECORD_BYTES_MAX = 64 << 10


class OwnedElsewhere(Exception):
    """Another agent owns the directory; ``record`` is what it says of itself."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(f"owned by pid {record.get('pid')} on {record.get('host')}")
        self.record = record
        endpoint = record.get("endpoint")
        self.endpoint = endpoint if isinstance(endpoint, str) else None

    def is_predecessor_of(self, who: dict[str, Any]) -> bool:
        """Whether it was at our own place before us, and not at a place of the same name that we do not see: another
        machine's, or that of a job with a /tmp of its own."""
        return self.endpoint is not None and self.endpoint == who["endpoint"] and self._shares(who, "host", "mnt")

    def endpoint_for(self, who: dict[str, Any]) -> str | None:
        """Where to send a client to; None when it could not go there, or would only come to us again."""
        return self.endpoint if self._shares(who, "host") and self.endpoint != who["endpoint"] else None

    def reason_for(self, who: dict[str, Any]) -> str:
        """What a client is told."""
        apart = self.endpoint_for(who) is None
        return f"{self}, an agent that cannot be reached from here and reads the journal itself" if apart else str(self)

    def _shares(self, who: dict[str, Any], *names: str) -> bool:
        # What one of the two does not say (an agent of 0.3.0, a pretend one) tells nothing.
        return all(None in (self.record.get(name), who.get(name)) or self.record[name] == who[name] for name in names)


@dataclass
class Owner:
    """A directory that is ours until the descriptor is closed.

    ``distrust``: an fsync failed here, and no checkpoint has been written since. It is in the record, because the next
    owner must know: the kernel tells of a failed fsync once, and whoever asks again is told that all is well.
    """

    fd: int
    epoch: int
    distrust: bool = False


def acquire(disk: Disk, at: int, who: dict[str, Any]) -> Owner:
    """Own the directory open as ``at``, or raise :class:`OwnedElsewhere`."""
    disk.mkdirs(".dreamlake/journals", at)
    while True:
        fd = disk.open(OWNER, READ_APPEND | CREATE, at)
        try:
            if not disk.lock(fd):
                raise OwnedElsewhere(read_record(disk, at) or {})
            # Somebody may have removed the file between our open and our lock: a lock on a file without a name is none.
            try:
                same = disk.stat(OWNER, at).ino == disk.fstat(fd).ino
            except FileNotFoundError:
                same = False
            if not same:
                disk.close(fd)
                continue
            before = read_record(disk, at) or {}
            epoch = before.get("epoch")
            owner = Owner(fd, (epoch if type(epoch) is int else 0) + 1, bool(before.get("distrust")))
            write_record(disk, owner, who)
            return owner
        except BaseException:
            disk.close(fd)
            raise


def write_record(disk: Disk, owner: Owner, who: dict[str, Any], *, released: bool = False) -> None:
    """Say in the directory who owns it."""
    record = {**who, "epoch": owner.epoch}
    if owner.distrust:
        record["distrust"] = True
    if released:
        record["released"] = True
    disk.truncate(owner.fd, 0)
    write_all(disk, owner.fd, json.dumps(record).encode() + b"\n")


def release(disk: Disk, owner: Owner, who: dict[str, Any]) -> None:
    """Let the directory go: the record says so, then the lock is free."""
    try:
        write_record(disk, owner, who, released=True)
    except OSError:
        pass  # a full disk; a reader then asks whether our process lives
    finally:
        disk.close(owner.fd)


def read_record(disk: Disk, at: int) -> dict[str, Any] | None:
    """What the owner's file says; None when there is none, or it is half written."""
    try:
        found = jsons.loads(read_file(disk, OWNER, at, _RECORD_BYTES_MAX))
        jsons.dumps(found)  # what it says is said to clients
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def origin_of(disk: Disk, at: int, fresh: str) -> str:
    """The directory's identity: made once, by its first owner, and never again."""
    try:
        found = read_file(disk, ORIGIN, at, 4096).decode("ascii", "replace").strip()
        if len(found) == 32 and all(character in "0123456789abcdef" for character in found):
            return found
    except FileNotFoundError:
        pass
    replace_file(disk, ORIGIN, fresh.encode() + b"\n", at, durable=True)
    return fresh
