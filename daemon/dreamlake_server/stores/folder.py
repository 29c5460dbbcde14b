"""Blobs in a folder: ``<root>/<owner>/<sha256>/<number as 5 digits>``, each part a file.

A part comes into ``<root>/.dreamlake/incoming`` and is moved to its place once it is whole and on stable storage;
`.dreamlake` is no owner's folder (:func:`~dreamlake_server.stores.blobs.key_of` refuses it). obstore has a store of
local files, too, but it never calls fsync.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dreamlake.wire.names import DREAMLAKE
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.chunks import CHUNK_BYTES, in_thread, work_through
from dreamlake_server.stores.parts import checked, number_of, path_of, sized

PING_SECONDS = 5
PING_BYTES = 4096  # a block: a full disk refuses it
ABANDONED_SECONDS = 24 * 3600  # an incoming part that nobody has written to for so long is of a dead process
PLACE_TRIES = 20  # of a part whose folder is dropped again and again

T = TypeVar("T")


class _Incoming:
    """A part on its way. Its methods are called one after the other, in threads."""

    def __init__(self, folder: Path) -> None:
        self._path, self._fd = folder / uuid.uuid4().hex, -1

    def open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def place(self, place: Path) -> None:
        """The bytes first, then the name, then the names of the folders above: each is worth nothing without the one
        before. Folders that were there already may be a moment old, and another's to sync: we do not wait for him."""
        self.sync()
        for tries_left in reversed(range(PLACE_TRIES)):
            for folder in (place.parent.parent, place.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            try:
                os.rename(self._path, place)
                break
            except FileNotFoundError:  # dropped in between
                if not tries_left:
                    raise
        _sync(place.parent, place.parent.parent, place.parent.parent.parent)

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            with suppress(OSError):  # it is found by its age later
                self._path.unlink(missing_ok=True)


class FolderBlobs:
    """Files below ``root``, which is made when it is not there. Several processes may use one folder."""

    kind = "folder"
    direct = False

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._incoming = self.root / DREAMLAKE / "incoming"
        self._ping: asyncio.Future[OSError | None] | None = None

    async def open(self) -> None:
        await self._do(self._open)

    def _open(self) -> None:
        _make(self._incoming)
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # another server clears, too
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        # One at a time: a disk that hangs would take a thread for each.
        if self._ping is None or self._ping.done():
            self._ping = asyncio.get_running_loop().run_in_executor(None, self._probe)
        await asyncio.wait({self._ping}, timeout=PING_SECONDS)
        if not self._ping.done():
            raise StoreUnavailable(f"{self.root} did not take a write within {PING_SECONDS} s: look at its disk")
        with self._translated():
            if error := self._ping.result():
                raise error

    def _probe(self) -> OSError | None:
        probe = _Incoming(self._incoming)
        try:
            probe.open()
            probe.write(bytes(PING_BYTES))
            probe.sync()
        except OSError as error:
            return error
        finally:
            probe.close()
        return None

    async def parts(self, key: str) -> dict[int, int]:
        return await self._do(self._parts, self.root / checked(key))

    def _parts(self, folder: Path) -> dict[int, int]:
        try:
            with os.scandir(folder) as entries:
                found = {number_of(each.name): each.stat().st_size for each in entries}
            # Whoever moved a part there may have died before it synced the name; what we tell of must last.
            _sync(folder, folder.parent, self.root)
        except FileNotFoundError:  # dropped, or never there
            return {}
        return {number: size for number, size in found.items() if number is not None}

    async def put(self, key: str, number: int, size: int, data: AsyncIterator[bytes]) -> None:
        place = self.root / path_of(key, number)
        incoming = _Incoming(self._incoming)
        try:
            await self._do(incoming.open)
            # Only what the disk raises is translated, not what `data` does.
            await work_through(sized(data, size), self._translated()(incoming.write))
            await self._do(incoming.place, place)
        finally:
            incoming.close()

    async def read(self, key: str, number: int, start: int, end: int) -> AsyncIterator[bytes]:
        place = self.root / path_of(key, number)
        # Opened once: a part that is replaced or dropped is read to its end as it was.
        with ExitStack() as opened:

            def begin() -> int:
                file = opened.enter_context(place.open("rb", buffering=0))
                if os.fstat(file.fileno()).st_size < end:
                    raise FileNotFoundError(errno.ENOENT, f"ends before byte {end}", str(place))
                return file.fileno()

            fd, offset = await self._do(begin, known=(FileNotFoundError,)), start
            while offset < end:
                chunk = await self._do(os.pread, fd, min(CHUNK_BYTES, end - offset), offset)
                if not chunk:
                    raise StoreUnavailable(f"{place} was cut to {offset} bytes while it was read")
                yield chunk
                offset += len(chunk)

    async def url(self, method: str, key: str, number: int, seconds: int) -> str:
        raise NotImplementedError("a folder has no URL: read and put its blobs through the server")

    async def drop(self, key: str) -> None:
        await self._do(self._drop, self.root / checked(key))

    def _drop(self, folder: Path) -> None:
        try:
            for path in folder.iterdir():
                path.unlink(missing_ok=True)
            folder.rmdir()
            _sync(folder.parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # somebody puts it again
                raise

    async def _do(self, work: Callable[..., T], *args: object, known: tuple[type[OSError], ...] = ()) -> T:
        with self._translated(known):
            return await in_thread(work, *args)

    @contextmanager
    def _translated(self, known: tuple[type[OSError], ...] = ()) -> Iterator[None]:
        try:
            yield
        except known:
            raise
        except OSError as error:
            why = f"cannot use the folder of blobs {self.root}: {error.strerror or error}"
            raise StoreUnavailable(f"{why}: look at its disk, its free space and its owner") from error


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync(folder.parent)


def _sync(*folders: Path) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
