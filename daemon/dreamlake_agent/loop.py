"""The loop: where the core's decisions meet the store, the socket, the workers and the clock.

One branch for each effect, and no decision: whatever has an "if" about clients, retries or time belongs into the core.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from dreamlake import config
from dreamlake.errors import DreamlakeError
from dreamlake.reader.baseline import DamagedView
from dreamlake.reader.commits import Checkpoint
from dreamlake.reader.segments import JOURNALS
from dreamlake.wire import messages, ops
from dreamlake.world import processes
from dreamlake.world.disk import READ, Disk
from dreamlake.world.sockets import Hub
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.seams import Log, NoReminders, NoUploader, Reminders, Uploader, Workers, World
from dreamlake_agent.store import files
from dreamlake_agent.store.directory import Directory, Unseen
from dreamlake_agent.store.opened import Opened
from dreamlake_agent.store.owner import OwnedElsewhere, tell
from dreamlake_agent.store.takeover import NotYet, take_over

_HASH_BYTES = 1 << 20


class Loop:
    """One agent, over the seams it is given."""

    def __init__(
        self,
        core: Agent,
        disk: Disk,
        hub: Hub,
        workers: Workers,
        world: World,
        who: dict[str, Any],
        log: Log,
        reminders: Reminders | None = None,
        uploader: Uploader | None = None,
        descriptors: int | None = None,
    ) -> None:
        self.core, self.disk, self.hub, self.workers, self.world = core, disk, hub, workers, world
        # what an owner's file says of us: host, boot, ns, pid, start, endpoint, version
        self.who = who
        self.log = log
        self.reminders = reminders or NoReminders()
        self.uploader = uploader or NoUploader()
        self.directories: dict[on.Key, Directory] = {}
        self._descriptors = descriptors
        self.opened = Opened(self._logs_max())
        self._paths: dict[on.Key, str] = {}
        self.report: Callable[[], bytes] = lambda: b"{}"
        self.unreadable = 0
        self.ended = False
        self._events: deque[on.Event] = deque()
        self._ticked = -1e9
        # directories let go while a worker still uses them: closed when it is done
        self._working: dict[on.Key, Directory] = {}
        self._letting_go: set[on.Key] = set()
        # directories that failed, until the core lets them go
        self._broken: set[on.Key] = set()

    def _logs_max(self) -> int:
        """How many logs may be open: descriptors are also for folders, locks, journals and sockets."""
        if self._descriptors is None:
            return config.LOGS_OPEN_MAX
        others = config.DESCRIPTORS_EACH * len(self.directories)
        return min(config.LOGS_OPEN_MAX, self._descriptors * 3 // 4, max(1, self._descriptors - others))

    def paths(self) -> set[str]:
        """The directories that are open, or on their way to it."""
        return {session.path for session in self.core.sessions.values()}

    def moved(self, endpoint: str) -> None:
        """We listen elsewhere: the directories that are ours must say so to other agents, and they to their clients."""
        self.log("warning", f"the folder of the socket is gone: listening at {endpoint}")
        self.who["endpoint"] = endpoint
        for directory in self.directories.values():
            with contextlib.suppress(OSError):
                tell(directory.owner, self.who)

    def turn(self) -> bool:
        """Hear what has come, decide, do; True when there is more to do at once."""
        heard = 0
        while heard < config.TURN_BYTES:
            received = self.hub.receive()
            if received is None:
                break
            peer, frames = received
            heard += sum(map(len, frames)) + 64
            try:
                message, body = messages.decode_from_client(frames)
            except messages.OtherVersion:
                self.hub.send(peer, messages.encode((messages.OTHER_VERSION, [messages.VERSION])))
                continue
            except messages.Unreadable:
                self.unreadable += 1
                continue
            self.take(on.Heard(peer, message, body))
        if heard or self.core.is_busy:
            self.take(on.Turned())
        for event in self.workers.done():
            self._worker_done(event)
        for event in self.uploader.done():
            self.take(event)
        now = self.world.monotonic()
        if now - self._ticked >= config.TICK_SECONDS or now < self._ticked:
            self._ticked = now
            self.take(on.Tick())
        return heard >= config.TURN_BYTES or self.core.is_busy

    def take(self, event: on.Event) -> None:
        """Handle an event and everything that follows from it at once."""
        self._events.append(event)
        while self._events:
            effects = self.core.handle(self._events.popleft(), self.world.monotonic(), self.world.wall_ns())
            self.perform(effects)

    def perform(self, effects: list[do.Effect]) -> None:
        for effect in effects:
            answer = self._BRANCHES[type(effect)](self, effect)
            if answer is not None:
                self._events.append(answer)

    def _in_directory(self, key: on.Key, act: Callable[[Directory], on.Event | None]) -> on.Event | None:
        """Do something to a directory that is open; what its disk says against it is an event."""
        directory = self.directories.get(key)
        if directory is None or key in self._broken:
            return None
        try:
            answer = on.Vanished(key) if directory.is_gone() else act(directory)
        except OSError as error:
            # From here on what is in memory does not follow from the disk: nothing more is done to it but to let it go.
            self._broken.add(key)
            if _is_gone(directory):
                return on.Vanished(key)
            return on.Broke(key, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        for warning in directory.take_warnings():
            self.log("warning", warning, path=self._paths[key])
            self.core.last_error = warning
        return answer

    # ── one branch for each effect ──────────────────────────────────────────────────────────────────────────────────

    def _send(self, effect: do.Send) -> None:
        self.hub.send(effect.peer, messages.encode(effect.message))

    def _open(self, effect: do.OpenDirectory) -> on.Event | None:
        key = effect.key
        if key in self._letting_go:
            return on.NotOpened(key, "trouble", "a worker is still busy with it")
        try:
            fresh, verdict = self.world.random(16).hex(), self.world.verdict
            directory = Directory.open(
                self.disk,
                effect.path,
                key,
                self.who,
                fresh,
                opened=self.opened,
                distrust=effect.distrust,
                verdict=verdict,
            )
            try:
                seen = self._seen(directory)
            except BaseException:
                directory.close()
                raise
        except Unseen as error:
            return on.NotOpened(key, "unseen", str(error))
        except OwnedElsewhere as error:
            if error.is_predecessor_of(self.who):
                # It is still letting go: there is nowhere to send a client to.
                return on.NotOpened(key, "trouble", str(error))
            beat = error.beat if error.is_owed or error.is_far(self.who) else None
            found = (error.reason_for(self.who), error.endpoint_for(self.who), beat, not error.may_be_gone)
            return on.NotOpened(key, "owned", *found, age=error.age, owed=error.is_owed)
        except DamagedView as error:
            return on.NotOpened(key, "damaged", f"{effect.path}/{error}")
        except OSError as error:
            return on.NotOpened(key, "trouble", f"{error.strerror or error}")
        self.directories[key] = directory
        self._paths[key] = effect.path
        self.opened.bound(self._logs_max())
        try:
            self.reminders.add(effect.path)
        except OSError as error:
            self.log("warning", f"cannot remember {effect.path} for the next agent: {error}", path=effect.path)
        for warning in directory.take_warnings():
            self.log("warning", f"{effect.path}: {warning}", path=effect.path)
        return on.Opened(
            key,
            directory.origin,
            dict(directory.positions),
            {client: position for client, (position, _) in directory.covered.items()},
            seen,
            {
                bytes.fromhex(client): found.state
                for client, found in directory.state.clients.items()
                if bytes.fromhex(client) in directory.positions
            },
            tuple(
                bytes.fromhex(client)
                for client, found in directory.state.clients.items()
                if found.state == ops.RUNNING
                and bytes.fromhex(client) not in directory.journals.segments
                and not directory.journals.is_away(bytes.fromhex(client))
            ),
            directory.remotes,
        )

    def _seen(self, directory: Directory) -> list[on.JournalSeen]:
        return [self._see(directory, journal) for journal in directory.seen()]

    def _see(self, directory: Directory, journal: Any) -> on.JournalSeen:
        held = directory.journals.is_locked(journal.client)
        if journal.sign is not None:  # of another node, whose signs of life say more
            held = bool(held)
        lives = self._lives(journal, held is not False)
        return on.JournalSeen(
            journal.client,
            journal.end,
            lives,
            directory.journals.is_finished(journal.client),
            # Without locks, whoever lives may have it open, but for an agent: it has let go of the directory.
            lives and "endpoint" not in journal.by if held is None else held,
            journal.spooled,
            (*directory.position(journal.client), directory.covered.get(journal.client, (0, 0))[0]),
            journal.sign,
            journal.age,
        )

    def _lives(self, journal: Any, locked: bool) -> bool:
        verdict = self.world.verdict(journal.by)
        # Another machine, boot or namespace: the lock is all we can see. A wrong verdict costs time, never data.
        return locked if verdict == processes.UNKNOWN else verdict == processes.ALIVE

    def _take_over(self, effect: do.TakeOver) -> None:
        nonce = self.world.random(8).hex()

        def job() -> on.Event:
            try:
                take_over(self.disk, effect.path, self.who, nonce, seen=effect.beat, whatever=effect.whatever)
            except OwnedElsewhere as error:
                return on.TakenOver(effect.key, f"{error}, which has shown that it lives")
            except OSError as error:
                why = f"it cannot be taken over now: {error.strerror or error}"
                return on.TakenOver(effect.key, why, behind=isinstance(error, NotYet))
            return on.TakenOver(effect.key)

        self.workers.submit(job)

    def _beat(self, effect: do.Beat) -> on.Event | None:
        return self._in_directory(effect.key, lambda directory: directory.owner.beat(self.who))

    def _apply(self, effect: do.Apply) -> on.Event | None:
        return self._in_directory(
            effect.key,
            lambda directory: self._applied(directory, effect.key, effect.client, effect.data, effect.running),
        )

    def _applied(
        self, directory: Directory, key: on.Key, client: bytes, data: bytes, running: int, own: bool = False
    ) -> on.Event:
        out = directory.apply(client, data, running)
        end, _ = directory.position(client)
        author = directory.state.clients.get(client.hex())
        points = sum(span[2] for spans in out.placed.values() for span in spans)
        state = author.state if author else None
        found = (points, out.placed, out.refused, state, own, directory.remotes, out.operations)
        return on.AppliedRun(key, client, end, running, *found)

    def _follow(self, effect: do.Follow) -> on.Event | None:
        def act(directory: Directory) -> on.Event:
            data, running = directory.journals.follow(effect.client, config.FOLLOW_BYTES)
            if not data:
                return on.Exhausted(effect.key, effect.client)
            return self._applied(directory, effect.key, effect.client, data, running)

        return self._in_directory(effect.key, act)

    def _commit(self, effect: do.Commit) -> on.Event | None:
        def act(directory: Directory) -> on.Event:
            runs = directory.pending
            placed = set(directory.commit())
            found = files.unhashed(directory.state) if placed else []
            return on.Committed(effect.key, effect.upto, runs, [each for each in found if each[0] in placed])

        return self._in_directory(effect.key, act)

    def _settle(self, effect: do.Settle) -> on.Event | None:
        def act(directory: Directory) -> on.Event:
            directory.settle()
            return on.Settled(effect.key, files.unhashed(directory.state))

        return self._in_directory(effect.key, act)

    def _say(self, effect: do.Say) -> on.Event | None:
        def act(directory: Directory) -> on.Event:
            out = directory.say(effect.op, self.world.random(16), self.world.wall_ns(), self.who)
            assert directory.own is not None
            own = directory.own
            return on.AppliedRun(effect.key, own.client, own.end, own.running, 0, {}, out.refused, None, own=True)

        return self._in_directory(effect.key, act)

    def _scan(self, effect: do.Scan) -> on.Event | None:
        return self._in_directory(effect.key, lambda directory: on.Scanned(effect.key, self._seen(directory)))

    def _write_views(self, effect: do.WriteViews) -> on.Event | None:
        def act(directory: Directory) -> on.Event:
            return on.ViewsWritten(effect.key, directory.views.write_some(directory.state, config.VIEWS_MAX))

        return self._in_directory(effect.key, act)

    def _sync(self, effect: do.Sync) -> on.Event | None:
        def act(directory: Directory) -> None:
            checkpoint, sizes, job = directory.durable_job()
            self._working[effect.key] = directory
            self.workers.submit(lambda: _durable(effect.key, job, _Lasting(effect.key, sizes, checkpoint)))

        return self._in_directory(effect.key, act)

    def _checkpoint(self, effect: do.WriteCheckpoint) -> on.Event | None:
        def act(directory: Directory) -> None:
            checkpoint, sizes, job = directory.checkpoint_job(tracks=effect.tracks)
            self._working[effect.key] = directory
            self.workers.submit(lambda: _durable(effect.key, job, _Lasting(effect.key, sizes, checkpoint)))

        return self._in_directory(effect.key, act)

    def _worker_done(self, event: Any) -> None:
        key = event.key
        if isinstance(event, (on.Hashed, on.TakenOver)):
            self.take(event)
            return
        directory = self._working.pop(key, None)
        if key in self._letting_go and directory is not None:
            self._letting_go.discard(key)
            directory.close()
            return
        if isinstance(event, on.Broke) and directory is not None:
            event = self._after_a_failed_fsync(directory, event)
        if isinstance(event, _Lasting):
            event = self._in_directory(key, event.settle)
        if event is not None:
            self.take(event)

    def _after_a_failed_fsync(self, directory: Directory, event: on.Broke) -> on.Event:
        if _is_gone(directory):
            return on.Vanished(event.key)
        try:
            directory.distrust()
        except OSError:
            pass  # this agent remembers it all the same
        return event

    def _drop_journal(self, effect: do.DropJournal) -> on.Event | None:
        def act(directory: Directory) -> on.Event | None:
            if not directory.drop_journal(effect.client):
                return None
            if effect.client not in directory.journals.doubtful:
                files.forget_captures(self.disk, directory.at, directory.state, effect.client)
            return on.Dropped(effect.key, effect.client)

        return self._in_directory(effect.key, act)

    def _hash(self, effect: do.Hash) -> None:
        directory = self.directories.get(effect.key)
        if directory is not None:
            try:
                fd = self.disk.open(effect.path, READ, directory.at)
            except OSError:
                self._events.append(on.Hashed(effect.key, effect.file_id, None))
                return
            self.workers.submit(lambda: on.Hashed(effect.key, effect.file_id, _sha256(self.disk, fd)))

    def _release(self, effect: do.Release) -> None:
        directory = self.directories.pop(effect.key, None)
        self._broken.discard(effect.key)
        if directory is None:
            return
        self.opened.bound(self._logs_max())
        path = self._paths.pop(effect.key)
        if directory.is_settled() and not effect.keep:
            self.reminders.drop(path)
        if self._working.get(effect.key) is directory:
            self._letting_go.add(effect.key)
        else:
            directory.close()

    def _upload(self, effect: do.Upload) -> None:
        self.uploader.start(effect)

    def _rest_uploader(self, effect: do.RestUploader) -> None:
        self.uploader.rest()

    def _keep_key(self, effect: do.KeepKey) -> None:
        try:
            self.uploader.keep_key(effect)
        except (DreamlakeError, ValueError, OSError) as error:
            text = f"the key that was given for {effect.path} cannot be kept: {error}"
            self.log("warning", text, path=effect.path, remote=effect.url)

    def _drop_superseded(self, effect: do.DropSuperseded) -> on.Event | None:
        return self._in_directory(effect.key, lambda directory: directory.drop_superseded(effect.newest))

    def _forget(self, effect: do.Forget) -> None:
        self.uploader.forget(effect)
        try:
            at = self.disk.root(effect.path)
        except OSError:
            return  # it is not there any more
        try:
            waiting = bool(self.disk.listdir(JOURNALS, at))
        except OSError:
            waiting = True
        finally:
            self.disk.close(at)
        if not waiting:
            self.reminders.drop(effect.path)

    def _note(self, effect: do.Note) -> None:
        self.log(effect.level, effect.text, **effect.about)

    def _report(self, effect: do.Report) -> None:
        self.hub.send(effect.peer, messages.encode((messages.REPORT, effect.number, self.report())))

    def _exit(self, effect: do.Exit) -> None:
        self.ended = True

    _BRANCHES: ClassVar[dict[type, Any]] = {
        do.Send: _send,
        do.OpenDirectory: _open,
        do.TakeOver: _take_over,
        do.Beat: _beat,
        do.Apply: _apply,
        do.Follow: _follow,
        do.Commit: _commit,
        do.Settle: _settle,
        do.Say: _say,
        do.Scan: _scan,
        do.WriteViews: _write_views,
        do.Sync: _sync,
        do.WriteCheckpoint: _checkpoint,
        do.DropJournal: _drop_journal,
        do.Hash: _hash,
        do.Release: _release,
        do.Upload: _upload,
        do.RestUploader: _rest_uploader,
        do.KeepKey: _keep_key,
        do.DropSuperseded: _drop_superseded,
        do.Forget: _forget,
        do.Note: _note,
        do.Report: _report,
        do.Exit: _exit,
    }


class _Lasting:
    """A worker has made a directory's logs durable up to these sizes, perhaps by a checkpoint; the directory has still
    to be told."""

    def __init__(self, key: on.Key, sizes: dict[str, int], checkpoint: Checkpoint | None = None) -> None:
        self.key, self.sizes, self.checkpoint = key, sizes, checkpoint

    def settle(self, directory: Directory) -> on.Event:
        directory.made_durable(self.sizes)
        if self.checkpoint is None:
            return on.Synced(self.key)
        directory.checkpointed(self.checkpoint)
        covered = {client: at for client, (at, _) in self.checkpoint.clients.items()}
        logs = self.checkpoint.logs.values()
        total = (sum(mark.tail.rows for mark in logs), sum(mark.size for mark in logs))
        return on.Checkpointed(self.key, covered, directory.kept, total)


def _durable(key: on.Key, job: Callable[[], None], done: Any) -> Any:
    try:
        job()
    except OSError as error:
        # Whatever it was, the disk did not say yes: it counts as power loss, and the same fsync is never asked again.
        return on.Broke(key, f"could not be made durable: {error.strerror or error}", distrust=True)
    return done


def _is_gone(directory: Directory) -> bool:
    try:
        return directory.is_gone()
    except OSError:
        return False


def _sha256(disk: Disk, fd: int) -> str | None:
    digest = hashlib.sha256()
    offset = 0
    try:
        while chunk := disk.pread(fd, _HASH_BYTES, offset):
            digest.update(chunk)
            offset += len(chunk)
    except OSError:
        return None
    finally:
        disk.close(fd)
    return digest.hexdigest()
