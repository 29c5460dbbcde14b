"""Syncing: one run of ``dreamlake sync``, from what was asked for to the exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from dreamlake.errors import DreamlakeError
from dreamlake.remote.credentials import Credentials
from dreamlake.remote.lake import TRIES, Lake
from dreamlake.wire import jsons
from dreamlake.wire.remotes import Remote
from dreamlake_agent.cli.progress import Show
from dreamlake_agent.remote.blobs import Digests
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.sizes import in_words
from dreamlake_agent.sync.courier import Courier
from dreamlake_agent.sync.errand import Told
from dreamlake_agent.sync.targets import Target, known_sessions, remotes_of, sessions_at, settle

NOT_ALL = 1
WRONG_USE = 2
SCAN_SECONDS = 10.0  # how often a watched folder is looked through for new sessions
_WATCH_TRIES = 2  # of one request; a courier waits by itself
_END_SECONDS = 1.0  # for what is under way when it is interrupted
_LINES_MAX = 20  # of problems of one directory


@dataclass(frozen=True)
class Asked:
    """What the command line says. Without ``remote``, each directory says it itself; ``rate`` is in bytes a second."""

    paths: tuple[str, ...]
    remote: Remote | None
    user: str | None
    rate: int | None = None
    fork: bool = False
    dry_run: bool = False
    watch: bool = False
    as_json: bool = False


class _Interrupted(Exception):
    """There is nothing to wait for any more."""


class Syncing:
    """Raises :class:`~dreamlake.remote.credentials.CredentialsUnusable`."""

    def __init__(self, asked: Asked, show: Show) -> None:
        self._asked, self._show = asked, show
        self._credentials = Credentials()
        self._digests = Digests()
        self._couriers: dict[tuple[Remote, str | None], Courier] = {}
        self._planned: set[str] = set()
        self._order: dict[str, int] = {}
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        self._fault: BaseException | None = None
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._said: set[tuple[Target, str]] = set()
        self._sum = Outcome()
        self._sessions: set[str] = set()
        self._code = 0

    @property
    def is_stuck(self) -> bool:
        """Whether something could not be ended."""
        return any(thread.is_alive() for thread in self._threads)

    def run(self) -> int:
        """The exit code."""
        if not self._plan():
            return self._code
        is_interrupted = False
        with _interrupts(self._stop, also_term=self._asked.watch):
            try:
                with (
                    self._show.bar("")
                    if not self._asked.watch and not self._asked.dry_run
                    else contextlib.nullcontext()
                ):
                    self._work()
            except KeyboardInterrupt:
                is_interrupted = True
            self._stop.set()
            for thread in self._threads:
                thread.join(_END_SECONDS)
        if self._fault is not None:
            raise self._fault
        self._sum_up(is_interrupted)
        if not self.is_stuck:
            for courier in self._couriers.values():
                courier.close()
        if is_interrupted:
            return 0 if self._asked.watch else NOT_ALL
        return self._code

    def _work(self) -> None:
        for courier in self._couriers.values():
            self._start(courier)
        if not self._asked.watch:
            for thread in self._threads:
                thread.join()
            return
        while not self._stop.wait(SCAN_SECONDS):
            there = set(self._couriers)
            self._plan()
            for name in self._couriers.keys() - there:
                self._start(self._couriers[name])

    def _start(self, courier: Courier) -> None:
        once = courier.ask if self._asked.dry_run else courier.send
        for part in courier.watch() if self._asked.watch else [once]:
            thread = threading.Thread(target=self._guarded, args=(part,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _guarded(self, part: Callable[[], None]) -> None:
        try:
            part()
        except _Interrupted:
            pass
        except BaseException as fault:
            self._fault = fault
            self._stop.set()

    # ── what goes where ─────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self) -> bool:
        """Find what was not found before, and give it to the courier of its server; whether there is anything to do."""
        homeless: list[str] = []
        for path in self._directories():
            real = os.path.realpath(path)
            if real in self._planned:
                continue
            self._planned.add(real)
            self._order[path] = len(self._order)
            try:
                remotes = [self._asked.remote] if self._asked.remote else self._remotes(path)
            except (DreamlakeError, OSError) as error:
                self._hear(Told(Target(path, None), error=str(error)))
                continue
            if self._asked.fork and len(remotes) > 1:
                urls = " and ".join(remote.url for remote in remotes)
                self._show.complain(
                    f"cannot fork {path}: it goes to {urls}; say with --remote whose history it parts from"
                )
                self._code = NOT_ALL
                continue
            for remote in remotes:
                self._courier(remote, real).add(Target(path, remote))
            if not remotes:
                homeless.append(path)
        if homeless:
            named = homeless[0] if len(homeless) == 1 else f"{homeless[0]} and {len(homeless) - 1} more"
            self._show.complain(
                f"it is not known where to send {named}: give --remote URL, or run `dreamlake login URL` once"
            )
            if self._asked.paths or not self._couriers:
                self._code = max(self._code, NOT_ALL if self._couriers else WRONG_USE)
        return bool(self._couriers) or (self._asked.watch and self._code == 0)

    def _directories(self) -> list[str]:
        if not self._asked.paths:
            found = known_sessions()
            if not found and not self._asked.watch:
                self._show.complain("no session is known here that might have to be sent: give DIR")
            return found
        found = []
        for path in self._asked.paths:
            there = sessions_at(path)
            if not there and not (self._asked.watch and os.path.isdir(path)):
                self._show.complain(f"cannot sync: {path} is no session directory, and has none below it")
                self._code = WRONG_USE
                if not self._asked.watch:
                    return []
            found += there
        return found

    def _remotes(self, path: str) -> list[Remote]:
        if not self._asked.dry_run:
            with contextlib.suppress(DreamlakeError, OSError):  # it is told when the directory is sent
                settle(path)
        return remotes_of(path, self._asked.user, self._credentials)

    def _courier(self, remote: Remote, path: str) -> Courier:
        key = self._credentials.key_of(path, remote.url, remote.user)
        found = self._couriers.get((remote, key))
        if found is None:
            found = Courier(
                remote,
                lambda: self._opened(remote, key),
                self._show,
                self._hear,
                self._stop,
                self._digests,
                may_fork=self._asked.fork,
            )
            self._couriers[(remote, key)] = found
        return found

    def _say_of_tries(self, text: str) -> None:
        """Whoever ends this closes connections in the middle of a request: that is no trouble of a server's."""
        if not self._asked.watch and not self._stop.is_set():
            self._show.complain(text)

    def _opened(self, remote: Remote, key: str | None) -> Lake:
        return Lake.open(
            remote.url,
            remote.user,
            key,
            self._say_of_tries,
            _WATCH_TRIES if self._asked.watch else TRIES,
            limit_rate=self._asked.rate,
            credentials=self._credentials,
            sleep=self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _Interrupted

    # ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────

    def _hear(self, told: Told) -> None:
        with self._lock:
            outcome = told.outcome
            if not self._asked.watch:
                self._told.append(told)
            self._sessions.add(told.target.path)
            for name in ("records", "bytes", "files", "file_bytes"):
                setattr(self._sum, name, getattr(self._sum, name) + getattr(outcome, name))
            if self._stop.is_set() and not outcome.problems:
                return  # it was left in the middle
            if not told.is_well:
                self._code = max(self._code, NOT_ALL)
            problems = [*([told.error] if told.error else []), *outcome.problems]
            if self._asked.watch:
                problems = self._news(told, problems)
            name = told.session or told.target.path
            if len(self._couriers) > 1 and told.target.remote:
                name = f"{name} to {told.target.remote}"
            if told.is_new_origin:
                self._show.say(f"{name}: parted from its copy, and sent beside it")
            if told.error is None and not (self._asked.watch and not outcome.records and not outcome.files):
                self._show.say(f"{name}: {_would(*told.behind) if told.behind else _summary(outcome, told.is_well)}")
            for problem in problems[:_LINES_MAX]:
                self._show.complain(f"{name}: {problem}" if self._asked.watch or told.error else f"  {problem}")
            if len(problems) > _LINES_MAX:
                self._show.complain(f"  and {len(problems) - _LINES_MAX} more")
            if self._asked.watch and self._asked.as_json and (outcome.records or outcome.files or problems):
                self._show.data(jsons.encode(told.plain()))

    def _news(self, told: Told, problems: list[str]) -> list[str]:
        """Of a watched directory's problems those that were not said before."""
        if not problems and not told.outcome.forks:
            self._said = {each for each in self._said if each[0] != told.target}
        news = [problem for problem in problems if (told.target, problem) not in self._said]
        self._said.update((told.target, problem) for problem in news)
        return news

    def _sum_up(self, is_interrupted: bool) -> None:
        if self._asked.as_json and not self._asked.watch:
            told = sorted(self._told, key=lambda each: self._order[each.target.path])
            self._show.data(jsons.pretty([each.plain() for each in told]))
            return
        count = len(self._sessions)
        sessions = f"{count} session{'s'[: count != 1]}"
        if self._asked.watch:
            self._show.say(f"stopped: {sessions}, {_summary(self._sum, True)}")
        elif is_interrupted:
            self._show.complain("interrupted: run it again, and it goes on from where it was")
        elif count > 1 and not self._asked.dry_run:
            bad = len({each.target.path for each in self._told if not each.is_well})
            self._show.say(f"{sessions}: {_summary(self._sum, not bad)}" + (f"; {bad} with problems" if bad else ""))


def _summary(sent: Outcome, is_well: bool) -> str:
    if not sent.records and not sent.files:
        return "up to date" if is_well else "nothing sent"
    parts = [f"{sent.records:,} records ({in_words(sent.bytes)})"] if sent.records else []
    parts += [f"{sent.files:,} file{'s'[: sent.files != 1]} ({in_words(sent.file_bytes)})"] if sent.files else []
    return "sent " + ", ".join(parts)


def _would(logs: int, files: int) -> str:
    parts = [f"{in_words(logs)} of logs"] if logs else []
    parts += [f"{in_words(files)} of files"] if files else []
    return " and ".join(parts) + " would be sent" if parts else "up to date"


@contextlib.contextmanager
def _interrupts(stop: threading.Event, *, also_term: bool) -> Iterator[None]:
    """The first Ctrl-C ends what is being waited for, and the next ones do nothing: it is ending."""
    signals = (signal.SIGINT, signal.SIGTERM) if also_term else (signal.SIGINT,)

    def end(_number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        stop.set()
        raise KeyboardInterrupt

    before = [(each, signal.signal(each, end)) for each in signals]
    try:
        yield
    finally:
        for number, handler in before:
            if signal.getsignal(number) is end:
                signal.signal(number, handler)
