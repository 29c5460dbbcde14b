"""A file system in user space: the requests of ``/dev/fuse`` (linux/fuse.h), each as a call of :class:`Files`.

One thread. A call that has to wait raises :class:`Parked`, and is made again when something has changed; one that waits
and is interrupted by a signal ends with EINTR, so that whoever waits can be killed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

ROOT = 1
_VERSION = (7, 31)
_WRITE_BYTES = 1 << 20
_REQUEST_BYTES = _WRITE_BYTES + 8192
_TICK_SECONDS = 0.05
_BATCH = 64  # requests between two looks at the time and at what we are told

_ATOMIC_TRUNCATE, _BIG_WRITES, _FLOCK, _PARALLEL, _MAX_PAGES = 1 << 3, 1 << 5, 1 << 10, 1 << 18, 1 << 22
_DIRECT = 1  # FOPEN_DIRECT_IO: nothing of the file stays in the kernel
_MS_NOSUID, _MS_NODEV, _MNT_DETACH = 2, 4, 2
# what may be set, as the kernel numbers it
_MODE, _SIZE, _MTIME, _MTIME_NOW = 1, 8, 32, 256
_WITHOUT_REPLY = (2, 42)  # FORGET, BATCH_FORGET
_INTERRUPT = 36

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_ENTRY = struct.Struct("<QQQQII")
_OPEN = struct.Struct("<QIi")
_SETATTR = struct.Struct("<IIQQQQQQ7I")
_INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
_STATFS = struct.Struct("<5Q4I24x")


class Parked(Exception):
    """It cannot be answered now."""


class Change(NamedTuple):
    """What SETATTR asks for."""

    mode: int | None
    size: int | None
    mtime: float | None
    now: bool


class Files(Protocol):
    """What stands behind the requests. All may raise :class:`OSError` and :class:`Parked`. Nodes, open files are
    numbers."""

    forwards_locks: bool

    def lookup(self, parent: int, name: bytes) -> tuple[int, os.stat_result]: ...
    def forget(self, node: int, count: int) -> None: ...
    def attributes(self, node: int) -> os.stat_result: ...
    def change(self, node: int, what: Change) -> os.stat_result: ...
    def mkdir(self, parent: int, name: bytes, mode: int) -> tuple[int, os.stat_result]: ...
    def unlink(self, parent: int, name: bytes) -> None: ...
    def rmdir(self, parent: int, name: bytes) -> None: ...
    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None: ...
    def open(self, node: int, flags: int) -> int: ...
    def create(self, parent: int, name: bytes, flags: int, mode: int) -> tuple[int, os.stat_result, int]: ...
    def read(self, handle: int, size: int, offset: int) -> bytes: ...
    def write(self, handle: int, data: bytes, offset: int) -> int: ...
    def flush(self, handle: int) -> None: ...
    def fsync(self, handle: int) -> None: ...
    def release(self, handle: int) -> None: ...
    def opendir(self, node: int) -> int: ...
    def names(self, handle: int) -> list[bytes]: ...
    def lock(self, handle: int, kind: int, wait: bool) -> None: ...
    def statfs(self) -> os.statvfs_result: ...
    def tick(self) -> None: ...
    def told(self, word: str) -> str: ...


def _attr(found: os.stat_result) -> bytes:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    return _ATTR.pack(
        found.st_ino,
        found.st_size,
        (found.st_size + 511) // 512,
        *(time // 10**9 for time in times),
        *(time % 10**9 for time in times),
        found.st_mode,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        0,
        4096,
        0,
    )


def _entry(found: tuple[int, os.stat_result]) -> bytes:
    # no time for which the kernel may believe it: all that is old is old by our own doing
    return _ENTRY.pack(found[0], 0, 0, 0, 0, 0) + _attr(found[1])


def _name(body: bytes, start: int = 0) -> bytes:
    return body[start : body.index(b"\0", start)]


class Kernel:
    """The conversation over one open ``/dev/fuse``."""

    def __init__(self, files: Files, fd: int) -> None:
        self.files, self.fd = files, fd
        self.parked: dict[int, tuple[int, int, bytes]] = {}
        self._calls: dict[int, Callable[[int, bytes], bytes | None]] = {
            1: lambda node, body: _entry(files.lookup(node, _name(body))),
            2: self._forget,
            3: lambda node, _: bytes(16) + _attr(files.attributes(node)),
            4: self._setattr,
            9: lambda node, body: _entry(files.mkdir(node, _name(body, 8), struct.unpack_from("<I", body)[0])),
            10: lambda node, body: files.unlink(node, _name(body)),
            11: lambda node, body: files.rmdir(node, _name(body)),
            12: lambda node, body: self._rename(node, body, 8),
            14: lambda node, body: _OPEN.pack(files.open(node, struct.unpack_from("<I", body)[0]), _DIRECT, 0),
            15: lambda _, body: files.read(*self._piece(body)),
            16: lambda _, body: struct.pack("<II", files.write(self._handle(body), body[40:], self._piece(body)[2]), 0),
            17: lambda _, body: self._statfs(),
            18: lambda _, body: files.release(self._handle(body)),
            20: lambda _, body: files.fsync(self._handle(body)),
            25: lambda _, body: files.flush(self._handle(body)),
            26: self._init,
            27: lambda node, _: _OPEN.pack(files.opendir(node), 0, 0),
            28: self._readdir,
            29: lambda _, body: files.release(self._handle(body)),
            30: lambda _, body: b"",
            32: lambda _, body: self._lock(body, wait=False),
            33: lambda _, body: self._lock(body, wait=True),
            35: self._create,
            38: lambda _, body: b"",
            42: self._forget_many,
            45: lambda node, body: self._rename(node, body, 16),
        }

    @staticmethod
    def _handle(body: bytes) -> int:
        handle: int = struct.unpack_from("<Q", body)[0]
        return handle

    @staticmethod
    def _piece(body: bytes) -> tuple[int, int, int]:
        handle, offset, size = struct.unpack_from("<QQI", body)
        return handle, size, offset

    def _init(self, _: int, body: bytes) -> bytes:
        major, minor, ahead, flags = struct.unpack_from("<IIII", body)
        assert (major, minor) >= _VERSION, f"a kernel of {major}.{minor}"
        wanted = _ATOMIC_TRUNCATE | _BIG_WRITES | _PARALLEL | _MAX_PAGES
        if self.files.forwards_locks:
            wanted |= _FLOCK
        pages = _WRITE_BYTES // 4096
        return _INIT_OUT.pack(*_VERSION, ahead, flags & wanted, 64, 48, _WRITE_BYTES, 1, pages, 0, 0, 0, 0)

    def _forget(self, node: int, body: bytes) -> bytes:
        self.files.forget(node, struct.unpack_from("<Q", body)[0])
        return b""

    def _forget_many(self, _: int, body: bytes) -> bytes:
        for at in range(struct.unpack_from("<I", body)[0]):
            self.files.forget(*struct.unpack_from("<QQ", body, 8 + 16 * at))
        return b""

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, _, mtime, _, _, mtime_ns, _, mode, *_ = _SETATTR.unpack_from(body)
        change = Change(
            mode & 0o7777 if valid & _MODE else None,
            size if valid & _SIZE else None,
            mtime + mtime_ns / 1e9 if valid & _MTIME and not valid & _MTIME_NOW else None,
            bool(valid & _MTIME_NOW),
        )
        return bytes(16) + _attr(self.files.change(node, change))

    def _rename(self, node: int, body: bytes, start: int) -> bytes:
        if start == 16 and struct.unpack_from("<I", body, 8)[0]:
            raise OSError(errno.EINVAL, "no such rename")
        source = _name(body, start)
        target = _name(body, start + len(source) + 1)
        self.files.rename(node, source, struct.unpack_from("<Q", body)[0], target)
        return b""

    def _create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        number, found, handle = self.files.create(node, _name(body, 16), flags, mode & 0o7777)
        return _entry((number, found)) + _OPEN.pack(handle, _DIRECT, 0)

    def _readdir(self, _: int, body: bytes) -> bytes:
        handle, size, offset = self._piece(body)
        listed = b""
        for at, name in enumerate(self.files.names(handle)[offset:], offset + 1):
            one = struct.pack("<QQII", at, at, len(name), 0) + name
            one += bytes(-len(one) % 8)
            if len(listed) + len(one) > size:
                break
            listed += one
        return listed

    def _lock(self, body: bytes, *, wait: bool) -> bytes:
        self.files.lock(self._handle(body), struct.unpack_from("<I", body, 32)[0], wait)
        return b""

    def _statfs(self) -> bytes:
        found = self.files.statfs()
        counts = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return _STATFS.pack(*counts, found.f_bsize, found.f_namemax, found.f_frsize, 0)

    def _reply(self, unique: int, error: int, data: bytes = b"") -> None:
        try:
            os.write(self.fd, _OUT.pack(_OUT.size + len(data), -error, unique) + data)
        except FileNotFoundError:
            pass  # whoever asked is gone

    def answer(self, unique: int, opcode: int, node: int, body: bytes) -> None:
        if opcode == _INTERRUPT:
            waiting = struct.unpack_from("<Q", body)[0]
            if self.parked.pop(waiting, None):
                self._reply(waiting, errno.EINTR)
            return
        call = self._calls.get(opcode)
        try:
            if call is None:
                raise OSError(errno.ENOSYS, "no such call")
            data = call(node, body)
        except Parked:
            self.parked[unique] = (opcode, node, body)
        except OSError as error:
            self._reply(unique, error.errno or errno.EIO)
        except BaseException:
            self._reply(unique, errno.EIO)
            raise
        else:
            if opcode not in _WITHOUT_REPLY:
                self._reply(unique, 0, data or b"")

    def try_again(self) -> None:
        parked, self.parked = self.parked, {}
        for unique, (opcode, node, body) in parked.items():
            self.answer(unique, opcode, node, body)

    def requests(self) -> bool:
        """Answer what is there; False when the file system is no longer mounted."""
        for _ in range(_BATCH):
            try:
                request = os.read(self.fd, _REQUEST_BYTES)
            except BlockingIOError:
                return True
            except FileNotFoundError:
                continue  # interrupted before we had it
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return False
                raise
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            self.answer(unique, opcode, node, request[_IN.size :])
        return True


def serve(files: Files, at: str) -> None:
    """Mount at a folder, say ``ready``, and answer until standard input ends. What is said there, a word a line, is
    done and answered with a line."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # what ends it is the end of what it is told
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_NONBLOCK)
    options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    if libc.mount(b"stale", at.encode(), b"fuse.stale", _MS_NOSUID | _MS_NODEV, options.encode()):
        raise OSError(ctypes.get_errno(), "mount", at)
    kernel = Kernel(files, fd)
    try:
        os.write(1, b"ready\n")
        said, ticked = b"", 0.0
        while True:
            ready, _, _ = select.select([fd, 0], [], [], _TICK_SECONDS)
            if fd in ready and not kernel.requests():
                return
            if 0 in ready:
                more = os.read(0, 4096)
                if not more:
                    return
                *words, said = (said + more).split(b"\n")
                for word in words:
                    answer = files.told(word.decode())
                    kernel.try_again()
                    os.write(1, answer.encode() + b"\n")
            if time.monotonic() - ticked >= _TICK_SECONDS:
                ticked = time.monotonic()
                files.tick()
                kernel.try_again()
    finally:
        libc.umount2(at.encode(), _MNT_DETACH)
