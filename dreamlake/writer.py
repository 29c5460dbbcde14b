"""The writer: one process's pen on one session, made at open and made anew after a fork.

It joins a journal, the conversation about it, and what must not be lost track of between them: counts of what was lost,
ordinals of points, and the way to begin again when the user has removed the directory.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dreamlake import __version__, config
from dreamlake.afar import Afar
from dreamlake.captures import Captures
from dreamlake.conversation import Conversation, FlushRequest
from dreamlake.errors import AgentUnavailable, JournalLost
from dreamlake.journal import Journal, JournalFull
from dreamlake.link import LinkThread
from dreamlake.reader.spools import binding
from dreamlake.reader.superseded import INCOMING
from dreamlake.spool import Spool
from dreamlake.wire import capabilities, codec, jsons, ops
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK, Disk, Stat, path_of

log = logging.getLogger("dreamlake")

FOLDERS = (".dreamlake/journals", INCOMING)
_no_spool_said: set[str] = set()
_CARRY_TRIES = 10  # to read a removed journal, a second each; then what could not be read counts as lost

_link: LinkThread | None = None
_link_lock = threading.Lock()
_after_fork: list[Any] = []  # what a child inherited and must never touch, kept from being collected


def link_thread() -> LinkThread:
    """This process's link, started when first needed."""
    global _link
    with _link_lock:
        if _link is None or not _link.is_alive():
            _link = LinkThread(_begin_anew)
        return _link


def forget_link() -> None:
    """In a forked child: the parent's thread and sockets are not here."""
    global _link, _link_lock
    if _link is not None:
        _after_fork.append(_link)
    _link = None
    _link_lock = threading.Lock()


_writers: dict[Conversation, Writer] = {}


def _begin_anew(conversation: Conversation) -> None:
    writer = _writers.get(conversation)
    if writer is not None:
        writer.begin_anew()
        _writers.pop(conversation, None)


class Link(Protocol):
    """Whoever carries conversations on: the link's thread."""

    def add(self, conversation: Conversation) -> None: ...
    def remove(self, conversation: Conversation) -> None: ...


@dataclass(frozen=True)
class Process:
    """What a writer asks of the process it is in, and of its machine; the simulation has others."""

    disk: Disk
    make_folder: Callable[[str], None]
    path_of: Callable[[int], str | None]
    wall_ns: Callable[[], int]
    random: Callable[[int], bytes]
    myself: Callable[[], dict[str, Any]]
    link: Callable[[], Link]
    spool: Callable[[], str | None] = lambda: None  # the folder for journals that are not in their directories


THIS_PROCESS = Process(
    disk=REAL_DISK,
    make_folder=lambda path: os.makedirs(path, exist_ok=True),
    path_of=path_of,
    wall_ns=time.time_ns,
    random=os.urandom,
    myself=processes.myself,
    link=link_thread,
    spool=config.spool_folder,
)


class Writer:
    """A process's pen on one session directory. Thread-safe."""

    def __init__(
        self,
        path: str,
        opening: dict[str, Any],
        given: bytes,
        *,
        forked: bool = False,
        key: dict[str, str | None] | None = None,
        process: Process = THIS_PROCESS,
    ) -> None:
        """Make the directory and a journal in it, and write the opening. Raises :class:`OSError` when that cannot
        be."""
        self.path = path
        self._process, self._disk = process, process.disk
        self._root = os.path.dirname(os.path.dirname(path))
        self._named = False
        self.lost = 0
        self._strict = config.is_strict()
        self._by = process.myself()
        self._opening = {
            **opening,
            "pid": self._by["pid"],
            "host": self._by["host"],
            **({"forked": True} if forked else {}),
        }
        self._given = given
        self._key = key  # {url, user, token}: said to the agent, and written nowhere
        self.ordinals: dict[str, int] = {}
        self._captures = Captures(self._disk)
        self._warned = self._abandoned = False
        self._sync_lock = threading.RLock()
        self._carry_tries = 0
        self._clock = process.wall_ns
        self._begin()

    def _begin(self) -> None:
        """Nothing of the writer has changed when this raises."""
        process, disk = self._process, self._disk
        process.make_folder(self.path)
        path = os.path.realpath(self.path)
        try:
            path.encode()
        except UnicodeEncodeError:  # no message could name it
            raise OSError(errno.EILSEQ, "its path is not UTF-8") from None
        at = disk.root(self.path)
        try:
            for folder in FOLDERS:
                disk.mkdirs(folder, at)
            found = disk.fstat(at)
            journal = self._begin_journal(at, found, path)
            try:
                journal.append((ops.OPEN, self._clock(), self._opening, self._given))
            except BaseException:
                journal.close(covered=True)
                raise
        except BaseException:
            disk.close(at)
            raise
        hello = {
            "path": path,
            "dev": found.dev,
            "ino": found.ino,
            "by": self._by,
            "can": capabilities.mine(),
            "version": __version__,
        }
        if self._key is not None:
            hello["key"] = self._key
        afar = Afar(disk, at, journal, self._by, self.sync)
        conversation = Conversation(journal, hello, lambda: process.path_of(at), afar)
        conversation.lost = self.lost
        conversation.come_home = self._come_home
        if self._opening.get("rank") is not None:
            conversation.needs.add(capabilities.RANKS)
        if journal.spool is not None:
            conversation.needs.add(capabilities.SPOOL)
        self._named = False
        self.at, self.conversation, self.journal = at, conversation, journal

    def _begin_journal(self, at: int, found: Stat, path: str) -> Journal:
        client, made = self._process.random(16), self._clock()
        try:
            folder = self._process.spool()
            if folder is not None:
                return self._spooled(at, folder, client, made, {**self._by, "of": binding(found, path)})
        except OSError as error:
            why = f"DREAMLAKE_SPOOL cannot be used ({error.strerror or error})"
            if why not in _no_spool_said:
                _no_spool_said.add(why)
                log.warning("dreamlake: %s: journals are kept in the session directories", why)
        return Journal(self._disk, at, client, made, self._by)

    def _spooled(self, at: int, folder: str, client: bytes, made: int, by: dict[str, Any]) -> Journal:
        spool = Spool(self._disk, at, folder, client, by)
        try:
            journal = Journal(self._disk, spool.root, client, made, by)
        except BaseException:
            spool.drop_begun()
            spool.close()
            raise
        journal.spool = spool
        try:
            spool.mark()
        except BaseException:
            journal.close(covered=True)
            raise
        return journal

    def _come_home(self) -> bool:
        """Whether a spooled journal is in the directory now; False when there is no directory. The spool was lost, or
        no agent that has the directory sees it. Raises :class:`OSError` when it cannot be moved now."""
        if self.journal.spool is None:
            return False
        try:
            self.journal.move(self.at)
        except FileNotFoundError:
            return False
        log.info("dreamlake: the journal of %s is in the directory from now on, not in DREAMLAKE_SPOOL", self.path)
        return True

    @property
    def journals(self) -> str:
        """The folder in which this process's journal is."""
        spool = self.journal.spool
        return f"{self.path if spool is None else spool.path}/.dreamlake/journals"

    def connect(self) -> None:
        """Hand the journal to the link."""
        _writers[self.conversation] = self
        self._process.link().add(self.conversation)

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    # Each takes the journal, and takes it again when the directory was begun anew while it waited for the lock.

    def now(self) -> int:
        """Nanoseconds since 1970, as operations are stamped."""
        return self._clock()

    def put(self, kind: int, *values: Any, time: int | None = None) -> int | None:
        """Keep one operation, stamped ``time`` or now; returns its end in the journal, or None when the disk would not
        take it."""
        while True:
            journal = self.journal
            with journal.lock:
                if journal is not self.journal:
                    continue
                try:
                    end = journal.put(journal.pack((kind, self._clock() if time is None else time, *values)))
                except JournalFull as error:
                    self._lose(error)
                    return None
                if kind == ops.CLOSE:
                    self.conversation.is_closed = True
                return end

    def point(self, track: str, data: bytes, nonfinite: list[str] | None) -> tuple[int, int | None]:
        """Keep one point; returns (ordinal, end in the journal)."""
        ordinals = self.ordinals
        while True:
            journal = self.journal
            with journal.lock:
                if journal is not self.journal:
                    continue
                # Counted first: a call that is cut off leaves a gap in the ordinals, never one given twice.
                ordinal = ordinals.get(track, 0)
                ordinals[track] = ordinal + 1
                op = (ops.POINT, self._clock(), track, ordinal, data)
                try:
                    end = journal.put(journal.pack(op if nonfinite is None else (*op, nonfinite)))
                except JournalFull as error:
                    self._lose(error)
                    return ordinal, None
                return ordinal, end

    def points(self, track: str, batches: list[tuple[list[bytes], list[Any] | None]]) -> tuple[int, int | None]:
        """Keep a list of points, in as many operations as their size needs; returns (first ordinal, end)."""
        ordinals = self.ordinals
        while True:
            journal = self.journal
            with journal.lock:
                if journal is not self.journal:
                    continue
                end: int | None = None
                first = ordinals.get(track, 0)
                for data, nonfinite in batches:
                    ordinal = ordinals.get(track, 0)
                    ordinals[track] = ordinal + len(data)
                    op = (ops.POINTS, self._clock(), track, ordinal, data)
                    try:
                        end = journal.put(journal.pack(op if nonfinite is None else (*op, nonfinite)))
                    except JournalFull as error:
                        self._lose(error)
                        return first, None
                return first, end

    def _lose(self, error: OSError) -> None:
        """Count a call that could not be kept, say so once, and go on: training is not stopped for it."""
        self._count_lost()
        if self._strict:
            raise JournalLost(
                error.errno, f"the journal in {self.path} could not take this call: {error.strerror}"
            ) from error
        if not self._warned:
            self._warned = True
            log.warning(
                "dreamlake: the journal in %s cannot take calls (%s): they are lost until it can, and counted",
                self.path,
                error.strerror,
            )

    def _count_lost(self) -> None:
        self.lost += 1
        self.conversation.lost = self.lost

    def sync(self) -> None:
        """One fsync of this process's journal, and of the files it captured since the last: all of it survives power
        loss.

        Raises :class:`OSError` when the disk cannot say so."""
        with self._sync_lock:  # the link does so as well, for an owner on another node
            with self.journal.lock:
                captures = self._captures.take()
            try:
                for each in captures:
                    self._captures.sync(each, self.at)
                self.journal.sync()
                self._sync_names()
            except OSError:
                with self.journal.lock:
                    self._captures.give_back(captures)
                raise

    def _sync_names(self) -> None:
        """Once: the session's folder and its workspace's, by name, in the folders above: we may have made them."""
        folder = self.path
        while not self._named and folder != os.path.dirname(self._root):
            folder = os.path.dirname(folder)
            at = self._disk.root(folder)
            try:
                self._disk.fsync(at)
            finally:
                self._disk.close(at)
        self._named = True

    def remember_capture(self, end: int, incoming: str, place: str) -> None:
        """A file was captured: ``sync`` stands for its bytes too, until a checkpoint does."""
        with self.journal.lock:
            self._captures.add((end, incoming, place), self.journal.covered)

    # ── waiting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def flush(
        self, seconds: float, *, durable: bool = False, hashed: bool = False, patient: bool = True, afar: bool = True
    ) -> bool:
        """Wait until everything written so far is committed and shown; False when no agent did it in time.

        Not ``patient``: also ends when there has been no agent for a while and none is to be had. Not ``afar``: also
        when the agent that owns the directory is on another node, which takes seconds.
        """
        return self._awaited(seconds, patient=patient, afar=afar, durable=durable, hashed=hashed) is not None

    def owner_elsewhere(self) -> dict[str, Any] | None:
        """Who owns the directory, when that is an agent of another node, and none of this one hears us."""
        return self.conversation.owner_elsewhere(time.monotonic())

    def silence(self) -> float | None:
        """How long an owner on another node has given no sign of life, in seconds; None while it gives them."""
        afar = self.conversation.afar
        return afar.silence(time.monotonic()) if afar is not None else None

    def wait_for_servers(self, seconds: float) -> tuple[bool, str | None]:
        """Wait until everything written so far is on every server; whether it is, or what else there is to say of
        it."""
        request = self._awaited(seconds, patient=False, afar=False, remote=True)
        if request is not None:
            return request.problem is None, request.problem
        conversation = self.conversation
        if conversation.damaged is not None:
            return False, conversation.damaged
        owner = self.owner_elsewhere()
        if owner is not None:
            return False, f"the agent that owns the session, on {owner['host']}, sends it, and says nothing of it here"
        if conversation.has_no_agent_since(time.monotonic() - config.HOPE_SECONDS):
            return False, f"there is no agent: {conversation.no_agent}"
        return False, conversation.behind

    def _gives_up(self, conversation: Conversation, patient: bool, afar: bool) -> bool:
        if (patient and afar) or not conversation.has_no_agent_since(time.monotonic() - config.HOPE_SECONDS):
            return False
        return not (patient if self.owner_elsewhere() is None else afar)

    def _awaited(self, seconds: float, *, patient: bool, afar: bool, **asked: bool) -> FlushRequest | None:
        """What was asked for, done; None when it was not in time."""
        deadline = time.monotonic() + seconds
        while True:
            conversation = self.conversation
            if not afar and conversation.is_afar and self._gives_up(conversation, patient, afar):
                return None
            request = conversation.request_flush(**asked)
            link_thread().wake()
            look = 0.0
            try:
                while not request.done.wait(min(look := min(0.2, look + 0.05), max(0.0, deadline - time.monotonic()))):
                    if conversation is not self.conversation:
                        break  # the directory was begun anew: asked for again there
                    if conversation.damaged is not None or time.monotonic() >= deadline:
                        return None
                    # One that was stopped may come back (`dreamlake agent restart`); a failed start is tried again.
                    if self._gives_up(conversation, patient, afar):
                        return None
                else:
                    return request
            finally:
                conversation.withdraw(request)

    def index_of(self, track: str, ordinal: int, end: int | None, seconds: float) -> int:
        """The index a point was given; waits for the agent, at most ``seconds``."""
        if end is None:
            raise JournalLost("this call could not be kept: it has no index")
        if self._abandoned:  # and whoever held the conversation's lock at the fork is not here to give it back
            raise AgentUnavailable(
                "this point was appended before the fork: only the process that did so has its index"
            )
        conversation = self.conversation
        found = conversation.index_of(track, ordinal)
        if found is not None:
            return found
        self.flush(seconds, afar=False)
        found = conversation.index_of(track, ordinal)
        if found is not None:
            return found
        if conversation.refused:
            raise RuntimeError(f"the agent refused this call: {conversation.refused[-1]}")
        owner = self.owner_elsewhere()
        if owner is not None:
            raise AgentUnavailable(
                f"only the agent that owns the session, on {owner['host']}, knows which index this point is given; the "
                "point is in the journal, and read() shows it"
            )
        raise AgentUnavailable(
            f"no agent has said within {seconds:.0f} s which index this point was given; the point is in the journal"
        )

    # ── ends ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_anew(self) -> None:
        """The user removed the directory: make it again, and carry over what the agent had not taken yet.

        Raises :class:`OSError` when that cannot be now. Nothing has changed then: calls go on into the old journal,
        which has no name any more but still holds them for the next try.
        """
        with self.journal.lock:
            old, at, conversation = self.journal, self.at, self.conversation
            data = self._uncarried(old, conversation.sender.acked)
            self._begin()
            self._captures.take()  # they went with the directory
            lost_files: set[str] = set()
            for op in codec.operations(data):
                if op is not None and op[0] != ops.OPEN and not self._went_along(op, lost_files):
                    self._carry(op)
        log.warning("dreamlake: %s was removed; the session goes on in a new directory there", self.path)
        self.connect()
        old.close(covered=old.spool is not None)  # the removal of the directory did not take these files with it
        self._disk.close(at)

    def _uncarried(self, old: Journal, start: int) -> bytes:
        """What a journal holds from ``start`` on, all of which the next one must have."""
        try:
            return old.read_locked(start, old.end)
        except OSError as error:
            self._carry_tries += 1
            if self._carry_tries < _CARRY_TRIES:
                raise
            self._lose(error)
            return b""

    def _went_along(self, op: tuple[Any, ...], lost_files: set[str]) -> bool:
        """Whether this is of an upload whose capture the directory took along. Its record alone would be taken for that
        of whatever another client puts in its place."""
        kind, _time, first, *rest = op
        if kind in (ops.FILE_CHANGE, ops.FILE_DELETE):
            return first in lost_files
        if kind != ops.FILE:
            return False
        try:
            is_there = self._disk.stat(f"{INCOMING}/{rest[0]}", self.at).is_file
        except OSError as error:
            is_there = not isinstance(error, FileNotFoundError)  # whatever else it is, the bytes may come back
        if is_there:
            return False
        record = jsons.object_of(first) or {}
        lost_files.add(str(record.get("id")))
        self._count_lost()
        log.warning("dreamlake: the upload of %s went with the directory; upload it again", record.get("filename"))
        return True

    def _carry(self, op: tuple[Any, ...]) -> None:
        try:
            self.journal.append(op)
        except JournalFull as error:
            self._lose(error)

    def close(self) -> None:
        _writers.pop(self.conversation, None)
        self._process.link().remove(self.conversation)
        is_covered = self.conversation.is_covered_afar()
        self.journal.close(covered=is_covered)
        if is_covered:
            self._drop_captures()
        self._disk.close(self.at)

    def _drop_captures(self) -> None:
        """What is still on its way to a place was replaced before it came there: all else has been placed. An owner on
        another node does not clear it away, since a journal that it does not see now it may see later."""
        with contextlib.suppress(OSError):
            for name in self._disk.listdir(INCOMING, self.at):
                if name.startswith(self.journal.client.hex()):
                    self._disk.unlink(f"{INCOMING}/{name}", self.at)

    def abandon(self) -> None:
        """In a forked child: leave the parent's journal alone."""
        _writers.pop(self.conversation, None)
        _after_fork.append(self.conversation)
        self._abandoned = True
        self.journal.abandon()


class NoJournal(Writer):
    """In place of the writer of a forked child that cannot begin a journal now: every call is lost, counted, and the
    next one tries again. Training is not stopped for it."""

    def __init__(self, path: str, error: OSError, lost: int) -> None:
        self.path, self._error, self.lost = path, error, lost
        self._strict, self._warned = config.is_strict(), lost > 0
        self._clock = time.time_ns

    def put(self, kind: int, *values: Any, time: int | None = None) -> int | None:
        self._lose(self._error)
        return None

    def point(self, track: str, data: bytes, nonfinite: list[str] | None) -> tuple[int, int | None]:
        self._lose(self._error)
        return 0, None

    def points(self, track: str, batches: list[tuple[list[bytes], list[Any] | None]]) -> tuple[int, int | None]:
        self._lose(self._error)
        return 0, None

    def _count_lost(self) -> None:
        self.lost += 1

    def __getattr__(self, name: str) -> Any:
        """Whatever else needs a journal fails for the same reason."""
        raise OSError(self._error.errno, f"this process has no journal in {self.path}: {self._error.strerror}")
