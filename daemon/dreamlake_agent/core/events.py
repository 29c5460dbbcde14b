"""Events: everything the core is told, one plain sentence each. A ``key`` is (st_dev, st_ino) of a session
directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire.remotes import Remote

Key = tuple[int, int]
Peer = bytes


@dataclass(frozen=True)
class Heard:
    """A client said something that is a message of ours."""

    peer: Peer
    message: tuple[Any, ...]
    body: bytes = b""


@dataclass(frozen=True)
class Remembered:
    """The registry names this directory: an agent or a client left something in it."""

    key: Key
    path: str


@dataclass(frozen=True)
class JournalSeen:
    """A journal stands in the directory; ``lives``: its writer does; ``locked``: somebody has it open; ``spooled``: on
    this node's disk. ``position``: where its stream was applied to, the running checksum there, how far it is covered.
    ``sign``: what changes while a client of another node lives, which only its lock and this can tell; None for one of
    this node. ``age``: for how many seconds it has been the same, by the clock of whoever keeps the disk.
    """

    client: bytes
    end: int
    lives: bool
    finished: bool = False
    locked: bool = True
    spooled: bool = False
    position: tuple[int, int, int] | None = None
    sign: tuple[int, int] | None = None
    age: float = 0.0


@dataclass(frozen=True)
class Opened:
    """We own the directory, and it is where its commits say; these journals may hold more."""

    key: Key
    origin: str
    positions: dict[bytes, tuple[int, int]]
    covered: dict[bytes, int]
    journals: list[JournalSeen]
    states: dict[bytes, str]  # of the clients' sessions: running, or how they ended
    # clients that the history calls running, and of whom not even a journal is left
    vanished: tuple[bytes, ...] = ()
    remotes: tuple[Remote, ...] = ()


@dataclass(frozen=True)
class NotOpened:
    """The directory cannot be ours now: ``owned`` elsewhere (with its endpoint), ``unseen``, ``damaged``, or in
    ``trouble``. ``beat``: what its owner on another node has shown last, ``age``: how many seconds ago, and
    ``locked``, whether that one's lock is held, as far as can be seen. ``owed``: a takeover was begun, and nobody goes
    on with it."""

    key: Key
    why: str
    reason: str
    endpoint: str | None = None
    beat: tuple[int, int] | None = None
    locked: bool = True
    owed: bool = False
    age: float = 0.0


@dataclass(frozen=True)
class TakenOver:
    """The directory is nobody's now, or cannot be taken over for this reason."""

    key: Key
    trouble: str | None = None
    # the logs are not what the checkpoint says, yet or ever
    behind: bool = False


@dataclass(frozen=True)
class AppliedRun:
    """A run was applied in memory; not yet on disk."""

    key: Key
    client: bytes
    end: int
    running: int
    points: int
    placed: dict[str, list[list[int]]]
    refused: dict[int, str]
    # the client's session state after it: running, or how it ended
    state: str | None
    # out of the agent's own journal
    own: bool = False
    # where the session is meant to go
    remotes: tuple[Remote, ...] = ()
    operations: int = 1


@dataclass(frozen=True)
class Committed:
    """Every run applied ``upto`` that count is on disk and in ``commits.log``; ``runs`` of them with this commit."""

    key: Key
    upto: int
    runs: int = 1
    unhashed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Settled:
    """What stood in the logs and places beyond every journal is put right; ``unhashed``: (id, path) of files."""

    key: Key
    unhashed: list[tuple[str, str]]


@dataclass(frozen=True)
class Exhausted:
    """The client's journal holds no further whole record now."""

    key: Key
    client: bytes


@dataclass(frozen=True)
class Scanned:
    """What journals stand in the directory now."""

    key: Key
    journals: list[JournalSeen]


@dataclass(frozen=True)
class Dropped:
    """That client's journal was unlinked: it held nothing more."""

    key: Key
    client: bytes


@dataclass(frozen=True)
class ViewsWritten:
    """``done``: of those that were stale when this began, none is left."""

    key: Key
    done: bool = True


@dataclass(frozen=True)
class Synced:
    """What was committed when the sync was asked for survives power loss."""

    key: Key


@dataclass(frozen=True)
class Checkpointed:
    """A checkpoint covers every client up to these positions, the superseded files up to ``kept``, and in all logs
    together ``total`` rows and bytes."""

    key: Key
    covered: dict[bytes, int]
    kept: int = 0
    total: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Broke:
    """The directory failed us (disk full, an error, a failed fsync): what is in memory no longer follows from the
    disk."""

    key: Key
    reason: str
    distrust: bool = False


@dataclass(frozen=True)
class Vanished:
    """A person removed the directory."""

    key: Key


@dataclass(frozen=True)
class Hashed:
    """The checksum of a placed file is known; None when it could not be read."""

    key: Key
    file_id: str
    checksum: str | None


@dataclass(frozen=True)
class UploadMeasured:
    """How many records (or files) and bytes of a lane a server lacks, as far as is known."""

    number: int
    behind: tuple[int, int]


@dataclass(frozen=True)
class Uploaded:
    """An upload has ended, in one of the ways of :mod:`dreamlake_agent.core.uploads`. ``token`` is the print of the one
    that was used; ``answered``: the server did, meanwhile; ``chance`` is in [0, 1); ``restored``: it was, from a
    backup, and may lack files that it had."""

    number: int
    ended: str
    text: str = ""
    problems: tuple[str, ...] = ()
    retry_after: float = 0.0
    token: str | None = None
    answered: bool = False
    chance: float = 1.0
    restored: bool = False


@dataclass(frozen=True)
class Disk:
    """A file system on which something of ours is, at ``path`` for one. ``inodes_total`` is 0 where it counts none."""

    device: int
    path: str
    bytes_free: int
    bytes_total: int
    inodes_free: int = 0
    inodes_total: int = 0


@dataclass(frozen=True)
class Gauged:
    """What the disks had when they were last looked at."""

    disks: tuple[Disk, ...]


@dataclass(frozen=True)
class Turned:
    """Every message that had come was heard: what was applied may be committed as one, and journals be read on."""


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


Event = (
    Heard
    | Remembered
    | Opened
    | NotOpened
    | TakenOver
    | AppliedRun
    | Committed
    | Settled
    | Exhausted
    | Scanned
    | Dropped
    | ViewsWritten
    | Synced
    | Checkpointed
    | Broke
    | Vanished
    | Hashed
    | UploadMeasured
    | Uploaded
    | Gauged
    | Turned
    | Tick
)
