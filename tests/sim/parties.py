"""The parties of a simulated world: clients and agents, each one process on the pretend disk.

The shipped code does their work. A client does over the seams what :class:`dreamlake.writer.Writer` does over the real
world; an agent is a :class:`~dreamlake_agent.loop.Loop` whose workers work when the world lets them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dreamlake.conversation import Conversation, FlushRequest
from dreamlake.journal import Journal, JournalFull
from dreamlake.link import Switchboard
from dreamlake.wire import codec, jsons, ops
from dreamlake.wire.state import LOGS_LOG, PARAMETERS_LOG, data_log
from dreamlake.world.disk import sync_folder
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.loop import Loop
from tests.sim.disk import SimProcess
from tests.sim.promises import Book, Call, Violation, is_committed

if TYPE_CHECKING:
    from tests.sim.world import World

FOLDERS = (".dreamlake/journals", ".dreamlake/incoming")
TRACKS = ("loss", "eval/acc", "eval/f1")


class Party:
    """One process. ``busy`` are its threads that stand in the middle of something."""

    def __init__(self, world: World, pid: int, name: str) -> None:
        self.world, self.pid, self.name = world, pid, name
        self.disk: SimProcess = world.disk.process(pid)
        self.busy: set[str] = set()
        self.who = world.describe(pid)

    @property
    def dead(self) -> bool:
        return self.disk.dead

    @property
    def quiet(self) -> bool:
        """Whether nothing is owed by it or to it."""
        raise NotImplementedError

    def end(self) -> None:
        """After its death: what else the kernel closes."""
        raise NotImplementedError


class Lock:
    """A lock that can be asked. Whoever would have to wait for it is not given a turn."""

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_error: object) -> None:
        self.depth -= 1


class Client(Party):
    """A training process with one session open."""

    def __init__(self, world: World, pid: int, name: str, path: str, home: str) -> None:
        super().__init__(world, pid, name)
        self.path, self.home = path, home
        self.books: list[Book] = []
        self.flushes: list[tuple[FlushRequest, Book]] = []
        self.untold: deque[Call] = deque()
        self.ordinals: dict[str, int] = {}
        self.number = 0
        self.leaving, self.paused = False, 0.0
        self.board = Switchboard(world.network.connect, self._find, self._start, self._gone)

    @property
    def book(self) -> Book:
        return self.books[-1]

    def _find(self) -> str | None:
        return self.home if self.world.agent_at(self.home) is not None else None

    def _start(self) -> str:
        self.world.start_agent(self.home)
        return self.home

    # ── as dreamlake/writer.py does ─────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        root = self.disk.root("/")
        self.disk.mkdirs(self.path.lstrip("/"), root)
        sync_folder(self.disk, self.path.lstrip("/").rpartition("/")[0], root)
        self.disk.close(root)
        self.at = self.disk.root(self.path)
        for folder in FOLDERS:
            self.disk.mkdirs(folder, self.at)
        client = self.world.client_id()
        self.lock = Lock()
        self.journal = Journal(self.disk, self.at, client, self.world.wall_ns(), self.who)
        self.journal.lock = self.lock  # type: ignore[assignment]
        self.books.append(Book(client, self.name))
        self.world.books.append(self.book)
        opening = {"name": "s", "workspace": "w", "pid": self.pid, "host": "sim", "rank": self.pid}
        self.journal.append((ops.OPEN, self.world.wall_ns(), opening, b"{}"))
        found = self.disk.fstat(self.at)
        hello = {"path": self.path, "dev": found.dev, "ino": found.ino, "by": self.who}
        self.conversation = Conversation(self.journal, hello)
        self.board.conversations[client] = self.conversation

    def _gone(self, conversation: Conversation) -> None:
        """As ``Writer.begin_anew``."""
        if not self.world.may_vanish:
            raise Violation(f"{self.name} was told that its journal is gone, and nobody removed it")
        old, at, book = self.journal, self.at, self.book
        with old.lock:
            try:
                data = old.read_locked(conversation.sender.acked, old.end)
            except OSError:
                data = b""
            self.begin()
            carried = [call for call in book.returned() if (call.end or 0) > conversation.sender.acked]
            book.calls = [call for call in book.calls if call not in carried]
            for op in codec.operations(data):
                if op is not None and op[0] != ops.OPEN:
                    self.journal.append(op)
            self.book.calls += carried
        old.close()
        self.disk.close(at)

    # ── what a training does ────────────────────────────────────────────────────────────────────────────────────────

    def call(self) -> None:
        """A few calls of one kind; a thread that has not heard of the end may still make one after ``close``."""
        random = self.world.chance
        if self.leaving and random.random() < 0.9:
            return
        kind = random.choice((self._point, self._point, self._points, self._log, self._parameters))
        for _ in range(random.choice((1, 1, 3, 10))):
            kind()

    def _value(self) -> str:
        self.number += 1
        return f"{self.name}.t{self.world.chance.randint(0, 1)}.{self.number}"

    def _put(self, op: tuple[Any, ...], *calls: Call) -> None:
        self.book.calls.extend(calls)
        try:
            end = self.journal.append(op)
        except JournalFull:
            for call in calls:
                call.refused = True
            return
        for call in calls:
            call.end = end
            if call.track:
                self.untold.append(call)
        if calls and calls[0].track:
            self.ordinals[calls[0].track] = calls[-1].ordinal + 1

    def _some(self, track: str, count: int) -> list[Call]:
        first = self.ordinals.get(track, 0)
        return [Call(self._value(), data_log(track), track, first + number) for number in range(count)]

    def _point(self) -> None:
        track = self.world.chance.choice(TRACKS)
        (call,) = self._some(track, 1)
        self._put((ops.POINT, self.world.wall_ns(), track, call.ordinal, jsons.dumps({"v": call.value})), call)

    def _points(self) -> None:
        track = self.world.chance.choice(TRACKS)
        calls = self._some(track, self.world.chance.randint(1, 20))
        data = [jsons.dumps({"v": call.value}) for call in calls]
        self._put((ops.POINTS, self.world.wall_ns(), track, calls[0].ordinal, data), *calls)

    def _log(self) -> None:
        call = Call(self._value(), LOGS_LOG)
        self._put((ops.LOG, self.world.wall_ns(), "info", call.value, None, None), call)

    def _parameters(self) -> None:
        call = Call(self._value(), PARAMETERS_LOG)
        self._put((ops.PARAMETERS, self.world.wall_ns(), jsons.dumps({call.value: 1}), None), call)

    def flush(self, durable: bool) -> None:
        self.flushes.append((self.conversation.request_flush(durable=durable), self.book))

    def sync(self) -> None:
        """The first half of ``flush(durable=True)``."""
        book, end = self.book, self.journal.end
        try:
            self.journal.sync()
        except OSError:
            return
        for call in book.returned(end):
            call.durable = True

    def leave(self) -> None:
        """``close()``: the end is written, then waited for."""
        if not self.leaving:
            self.book.closed = None
            try:
                self.journal.append((ops.CLOSE, self.world.wall_ns(), ops.FINISHED, None))
            except JournalFull:
                self.book.closed = False
                return
            self.leaving, self.book.closed = True, True
            self.flush(False)

    # ── the link's thread ───────────────────────────────────────────────────────────────────────────────────────────

    def link(self) -> None:
        if self.world.now < self.paused:
            return
        try:
            self.board.turn(self.world.now)
        except OSError:
            self.paused = self.world.now + 1.0  # as LinkThread does
        for conversation in self.board.conversations.values():
            if conversation.refused:
                raise Violation(f"{self.name} was refused: {conversation.refused}")
        for request, book in self.flushes:
            if request.done.is_set():
                self._flushed(request, book)
        self.flushes = [each for each in self.flushes if not each[0].done.is_set()]
        while self.untold and self._learn(self.untold[0]):
            self.untold.popleft()

    def _learn(self, call: Call) -> bool:
        call.index = self.conversation.index_of(call.track, call.ordinal)
        return call.index is not None

    def _flushed(self, request: FlushRequest, book: Book) -> None:
        if request.problem is not None:
            raise Violation(f"a flush of {self.name} failed: {request.problem}")
        self.world.note(f"{self.name} flushed {request.end}{' durable' if request.durable else ''}")
        at = self.world.user.root(self.path)
        if not is_committed(self.world.user, at, book.client, request.end):
            raise Violation(f"{self.name} was told that {request.end} is flushed, and it is not committed")
        self.world.user.close(at)
        if request.durable:
            for call in book.returned(request.end):
                call.durable = call.pinned = True

    @property
    def locked(self) -> bool:
        return self.lock.depth > 0

    @property
    def quiet(self) -> bool:
        return self.conversation.unacked == 0 and not self.flushes

    def end(self) -> None:
        for line in list(self.board._lines.values()):
            line.close()


class Workers:
    """Jobs wait until the world lets one be done."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], Any]] = deque()
        self.results: list[Any] = []

    def submit(self, job: Callable[[], Any]) -> None:
        self.jobs.append(job)

    def done(self) -> list[Any]:
        found, self.results = self.results, []
        return found

    def finish(self) -> None:
        self.jobs.clear()


class AgentProcess(Party):
    """An agent."""

    def __init__(self, world: World, pid: int, name: str, home: str) -> None:
        super().__init__(world, pid, name)
        self.home = home
        self.who = {**self.who, "endpoint": home, "version": "sim"}
        self.hub = world.network.listen(home)
        self.workers = Workers()
        self.core = Agent(world.random(8))
        self.loop = Loop(self.core, self.disk, self.hub, self.workers, world, self.who, self._log)

    def _log(self, level: str, text: str) -> None:
        self.world.note(f"{self.name} {level}: {text}")

    def turn(self) -> None:
        self.loop.turn()
        if self.loop.ended:
            self.workers.finish()
            self.world.disk.kill(self.pid)

    def work(self) -> None:
        if self.workers.jobs:
            result = self.workers.jobs.popleft()()
            self.workers.results.append(result)

    def stop(self) -> None:
        self.loop.perform(self.core.stop(self.world.now, self.world.wall_ns()))

    @property
    def quiet(self) -> bool:
        return not self.workers.jobs and all(
            each.covered == each.commits == each.viewed and each.working is None and not each.uncommitted
            for each in self.core.sessions.values()
        )

    def end(self) -> None:
        self.hub.close()
