"""Trainings: what scripts do in a simulated world, over the shipped writer, journal, conversation and switchboard."""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Any

from dreamlake import config
from dreamlake.conversation import Conversation, FlushRequest
from dreamlake.link import Switchboard
from dreamlake.wire import jsons, ops
from dreamlake.wire.state import FILES_LOG, LOGS_LOG, PARAMETERS_LOG, data_log
from dreamlake.world.disk import NEW, WRITE, let_go, write_all
from dreamlake.writer import Process, Writer, _writers
from tests.sim.parties import Party
from tests.sim.places import SPOOL, Place, place_of
from tests.sim.promises import Book, Call, Violation, is_committed

if TYPE_CHECKING:
    from tests.sim.world import World

TRACKS = ("loss", "eval/acc", "eval/f1")
UPLOADS = ("model.pth", "best/model.pth")
RECORD_BYTES_MAX = 2000  # of anything that a training here writes


class Lock:
    """A lock that can be asked. Whoever would have to wait for it is not given a turn."""

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_error: object) -> None:
        self.depth -= 1


class Pen(Writer):
    """The shipped writer, of which the world keeps a book."""

    def __init__(self, training: Training, path: str, *, forked: bool) -> None:
        self._training = training
        opening: dict[str, Any] = {"name": "s", "workspace": "w", "rank": training.client.pid}
        remote, key = training.world.remote_and_key()
        if remote is not None:
            opening["remote"] = remote
        super().__init__(path, opening, b"{}", forked=forked, process=training.client.process, key=key)

    def _begin(self) -> None:
        super()._begin()
        self.journal.lock = self._training.lock  # type: ignore[assignment]
        self._training.began(self.journal.client, spooled=self.journal.spool is not None)

    def _carry(self, op: tuple[Any, ...]) -> None:
        lost = self.lost
        super()._carry(op)
        self._training.carried_over(self.journal.pack(op), self.journal.end if self.lost == lost else None)


class Training:
    """One session that a process has open."""

    def __init__(self, client: Client, path: str, *, forked: bool) -> None:
        self.client, self.world, self.path = client, client.world, path
        self.lock = Lock()
        self.books: list[Book] = []
        self.flushes: list[tuple[FlushRequest, Book]] = []
        self.untold: deque[Call] = deque()
        self.leaving, self.forked = False, forked
        self.pen = Pen(self, path, forked=forked)
        self.pen.connect()

    @property
    def book(self) -> Book:
        return self.books[-1]

    @property
    def place(self) -> Place:
        return self.book.place

    @property
    def conversation(self) -> Conversation:
        return self.pen.conversation

    def began(self, client: bytes, *, spooled: bool) -> None:
        place = self.world.place_at(self.path)
        closed = None if self.leaving else False
        self.books.append(Book(client, self.client.name, place, forked=self.forked, closed=closed, spooled=spooled))
        place.books.append(self.book)

    def ended(self, how: str) -> None:
        for book in self.books:
            book.end = book.end or how
            if book.lost_spool and not self.is_home:
                book.lose_spool()

    @property
    def is_home(self) -> bool:
        """Whether the journal is in the directory."""
        return self.pen.journal.spool is None

    def carried_over(self, packed: bytes, end: int | None) -> None:
        """An operation that the removed directory's agent had not taken is in the new one."""
        before = self.books[-2]
        for call in [call for call in before.calls if call.value.encode() in packed]:
            before.calls.remove(call)
            self.book.calls.append(call)
            call.end, call.index, call.durable, call.pinned, call.lost = end, None, False, False, False
            call.free = end is None or call.content is not None  # a capture went with its directory

    # ── calls ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self) -> None:
        """A few calls of one kind; a thread that has not heard of the end may still make one after ``close``."""
        random = self.world.chance
        if self.leaving and random.random() < 0.9:
            return
        kinds = (self._point, self._point, self._points, self._log, self._parameters)
        kind = random.choice((*kinds, *(self.upload,) * self.world.uploads))
        for _ in range(random.choice((1, 1, 3, 10)) if kind != self.upload else 1):
            kind()

    def _new(self, log: str, track: str = "", content: bytes | None = None) -> Call:
        self.client.number += 1
        # The z: no value is the beginning of another.
        value = f"{self.client.name}-t{self.world.chance.randint(0, 1)}-{self.client.number}z"
        call = Call(value, log, track, content=content, free=self.book.gone)
        self.book.calls.append(call)
        return call

    def _kept(self, end: int | None, *calls: Call) -> None:
        """The call has returned; without an end the disk had not taken it."""
        for call in calls:
            call.end, call.refused = end, end is None
            if call.track and end is not None:
                self.untold.append(call)

    def _point(self) -> None:
        track = self.world.chance.choice(TRACKS)
        call = self._new(data_log(track), track)
        call.ordinal, end = self.pen.point(track, jsons.dumps({"v": call.value}), None)
        self._kept(end, call)

    def _points(self) -> None:
        track = self.world.chance.choice(TRACKS)
        calls = [self._new(data_log(track), track) for _ in range(self.world.chance.randint(1, 20))]
        first, end = self.pen.points(track, [([jsons.dumps({"v": call.value}) for call in calls], None)])
        for number, call in enumerate(calls):
            call.ordinal = first + number
        self._kept(end, *calls)

    def _log(self) -> None:
        call = self._new(LOGS_LOG)
        self._kept(self.pen.put(ops.LOG, "info", call.value, None, None), call)

    def _parameters(self) -> None:
        call = self._new(PARAMETERS_LOG)
        self._kept(self.pen.put(ops.PARAMETERS, jsons.dumps({call.value: 1}), None), call)

    def upload(self) -> None:
        """As ``dreamlake/files.py``: capture, then the operation."""
        content = self.world.random(self.world.chance.choice((0, 20, 700)))
        incoming_name = f"{self.pen.journal.client.hex()}-"
        disk, at = self.client.disk, self.pen.at
        call = self._new(FILES_LOG, content=content)
        incoming = f".dreamlake/incoming/{incoming_name}{call.value}"
        try:
            fd = disk.open(incoming, NEW | WRITE, at)
            try:
                write_all(disk, fd, content)
            finally:
                disk.close(fd)
        except OSError:
            self._kept(None, call)
            return
        place = self.world.chance.choice(UPLOADS)
        folder, _, name = place.rpartition("/")
        record = {"id": call.value, "path": f"/{folder}", "filename": name, "sizeBytes": len(content), "checksum": None}
        end = self.pen.put(ops.FILE, jsons.encode(record), incoming_name + call.value)
        if end is not None:
            self.pen.remember_capture(end, incoming, f"files/{place}")
        self._kept(end, call)

    def flush(self, durable: bool) -> None:
        self.flushes.append((self.conversation.request_flush(durable=durable), self.book))

    def wait_for_servers(self) -> FlushRequest:
        request = self.conversation.request_flush(remote=True)
        self.flushes.append((request, self.book))
        return request

    def sync(self) -> None:
        """The first half of ``flush(durable=True)``."""
        book, end = self.book, self.pen.journal.end
        try:
            self.pen.sync()
        except OSError:
            return
        for call in book.returned(end):
            call.durable = True

    def leave(self) -> None:
        """``close()``: the end is written, then waited for."""
        if not self.leaving:
            self.book.closed = None
            if self.pen.put(ops.CLOSE, ops.FINISHED, None) is None:
                self.book.closed = False
                return
            self.leaving, self.book.closed = True, True
            self.flush(False)

    # ── what the link has heard ─────────────────────────────────────────────────────────────────────────────────────

    def settle(self) -> None:
        conversation = self.conversation
        if conversation.refused:
            raise Violation(f"{self.client.name} was refused: {conversation.refused}")
        if self.world.counts(self):
            self._check_memory(conversation)
        for request, book in self.flushes:
            if request.done.is_set():
                self._flushed(request, book)
        self.flushes = [each for each in self.flushes if not each[0].done.is_set() and each[1] is self.book]
        while self.untold and self._learn(self.untold[0]):
            self.untold.popleft()

    def _check_memory(self, conversation: Conversation) -> None:
        """What is under way is bounded by what the agent granted, and by one record more."""
        sender = conversation.sender
        credit = self.client.credits[conversation] = max(self.client.credits.get(conversation, 0), sender.credit)
        if sender.sent - sender.acked > max(credit, config.BATCH_BYTES) + RECORD_BYTES_MAX:
            raise Violation(f"{self.client.name} has {sender.sent - sender.acked} bytes under way, granted {credit}")

    def _learn(self, call: Call) -> bool:
        if call.free:
            return True
        index = self.conversation.index_of(call.track, call.ordinal)
        call.index = index if not self.place.wiped and self.world.counts(self) else None
        return index is not None

    def _flushed(self, request: FlushRequest, book: Book) -> None:
        if request.remote:
            self._sent(request, book)
            return
        if request.problem is not None:
            raise Violation(f"a flush of {self.client.name} failed: {request.problem}")
        self.world.note(f"{self.client.name} flushed {request.end}{' durable' if request.durable else ''}")
        if book.gone or book.place.wiped:
            return
        if self.world.counts(self):
            self._check_flushed(request, book)
        if request.durable:
            for call in book.returned(request.end):
                call.durable = call.pinned = True

    def _check_flushed(self, request: FlushRequest, book: Book) -> None:
        reader = self.world.reader_for(self)
        try:
            at = reader.root(book.place.path)
            found = is_committed(reader, at, book.place.path, book.client, request.end)
            reader.close(at)
        except OSError as error:
            if error.errno in (errno.EIO, errno.ETIMEDOUT):
                return  # its node is cut off from the disk meanwhile
            raise
        if not found:
            raise Violation(f"{self.client.name} was told that {request.end} is flushed, and it is not committed")

    def _sent(self, request: FlushRequest, book: Book) -> None:
        self.world.note(f"{self.client.name} hears that {request.end} is sent, but: {request.problem}")
        if book.gone or request.problem is not None:
            return
        calls = list(book.returned(request.end))
        self.world.check_sent(self, request, book.place, calls)
        for call in calls:
            call.durable = call.pinned = True

    @property
    def quiet(self) -> bool:
        return self.conversation.unacked == 0 and not self.flushes


class Client(Party):
    """A training process, with one session open or two; or a forked child of one, with none yet."""

    def __init__(self, world: World, pid: int, home: str) -> None:
        super().__init__(world, pid, f"c{pid}", home)
        self.trainings: list[Training] = []
        self.inherited: list[str] = []  # paths of sessions that the parent has open
        self.credits: dict[Conversation, int] = {}
        self.number = 0
        self.paused = 0.0
        self._spools = world.profile.spool > 0 and world.chance.random() < world.profile.spool
        self.board = Switchboard(world.connect_from(home), self._find, self._start, self._gone)
        self.process = Process(
            disk=self.disk,
            make_folder=self._make_folder,
            path_of=self._path_of,
            wall_ns=world.seen_from(pid).wall_ns,
            random=world.client_id,
            myself=lambda: self.who,
            link=lambda: self,
            spool=self._spool,
        )

    def _make_folder(self, path: str) -> None:
        root = self.disk.root("/")
        self.disk.mkdirs(path.lstrip("/"), root)
        self.disk.close(root)

    def _spool(self) -> str | None:
        if self._spools:
            self._make_folder(SPOOL)
        return SPOOL if self._spools else None

    def _path_of(self, fd: int) -> str | None:
        place = place_of(self.world, self.disk.fstat(fd).ino)
        return place.path if place else None

    def open(self, path: str, *, forked: bool = False) -> None:
        """Raises :class:`OSError` as ``Session.open`` does."""
        self.trainings.append(Training(self, path, forked=forked))

    def use_what_was_inherited(self) -> None:
        """A forked child calls: it gets a journal of its own."""
        while self.inherited:
            self.open(self.inherited.pop(), forked=True)

    # ── as the link's thread ────────────────────────────────────────────────────────────────────────────────────────

    def add(self, conversation: Conversation) -> None:
        self.board.conversations[conversation.journal.client] = conversation

    def remove(self, conversation: Conversation) -> None:
        if self.board.conversations.pop(conversation.journal.client, None) is not None:
            conversation.leave()

    def _find(self) -> str | None:
        return self.world.endpoint_of(self.home) if self.world.agent_at(self.home) is not None else None

    def _start(self) -> str:
        self.world.start_agent(self.home)
        return self.world.endpoint_of(self.home)

    def _gone(self, conversation: Conversation) -> None:
        for training in self.trainings:
            if training.conversation is conversation:
                if not training.book.gone:
                    raise Violation(f"{self.name} was told that its journal is gone, and nobody removed it")
                training.pen.begin_anew()

    def link(self) -> None:
        if self.world.now < self.paused:
            return
        try:
            self.board.turn(self.world.now)
        except OSError:
            self.paused = self.world.now + 1.0  # as LinkThread does
        for training in self.trainings:
            training.settle()

    # ── for the world ───────────────────────────────────────────────────────────────────────────────────────────────

    def fork(self, child: Client) -> None:
        """fork(2): the child has our descriptors; its hook lets go of the journals at once (``Writer.abandon``)."""
        self.world.disk.fork(self.pid, child.pid)
        child.inherited = [training.path for training in self.trainings if not training.leaving]
        journals = [each[3] for training in self.trainings for each in training.pen.journal._segments]
        spools = [training.pen.journal.spool for training in self.trainings]
        journals += [fd for spool in spools if spool is not None for fd in (spool.root, spool._marker)]
        self.world.act(child, "call", lambda: [let_go(child.disk, fd) for fd in journals])

    def exit(self) -> None:
        """The end of a script that closed its sessions."""
        for training in self.trainings:
            training.pen.close()
            training.ended("left")

    @property
    def locked(self) -> bool:
        return any(training.lock.depth > 0 for training in self.trainings)

    @property
    def quiet(self) -> bool:
        return all(training.quiet for training in self.trainings)

    def died(self) -> None:
        """Nobody will carry over any more what stands in a removed directory."""
        for training in self.trainings:
            training.ended("died")

    def end(self) -> None:
        for line in list(self.board._lines.values()):
            line.close()
        for training in self.trainings:
            _writers.pop(training.conversation, None)  # its memory goes, which here is everybody's
