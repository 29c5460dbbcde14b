"""Commits and the checkpoint: in which order journals were applied, and up to where that is settled.

``commits.log`` is a stream of records. The first is its header, ``{v, seq, clients, rules}``: the number of the first
commit that follows, the position of every client before it, and the rules by which the commits were applied
(:data:`dreamlake.wire.applied.RULES`; 1 where it does not say). Each further record is a commit, ``[seq, runs]``; a run
is ``[client, from, to, running, refused]``: the bytes of that client's stream, its running checksum after them, and
the places (counted in operations) of those that were refused.

``checkpoint`` is one record, ``{v, seq, origin, logs, clients, views}``: the size, checksum and row counts of every
log, and every client's position, just before commit ``seq``. Everything it covers has been fsynced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire import codec
from dreamlake.wire.applied import RULES
from dreamlake.wire.state import Tail
from dreamlake.world.disk import READ, Disk, read_file

COMMITS = ".dreamlake/commits.log"
CHECKPOINT = ".dreamlake/checkpoint"
ORIGIN = ".dreamlake/origin"
VERSION = 1

_CHECKPOINT_SEED = codec.seed(b"dreamlake checkpoint")
# A commit is about 60 bytes a run; the agent starts a new file at every checkpoint.
COMMITS_BYTES_MAX = 256 << 20

# Beyond this a number is no place in a file: what is added to it must still be one that a system call takes.
NUMBER_MAX = 1 << 62

Positions = dict[bytes, tuple[int, int]]


@dataclass(frozen=True)
class Run:
    client: bytes
    start: int
    end: int
    running: int
    refused: tuple[int, ...] = ()


@dataclass(frozen=True)
class Commit:
    seq: int
    runs: tuple[Run, ...]


@dataclass
class LogMark:
    """One log at a checkpoint: its size in bytes, the CRC-32 of them, and its tail."""

    size: int
    crc: int
    tail: Tail


@dataclass
class Checkpoint:
    seq: int
    origin: str
    logs: dict[str, LogMark] = field(default_factory=dict)
    clients: Positions = field(default_factory=dict)
    # the CRC-32 of every view as it was last written
    views: dict[str, int] = field(default_factory=dict)


@dataclass
class CommitLog:
    """What could be read of ``commits.log``."""

    seq: int
    clients: Positions
    commits: list[Commit]
    # (bytes, running checksum) after the header and after each commit
    ends: list[tuple[int, int]]
    rules: int = 1

    @property
    def next_seq(self) -> int:
        return self.seq + len(self.commits)

    def end_before(self, seq: int) -> tuple[int, int]:
        """Where the file ends once commit ``seq`` and all after it are cut away."""
        return self.ends[min(max(seq - self.seq, 0), len(self.commits))]


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    fields = {
        "v": VERSION,
        "seq": checkpoint.seq,
        "origin": checkpoint.origin,
        "logs": {
            log: [mark.size, mark.crc, mark.tail.rows, mark.tail.next, mark.tail.time]
            for log, mark in checkpoint.logs.items()
        },
        "clients": {client: list(position) for client, position in checkpoint.clients.items()},
        "views": checkpoint.views,
    }
    return codec.frame(codec.packer().pack(fields), _CHECKPOINT_SEED)[0]


def read_checkpoint(disk: Disk, at: int) -> Checkpoint | None:
    """The checkpoint; None when there is none. :class:`~dreamlake.wire.codec.Damaged` when it is not whole."""
    try:
        data = read_file(disk, CHECKPOINT, at, codec.CHECKPOINT_BYTES_MAX)
    except FileNotFoundError:
        return None
    for _end, _running, payload in codec.records(data, _CHECKPOINT_SEED, codec.CHECKPOINT_BYTES_MAX):
        fields = codec.unpack(payload)
        try:
            if fields["v"] != VERSION:
                raise codec.Damaged("checkpoint of another version", 0)
            return Checkpoint(
                _number(fields["seq"]),
                _text(fields["origin"]),
                {
                    _text(log): LogMark(
                        _number(size),
                        _number(crc),
                        Tail(_number(rows), _number(following), None if time is None else _text(time)),
                    )
                    for log, (size, crc, rows, following, time) in fields["logs"].items()
                },
                _positions(fields["clients"]),
                {_text(view): _number(crc) for view, crc in fields["views"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, codec.Damaged):
                raise
            raise codec.Damaged("checkpoint of the wrong shape", 0) from None
    raise codec.Damaged("incomplete checkpoint", 0)


# A record whose checksum is right may still say anything: it was written by a bug, or by another program.


def _number(value: Any) -> int:
    """``value`` when it can be a count or a place in a file, else :class:`ValueError`."""
    if type(value) is not int or not 0 <= value <= NUMBER_MAX:
        raise ValueError("not a number of bytes, rows or commits")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _client(value: Any) -> bytes:
    if not isinstance(value, bytes) or len(value) != 16:
        raise ValueError("a client is 16 bytes")
    return value


def _positions(fields: dict[bytes, Any]) -> Positions:
    return {_client(client): (_number(position), _number(running)) for client, (position, running) in fields.items()}


def _run(fields: Any) -> Run:
    client, start, end, running, refused = fields
    return Run(_client(client), _number(start), _number(end), _number(running), tuple(map(_number, refused)))


def commits_seed(origin: str) -> int:
    return codec.seed(origin.encode())


def encode_commits_header(seq: int, clients: Positions, origin: str) -> tuple[bytes, int]:
    fields = {
        "v": VERSION,
        "seq": seq,
        "clients": {client: list(found) for client, found in clients.items()},
        "rules": RULES,
    }
    return codec.frame(codec.packer().pack(fields), commits_seed(origin))


def encode_commit(commit: Commit, running: int) -> tuple[bytes, int]:
    runs = [[run.client, run.start, run.end, run.running, list(run.refused)] for run in commit.runs]
    return codec.frame(codec.packer().pack([commit.seq, runs]), running)


def read_commits(disk: Disk, at: int, origin: str) -> CommitLog | None:
    """The longest valid prefix of ``commits.log``; None when not even its header is there."""
    try:
        fd = disk.open(COMMITS, READ, at)
    except FileNotFoundError:
        return None
    try:
        chunks: list[bytes] = []
        offset = 0
        while offset < COMMITS_BYTES_MAX and (chunk := disk.pread(fd, 1 << 20, offset)):
            chunks.append(chunk)
            offset += len(chunk)
    finally:
        disk.close(fd)
    log: CommitLog | None = None
    try:
        for end, running, payload in codec.records(b"".join(chunks), commits_seed(origin), codec.CHECKPOINT_BYTES_MAX):
            fields = codec.unpack(payload)
            if log is None:
                if fields["v"] != VERSION:
                    return None
                clients, rules = _positions(fields["clients"]), _number(fields.get("rules", 1))
                log = CommitLog(_number(fields["seq"]), clients, [], [(end, running)], rules)
                continue
            seq, runs = fields
            if seq != log.next_seq:
                break
            commit = Commit(_number(seq), tuple(map(_run, runs)))
            log.commits.append(commit)
            log.ends.append((end, running))
    except (codec.Damaged, KeyError, TypeError, ValueError, AttributeError):
        pass
    return log
