"""Effects: everything the core may ask for, one plain sentence each. The loop has one branch for each and decides
nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake_agent.core.events import Key, Peer


@dataclass(frozen=True)
class Send:
    """Say this to that peer."""

    peer: Peer
    message: tuple[Any, ...]


@dataclass(frozen=True)
class OpenDirectory:
    """Own and recover the directory: answers Opened or NotOpened."""

    key: Key
    path: str
    distrust: bool = False


@dataclass(frozen=True)
class TakeOver:
    """Take the directory from an owner that has shown nothing since ``beat``: answers TakenOver."""

    key: Key
    path: str
    beat: tuple[int, int]
    # also where the logs are not what the checkpoint says: they were not for a while, so that it is no cache's fault
    whatever: bool = False


@dataclass(frozen=True)
class Beat:
    """Show other nodes that the directory's owner lives: no answer, or Broke when it is not ours any more."""

    key: Key


@dataclass(frozen=True)
class Apply:
    """Apply a run that a client sent: answers AppliedRun."""

    key: Key
    client: bytes
    data: bytes
    running: int


@dataclass(frozen=True)
class Follow:
    """Apply the next run out of a client's journal file: answers AppliedRun, or Exhausted."""

    key: Key
    client: bytes


@dataclass(frozen=True)
class Commit:
    """Write what was applied, ``upto`` this count: answers Committed, Broke or Vanished."""

    key: Key
    upto: int


@dataclass(frozen=True)
class Settle:
    """Every journal that stood here at the opening has been applied: cut what none brought. Answers Settled."""

    key: Key


@dataclass(frozen=True)
class Say:
    """Put an operation of the agent's own into its journal of this directory and apply it: answers AppliedRun."""

    key: Key
    op: tuple[Any, ...]


@dataclass(frozen=True)
class Scan:
    """Look at the journals in the directory: answers Scanned, or Vanished."""

    key: Key


@dataclass(frozen=True)
class WriteViews:
    """Write stale views, some of them: answers ViewsWritten, and is asked for again until that says done."""

    key: Key


@dataclass(frozen=True)
class Sync:
    """Make what is committed durable, in a worker: answers Synced, Checkpointed where journals cannot be trusted, or
    Broke."""

    key: Key


@dataclass(frozen=True)
class WriteCheckpoint:
    """Make everything durable and write the checkpoint, in a worker: answers Checkpointed or Broke. ``tracks``: the
    views of tracks, too."""

    key: Key
    tracks: bool = False


@dataclass(frozen=True)
class DropJournal:
    """Unlink a covered journal whose writer is gone: answers Dropped, or nothing when it holds more after all."""

    key: Key
    client: bytes


@dataclass(frozen=True)
class Hash:
    """Find a placed file's checksum, in a worker: answers Hashed."""

    key: Key
    file_id: str
    path: str


@dataclass(frozen=True)
class Release:
    """Let the directory go; ``keep``: the next agent still has to look at it."""

    key: Key
    keep: bool = False


@dataclass(frozen=True)
class Upload:
    """Send a lane of a directory, in the uploader's process: answers UploadMeasured, any number of times, and Uploaded.
    ``unless`` is the print of a token that was not let in: with the same one nothing is tried."""

    number: int
    path: str
    url: str
    user: str | None
    lane: str
    unless: str | None = None


@dataclass(frozen=True)
class RestUploader:
    """Nothing is to be sent: end the uploader's process until there is."""


@dataclass(frozen=True)
class DropSuperseded:
    """Every server has the superseded files up to this one."""

    key: Key
    newest: int


@dataclass(frozen=True)
class Forget:
    """A directory that was let go is wholly sent: the next agent need not look at it, unless somebody writes again."""

    path: str
    remotes: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class KeepKey:
    """Keep the key that a script gave for this directory, until it is wholly sent."""

    path: str
    url: str
    user: str | None
    token: str = field(repr=False)


@dataclass(frozen=True)
class Note:
    """Write a line into the agent's log. ``about`` is what somebody would search for: path, client, remote."""

    level: str
    text: str
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Answer a status request: the loop adds what only it knows."""

    peer: Peer
    number: int


@dataclass(frozen=True)
class Exit:
    """Everything is drained: end."""


Effect = (
    Send
    | OpenDirectory
    | TakeOver
    | Beat
    | Apply
    | Follow
    | Commit
    | Settle
    | Say
    | Scan
    | WriteViews
    | Sync
    | WriteCheckpoint
    | DropJournal
    | Hash
    | Release
    | Upload
    | RestUploader
    | DropSuperseded
    | Forget
    | KeepKey
    | Note
    | Report
    | Exit
)

Effects = Iterator[Effect]
