"""Replay: what a directory holds once everything in it is applied.

One path for every kind of death: the logs up to the checkpoint, then ``commits.log`` to its longest valid prefix, then
what is left in the journals, oldest journal first. The agent's recovery does it on disk; a reader does it in memory,
when no agent is there to have done it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from dreamlake.reader.baseline import Baseline, read_baseline
from dreamlake.reader.commits import (
    Checkpoint,
    Commit,
    CommitLog,
    LogMark,
    Positions,
    read_checkpoint,
    read_commits,
)
from dreamlake.reader.lines import Lines
from dreamlake.reader.segments import Segment, journals, read_stream, runs
from dreamlake.reader.spools import marked
from dreamlake.wire import codec, ops
from dreamlake.wire.applied import Applied
from dreamlake.wire.apply import apply_run
from dreamlake.wire.state import (
    HISTORIES,
    LOGS_LOG,
    SESSION_LOG,
    Client,
    State,
    Tail,
    Track,
    data_log,
    fold_read,
    track_id,
)
from dreamlake.world.disk import Disk

RUN_BYTES = 256 << 10


@dataclass
class Loaded:
    """A directory before anything is replayed: its state at the checkpoint and what is to follow."""

    state: State
    marks: dict[str, LogMark]
    positions: Positions
    seq: int
    segments: dict[bytes, list[Segment]]
    checkpoint: Checkpoint | None = None
    commit_log: CommitLog | None = None
    baseline: Baseline | None = None
    warnings: list[str] = field(default_factory=list)

    def is_finished(self, client: bytes) -> bool:
        """Whether that client's stream was wholly applied, covered and forgotten: a journal of it that turns up again
        (restored from a backup, say) holds nothing new."""
        return client not in self.positions and client.hex() in self.state.clients

    def position(self, client: bytes) -> tuple[int, int]:
        return self.positions.get(client) or (0, codec.seed(client))


def load(disk: Disk, at: int, origin: str) -> Loaded:
    """The directory at its checkpoint, or at its baseline where there is none.

    Raises :class:`~dreamlake.reader.baseline.DamagedView` for a directory without history whose views cannot be read.
    """
    warnings: list[str] = []
    try:
        checkpoint = read_checkpoint(disk, at)
    except codec.Damaged as damage:
        checkpoint = None
        warnings.append(f".dreamlake/checkpoint: {damage}; the logs are taken as they stand")
    if checkpoint is None:
        return _load_baseline(disk, at, origin, warnings)
    state = State(checkpoint.origin)
    for log in HISTORIES:
        mark = checkpoint.logs.get(log)
        if mark is not None:
            _end_line(disk, at, log, mark)
            strange = sum(not fold_read(state, log, row) for row in Lines(disk, at, log, mark.size).rows())
            if strange:
                warnings.append(f"{log}: {strange} rows say nothing known and are passed over")
    for track in state.tracks.values():
        mark = checkpoint.logs.get(track.log)
        track.tail = _copy(mark.tail) if mark else Tail()
    _add_forgotten_tracks(state, checkpoint)
    if LOGS_LOG in checkpoint.logs:
        state.logs = _copy(checkpoint.logs[LOGS_LOG].tail)
    commit_log = read_commits(disk, at, checkpoint.origin)
    segments = journals(disk, at)
    _add_forgotten_clients(disk, at, state, checkpoint, segments)
    spooled = marked(disk, at)
    return Loaded(
        state,
        checkpoint.logs,
        # A client without a journal is finished: its stream cannot go on (a new journal has a new id). One with a
        # marker has a journal, if not where it can be seen from here.
        {client: at for client, at in checkpoint.clients.items() if client in segments or client in spooled},
        checkpoint.seq,
        segments,
        checkpoint,
        commit_log,
        None,
        warnings,
    )


def _end_line(disk: Disk, at: int, log: str, mark: LogMark) -> None:
    """A history that somebody edited: the checkpoint's size may fall into the middle of a line, which is a row all the
    same, or what is replayed after it would miss it."""
    try:
        size = disk.stat(log, at).size
    except OSError:
        return  # it is missed when it is read
    if not 0 < mark.size < size:
        return
    _offset, line = next(Lines(disk, at, log).raw(mark.size - 1), (0, b""))
    if line:
        mark.size += len(line)
        mark.crc = codec.run_on(line[1:] + b"\n", mark.crc)


# A history that somebody cut or edited may have lost what the checkpoint still shows. Without these two its tracks
# would begin at 0 again, and what its clients have left in journals would be refused.


def _add_forgotten_tracks(state: State, checkpoint: Checkpoint) -> None:
    for log, mark in checkpoint.logs.items():
        name = log[len("tracks/") : -len("/data.jsonl")]
        if log == data_log(name) and mark.tail.rows and name not in state.tracks:
            time = mark.tail.time or ""
            state.tracks[name] = Track(track_id(state.origin, name), log, time, _copy(mark.tail), updated=time)


def _add_forgotten_clients(
    disk: Disk, at: int, state: State, checkpoint: Checkpoint, segments: dict[bytes, list[Segment]]
) -> None:
    # An agent's own journal says where the agent listens; an agent is no member of the session.
    forgotten = [
        client
        for client in checkpoint.clients
        if client.hex() not in state.clients and client in segments and "endpoint" not in segments[client][0].by
    ]
    if forgotten and not is_whole(disk, at, SESSION_LOG, checkpoint):
        for client in forgotten:
            state.clients[client.hex()] = Client(None, ops.RUNNING)


def is_whole(disk: Disk, at: int, log: str, checkpoint: Checkpoint) -> bool:
    """Whether a log is what the checkpoint says, up to the size that it says."""
    mark = checkpoint.logs.get(log)
    crc = 0
    for _offset, line in Lines(disk, at, log, mark.size if mark else 0).raw():
        crc = zlib.crc32(line + b"\n", crc)
    return mark is None or crc == mark.crc


def _load_baseline(disk: Disk, at: int, origin: str, warnings: list[str]) -> Loaded:
    base = read_baseline(disk, at, origin)
    loaded = Loaded(base.state, base.marks, {}, 0, journals(disk, at), baseline=base, warnings=warnings + base.warnings)
    # A lost checkpoint: commits.log still says what was applied, and those rows are among the lines.
    commit_log = read_commits(disk, at, origin)
    if commit_log is not None:
        loaded.commit_log = commit_log
        loaded.positions = dict(commit_log.clients)
        loaded.seq = commit_log.next_seq
        for commit in commit_log.commits:
            for run in commit.runs:
                loaded.positions[run.client] = (run.end, run.running)
    return loaded


def _copy(tail: Tail) -> Tail:
    return Tail(tail.rows, tail.next, tail.time)


def committed(disk: Disk, at: int, loaded: Loaded) -> Iterator[tuple[Commit, Applied]]:
    """Replay the commits after the checkpoint, moving ``loaded`` on; ends before the first that cannot be replayed."""
    if loaded.commit_log is None or loaded.checkpoint is None:
        return
    for commit in loaded.commit_log.commits:
        if commit.seq < loaded.seq:
            continue
        if commit.seq > loaded.seq:
            return
        streams = _streams_of(disk, at, loaded, commit)
        if streams is None:
            loaded.warnings.append(f"commit {commit.seq} cannot be replayed: its journal is not whole")
            return
        out = Applied(loaded.commit_log.rules)
        for run, data in zip(commit.runs, streams, strict=True):
            apply_run(loaded.state, run.client, codec.operations(data), out, set(run.refused))
            loaded.positions[run.client] = (run.end, run.running)
        loaded.seq = commit.seq + 1
        yield commit, out


def _streams_of(disk: Disk, at: int, loaded: Loaded, commit: Commit) -> list[bytes] | None:
    """The journal bytes of a commit's runs, or None unless every one is there and is what was committed."""
    positions = dict(loaded.positions)
    found: list[bytes] = []
    for run in commit.runs:
        position, running = positions.get(run.client) or (0, codec.seed(run.client))
        segments = loaded.segments.get(run.client)
        if segments is None or position != run.start or run.end <= run.start:
            return None
        data = bytearray()
        while len(data) < run.end - run.start:
            chunk = read_stream(disk, at, segments, run.start + len(data), run.end - run.start - len(data))
            if not chunk:
                return None
            data += chunk
        if codec.run_on(bytes(data), running) != run.running:
            return None
        positions[run.client] = (run.end, run.running)
        found.append(bytes(data))
    return found


def leftovers(disk: Disk, at: int, loaded: Loaded) -> Iterator[Applied]:
    """Apply what no commit covers, oldest journal first, moving ``loaded`` on."""
    for client, segments in loaded.segments.items():
        if loaded.is_finished(client):
            continue
        position, running = loaded.position(client)
        for data, end, after in runs(disk, at, segments, position, running, RUN_BYTES):
            out = Applied()
            apply_run(loaded.state, client, codec.operations(data), out)
            loaded.positions[client] = (end, after)
            yield out
