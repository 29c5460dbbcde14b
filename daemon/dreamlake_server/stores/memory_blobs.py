"""Blobs in memory: for tests, and for a server that may forget. What is here ends with the process."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dreamlake_server.stores.chunks import CHUNK_BYTES
from dreamlake_server.stores.parts import checked, path_of, sized


class MemoryBlobs:
    """A dictionary of parts."""

    kind = "memory"
    direct = False

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, bytes]] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        pass

    async def parts(self, key: str) -> dict[int, int]:
        return {number: len(data) for number, data in self._parts.get(checked(key), {}).items()}

    async def put(self, key: str, number: int, size: int, data: AsyncIterator[bytes]) -> None:
        path_of(key, number)  # refused here as in any other store
        # A part is held whole here in any case: there is nowhere else to put it.
        part = b"".join([chunk async for chunk in sized(data, size)])
        self._parts.setdefault(key, {})[number] = part

    async def read(self, key: str, number: int, start: int, end: int) -> AsyncIterator[bytes]:
        part = self._parts.get(checked(key), {}).get(number)
        if part is None or len(part) < end:
            raise FileNotFoundError(f"part {number} of {key} is not here, or ends before byte {end}")
        for offset in range(start, end, CHUNK_BYTES):
            yield part[offset : min(offset + CHUNK_BYTES, end)]

    async def url(self, method: str, key: str, number: int, seconds: int) -> str:
        raise NotImplementedError("blobs in memory have no URL: read and put them through the server")

    async def drop(self, key: str) -> None:
        self._parts.pop(checked(key), None)
