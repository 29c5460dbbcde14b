"""Blobs: the bytes of one directory's files to one server, as parts, several at once.

Which parts have arrived is the server's to know: an upload that died goes on at the part that is missing. Bytes are
read once before anything is sent, so a file that was damaged since it was captured is never half there; one that
changes on the way is found by the server, which reads its SHA-256 back.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dreamlake.remote.lake import Lake, NotLetIn, Refused, Unreachable
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.remote.source import Bytes, Source

AT_ONCE = 4  # small files, or parts of a large one
SMALL_BYTES = 8 << 20  # larger files wait until the smaller ones are there
SINGLE_BYTES = 32 << 20  # up to here, several files go at once; of a larger one, several parts
STATUS_BLOBS = 1_000  # asked about at once
BLOB_TRIES = 5  # of one whose parts somebody else drops meanwhile
_DIGESTS = 100_000

_T = TypeVar("_T")


class _Stopped(Exception):
    """Somebody else has met a trouble that is everybody's, or the caller wants to stop."""


class Digests:
    """The SHA-256 of files that were read before, by what a file that was changed has not in common with itself."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int, int, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, source: Source, path: str) -> str:
        """Raises :class:`OSError`."""
        key = source.identity(path)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        digest = hashlib.sha256()
        for chunk in source.chunks(path, 0, key[2]):
            digest.update(chunk)
        found = digest.hexdigest()
        if source.identity(path) == key:
            with self._lock:
                self._known[key] = found
                if len(self._known) > _DIGESTS:
                    self._known.popitem(last=False)
        return found

    def forget(self, source: Source, path: str) -> None:
        """It was changed, and looks as before."""
        with self._lock:
            self._known.pop(source.identity(path), None)


class Blobs:
    """Raises what :class:`~dreamlake.remote.lake.Lake` raises about the server as a whole; what is wrong with one file
    is a problem of the outcome, and holds up no other. Two threads may send from one, each its own sizes.

    ``advance`` is told of bytes as they arrive, by one thread at a time. ``digests`` may be shared, so that what goes
    to several servers is read once.
    """

    def __init__(
        self, source: Source, lake: Lake, outcome: Outcome | None = None, digests: Digests | None = None
    ) -> None:
        self._source, self._lake = source, lake
        self.outcome = Outcome() if outcome is None else outcome
        self.advance: Callable[[int], None] = lambda _bytes: None
        self._digests = Digests() if digests is None else digests
        self._there: set[str] = set()  # what the server has said that it has
        self._direct = True  # whether URLs that the server gives are reached from here
        self._later: Unreachable | None = None  # what the server could not do with one file
        self._lock = threading.Lock()

    def renew(self, source: Source, *, ask_again: bool = False) -> None:
        """The directory has gone on; ``ask_again`` also about what the server has said to have."""
        self._source = source
        if ask_again:
            self._there = set()

    def send(self, least: int = 0, most: int | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        """Send what the server lacks of the files that have ``least`` bytes or more, and fewer than ``most``; the
        smallest first."""
        files = [
            each
            for each in self._source.files()
            if each.size >= least and (most is None or each.size < most) and each.sha256 not in self._there
        ]
        files.sort(key=lambda each: each.size)
        self._later = None
        for first in range(0, len(files), STATUS_BLOBS):
            if stop():
                return
            lacking = self._lacking(files[first : first + STATUS_BLOBS])
            single = [each for each in lacking if each.size <= SINGLE_BYTES]
            _at_once(lambda file, halt: self._try(file, False, halt), single, stop)
            for each in lacking[len(single) :]:
                if stop():
                    return
                self._try(each, True, stop)
        if self._later is not None:
            raise self._later

    def owed(self, least: int = 0, most: int | None = None) -> tuple[int, int]:
        """How many files of these sizes, and bytes, the server has not said to have."""
        sizes = [
            each.size
            for each in self._source.files()
            if each.size >= least and (most is None or each.size < most) and each.sha256 not in self._there
        ]
        return len(sizes), sum(sizes)

    def lacking(self) -> int:
        """How many bytes of files the server lacks: a question, and nothing is sent."""
        files = self._source.files()
        pieces = [files[first : first + STATUS_BLOBS] for first in range(0, len(files), STATUS_BLOBS)]
        lacking = [each for some in pieces for each in self._lacking(some)]
        return sum(each.size for each in lacking if self._source.places(each))

    def _lacking(self, some: list[Bytes]) -> list[Bytes]:
        body = {
            "origin": self._source.origin,
            "session": {"workspace": self._source.workspace, "name": self._source.name},
            "logs": [],
            "blobs": [each.sha256 for each in some],
        }
        lacking = set(self._lake.ask("/v1/status", body)["lacking"])
        self._there.update(each.sha256 for each in some if each.sha256 not in lacking)
        return [each for each in some if each.sha256 in lacking]

    def _try(self, file: Bytes, in_parts: bool, stop: Callable[[], bool]) -> None:
        try:
            path, tried = self._path(file), list[str]()
            while path is not None:
                try:
                    self._send(file, path, in_parts, stop)
                    return
                except (Refused, OSError) as error:
                    tried.append(path)
                    # It was replaced meanwhile, and the bytes of what replaced it were put: now, or by an upload that
                    # died, whose parts the server has dropped now.
                    is_dropped = isinstance(error, Refused) and "bad_parts" in error.said
                    path = self._path(file)
                    if path is not None and tried.count(path) > is_dropped:
                        raise
        except (Refused, OSError) as error:  # of this file, and no other is held up by it
            self._problem(f"{file.name} could not be sent: {error}")
        except Unreachable as trouble:
            if trouble.whole:
                raise
            self._later = trouble

    def _problem(self, text: str) -> None:
        with self._lock:
            self.outcome.problems.append(text)

    def _path(self, file: Bytes) -> str | None:
        """Where these bytes are, of the places where they may be. A version that was replaced may be nowhere; one that
        stands may have been replaced since."""
        for look_again in (False, True):
            for path in self._source.places(file, look_again=look_again):
                try:
                    if self._digests.of(self._source, path) == file.sha256:
                        return path
                except FileNotFoundError:
                    continue
        if file.stands and self._source.is_current():
            is_there = any(self._source.size(each.place) is not None for each in file.versions)
            what = "is not what was uploaded any more: its SHA-256 is another one" if is_there else "is not there"
            self._problem(f"{file.name} {what}; see `dreamlake verify {self._source.path}`")
        return None

    def _send(self, file: Bytes, path: str, in_parts: bool, stop: Callable[[], bool]) -> None:
        tries, fewest = BLOB_TRIES, file.size + 2
        while (said := self._lake.ask("/v1/blobs", {"sha256": file.sha256, "size": file.size}))["state"] != "stored":
            numbers = range(1, max(1, -(-file.size // said["part_bytes"])) + 1)
            missing = [number for number in numbers if str(number) not in said["parts"]]
            tries, fewest = (BLOB_TRIES, len(missing)) if len(missing) < fewest else (tries - 1, fewest)
            if not tries:
                raise OSError("its parts do not stay on the server: something else drops them")
            # Of URLs, so many are given at once.
            put = [number for number in missing if str(number) in said["urls"]] or missing
            work = self._putting(file, path, said)
            if in_parts:
                _at_once(work, put, stop)
            else:
                for number in put:
                    work(number, stop)
            if stop():
                return
            if put == missing and self._complete(file, path):
                break
        with self._lock:
            self._there.add(file.sha256)
            self.outcome.files += 1
            self.outcome.file_bytes += file.size

    def _complete(self, file: Bytes, path: str) -> bool:
        try:
            said = self._lake.ask(f"/v1/blobs/{file.sha256}/complete", {"size": file.size})
        except Refused as error:
            if error.said.get("error") == "incomplete":
                return False
            self._digests.forget(self._source, path)
            raise
        return bool(said["state"] == "stored")

    def _putting(self, file: Bytes, path: str, said: dict[str, Any]) -> Callable[[int, Callable[[], bool]], None]:
        part_bytes, urls = said["part_bytes"], said["urls"]

        def put(number: int, stop: Callable[[], bool]) -> None:
            start = (number - 1) * part_bytes
            end = min(file.size, start + part_bytes)

            def chunks() -> Iterator[bytes]:
                left = end - start
                for chunk in self._source.chunks(path, start, end):
                    if stop():
                        raise _Stopped
                    left -= len(chunk)
                    yield chunk
                if left:
                    raise OSError(f"it became {left} bytes shorter while it was sent")

            url = urls.get(str(number)) if self._direct else None
            try:
                if url is None or not self._put_directly(url, end - start, chunks):
                    self._lake.put(f"/v1/blobs/{file.sha256}/parts/{number}?size={file.size}", end - start, chunks)
            except _Stopped:
                return
            with self._lock:
                self.advance(end - start)

        return put

    def _put_directly(self, url: str, size: int, chunks: Callable[[], Iterator[bytes]]) -> bool:
        """Past the server; where that cannot be, it goes through the server after all."""
        try:
            self._lake.put(url, size, chunks)
        except (NotLetIn, Refused):  # it is good for an hour
            return False
        except Unreachable:
            self._direct = False
            return False
        return True


def _at_once(work: Callable[[_T, Callable[[], bool]], None], things: Iterable[_T], stop: Callable[[], bool]) -> None:
    """Do all of it, some at a time, until the first trouble or until ``stop`` says so."""
    halted = threading.Event()

    def halt() -> bool:
        return halted.is_set() or stop()

    def one(thing: _T) -> None:
        if not halt():
            work(thing, halt)

    with ThreadPoolExecutor(AT_ONCE, "upload") as pool:
        jobs = [pool.submit(one, thing) for thing in things]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            halted.set()
            raise
