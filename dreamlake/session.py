"""Session: one experiment run. Everything that a training script calls starts here."""

from __future__ import annotations

import contextlib
import enum
import logging
import math
import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dreamlake import config
from dreamlake.afar import KEPT_AFAR
from dreamlake.errors import AgentUnavailable, NotSynced, SessionDamaged
from dreamlake.exits import asked_to_end, install_hooks, open_sessions, parent_pid
from dreamlake.files import FileBuilder, Files
from dreamlake.logs import LogBuilder, write_log
from dreamlake.parameters import Parameters
from dreamlake.rank import rank_and_size
from dreamlake.reader.baseline import DamagedView, read_view
from dreamlake.reader.session import SessionReader
from dreamlake.tracks import Track
from dreamlake.wire import jsons, names, ops
from dreamlake.wire.remotes import Remote, address
from dreamlake.wire.state import PARAMETERS_LOG, PARAMETERS_VIEW, SESSION_LOG, SESSION_VIEW
from dreamlake.world.disk import REAL_DISK
from dreamlake.world.registry import Registry
from dreamlake.writer import NoJournal, Writer

if TYPE_CHECKING:
    from typing_extensions import Self

    from dreamlake.remote.joined import Joined
    from dreamlake.remote.others import Others

log = logging.getLogger("dreamlake")

_GIVEN = ("description", "tags", "folder", "metadata")


class OperationMode(enum.Enum):
    """Where a session's data goes."""

    LOCAL = "local"
    REMOTE = "remote"
    HYBRID = "hybrid"


class Session:
    """One experiment run, in ``<local_path>/<workspace>/<name>``.

    ``name`` and ``workspace`` say which; the same names again continue the same session. ``description``, ``tags`` (a
    list of strings), ``folder`` (a label such as ``"/experiments/2025"``; it does not change the place on disk) and
    ``metadata`` (a dict) replace what is stored when given. ``local_path`` is the root; without it
    ``DREAMLAKE_LOCAL_PATH``, else ``.dreamlake`` in the working directory. ``write_protected=True`` is kept with the
    session: its parameters and files do not change from then on, and nothing does once it has finished.

    ``remote`` is a server's URL: the agent sends everything there, whatever becomes of this process; nothing here waits
    for the network. With ``local_path`` the directory is there, without it in the agent's own folder. ``api_key`` is
    the token for that server, else ``DREAMLAKE_API_KEY``, else what ``dreamlake login`` has stored for that URL and
    ``user_name``.

    Use it in a ``with``, through :func:`~dreamlake.decorator.dreamlake_session`, or with :meth:`open` and
    :meth:`close`. Any number of processes and threads may have the same session open; each call is kept before it
    returns.

    Raises :class:`ValueError` or :class:`TypeError` for names that cannot be stored.

    >>> import tempfile
    >>> with Session("my-experiment", "project", local_path=tempfile.mkdtemp()) as session:
    ...     receipt = session.track("loss").append(value=0.5, epoch=1)
    """

    def __init__(
        self,
        name: str,
        workspace: str,
        *,
        description: str | None = None,
        tags: list[str] | None = None,
        folder: str | None = None,
        write_protected: bool = False,
        metadata: dict[str, Any] | None = None,
        remote: str | None = None,
        api_key: str | None = None,
        user_name: str | None = None,
        local_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._folders = (names.folder_of("workspace", workspace), names.folder_of("name", name))
        self._remote = self._remote_of(remote, user_name)
        if api_key is not None and not isinstance(api_key, str):
            raise TypeError(f"api_key must be a string, not {type(api_key).__name__}")
        self.name = name
        self.workspace = workspace
        self.description = description
        self.tags = names.tag_list(tags)
        self.folder = folder
        self.write_protected = bool(write_protected)
        self.metadata = metadata
        self.mode = (
            OperationMode.LOCAL
            if self._remote is None
            else OperationMode.REMOTE
            if local_path is None
            else OperationMode.HYBRID
        )
        self.api_key, self.user_name = api_key, user_name
        self._given = self._encode_given()
        self._local_path = os.fspath(local_path) if local_path is not None else None
        self._disabled = config.is_disabled()
        self._writer: Writer | None = None
        self._no_journal: NoJournal | None = None
        self._tracks: dict[str, Track] = {}
        self._path = ""
        self._is_open = False
        self._sealed = False
        self._lock = threading.RLock()
        self._child = False
        self._others: Others | None = None

    @staticmethod
    def _remote_of(remote: str | None, user_name: str | None) -> Remote | None:
        if user_name is not None and (not isinstance(user_name, str) or not user_name):
            raise TypeError("user_name must be a string that is not empty")
        return None if remote is None else Remote(address(remote), user_name)

    def _encode_given(self) -> bytes:
        for field in ("description", "folder"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{field} must be a string, not {type(value).__name__}")
        if self.metadata is not None and not isinstance(self.metadata, dict):
            raise TypeError(f"metadata must be a dict, not {type(self.metadata).__name__}")
        given = {key: getattr(self, key) for key in _GIVEN if getattr(self, key) is not None}
        if self.write_protected:
            given["write_protected"] = True
        return jsons.encode_fields(given)[0]

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<Session {self.workspace}/{self.name} ({state}) {self._path or self._root()}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that is started and not forked, such as a loader's worker: it has the session open too, and
        writes into a journal of its own once it has something to write. The token stays here."""
        given: dict[str, Any] = {key: getattr(self, key) for key in (*_GIVEN, "write_protected", "user_name")}
        given["remote"] = None if self._remote is None else self._remote.url
        given["local_path"] = None if self.mode is OperationMode.REMOTE else self._root()
        return _in_another_process, (type(self), self.name, self.workspace, given, self._is_open, self._sealed)

    def _root(self) -> str:
        if self.mode is OperationMode.REMOTE and self._remote is not None:
            return config.remote_root(self._remote.url, self._remote.user)
        return os.path.abspath(self._local_path if self._local_path is not None else config.local_root())

    @property
    def path(self) -> str:
        """The session directory, absolute."""
        return self._path or os.path.join(self._root(), *self._folders)

    @property
    def id(self) -> str | None:
        """The identity of the session directory (32 hex digits), made by the first agent that kept it; None before."""
        writer = self._writer
        if writer is not None and writer.conversation.origin is not None:
            return writer.conversation.origin
        try:
            with SessionReader(self.path) as reader:
                return reader.origin()
        except (OSError, DamagedView):
            return None

    @property
    def rank(self) -> int:
        """Which of the training's processes this is, as its launcher says; 0 where there is one only."""
        return rank_and_size()[0] or 0

    @property
    def world_size(self) -> int:
        """How many processes the training has, as its launcher says; 1 where it says nothing."""
        return rank_and_size()[1] or 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, or the only process.

        >>> Session("a", "b").is_main
        True
        """
        return self.rank == 0

    @property
    def data(self) -> dict[str, Any] | None:
        """What session.json says; None when there is no such session yet."""
        try:
            with SessionReader(self.path) as reader:
                return reader.session()
        except (OSError, DamagedView):
            return None

    # ── open and close ──────────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> Self:
        """Open the session, made when missing; opening an open one does nothing. Returns it.

        Waits for the agent, started when none runs. When none can be had the session opens all the same: one warning
        says so, and the journal keeps every call for the next agent.

        Raises :class:`OSError` when the directory cannot be made or written, and
        :class:`~dreamlake.errors.SessionDamaged` when it holds a session.json that cannot be read and nothing to
        rebuild it from.
        """
        with self._lock:
            if self._is_open:
                return self
            if self._disabled:
                self._is_open = True
                return self
            self._path = os.path.join(self._root(), *self._folders)
            self._tracks.clear()
            self._check_what_is_there()
            self._begin()
            self._is_open = True
            open_sessions.add(self)
            install_hooks()
            self._wait_for_agent()
            self._take_what_is_stored()
        return self

    def _check_what_is_there(self) -> None:
        """Look before anything is written: a view that nothing could rebuild, a sealed session."""
        self._sealed = False
        if not os.path.isdir(self._path):
            return
        at = REAL_DISK.root(self._path)
        try:
            stored = _stored_views(at)
        except DamagedView as damage:
            raise SessionDamaged(
                f"cannot open the session: {self._path}/{damage}, and there is no history to rebuild it from. "
                "Nothing was changed: repair the file or move it away"
            ) from None
        finally:
            REAL_DISK.close(at)
        self.write_protected = bool(self.write_protected or stored.get("write_protected"))
        self._sealed = bool(stored.get("write_protected")) and stored.get("state") == ops.FINISHED

    def _take_what_is_stored(self) -> None:
        """What was not given is what the session was opened with before."""
        if all(getattr(self, key) is not None for key in _GIVEN):
            return
        try:
            with SessionReader(self._path) as reader:
                stored = reader.session()
        except (OSError, DamagedView):
            return
        for key in _GIVEN:
            if getattr(self, key) is None:
                setattr(self, key, stored.get(key))

    def _begin(self, *, forked: bool = False) -> None:
        rank, size = rank_and_size()
        opening: dict[str, Any] = {"name": self.name, "workspace": self.workspace}
        if rank is not None:
            opening.update(rank=rank, world_size=size)
        parent = parent_pid()
        if parent is not None:
            opening["parent"] = parent
        key: dict[str, str | None] | None = None
        if self._remote is not None:
            opening["remote"] = {"url": self._remote.url, "user": self._remote.user}
            token = self.api_key or config.api_key()
            if token:
                key = {"url": self._remote.url, "user": self._remote.user, "token": token}
        try:
            self._writer = Writer(self._path, opening, self._given, forked=forked, key=key)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot open the session in {self._path}: {error.strerror}. Choose another local_path"
            ) from error
        self._writer.connect()

    def _wait_for_agent(self) -> None:
        writer = self._writer
        assert writer is not None
        ready = writer.flush(config.OPEN_SECONDS, patient=False, afar=False)
        conversation = writer.conversation
        if conversation.damaged is not None:
            self._let_go()
            raise SessionDamaged(f"cannot open the session: {conversation.damaged}. Nothing was changed")
        if not ready:
            why = (
                conversation.trouble or conversation.no_agent or f"it was not ready within {config.OPEN_SECONDS:.0f} s"
            )
            with contextlib.suppress(OSError):
                Registry().add(conversation.hello["path"])
            owner = writer.owner_elsewhere()
            if owner is not None:
                log.info(KEPT_AFAR, owner["host"], self._path)
                return
            if conversation.was_apart:
                return  # that was the word
            log.warning(
                "dreamlake: no agent keeps %s (%s). Every call is kept in its journal, and the next agent applies it",
                self._path,
                why,
            )

    def close(self) -> None:
        """End the session as ``finished``; closing a closed one does nothing.

        Waits at most 5 s for the agent; what it has not taken by then stays in the journal, and one line says where.
        """
        self._close(ops.FINISHED, None, config.CLOSE_SECONDS)

    def _close(self, state: str, error: dict[str, str] | None, seconds: float) -> None:
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            open_sessions.discard(self)
            if self._disabled or (self._child and self._writer is None):
                return  # nothing was written by this process
            writer = self._writer
            assert writer is not None
            if not self._sealed:
                writer.put(ops.CLOSE, state, error)
            if not writer.flush(seconds, patient=False):
                owner = writer.owner_elsewhere()
                who, then = "no agent took everything", "the next agent applies it"
                if owner is not None:
                    who, then = f"the agent on {owner['host']} has not got everything", "it is applied from there"
                _say(f"dreamlake: {who} within {seconds:.0f} s; it is safe in {writer.journals}, and {then}")
            if writer.lost:
                _say(f"dreamlake: {writer.lost} calls could not be kept in {self._path} (see the warning above)")
            self._let_go()

    def _let_go(self) -> None:
        writer, self._writer = self._writer, None
        self._is_open = False
        if writer is not None:
            writer.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._fail(error)

    def _fail(self, error: BaseException, seconds: float = config.CLOSE_SECONDS) -> None:
        asked = asked_to_end()
        told = {"type": type(error).__name__, "message": _plain(str(error))}
        if isinstance(error, SystemExit) and error.code in (None, 0):
            self._close(ops.FINISHED, None, seconds)
        elif asked is not None:
            self._close(ops.KILLED_STATE, asked, seconds)
        else:
            self._close(ops.FAILED, told, seconds)

    def flush(self, durable: bool = False, timeout: float = config.FLUSH_SECONDS) -> None:
        """Wait until the agent has committed everything this process wrote, and shown it in the files.

        ``durable=True``: until it survives power loss; this works without an agent too, by one fsync of this process's
        journal. Raises :class:`~dreamlake.errors.AgentUnavailable` when no agent answers within ``timeout`` seconds
        (nothing is lost), and :class:`OSError` when the disk refuses to make it durable.
        """
        if self._disabled and self._is_open:
            return
        writer = self._ready()
        if durable:
            writer.sync()
            # That was the promise. With an agent, its commit is made durable too, so that the indexes stay as they are.
            writer.flush(timeout, durable=True, patient=False, afar=False)
            return
        if not writer.flush(timeout):
            raise AgentUnavailable(_why_unflushed(writer, timeout))

    def sync(self, timeout: float | None = None) -> None:
        """Wait until everything this process wrote, and the files it uploaded, are on the server.

        ``timeout`` is in seconds; without one it waits for as long as it takes. A session without a remote has nowhere
        to send to: then this is :meth:`flush`. Raises :class:`~dreamlake.errors.NotSynced` when it is not all there by
        then, or cannot be; nothing is lost, and the agent goes on sending, also after this process has ended.
        """
        if self._disabled and self._is_open:
            return
        writer = self._ready()
        if self._remote is None:
            self.flush()
            return
        done, why = writer.wait_for_servers(math.inf if timeout is None else timeout)
        if not done:
            why = why or f"it was not within {timeout} s"
            raise NotSynced(
                f"not everything is on {self._remote.url}: {why}. The agent goes on; `dreamlake agent status` says how "
                "far it is"
            )

    # ── inside ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _ready(self) -> Writer:
        """The writer of this process; made anew in a forked child. :class:`RuntimeError` when the session is not
        open."""
        writer = self._writer
        if writer is not None:
            return writer
        with self._lock:
            if not self._is_open:
                raise RuntimeError(
                    f"session {self.workspace}/{self.name} is not open: use it in a `with`, or call open() first"
                )
            if self._writer is None:
                return self._begin_in_child()
            return self._writer

    def _begin_in_child(self) -> Writer:
        before = self._no_journal.lost if self._no_journal is not None else 0
        try:
            self._begin(forked=True)
        except OSError as error:
            self._no_journal = NoJournal(self._path, error, before)
            return self._no_journal
        assert self._writer is not None
        self._writer.lost = self._writer.conversation.lost = before
        return self._writer

    def _check_open(self) -> None:
        if not self._is_open:
            self._ready()

    def _ready_for_rows(self) -> Writer:
        if self._sealed:
            raise RuntimeError(f"session {self.workspace}/{self.name} is write-protected and finished")
        return self._ready()

    def _ready_for_change(self) -> Writer:
        if self.write_protected:
            raise RuntimeError(f"session {self.workspace}/{self.name} is write-protected")
        return self._ready()

    def _reader(self, *, hashed: bool = False) -> SessionReader:
        """The directory for reading, this process's own writes included."""
        if self._writer is not None:
            self._writer.flush(config.FLUSH_SECONDS, hashed=hashed, patient=False, afar=False)
        return SessionReader(self._path)

    def _joined(self, reader: SessionReader) -> Joined | None:
        """The directory and what other ones of this session have sent, read as one; None without a remote."""
        if self._remote is None:
            return None
        from dreamlake.remote.joined import joined

        return joined(self, reader)

    # ── nouns ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def log(
        self,
        message: str | None = None,
        level: str | None = None,
        metadata: dict[str, Any] | None = None,
        **extra: Any,
    ) -> LogBuilder | None:
        """Write a line to the session's log.

        ``level`` is one of debug, info (the default), warn, error, fatal, in any case. ``extra`` is merged over
        ``metadata``. Without a message it returns a builder: ``session.log().warn("slow", step=3)``. Raises
        :class:`ValueError` for another level, :class:`TypeError` naming a field that JSON cannot hold,
        :class:`RuntimeError` when the session is not open.
        """
        self._check_open()
        if message is None:
            return LogBuilder(self, metadata)
        write_log(self, message, level, metadata, extra)
        return None

    def parameters(self) -> Parameters:
        """The session's parameters: ``session.parameters().set(lr=0.001)``, ``.get()``."""
        self._check_open()
        return Parameters(self)

    def track(
        self,
        name: str,
        description: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Track:
        """A series of points: ``session.track("train/loss").append(value=0.5, step=1)``. ``/`` nests folders.

        Raises :class:`ValueError` for a name that cannot be stored.
        """
        if description is None and tags is None and metadata is None:
            found = self._tracks.get(name)
            if found is not None and self._is_open:
                return found
        self._check_open()
        track = Track(self, names.track_folder(name), description, tags, metadata)
        self._tracks[name] = track
        return track

    def files(self) -> Files:
        """The session's files: ``session.files().upload("model.pth", path="/models")``."""
        self._check_open()
        return Files(self)

    def file(
        self,
        file_path: str | os.PathLike[str] | None = None,
        prefix: str = "/",
        description: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        file_id: str | None = None,
        dest_path: str | os.PathLike[str] | None = None,
    ) -> FileBuilder:
        """The older spelling of :meth:`files`: ``session.file(file_path="model.pth", prefix="/models").save()``."""
        self._check_open()
        return FileBuilder(self, file_path, prefix, description, tags, metadata, file_id, dest_path)


def _why_unflushed(writer: Writer, timeout: float) -> str:
    owner, conversation = writer.owner_elsewhere(), writer.conversation
    if owner is None:
        why = conversation.trouble or conversation.no_agent or f"no answer within {timeout:.0f} s"
        return (
            f"no agent has committed the operations: {why}. They are in {writer.journals}; "
            "`dreamlake agent status` says more"
        )
    silence = writer.silence()
    why = conversation.trouble or "it is behind, or does not see them yet"
    if silence is not None:
        why = f"no sign of life for {silence:.0f} s; if it is gone, run `dreamlake agent takeover {writer.path}`"
    return (
        f"the agent that owns the session, on {owner['host']}, has not committed the operations within "
        f"{timeout:.0f} s: {why}. They are in {writer.journals}"
    )


def _stored_views(at: int) -> dict[str, Any]:
    """What session.json says, as far as it can be read; :class:`DamagedView` when a main view cannot and has no
    history."""
    stored: dict[str, Any] = {}
    for path, history in ((SESSION_VIEW, SESSION_LOG), (PARAMETERS_VIEW, PARAMETERS_LOG)):
        try:
            found = read_view(REAL_DISK, at, path)
        except DamagedView:
            if history.rpartition("/")[2] not in REAL_DISK.listdir(names.DREAMLAKE, at):
                raise
            continue  # the agent rebuilds it
        except OSError:
            continue
        if path == SESSION_VIEW and found is not None:
            stored = found
    return stored


def _in_another_process(
    kind: type[Session], name: str, workspace: str, given: dict[str, Any], is_open: bool, sealed: bool
) -> Session:
    """What was pickled, where it is unpickled: as open as it was, and with nothing written yet."""
    session = kind(name, workspace, **given)
    if is_open:
        session._path = session.path
        session._is_open, session._child, session._sealed = True, True, sealed
        open_sessions.add(session)
        install_hooks()
    return session


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _say(text: str) -> None:
    with contextlib.suppress(Exception):
        print(text, file=sys.stderr, flush=True)
