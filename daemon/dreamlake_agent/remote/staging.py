"""Staging: where a pull works until it is whole.

::

    <DIR>.part/
    ├── .dreamlake-pull     what is pulled, and how far each log goes: one look at the server, kept for every next run
    ├── done                a line for each log that is whole: its count and mark
    ├── bytes/<sha256>      of files, as far as they came
    └── tree/               the directory to be; renamed to <DIR> in one step

Nothing in it is believed by the next run that its marks or checksums do not confirm.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dreamlake.errors import DreamlakeError
from dreamlake.reader.commits import ORIGIN
from dreamlake.remote.follow import Head
from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.names import PULLING
from dreamlake.world.disk import (
    APPEND,
    CREATE,
    EMPTY,
    READ,
    REAL_DISK,
    WRITE,
    clone,
    read_file,
    replace_file,
    write_all,
)

TREE, BYTES, DONE = "tree", "bytes", "done"
_PLAN_BYTES_MAX = 256 << 20
_CHUNK_BYTES = 1 << 20
_VERSION = 1


class CannotPull(DreamlakeError):
    """The message says why there is no place for the session, and what to try."""


@dataclass(frozen=True)
class Plan:
    """What is pulled: one session, as far as the server had it at one moment, as a directory with an identity of its
    own."""

    url: str
    workspace: str
    name: str
    session: str  # the server's id
    origin: str
    heads: Mapping[str, Mapping[str, Head]]

    @classmethod
    def of(cls, data: bytes) -> Plan:
        """Raises :class:`ValueError` for what is none."""
        try:
            said = jsons.loads(data)
            if said["v"] != _VERSION:
                raise ValueError("another version")
            heads = {
                origin: {
                    log: Head(int(count), Mark.of(mark), int(base), first, last)
                    for log, (count, mark, base, first, last) in logs.items()
                }
                for origin, logs in said["heads"].items()
            }
            named = {key: str(said[key]) for key in ("url", "workspace", "name", "session", "origin")}
            return cls(**named, heads=heads)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from None

    def encoded(self) -> bytes:
        heads = {
            origin: {log: [each.count, each.mark.text, each.base, each.first, each.last] for log, each in logs.items()}
            for origin, logs in self.heads.items()
        }
        said: dict[str, Any] = {"v": _VERSION, **vars(self), "heads": heads}
        return jsons.encode(said) + b"\n"


class Staging:
    """The place beside ``folder`` where it is made, and a lock on it. Raises :class:`CannotPull` and
    :class:`OSError`."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.part = f"{self.folder}.part"
        self._done: dict[str, tuple[int, Mark]] = {}
        self._lock = threading.Lock()
        os.makedirs(os.path.dirname(self.part), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.part)
        self.at = REAL_DISK.root(self.part)
        try:
            if not REAL_DISK.lock(self.at):
                raise CannotPull(f"another pull is at work in {self.part}: wait for it, or end it")
            self.plan = self._read_plan()
            if not self.is_finished():
                self._look_around()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go; what is not begun leaves nothing behind."""
        REAL_DISK.close(self.at)
        with contextlib.suppress(OSError):
            os.rmdir(self.part)  # only when it is empty

    def _read_plan(self) -> Plan | None:
        try:
            return Plan.of(read_file(REAL_DISK, PULLING, self.at, _PLAN_BYTES_MAX))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CannotPull(f"{self.part}/{PULLING} cannot be read ({error}): remove {self.part}") from None

    def _look_around(self) -> None:
        """Is there room?"""
        if self.plan is None and set(os.listdir(self.at)) - {f"{PULLING}.tmp"}:
            raise CannotPull(f"{self.part}, where a pull would work, holds something else: move it away")
        if os.path.lexists(self.folder) and not _is_empty(self.folder):
            raise CannotPull(
                f"{self.folder} is there already, and a pull overwrites nothing: give another DIR, or move it away"
            )

    def is_finished(self) -> bool:
        """Whether the last run died after the directory was in its place."""
        if self.plan is None:
            return False
        try:
            with open(os.path.join(self.folder, ORIGIN), encoding="ascii") as file:
                return file.read().strip() == self.plan.origin
        except (OSError, ValueError):
            return False

    def begin(self, plan: Plan) -> None:
        """Begin with a plan; what was there of another one goes."""
        for name in (TREE, BYTES):
            shutil.rmtree(os.path.join(self.part, name), ignore_errors=True)
        self.drop(DONE)
        self._done.clear()
        replace_file(REAL_DISK, PULLING, plan.encoded(), self.at, durable=True)
        self.plan = plan

    def prepare(self) -> None:
        """Make the folders, and read which logs are whole."""
        for name in (TREE, BYTES):
            REAL_DISK.mkdirs(name, self.at)
        with contextlib.suppress(FileNotFoundError):
            for line in read_file(REAL_DISK, DONE, self.at, _PLAN_BYTES_MAX).split(b"\n"):
                with contextlib.suppress(ValueError, KeyError, TypeError):  # of a death, or of power loss
                    said = jsons.loads(line)
                    self._done[said["log"]] = int(said["count"]), Mark.of(said["mark"])

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def done(self) -> Mapping[str, tuple[int, Mark]]:
        return self._done

    def is_done(self, log: str) -> bool:
        """Whether a log is whole: it was said, and it stands there."""
        return log in self._done and self.kept(log) == self._done[log]

    def kept(self, log: str) -> tuple[int, Mark]:
        """How many lines of a log are there, and the mark behind them. Half a line is cut."""
        count, mark = 0, Mark()
        try:
            fd = REAL_DISK.open(f"{TREE}/{log}", os.O_RDWR, self.at)
        except FileNotFoundError:
            return count, mark
        try:
            rest, offset = b"", 0
            while chunk := os.pread(fd, _CHUNK_BYTES, offset):
                offset += len(chunk)
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                count, mark = count + whole.count(b"\n") + bool(newline), mark.after(whole + newline)
            if rest:
                os.ftruncate(fd, mark.size)
            return count, mark
        finally:
            os.close(fd)

    def finish_log(self, log: str, count: int, mark: Mark) -> None:
        """A log is whole and on the disk."""
        line = jsons.encode({"log": log, "count": count, "mark": mark.text}) + b"\n"
        with self._lock, self.file(DONE, fresh=False) as fd:
            write_all(REAL_DISK, fd, b"\n" + line)  # whatever half a line stands before it
        self._done[log] = count, mark

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def file(self, path: str, *, fresh: bool) -> Iterator[int]:
        """A file to append to, empty at first when ``fresh``; its folders are made."""
        folder = path.rpartition("/")[0]
        if folder:
            REAL_DISK.mkdirs(folder, self.at)
        fd = REAL_DISK.open(path, APPEND | CREATE | (EMPTY if fresh else 0), self.at)
        try:
            yield fd
        finally:
            REAL_DISK.close(fd)

    def size(self, path: str) -> int:
        """Bytes of a file; -1 where there is none."""
        try:
            found = REAL_DISK.stat(path, self.at)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        return found.size if found.is_file else -1

    def chunks(self, path: str) -> Iterator[bytes]:
        fd = REAL_DISK.open(path, READ, self.at)
        try:
            offset = 0
            while chunk := os.pread(fd, _CHUNK_BYTES, offset):
                offset += len(chunk)
                yield chunk
        finally:
            REAL_DISK.close(fd)

    def copy(self, source: str, temp: str, place: str) -> None:
        """The bytes of one file also at another place, whole and on the disk or not there."""
        target = REAL_DISK.open(temp, WRITE | CREATE | EMPTY, self.at)
        try:
            fd = REAL_DISK.open(source, READ, self.at)
            try:
                clone(fd, target)
            finally:
                REAL_DISK.close(fd)
            REAL_DISK.fsync(target)
        finally:
            REAL_DISK.close(target)
        self.move(temp, place)

    def move(self, source: str, place: str) -> None:
        REAL_DISK.mkdirs(place.rpartition("/")[0], self.at)
        REAL_DISK.rename(source, place, self.at)

    def drop(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            REAL_DISK.unlink(path, self.at)

    def replace(self, path: str, data: bytes) -> None:
        """A small file of the tree, whole."""
        folder = f"{TREE}/{path}".rpartition("/")[0]
        REAL_DISK.mkdirs(folder, self.at)
        replace_file(REAL_DISK, f"{TREE}/{path}", data, self.at, durable=True)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def put_in_place(self) -> None:
        """The tree becomes the directory, once every name in it would survive power loss."""
        tree = os.path.join(self.part, TREE)
        for folder, _folders, _files in os.walk(tree):
            _sync(folder)
        try:
            os.rename(tree, self.folder)
        except OSError as error:
            raise CannotPull(
                f"{self.folder} cannot take its place ({error.strerror}); what was pulled is in {tree}"
            ) from None
        _sync(os.path.dirname(self.folder))

    def clear(self) -> None:
        """What is left beside the directory goes; the plan last, which says whose it is."""
        for name in (TREE, BYTES):
            shutil.rmtree(os.path.join(self.part, name), ignore_errors=True)
        self.drop(DONE)
        self.drop(PULLING)


def _is_empty(folder: str) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:
        return False


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
