"""The journal: this process's operations on disk, one ``write(2)`` a call.

A journal is a stream of records in segments (:mod:`dreamlake.reader.segments`). ``append`` has returned when the
kernel has the bytes: they survive SIGKILL of everybody, and power loss once ``sync`` has returned. The agent keeps
journals of its own for what it finds out itself; it is this class too.
"""

from __future__ import annotations

import bisect
import errno
import threading
from collections.abc import Callable
from typing import Any

from dreamlake.reader.segments import JOURNALS, begun_path, encode_header, segment_path, syncing_path
from dreamlake.spool import Spool
from dreamlake.wire import codec
from dreamlake.world.disk import CREATE, READ, WRITE, Disk, begin_locked, let_go, sync_folder

# A new segment is begun past this, so that what is covered can be unlinked while the rest is written.
SEGMENT_BYTES = 16 << 20
# The sender may cut its batches at these places only: every so many bytes the end of a record is written down.
MARK_BYTES = 64 << 10
_BEGIN_TRIES = 4  # to begin a segment


class JournalFull(OSError):
    """The journal could not take an operation: the disk is full, gone, or read-only. Nothing of it was kept."""


class JournalClosed(RuntimeError):
    """A call came after the end of the session: the caller's mistake, and not a loss."""


class Journal:
    """The stream of one client. Safe from any number of threads of one process; not across a fork."""

    def __init__(self, disk: Disk, at: int, client: bytes, made: int, by: dict[str, Any]) -> None:
        """Begin a journal in the session directory open as ``at``; raises :class:`OSError` when that cannot be."""
        self.client = client
        self.lock = threading.RLock()
        # The stream: how far it goes, and its running checksum there.
        self.end = 0
        self.running = codec.seed(client)
        self.synced = self.covered = 0
        self._failed_at = 0
        self._syncing = False
        self._disk, self._at = disk, at
        self._made, self._by = made, by
        self.pack = codec.packer().pack
        self._write: Callable[[int, bytes], int] = disk.write
        self._fd = -1
        self._closed = False
        self.spool: Spool | None = None  # where it is, while it is not in the session directory
        # (base, number, header bytes, descriptor) of every segment not yet dropped; the last is being written
        self._segments: list[tuple[int, int, int, int]] = []
        self._number = 0
        self._room = 0
        # ends of records, every MARK_BYTES and where segments begin, from the last covered one on; the running checksum
        # at each of them
        self._marks: list[int] = [0]
        self._mark_running: list[int] = [self.running]
        self._next_mark = MARK_BYTES
        # (size, running checksum after it) of a record from before its write until it is counted
        self._torn: tuple[int, int] | None = None
        self._inside = False
        self._deferred: list[bytes] = []
        self._begin_segment()

    # ── writing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, op: tuple[Any, ...]) -> int:
        """Keep one operation; returns its end in the stream. Raises :class:`JournalFull` and keeps nothing of it when
        the disk does not take it, :class:`ValueError` for an operation over ``OP_BYTES_MAX``."""
        with self.lock:
            return self.put(self.pack(op))

    def put(self, payload: bytes) -> int:
        """``append`` of a packed operation by a caller who holds ``lock``.

        It may be cut off anywhere by an exception from a signal handler (Ctrl-C in a notebook), and entered again by
        the same thread, from a signal handler or a finalizer that logs. The first leaves ``_torn``, which the next
        call mends; the second waits in ``_deferred`` until the call it interrupted has written its own.
        """
        if len(payload) > codec.OP_BYTES_MAX:
            raise ValueError(
                f"one call of {len(payload)} bytes is over the limit of {codec.OP_BYTES_MAX}: upload a file instead"
            )
        if self._inside:
            self._deferred.append(payload)
            return self.end
        self._inside = True
        try:
            end = self._put(payload)
            while self._deferred:
                self._put(self._deferred.pop(0))
        finally:
            self._inside = False
        return end

    def _put(self, payload: bytes) -> int:
        if self._torn is not None:
            self._mend()
        record, running = codec.frame(payload, self.running)
        size = len(record)
        if self._room < size or self._fd < 0:
            self._make_room()
        self._torn = (size, running)
        try:
            written = self._write(self._fd, record)
        except OSError as error:
            self._cut_back()
            raise JournalFull(error.errno, error.strerror) from error
        if written != size:
            self._finish(record, written)
        # _count, without a call for each
        self.running = running
        self._room -= size
        end = self.end = self.end + size
        self._torn = None
        if end >= self._next_mark:
            self._mark(end, running)
        return end

    def _make_room(self) -> None:
        try:
            self._begin_segment()
        except JournalFull as error:
            if error.errno != errno.ENOENT or self._fd < 0:
                raise
            # Somebody removed the directory. This segment has no name any more either, but it holds what is to be
            # carried into the next directory.
            self._room = SEGMENT_BYTES

    def _count(self, size: int, running: int) -> None:
        self.running = running
        self._room -= size
        end = self.end = self.end + size
        self._torn = None
        if end >= self._next_mark:
            self._mark(end, running)

    def _mark(self, end: int, running: int) -> None:
        self._mark_running.append(running)
        self._marks.append(end)
        self._next_mark = end + MARK_BYTES

    def _mend(self) -> None:
        """A call was cut off between its write and our count of it: count it when it is whole, else cut it back."""
        assert self._torn is not None
        size, running = self._torn
        if self.running == running:  # counted but for the last step
            self._torn = None
            return
        base, _number, start, fd = self._segments[-1]
        try:
            whole = self._fd >= 0 and self._disk.fstat(fd).size == start + self.end - base + size
        except OSError:
            whole = False
        if whole:
            self._count(size, running)
        else:
            self._cut_back()

    def _finish(self, record: bytes, written: int) -> None:
        """Write the rest after a short write, or cut the beginning back: half a record must not stand in the way."""
        try:
            while written < len(record):
                more = self._write(self._fd, record[written:])
                if more <= 0:
                    raise OSError("write made no progress")
                written += more
        except OSError as error:
            self._cut_back()
            raise JournalFull(error.errno, error.strerror) from error

    def _cut_back(self) -> None:
        self._torn = None
        base, _number, start, fd = self._segments[-1]
        try:
            if self._disk.fstat(fd).size > start + self.end - base:
                self._disk.truncate(fd, start + self.end - base)
        except OSError:
            # It stays torn: the stream goes on in a new segment, whose base says where this one ended.
            self._fd = -1

    def _begin_segment(self) -> None:
        if self._closed:
            raise JournalClosed("the session was closed meanwhile, by another thread: this call was not kept")
        header = encode_header(self.client, self._number, self.end, self.running, self._made, self._by)
        tries = _BEGIN_TRIES
        while True:
            tries -= 1
            try:
                fd = self._named(segment_path(self.client, self._number), header, self._at)
                break
            except OSError as error:
                # The agent clears away what the dead have begun, and may have taken us for one: before we had the lock,
                # or on a disk whose locks reach no other node.
                if not isinstance(error, FileNotFoundError) or tries == 0:
                    raise JournalFull(error.errno, error.strerror) from error
        self._segments.append((self.end, self._number, len(header), fd))
        self._number += 1
        if self.end > self._marks[-1]:
            self._mark_running.append(self.running)
            self._marks.append(self.end)
        self._fd = fd
        self._room = SEGMENT_BYTES

    def _named(self, path: str, header: bytes, at: int) -> int:
        """A segment with its header: the lock is how the agent knows that somebody writes it."""
        return begin_locked(self._disk, path, begun_path(path, self._by), header, at)

    # ── for the link ────────────────────────────────────────────────────────────────────────────────────────────────

    def cut_point(self, position: int, limit: int) -> int:
        """The furthest end of a record that is at most ``limit`` bytes after ``position`` (or the next one beyond
        it)."""
        end = self.end
        if end - position <= limit:
            return end
        at = bisect.bisect_right(self._marks, position + limit)
        if at and self._marks[at - 1] > position:
            return self._marks[at - 1]
        return self._marks[at] if at < len(self._marks) else end

    def running_at(self, position: int) -> int | None:
        """The running checksum at an end of a record; None for a position before what is still kept."""
        at = bisect.bisect_right(self._marks, position) - 1
        if at < 0:
            return None
        start, running = self._marks[at], self._mark_running[at]
        return codec.run_on(self.read(start, position), running)

    def read(self, position: int, end: int) -> bytes:
        """The bytes of the stream from ``position`` to ``end``, wherever the segments part them."""
        with self.lock:
            segments = list(self._segments)
        return self._read(segments, position, end)

    def read_locked(self, position: int, end: int) -> bytes:
        """``read`` by a caller who holds ``lock``."""
        return self._read(self._segments, position, end)

    def _read(self, segments: list[tuple[int, int, int, int]], position: int, end: int) -> bytes:
        chunks: list[bytes] = []
        for index, (base, _number, start, fd) in enumerate(segments):
            last = segments[index + 1][0] if index + 1 < len(segments) else end
            while position < end and base <= position < last:
                chunk = self._disk.pread(fd, min(end, last) - position, start + position - base)
                if not chunk:
                    raise OSError("the journal is shorter than what was written to it")
                chunks.append(chunk)
                position += len(chunk)
        if position < end:
            raise OSError("the journal no longer holds what was asked for")
        return b"".join(chunks)

    def cover(self, position: int) -> None:
        """Drop the segments that a checkpoint covers; the one being written stays."""
        dropped: list[tuple[int, int, int, int]] = []
        with self.lock:
            self.covered = max(self.covered, position)
            while not self._syncing and len(self._segments) > 1 and self._segments[1][0] <= position:
                dropped.append(self._segments.pop(0))
            known = bisect.bisect_right(self._marks, position) - 1
            if known > 0:
                del self._marks[:known], self._mark_running[:known]
        for _base, number, _start, fd in dropped:
            let_go(self._disk, fd)
            self._unlink(number, self._at)

    def is_gone(self) -> bool:
        """Whether somebody removed the file that is being written (with its directory, as users do), or its marker."""
        fd = self._segments[-1][3]
        try:
            return self._disk.fstat(fd).nlink == 0 or (self.spool is not None and self.spool.is_gone())
        except OSError as error:
            return error.errno == errno.ESTALE  # removed on another node

    def touch(self) -> None:
        """Give the file that is being written the present time: somebody on another node sees that its writer lives.
        By its name, so that a disk that hangs holds up no call."""
        with self.lock:
            if self._closed:
                return
            number = self._segments[-1][1]
        fd = self._disk.open(segment_path(self.client, number), READ, self._at)
        try:
            self._disk.touch(fd)
        finally:
            self._disk.close(fd)

    def sync(self) -> None:
        """Make everything appended so far survive power loss: one fsync of each segment, one of the folder.

        Raises :class:`OSError` when the disk cannot say so. A failed fsync is never asked again, because the kernel
        would answer yes and the bytes be gone: what it stood for is safe once the agent has covered it, and not before.
        """
        with self.lock:
            end = self.end
            if end <= self.synced:
                return
            if self._failed_at > self.covered:
                raise OSError("an earlier fsync of the journal failed; waiting for the agent to make it durable")
            ends = [base for base, *_rest in self._segments[1:]] + [end]
            fds = [each[3] for each, upto in zip(self._segments, ends, strict=True) if upto > self.synced]
            self._syncing = True
        try:
            # The mark says so to an owner that sees the journal only after a failure (store/held.py).
            self._disk.close(self._disk.open(syncing_path(self.client), WRITE | CREATE, self._at))
            for fd in fds:
                self._disk.fsync(fd)
            for folder in (JOURNALS,) if self.synced else (JOURNALS, ".dreamlake", "."):
                sync_folder(self._disk, folder, self._at)
            if self.spool is not None:
                self.spool.sync()
            self._disk.unlink(syncing_path(self.client), self._at)
        except OSError:
            self._failed_at = end
            raise
        finally:
            self._syncing = False
        self.synced = end

    def move(self, at: int) -> None:
        """Leave the spool for the session directory open as ``at``: the same stream in the same segments, so that
        nothing is applied twice, whoever has seen it where. Raises :class:`OSError` and stays where it was."""
        with self.lock:
            assert self.spool is not None
            if self._syncing:
                raise OSError(errno.EBUSY, "its journal is being made durable")
            if self._torn is not None:
                self._mend()
            old, here, moved = self._segments, self._at, list[tuple[int, int, int, int]]()
            try:
                self._copy(at, moved)
            except BaseException:
                for _base, number, _start, fd in moved:
                    self._disk.close(fd)
                    self._unlink(number, at)
                raise
            self.spool.unmark()  # until here the spool counted, from here on the directory does
            self._segments, self._at = moved, at
            self._fd = moved[-1][3] if self._fd >= 0 else -1
            for _base, number, _start, fd in old:
                self._disk.close(fd)
                self._unlink(number, here)
            self.spool.close()
            self.spool = None

    def _copy(self, at: int, moved: list[tuple[int, int, int, int]]) -> None:
        """Every segment, durable: a failed fsync may have left other bytes than were written, so they are compared."""
        known, running = self._marks[0], self._mark_running[0]
        for index, (base, number, start, fd) in enumerate(self._segments):
            end = self._segments[index + 1][0] if index + 1 < len(self._segments) else self.end
            data = self._disk.pread(fd, start, 0) + self.read_locked(base, end)
            running = codec.run_on(data[start + max(0, known - base) :], running)
            moved.append((base, number, start, self._named(segment_path(self.client, number), data, at)))
            self._disk.fsync(moved[-1][3])
        if running != self.running:
            raise OSError(errno.EIO, "the journal cannot be read as it was written")
        for folder in (JOURNALS, ".dreamlake", "."):
            sync_folder(self._disk, folder, at)

    def close(self, *, covered: bool = False) -> None:
        """Let go. The files stay for the agent, unless a checkpoint ``covered`` them."""
        with self.lock:
            for _base, number, _start, fd in self._segments:
                let_go(self._disk, fd)
                if covered:
                    self._unlink(number, self._at)
            self._segments.clear()
            self._fd, self._torn, self._closed = -1, None, True
            if self.spool is not None:
                if covered:
                    self.spool.unmark()
                self.spool.close()

    def _unlink(self, number: int, at: int) -> None:
        try:
            self._disk.unlink(segment_path(self.client, number), at)
        except OSError:
            pass  # already gone, with the directory or by the agent

    def abandon(self) -> None:
        """After a fork, in the child: close the parent's descriptors without a lock, and touch nothing else."""
        for _base, _number, _start, fd in self._segments:
            try:
                self._disk.close(fd)
            except OSError:
                pass
        if self.spool is not None:
            try:
                self.spool.close()
            except OSError:
                pass
        self._segments = []
        self._fd, self._closed = -1, True
