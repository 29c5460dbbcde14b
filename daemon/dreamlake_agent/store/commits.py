"""Commits: ``commits.log`` as its owner writes it."""

from __future__ import annotations

from dreamlake.reader.commits import (
    COMMITS,
    Checkpoint,
    Commit,
    Positions,
    Run,
    encode_commit,
    encode_commits_header,
)
from dreamlake.reader.replay import Loaded
from dreamlake.world.disk import READ_APPEND, let_go, write_all
from dreamlake_agent.store.owner import Owner

# Past this a new commits.log is begun at the next checkpoint.
ROTATE_BYTES = 1 << 20


class Commits:
    """The commits of one directory; only its owner has one. ``seq`` is the number of the next one."""

    def __init__(self, owner: Owner, origin: str, seq: int) -> None:
        self._owner, self._disk, self._origin = owner, owner.disk, origin
        self.seq = seq
        self._recent: list[Commit] = []  # since the last checkpoint began
        self._fd = -1
        self._bytes = self._running = 0

    def begin(self, clients: Positions, *, durable: bool) -> None:
        """A new log without commits, for streams that were applied so far."""
        self._replace(self.seq, clients, [], durable=durable)

    def go_on(self, loaded: Loaded) -> None:
        """After the last commit that was replayed; what is behind it is cut."""
        self.seq, log = loaded.seq, loaded.commit_log
        if log is None or log.next_seq < loaded.seq:
            self.begin(loaded.positions, durable=True)
            return
        fd = self._open()
        size = self._disk.fstat(fd).size
        end, running = log.end_before(loaded.seq)
        if size > end:
            self._disk.truncate(fd, end)
        self._fd, self._bytes, self._running = fd, end, running
        self._recent = [commit for commit in log.commits if commit.seq < loaded.seq]

    def append(self, runs: list[Run]) -> None:
        """Commit these runs. After an :class:`OSError` the directory must be recovered."""
        commit = Commit(self.seq, tuple(runs))
        record, running = encode_commit(commit, self._running)
        write_all(self._disk, self._fd, record)
        self._bytes += len(record)
        self._running = running
        self._recent.append(commit)
        self.seq += 1

    def forget(self, checkpoint: Checkpoint, positions: Positions) -> None:
        """A checkpoint is durable: a log that has become long gives way to one of the commits after it."""
        self._recent = [commit for commit in self._recent if commit.seq >= checkpoint.seq]
        if self._bytes > ROTATE_BYTES:
            first = self._recent[0].seq if self._recent else self.seq
            self._replace(first, checkpoint.clients if self._recent else positions, self._recent, durable=True)

    def close(self) -> None:
        if self._fd >= 0:
            let_go(self._disk, self._fd)

    def _replace(self, first: int, clients: Positions, commits: list[Commit], *, durable: bool) -> None:
        data, running = encode_commits_header(first, clients, self._origin)
        for commit in commits:
            record, running = encode_commit(commit, running)
            data += record
        self._owner.replace(COMMITS, data, durable=durable)
        if self._fd >= 0:
            before, self._fd = self._fd, -1
            let_go(self._disk, before)
        self._fd = self._open()
        self._bytes, self._running = len(data), running

    def _open(self) -> int:
        fd = self._disk.open(COMMITS, READ_APPEND, self._owner.at)
        try:
            self._owner.prove()
        except BaseException:
            self._disk.close(fd)
            raise
        return fd
