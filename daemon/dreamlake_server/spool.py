"""Spool: bytes on their way whose hash is not known yet. They wait on disk, not in memory, in a file without a name,
which is gone with its process however that ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.chunks import CHUNK_BYTES, in_thread, work_through


class Spool:
    """What has come so far: how many bytes, and their SHA-256."""

    def __init__(self, fd: int, folder: Path) -> None:
        self._fd, self._folder, self._digest = fd, folder, hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        rest = memoryview(chunk)
        with _translated(self._folder):
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        self._digest.update(chunk)
        self.size += len(chunk)

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        while start < end:
            with _translated(self._folder):
                chunk = await in_thread(os.pread, self._fd, min(CHUNK_BYTES, end - start), start)
            if not chunk:
                raise StoreUnavailable(f"a spooled file in {self._folder} has lost its end: look at its disk")
            yield chunk
            start += len(chunk)


@contextlib.asynccontextmanager
async def spooled(data: AsyncIterator[bytes], folder: Path) -> AsyncGenerator[Spool, None]:
    """All of ``data``, on the disk of ``folder``, which is made when it is not there. What ``data`` raises goes
    through. Raises :class:`~dreamlake_server.stores.StoreUnavailable` when the disk is full."""
    opened = contextlib.ExitStack()

    def begin() -> Spool:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Spool(opened.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0)).fileno(), folder)

    with opened:
        with _translated(folder):
            spool = await in_thread(begin)
        await work_through(data, spool.write)
        yield spool


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"cannot keep an upload in {folder}: {error.strerror or error}"
        raise StoreUnavailable(f"{why}: look at its disk, its free space and its owner") from error
