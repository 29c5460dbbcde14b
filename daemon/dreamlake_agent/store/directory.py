"""A session directory that this agent owns: recovered, applied to, committed, made durable.

The order of things, everywhere: rows, then the commit that names their journal bytes, then the files' places, then the
ack. What is fsynced when: ``sync_job`` makes journals and commits durable, ``checkpoint_job`` everything; both are run
by a worker while the loop goes on, on descriptors and names of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dreamlake import config
from dreamlake.journal import Journal as OwnJournal
from dreamlake.reader.baseline import DamagedView
from dreamlake.reader.commits import (
    CHECKPOINT,
    COMMITS,
    Checkpoint,
    LogMark,
    Positions,
    Run,
    encode_checkpoint,
    read_checkpoint,
)
from dreamlake.reader.replay import Loaded, committed, load
from dreamlake.reader.segments import (
    JOURNALS,
)
from dreamlake.reader.spools import Spooled, is_spool
from dreamlake.reader.superseded import INCOMING, SUPERSEDED, superseded
from dreamlake.reader.views import MAIN_VIEWS
from dreamlake.wire import codec, jsons
from dreamlake.wire.applied import RULES, Applied
from dreamlake.wire.apply import apply_run
from dreamlake.wire.names import DREAMLAKE
from dreamlake.wire.remotes import Remote
from dreamlake.wire.state import HISTORIES, LOGS_LOG, State
from dreamlake.world import processes
from dreamlake.world.disk import (
    Disk,
    folders_above,
    let_go,
    sync_folder,
)
from dreamlake_agent.store import files
from dreamlake_agent.store.commits import Commits
from dreamlake_agent.store.cut import CutFolder
from dreamlake_agent.store.durable import sync_file, sync_files, sync_names
from dreamlake_agent.store.held import Held, Segmented
from dreamlake_agent.store.journals import Journal, Journals
from dreamlake_agent.store.opened import Opened
from dreamlake_agent.store.owner import ORIGIN, Owner, Verdict, acquire, origin_of, release, tell
from dreamlake_agent.store.rows import Rows
from dreamlake_agent.store.views import Views

Job = Callable[[], None]
Sizes = dict[str, int]  # log → bytes


class Unseen(Exception):
    """The directory at that path is not the one the client means: another mount, a container."""


class Directory:
    """One owned session directory. Not thread-safe: the loop's alone, but for the jobs it hands out."""

    def __init__(
        self,
        disk: Spooled,
        at: int,
        owner: Owner,
        held: Held,
        opened: Opened,
        origin: str,
        who: dict[str, Any],
        path: str,
        *,
        distrust: bool = False,
    ) -> None:
        self.disk, self.at, self.owner, self.held = disk, at, owner, held
        self.warnings: list[str] = []
        self._who, self._path = who, path
        self.cuts = CutFolder(disk, at)
        loaded = load(disk, at, origin)
        self.origin = loaded.state.origin
        self.state: State = loaded.state
        self.positions: Positions = loaded.positions
        self.covered: Positions = dict(loaded.checkpoint.clients) if loaded.checkpoint else {}
        self.journals = Journals(owner, disk, who, loaded, self.cuts)
        self.rows = Rows(owner, loaded.marks, self.cuts, opened, distrust=distrust)
        self.views = Views(owner, loaded.checkpoint.views if loaded.checkpoint else {}, self.cuts)
        self.files = files.Files(owner)
        self._inner = disk.stat(DREAMLAKE, at).ino
        self._superseded: list[str] = []  # what the checkpoint under way does away with
        # the newest superseded file that the checkpoint under way, and the last one, cover
        self._kept = self.kept = 0
        self._loaded = loaded
        self._pending = Applied()
        self._runs: list[Run] = []
        # Clients whose journals hold what was committed and may not be on the disk yet; after a recovery, any.
        self._unsynced: set[bytes] = set(loaded.segments)
        self._base_durable = False
        # Segments whose names power loss can no longer take, and those that the job under way sees to.
        self._named: set[Segmented] = set()
        self._naming: set[Segmented] = set()
        self._placed: set[str] = set()  # files put in their place since the last checkpoint
        # How many bytes of each log power loss can no longer take or change: only these may leave the machine.
        self.durable: dict[str, int] = {}
        self.own: OwnJournal | None = None
        # After a failed fsync: journals whose pages the kernel may have dropped. Only a checkpoint makes them durable.
        self._distrusted: set[bytes] = set(loaded.segments) if distrust else self.journals.foreign()
        self._commits = Commits(owner, self.origin, loaded.seq)

    # ── opening ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def open(
        cls,
        disk: Disk,
        path: str,
        key: tuple[int, int],
        who: dict[str, Any],
        fresh: str,
        *,
        opened: Opened | None = None,
        distrust: bool = False,
        verdict: Verdict = processes.verdict,
    ) -> Directory:
        """Own the directory at ``path`` and bring it to where its journals were committed. ``fresh``: 32 hex digits
        that nobody else has. ``opened``: the logs that its agent has open.

        Raises :class:`Unseen`, :class:`~dreamlake_agent.store.owner.OwnedElsewhere`,
        :class:`~dreamlake.reader.baseline.DamagedView` or :class:`OSError`; nothing was written then but the owner's
        file.
        """
        try:
            at = disk.root(path)
        except OSError as error:
            raise Unseen(f"{path}: {error.strerror}") from None
        owner: Owner | None = None
        directory: Directory | None = None
        spooled = Spooled(disk, at, path, who.get("host"))
        held = Held(spooled, at)
        try:
            found = disk.fstat(at)
            if (found.dev, found.ino) != key:
                raise Unseen(f"{path} is another directory here than it is for the client")
            if not _is_session(disk, at):
                raise Unseen(f"{path} is no session directory: it has no {JOURNALS}")
            owner = acquire(spooled, at, who, fresh[:16], verdict)
            owner.distrust = owner.distrust or distrust
            origin = origin_of(owner, _known_origin(disk, at) or fresh)
            held.look()
            opened = Opened(config.LOGS_OPEN_MAX) if opened is None else opened
            directory = cls(spooled, at, owner, held, opened, origin, who, path, distrust=owner.distrust)
            directory._recover()
            return directory
        except DamagedView:
            held.close()
            spooled.let_go()
            # Nobody's: a reader that took us for its owner would not look into the journals.
            if owner is not None:
                release(owner, who)
            disk.close(at)
            raise
        except BaseException:
            if directory is not None:
                directory._close_logs()
            held.close()
            spooled.let_go()
            if owner is not None:
                let_go(disk, owner.fd)
            disk.close(at)
            raise

    def _recover(self) -> None:
        loaded = self._loaded
        self.warnings += loaded.warnings
        for folder in ("logs", "tracks", "files", ".dreamlake/incoming"):
            self.disk.mkdirs(folder, self.at)
        if loaded.checkpoint is None:
            self._begin(loaded)
        else:
            for _commit, out in committed(self.disk, self.at, loaded):
                self._write_rows(out)
            self.warnings += [each for each in loaded.warnings if each not in self.warnings]
            self._commits.go_on(loaded)
            others = loaded.commit_log is not None and loaded.commit_log.rules != RULES
            if self.owner.distrust or others:
                self._rewrite()
        self._place()
        self.views.check(self.state)

    def _begin(self, loaded: Loaded) -> None:
        """The first owner: what stands there becomes record 0, then the first checkpoint and commits.log."""
        if loaded.baseline is not None:
            for log in loaded.baseline.unended:
                self.rows.end_line(log)
            for log, row in loaded.baseline.imports:
                self.rows.append(log, jsons.encode(row) + b"\n")
            self.views.import_known(list(MAIN_VIEWS))
        self.rows.settle()
        # Durable before the first row or view is written: after power loss these must not be taken for a baseline.
        try:
            sync_files(self.disk, HISTORIES, self.at)
            self.owner.replace(CHECKPOINT, encode_checkpoint(self._checkpoint()), durable=True)
            sync_folder(self.disk, ".", self.at)
        except OSError:
            self._take_back_checkpoint()
            raise
        self._commits.begin(self.positions, durable=False)
        self.covered = dict(self.positions)

    def _take_back_checkpoint(self) -> None:
        """It may stand there and not last: the next try must not take it for one that does."""
        try:
            self.disk.unlink(CHECKPOINT, self.at)
        except OSError:
            pass

    def _rewrite(self) -> None:
        """After a failed fsync the logs were written again from the checkpoint on; after an upgrade the commits so far
        were applied by other rules than the next ones. Settle that before anything else."""
        checkpoint, sizes, job = self.checkpoint_job()
        job()
        self.made_durable(sizes)
        self.checkpointed(checkpoint)
        self._commits.begin(self.positions, durable=True)
        if self.owner.distrust:
            self.owner.distrust = False
            tell(self.owner, self._who)

    def distrust(self) -> None:
        """An fsync has failed: whoever owns the directory next must write again what it stood for."""
        self.owner.distrust = True
        tell(self.owner, self._who)

    # ── applying ────────────────────────────────────────────────────────────────────────────────────────────────────

    def position(self, client: bytes) -> tuple[int, int]:
        """Where that client's stream was applied to, and its running checksum there."""
        return self.positions.get(client) or (0, codec.seed(client))

    def apply(self, client: bytes, data: bytes, running: int) -> Applied:
        """Apply a run that continues the client's stream: the state moves on now, the disk at ``commit``."""
        start, _ = self.position(client)
        out = Applied(rows=self._pending.rows, stale=self._pending.stale)
        run = codec.operations(data)
        out.operations = len(run)
        apply_run(self.state, client, run, out)
        end = start + len(data)
        self.positions[client] = (end, running)
        self._runs.append(Run(client, start, end, running, tuple(out.refused)))
        return out

    @property
    def pending(self) -> int:
        """Runs applied and not yet committed."""
        return len(self._runs)

    def commit(self) -> list[str]:
        """Write the rows of every run applied since the last commit, then the commit; returns the ids of files
        placed."""
        if not self._runs:
            return []
        pending, runs = self._pending, self._runs
        self._pending, self._runs = Applied(), []
        self._write_rows(pending)
        self._commits.append(runs)
        self._unsynced.update(run.client for run in runs)
        return self._place() if self.state.incoming else []

    def _place(self) -> list[str]:
        placed, missing = self.files.place(self.state)
        self.warnings += [f"{place}: the bytes that were captured for it are gone" for place in missing]
        self._placed.update(files.place_of(self.state.files[file_id]) for file_id in placed)
        return placed

    def _write_rows(self, out: Applied) -> None:
        self.rows.extend({log: b"".join(lines) for log, lines in out.rows.items() if lines})
        self.views.stale |= out.stale

    def settle(self) -> None:
        """The journals that were here at the opening are applied: cut what none of them brought."""
        self.rows.settle()
        if not self.journals.are_missing():
            self.files.settle(self.state)

    # ── journals ────────────────────────────────────────────────────────────────────────────────────────────────────

    def seen(self) -> list[Journal]:
        """Every client's journal in the directory that may still hold something, oldest first."""
        self.journals.look()
        self.held.look()
        # An fsync here says nothing of what another node still holds back: only a checkpoint makes theirs durable.
        self._distrusted |= self.journals.foreign()
        return self.journals.seen(but=self.own.client if self.own is not None else None)

    def say(self, op: tuple[Any, ...], client: bytes, made: int, by: dict[str, Any]) -> Applied:
        """Put an operation of the agent's own into its journal here (begun as ``client`` when there is none yet), and
        apply it."""
        if self.own is None:
            self.own = OwnJournal(self.disk, self.at, client, made, by)
        start = self.own.end
        end = self.own.append(op)
        return self.apply(self.own.client, self.own.read(start, end), self.own.running)

    def drop_journal(self, client: bytes) -> bool:
        """Unlink a journal that is wholly covered and whose writer has gone; False when it holds more after all."""
        if not self.journals.drop(client):
            return False
        self.positions.pop(client, None)
        self.covered.pop(client, None)
        self._unsynced.discard(client)
        self._distrusted.discard(client)
        return True

    def is_settled(self) -> bool:
        """Whether nothing in the directory waits for another agent."""
        try:
            return self.is_gone() or (not self.seen() and not self.disk.waits())
        except OSError:
            return False

    def is_gone(self) -> bool:
        """Whether a person removed the directory (or its .dreamlake) under us. Raises :class:`OSError` when another
        agent has taken it over."""
        if self.disk.fstat(self.owner.fd).nlink:
            return False
        try:
            if self.disk.stat(DREAMLAKE, self.at).ino != self._inner:
                return True
        except FileNotFoundError:
            return True
        self.owner.prove()
        return False

    # ── making it last ──────────────────────────────────────────────────────────────────────────────────────────────

    def durable_job(self) -> tuple[Checkpoint | None, Sizes, Job]:
        """What makes durable what is committed by now: a sync, or a checkpoint where journals cannot be trusted."""
        self._look_at_journals()
        if self._distrusted:
            return self.checkpoint_job()
        return None, *self.sync_job()

    def _look_at_journals(self) -> None:
        self._distrusted |= self.held.look() & self._unsynced

    def sync_job(self) -> tuple[Sizes, Job]:
        """A job after which everything committed by now survives power loss, at its present index;
        :meth:`made_durable` follows it, with the sizes of the logs that it stands for."""
        disk, at = self.disk, self.at
        sizes = self.rows.take_grown()
        self._look_at_journals()
        wanted, self._unsynced = self._unsynced - self._distrusted, set()
        base_durable, self._base_durable = self._base_durable, True
        placed, path_here = sorted(self._placed), self._path
        held = {client: self.held.of(client) for client in sorted(wanted)}
        self._naming = self.held.segments(wanted) - self._named
        are_named = base_durable and not self._naming
        spool_names = self.disk.names_job(sorted(wanted))

        def job() -> None:
            for client, fds in held.items():
                if not fds:
                    raise FileNotFoundError(f"the journal of {client.hex()} is gone before it was covered")
                for fd in fds:
                    disk.fsync(fd)
            if not are_named:
                sync_folder(disk, JOURNALS, at)
            spool_names()
            sync_files(disk, placed, at)
            if placed:
                # One may have been replaced while this goes on; and each has come from one folder into another.
                sync_files(disk, [kept.path for kept in superseded(disk, at)], at)
                for folder in sorted({folder for path in placed for folder in folders_above(path)}):
                    sync_folder(disk, folder, at)
            sync_file(disk, COMMITS, at)
            if not base_durable:
                sync_files(disk, (CHECKPOINT, ORIGIN, *HISTORIES), at)
                sync_folder(disk, ".dreamlake", at)
                sync_folder(disk, ".", at)
                sync_names(disk, path_here)

        return sizes, job

    def made_durable(self, sizes: Sizes) -> None:
        """The job is done: rows of that many bytes may leave the machine."""
        self.durable.update(sizes)
        self._named |= self._naming
        self.held.close_old()

    def _checkpoint(self) -> Checkpoint:
        tails = {track.log: track.tail for track in self.state.tracks.values()}
        tails[LOGS_LOG] = self.state.logs
        marks: dict[str, LogMark] = self.rows.marks(tails)
        return Checkpoint(self._commits.seq, self.origin, marks, dict(self.positions), dict(self.views.known))

    def checkpoint_job(self, *, tracks: bool = True) -> tuple[Checkpoint, Sizes, Job]:
        """A job that makes everything durable and writes the checkpoint; :meth:`made_durable` and :meth:`checkpointed`
        follow it. ``tracks``: the views of tracks, too, of which there may be thousands; recovery makes those that are
        not what they were anew."""
        assert not self._runs, "a checkpoint stands for what is committed"
        self.views.write(self.state, tracks=tracks)
        checkpoint = self._checkpoint()
        sizes, sync = self.sync_job()
        logs, unnamed = self.rows.take_dirty()
        views = self.views.take_dirty(tracks=tracks)
        placed, self._placed = self._placed, set()
        self._kept = self.files.newest()
        # With a remote they stay until it has them (docs/disk.md §10).
        keeps = bool(self.state.remotes) or self.journals.are_missing()
        old = self._superseded = [] if keeps else self.files.superseded()
        data = encode_checkpoint(checkpoint)
        disk, at, owner = self.disk, self.at, self.owner

        def job() -> None:
            sync()
            folders = {".", INCOMING, *([SUPERSEDED] if old else [])}
            sync_files(disk, (*logs, *sorted(views), *sorted(placed)), at)
            for path in (*unnamed, *views, *placed):
                folders.update(folders_above(path))
            for folder in sorted(folders):
                sync_folder(disk, folder, at)
            owner.replace(CHECKPOINT, data, durable=True)
            for path in old:
                disk.unlink(path, at)
            if old:
                sync_folder(disk, SUPERSEDED, at)

        return checkpoint, sizes, job

    def checkpointed(self, checkpoint: Checkpoint) -> None:
        """The job is done: what it covers may be forgotten."""
        self.covered = dict(checkpoint.clients)
        self.files.forget(self._superseded)
        self.kept = self._kept
        self._commits.forget(checkpoint, self.positions)
        kept = self.cuts.review()
        self.warnings += [f"rows that no journal brought again are kept in {path}" for path in kept]

    def drop_superseded(self, newest: int) -> None:
        """Unlink what was superseded up to that number: every server has it, and a checkpoint what replaced it."""
        for path in [] if self.journals.are_missing() else self.files.superseded(newest):
            self.disk.unlink(path, self.at)
            self.files.forget([path])

    @property
    def remotes(self) -> tuple[Remote, ...]:
        """Where the session is meant to go."""
        return tuple(Remote(url, user) for url, user in self.state.remotes.items()) if self.state.remotes else ()

    def take_warnings(self) -> list[str]:
        """What a person should know, once."""
        found: list[str] = []
        for part in (self, self.journals, self.rows, self.views):
            found += part.warnings
            part.warnings = []
        return found

    def close(self) -> None:
        """Let go of everything, the ownership last."""
        if self.own is not None:
            self.own.close(covered=self.covered.get(self.own.client, (0, 0))[0] >= self.own.end)
        self._close_logs()
        self.disk.let_go()
        release(self.owner, self._who)
        self.disk.close(self.at)

    def _close_logs(self) -> None:
        self.held.close()
        self.rows.close()
        self._commits.close()


def _is_session(disk: Disk, at: int) -> bool:
    """Whether a client has made a session directory of it: a message alone must not turn a folder into one."""
    try:
        return disk.stat(JOURNALS, at).is_dir and not is_spool(disk, at)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _known_origin(disk: Disk, at: int) -> str | None:
    """The identity as the checkpoint has it: for a directory whose ``origin`` somebody removed."""
    try:
        found = read_checkpoint(disk, at)
    except codec.Damaged:
        return None
    return found.origin if found else None
