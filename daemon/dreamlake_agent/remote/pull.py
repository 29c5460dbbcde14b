"""Pull: a session of a server as a directory here, whole and verified, or not at all.

One look at the server says how far every log of every origin goes; that much is pulled, however often a pull dies and
is run again. The directory is an origin of its own, and its base (``reader/base.py``) says what in it is others'.
"""

from __future__ import annotations

import errno
import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dreamlake.reader.base import BASE, Base, encode_base
from dreamlake.reader.commits import ORIGIN
from dreamlake.reader.lines import Lines
from dreamlake.remote.follow import Follow, Head, OtherHistory, Piece
from dreamlake.remote.lake import Lake, Refused
from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.names import file_place, is_sha256, track_folder
from dreamlake.wire.projection import time_of
from dreamlake.wire.state import (
    FILES_VIEW,
    HISTORIES,
    LOGS_LOG,
    PARAMETERS_VIEW,
    SESSION_VIEW,
    Row,
    Tail,
    data_log,
    track_view,
    view,
)
from dreamlake.world.disk import REAL_DISK, write_all
from dreamlake_agent.remote.joining import Histories, in_one, number_of, numbered
from dreamlake_agent.remote.staging import BYTES, TREE, CannotPull, Plan, Staging

LOGS_AT_ONCE = 4
FILES_AT_ONCE = 4
WRITE_BYTES = 1 << 20
EMPTY_LOG = Mark()
# What a file system answers when a name cannot be, and not when it is in trouble.
_NO_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EILSEQ}

_Item = TypeVar("_Item")


class _Stopped(Exception):
    """Another thread has failed."""


@dataclass
class Pulled:
    """What a pull brought. ``problems`` are sentences for people; without any, all is there."""

    records: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    problems: list[str] = field(default_factory=list)


class Pull:
    """One session to one place. Raises what :class:`~dreamlake.remote.lake.Lake` raises,
    :class:`~dreamlake_agent.remote.staging.CannotPull` and :class:`OSError`; what has come by then stays, for the next
    run. ``advance`` is told of bytes of logs and files as they come; ``stop`` is set when it has to end early.
    """

    def __init__(
        self,
        lake: Lake,
        workspace: str,
        name: str,
        folder: str,
        now: Callable[[], str],
        *,
        files: bool = True,
        stop: threading.Event | None = None,
    ) -> None:
        self._lake, self._now, self._with_files = lake, now, files
        self._workspace, self._name, self._folder = workspace, name, folder
        self._follow = Follow(lake, workspace, name)
        self._lock = threading.Lock()  # of what several threads count
        self._stop = threading.Event() if stop is None else stop
        self.advance: Callable[[int], None] = lambda _bytes: None
        self.expect: Callable[[int], None] = lambda _bytes: None  # told how many bytes will come
        self.pulled = Pulled()

    def run(self) -> Pulled:
        self._staging = Staging(self._folder)
        try:
            if self._staging.is_finished():
                self._staging.clear()
                return self.pulled
            is_new = self._begin()
            try:
                self._bring()
            except OtherHistory:
                if is_new:
                    raise
                # What was seen then is not there any more: the server was restored from a backup.
                self._staging.begin(self._look())
                self._stop.clear()
                self.pulled = Pulled()
                self._bring()
            self._staging.put_in_place()
            self._staging.clear()
        finally:
            self._staging.close()
        return self.pulled

    # ── what is to be pulled ────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self) -> bool:
        """Take up the plan that is there, or make one; whether it was made now."""
        there = self._staging.plan
        if there is None:
            self._staging.begin(self._look())
            return True
        if (there.url, there.workspace, there.name) != (self._lake.url, self._workspace, self._name):
            raise CannotPull(
                f"{self._staging.part} is an unfinished pull of {there.workspace}/{there.name} from {there.url}: end "
                "that one first, or remove it"
            )
        if self._the_session({}) != there.session:  # deleted since, and made again
            self._staging.begin(self._look())
            return True
        return False

    def _look(self) -> Plan:
        heads = self._follow.origins()
        session = self._the_session(heads)
        for log in {log for logs in heads.values() for log in logs}:
            if not _is_log(log):
                raise CannotPull(f"{self._lake.url} names a log that no session has ({log[:80]!r}): is it a newer one?")
        return Plan(self._lake.url, self._workspace, self._name, session, secrets.token_hex(16), heads)

    def _the_session(self, heads: dict[str, Any]) -> str:
        if not heads:
            self._follow.origins([])
        found = self._follow.session
        if found is None:
            raise CannotPull(f"{self._lake.url} has no session {self._workspace}/{self._name}")
        if found.get("deletedAt"):
            raise CannotPull(
                f"session {self._workspace}/{self._name} on {self._lake.url} was deleted: "
                "`dreamlake delete --restore` takes that back"
            )
        return str(found["id"])

    @property
    def _plan(self) -> Plan:
        assert self._staging.plan is not None
        return self._staging.plan

    def _ends(self, log: str) -> dict[str, Head]:
        """Of the origins that have records of a log, how far they go."""
        found = {origin: logs[log] for origin, logs in self._plan.heads.items() if log in logs}
        return {origin: head for origin, head in found.items() if head.count > head.base}

    def _bring(self) -> None:
        self._staging.prepare()
        histories = Histories(self._plan.origin, self._workspace, self._name)
        for log in HISTORIES:
            for origin, head in self._ends(log).items():
                histories.take(log, origin, self._pieces(log, origin, head))
        wanted = self._wanted(histories.files)
        logs = sorted({log for heads in self._plan.heads.values() for log in heads} - set(HISTORIES))
        self.expect(
            sum(head.mark.size for log in logs for head in self._ends(log).values())
            + sum(size for size, _records in wanted.values())
        )
        self._together(self._bring_log, [log for log in logs if self._ends(log)], LOGS_AT_ONCE)
        elsewhere = {str(each["id"]) for each in histories.files if each.get("deletedAt") is None}
        if self._with_files:
            self._together(self._bring_file, list(wanted.items()), FILES_AT_ONCE)
            elsewhere -= self._here
        self._write_histories(histories, frozenset(elsewhere))

    def _together(self, work: Callable[[_Item], None], items: Sequence[_Item], at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            jobs = [pool.submit(work, item) for item in items]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pieces(self, log: str, origin: str, head: Head, first: int = 0, mark: Mark | None = None) -> Iterable[Piece]:
        first = max(first, head.base)
        if first == 0:
            mark = Mark()
        for piece in self._follow.pieces(origin, log, first, mark, head.count):
            self._go_on()
            yield piece

    def _bring_log(self, log: str) -> None:
        self._go_on()
        ends = self._ends(log)
        if not self._staging.is_done(log) and not self._go_on_with(log, ends):
            self._write_log(log, {origin: self._pieces(log, origin, head) for origin, head in ends.items()})
        count, mark = self._staging.done[log]
        with self._lock:
            self.pulled.records += count
            self.pulled.bytes += mark.size

    def _go_on_with(self, log: str, ends: dict[str, Head]) -> bool:
        """Where a log is one origin's, and its rows have the numbers that they had there, what stands here is the
        beginning of what stands there: go on behind it. False when that is not so."""
        (origin, head), *others = ends.items()
        count, mark = self._staging.kept(log)
        if others or head.base or not 0 < count <= head.count:
            return False
        if count == head.count and mark != head.mark:
            return False
        try:
            self._write_log(log, {origin: self._pieces(log, origin, head, count, mark)}, count, mark)
        except OtherHistory:
            return False
        return True

    def _write_log(self, log: str, pieces: dict[str, Iterable[Piece]], count: int = 0, mark: Mark = EMPTY_LOG) -> None:
        key = number_of(log)
        with self._staging.file(f"{TREE}/{log}", fresh=count == 0) as fd:
            self.advance(mark.size)
            for data in self._numbered(in_one(pieces), key, count):
                write_all(REAL_DISK, fd, data)
                self.advance(len(data))
                count, mark = count + data.count(b"\n"), mark.after(data)
            REAL_DISK.fsync(fd)
        self._staging.finish_log(log, count, mark)

    def _numbered(self, runs: Iterable[Sequence[bytes]], key: str, number: int) -> Iterator[bytes]:
        """Lines in pieces of a file, each with the number of its place."""
        rows: list[bytes] = []
        size = 0
        for lines in runs:
            for line in lines:
                rows.append(numbered(line, key, number) + b"\n")
                number, size = number + 1, size + len(rows[-1])
                if size >= WRITE_BYTES:
                    yield b"".join(rows)
                    rows, size = [], 0
        if rows:
            yield b"".join(rows)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _wanted(self, records: Sequence[Row]) -> dict[str, tuple[int, list[Row]]]:
        """SHA-256 → size, and the files that have these bytes."""
        self._here: set[str] = set()
        found: dict[str, tuple[int, list[Row]]] = {}
        for record in records if self._with_files else ():
            sha256, size = record.get("checksum"), record.get("sizeBytes")
            if record.get("deletedAt") is not None:
                continue
            if not is_sha256(sha256) or not isinstance(size, int) or size < 0:
                self._problem(record, "its SHA-256 is not known there: who uploaded it has not computed it yet")
                continue
            found.setdefault(sha256, (size, []))[1].append(record)
        return found

    def _problem(self, record: Row, why: str) -> None:
        self.pulled.problems.append(f"files/{file_place(record['path'], record['filename'])} was not pulled: {why}")

    def _bring_file(self, item: tuple[str, tuple[int, list[Row]]]) -> None:
        self._go_on()
        sha256, (size, records) = item
        places = {str(each["id"]): f"{TREE}/files/{file_place(each['path'], each['filename'])}" for each in records}
        missing = [each for each in records if self._staging.size(places[str(each["id"])]) != size]
        if len(missing) == len(records):
            why = self._fetch(sha256, size)
            if why is not None:
                for record in records:
                    self._problem(record, why)
                return
        else:
            self.advance(size)
        self._place(sha256, size, records, places)

    def _fetch(self, sha256: str, size: int) -> str | None:
        """Bring bytes, from where the last run stopped; why that cannot be."""
        path = f"{BYTES}/{sha256}"
        for fresh in (False, True):
            digest, there = hashlib.sha256(), 0
            if not fresh and 0 < self._staging.size(path) <= size:
                for chunk in self._staging.chunks(path):
                    digest.update(chunk)
                    there += len(chunk)
            try:
                with self._staging.file(path, fresh=there == 0) as fd:
                    self.advance(there)
                    for chunk in self._lake.read(f"/v1/blobs/{sha256}", there) if there < size or not size else ():
                        self._go_on()
                        there += len(chunk)
                        if there > size:
                            break
                        digest.update(chunk)
                        write_all(REAL_DISK, fd, chunk)
                        self.advance(len(chunk))
                    REAL_DISK.fsync(fd)
            except Refused as refused:
                self._staging.drop(path)
                if refused.status != 404:
                    raise
                return f"{self._lake.url} does not have its bytes yet"
            if digest.hexdigest() == sha256 and there == size:
                return None
            self.advance(-min(there, size))
        self._staging.drop(path)
        return "what came has another SHA-256 than its record says"

    def _place(self, sha256: str, size: int, records: Sequence[Row], places: dict[str, str]) -> None:
        """Put bytes that were verified where their records say."""
        came = f"{BYTES}/{sha256}"
        for record in records:
            place = places[str(record["id"])]
            try:
                if self._staging.size(place) != size:
                    there = next(each for each in (came, *places.values()) if self._staging.size(each) == size)
                    if there == came and record is records[-1]:
                        self._staging.move(came, place)
                    else:
                        self._staging.copy(there, f"{came}.copy", place)
            except OSError as error:
                if error.errno not in _NO_PLACE:
                    raise
                self._problem(record, f"another file or folder stands in its way ({error.strerror})")
                continue
            with self._lock:
                self._here.add(str(record["id"]))
                self.pulled.files += 1
                self.pulled.file_bytes += size
        self._staging.drop(came)

    # ── the directory ───────────────────────────────────────────────────────────────────────────────────────────────

    def _write_histories(self, histories: Histories, elsewhere: frozenset[str]) -> None:
        """What says what the session is, and the views of it; at the end whose it is."""
        done = {log: self._staging.done[log] for log in self._staging.done if self._ends(log)}
        histories.settle({log: self._tail(log, count) for log, (count, _mark) in done.items()}, self._now())
        for log, rows in histories.rows.items():
            data = b"".join(jsons.encode(row) + b"\n" for row in rows)
            self._staging.replace(log, data)
            done[log] = len(rows), Mark().after(data)
        for path in (SESSION_VIEW, PARAMETERS_VIEW, FILES_VIEW, *map(track_view, histories.state.tracks)):
            shown = view(histories.state, path)
            if shown is not None:
                self._staging.replace(path, jsons.pretty(shown))
        origins = {
            origin: {log: (head.count, head.last or "") for log, head in logs.items()}
            for origin, logs in self._plan.heads.items()
        }
        self._staging.replace(BASE, encode_base(Base(done, origins, elsewhere)))
        self._staging.replace(ORIGIN, f"{self._plan.origin}\n".encode())

    def _tail(self, log: str, count: int) -> Tail:
        last = Lines(REAL_DISK, self._staging.at, f"{TREE}/{log}").last()
        return Tail(count, count, time_of(last[-1]) if last else None)


def _is_log(log: str) -> bool:
    if log in HISTORIES or log == LOGS_LOG:
        return True
    track = log[len("tracks/") : -len("/data.jsonl")]
    try:
        return data_log(track_folder(track)) == log
    except ValueError:
        return False
