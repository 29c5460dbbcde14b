"""One session directory, as the core sees it: who writes to it, how far each has come, what is owed to whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire import codec, ops
from dreamlake.wire.capabilities import Said
from dreamlake.wire.remotes import Remote
from dreamlake_agent.core.events import Key, Peer

OPENING = "opening"  # asked the store to own and recover it
RECOVERING = "recovering"  # ours; the journals that stood there are being applied
LIVE = "live"
STALLED = "stalled"  # in trouble; to be opened again


@dataclass
class Client:
    """A journal's author, connected or not."""

    id: bytes
    peer: Peer | None = None
    heard: float = -1e9
    applied: int = 0
    running: int = 0
    covered: int = 0
    state: str | None = None  # of its session: running, or how it ended; None before its first operation
    lives: bool = True
    locked: bool = True  # somebody has its journal open
    stands: bool = False  # its journal was seen in the directory
    spooled: bool = False  # or on this node's disk
    foreign: bool = False  # its writer is on another node: nothing is heard of it but what its journal shows
    seen_end: int = 0  # how far its journal file goes, when last looked at
    exhausted_end: int = -1  # what seen_end was when its file held no further whole record
    said_killed: bool = False
    refused: int = 0
    lost: int = 0  # calls its journal could not take
    owed_ack: bool = False
    said: Said | None = None  # what it can and its version, when it has said hello
    # what the next ack tells: index ranges of receipts, refusals
    placed: dict[str, list[list[int]]] = field(default_factory=dict)
    refusals: list[tuple[int, str]] = field(default_factory=list)

    @property
    def drained(self) -> bool:
        return self.applied >= self.seen_end or self.exhausted_end == self.seen_end

    @property
    def is_left(self) -> bool:
        """Whether its journal stays where it is, and nobody waits for it: its node is gone, or does not see it any
        more. A later owner finds it where it stands."""
        is_over = self.drained and self.state != ops.RUNNING and self.covered >= self.applied
        return self.foreign and not self.lives and is_over


@dataclass
class Flush:
    """A client waits until its stream up to ``end`` is committed and shown, and perhaps durable or hashed."""

    client: bytes
    number: int
    end: int
    durable: bool
    hashed: bool
    need: int | None = None  # the commit that must be shown


@dataclass
class Syncing:
    """A client waits until its stream up to ``end`` is on every server of the session."""

    client: bytes
    number: int
    end: int
    need: int | None = None  # the commit that a checkpoint must cover
    owed: dict[Remote, int] | None = None  # and what must be sent then


@dataclass
class Hashing:
    """A file whose checksum is being computed; or, when the disk would not read it, will be once more at ``again``."""

    path: str
    tries: int = 1
    again: float | None = None


@dataclass
class Session:
    """One directory. Commits are counted; what is shown, durable or covered is a count of commits."""

    key: Key
    path: str
    phase: str = OPENING
    origin: str = ""
    clients: dict[bytes, Client] = field(default_factory=dict)
    # journals still to be applied before anybody is welcome
    recovery: list[bytes] = field(default_factory=list)
    following: set[bytes] = field(default_factory=set)
    # clients of whom nothing is left, to be said killed
    vanished: tuple[bytes, ...] = ()
    # clients not welcomed before the dead have been heard out: a run that is resumed comes after the run that was
    # killed
    held: set[bytes] = field(default_factory=set)
    flushes: list[Flush] = field(default_factory=list)
    syncs: list[Syncing] = field(default_factory=list)
    remotes: tuple[Remote, ...] = ()
    superseded: int = 0  # up to this one they were dropped
    hashing: dict[str, Hashing] = field(default_factory=dict)
    # checksums known, on their way into a commit
    landing: set[str] = field(default_factory=set)
    # how often something was put into memory, and how often of these a commit has put it on disk
    applies: int = 0
    committed_applies: int = 0
    commits: int = 0
    viewed: int = 0
    synced: int = 0
    covered: int = 0
    working: int | None = None  # the commit that the sync or checkpoint now running will settle
    bytes_since_checkpoint: int = 0
    lost: int = 0
    points: int = 0
    operations: int = 0
    committed_at: float = 0.0
    viewed_at: float = 0.0
    owes_views: bool = False  # the last checkpoint left out the views of tracks
    viewing: int | None = None  # the commit that the views now being written will show
    views_begun: float = 0.0
    views_rest: float = 0.0  # seconds before they are written again, because they took long
    rests_until: float = 0.0  # nothing is due in it before that, unless something comes
    synced_at: float = 0.0
    covered_at: float = 0.0
    scanned_at: float = 0.0
    beat_at: float = 0.0
    behind_since: float | None = None  # a takeover waits until this node sees what its checkpoint stands for
    retry_at: float = 0.0
    retry_wait: float = 0.0
    distrust: bool = False
    trouble: str | None = None
    stopping: bool = False

    def client(self, client: bytes) -> Client:
        found = self.clients.get(client)
        if found is None:
            found = self.clients[client] = Client(client, running=codec.seed(client))
        return found

    def reads(self, client: bytes) -> bool:
        """Whether that client's journal is being read from its file."""
        if self.phase == RECOVERING:
            return client in self.recovery[:1]
        return self.phase == LIVE and client in self.following

    @property
    def uncommitted(self) -> bool:
        return self.applies > self.committed_applies

    @property
    def is_covered(self) -> bool:
        """Whether a checkpoint stands for everything that was committed, and every view is durable."""
        return self.covered == self.commits and not self.owes_views

    @property
    def is_owing(self) -> bool:
        """Whether something is due as soon as its time has come."""
        return self.uncommitted or not self.is_covered or self.viewed < self.commits or bool(self.hashing)

    @property
    def has_foreign(self) -> bool:
        """Whether a client on another node, of which nothing is heard, waits for its journal to be read."""
        return any(client.foreign for client in self.clients.values())

    @property
    def spooled(self) -> bool:
        """Whether a journal is on this node's disk, so that only what a checkpoint covers would outlive that."""
        return any(client.spooled for client in self.clients.values())

    @property
    def target(self) -> int:
        """The commit that will hold everything applied by now."""
        return self.commits + 1 if self.uncommitted else self.commits

    def queue_bytes(self) -> int:
        """Journal bytes known of and not applied."""
        return sum(max(0, each.seen_end - each.applied) for each in self.clients.values())

    def versions(self) -> list[dict[str, Any]]:
        """Of those who are connected: how many are of which version, and what they can."""
        found = Counter(each.said for each in self.clients.values() if each.peer is not None and each.said is not None)
        return [
            {"version": said.version, "can": None if said.can is None else list(said.can), "clients": count}
            for said, count in sorted(found.items(), key=lambda each: (each[0].version or "", each[0].can or ()))
        ]

    def describe(self) -> dict[str, Any]:
        """For status."""
        return {
            "path": self.path,
            "phase": self.phase,
            "clients": len([each for each in self.clients.values() if each.state == "running"]),
            "queue_bytes": self.queue_bytes(),
            "operations": self.operations,
            "points": self.points,
            "refused": sum(each.refused for each in self.clients.values()),
            "lost": self.lost,
            "uncovered_commits": self.commits - self.covered,
            "trouble": self.trouble,
            "versions": self.versions(),
        }
