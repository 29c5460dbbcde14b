"""A carrier of blobs: uploads them by parts, and goes on where the server is."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Sequence

import httpx

from tests.server_live.lake import client_of
from tests.server_live.origins import Origin
from tests.server_live.told import Told

MIB = 1 << 20
SIZES = (MIB + 3, 33 * MIB, 70 * MIB, 8 * MIB, 0)
PAUSE_SECONDS = 0.05


class Carrier:
    """Uploads blobs of one origin one after the other, until it is enough and the last one is stored."""

    def __init__(
        self, origin: Origin, urls: Sequence[str], token: str, told: Told, enough: threading.Event, seed: int
    ) -> None:
        self.origin, self.told, self.enough = origin, told, enough
        self.stored: dict[str, tuple[str, int]] = {}  # file id → SHA-256 and bytes
        self.resumed = self.directly = 0
        self._chance = random.Random(seed)
        self._clients = [client_of(url, token) for url in urls]
        self._store = httpx.Client(timeout=20, trust_env=False)  # for URLs of the store behind the servers

    def run(self) -> None:
        try:
            number = 0
            while not self.told.faults and not (self.enough.is_set() and number >= len(SIZES)):
                self._carry(SIZES[number % len(SIZES)])
                number += 1
        except BaseException as error:
            self.told.fault(f"a carrier died: {error!r}")
            raise
        finally:
            for client in (*self._clients, self._store):
                client.close()

    def _carry(self, size: int) -> None:
        piece = self._chance.randbytes(MIB)
        data = (piece * (size // MIB + 1))[:size]
        sha256 = hashlib.sha256(data).hexdigest()
        file_id = self.origin.uploaded(sha256, size)
        while not self.told.faults and not self._upload(data, sha256):
            self.enough.wait(PAUSE_SECONDS)
        self.stored[file_id] = (sha256, size)

    def _upload(self, data: bytes, sha256: str) -> bool:
        """From where the server is; False when a request came to nothing."""
        begun = self._ask("POST", "/v1/blobs", json={"sha256": sha256, "size": len(data)})
        if begun is None or begun["state"] == "stored":
            return begun is not None
        part_bytes, there = begun["part_bytes"], {int(number) for number in begun["parts"]}
        self.resumed += bool(there)
        numbers = range(1, max(1, -(-len(data) // part_bytes)) + 1)
        parts = {number: data[(number - 1) * part_bytes : number * part_bytes] for number in numbers}
        for number in self._chance.sample([each for each in numbers if each not in there], len(parts) - len(there)):
            url = begun["urls"].get(str(number)) if self._chance.random() < 0.6 else None
            if not (self._put(url, parts[number]) if url else self._put_here(sha256, number, len(data), parts[number])):
                return False
        hashes = [hashlib.sha256(part).hexdigest() for part in parts.values()]
        said = {"size": len(data), "parts": hashes} if self._chance.random() < 0.5 else {"size": len(data)}
        done = self._ask("POST", f"/v1/blobs/{sha256}/complete", json=said)
        return done is not None and done["state"] == "stored"

    def _put_here(self, sha256: str, number: int, size: int, part: bytes) -> bool:
        path = f"/v1/blobs/{sha256}/parts/{number}"
        return self._ask("PUT", path, params={"size": size}, content=part) is not None

    def _put(self, url: str, part: bytes) -> bool:
        """Past the server. What a dying store answers is the store's; only a part that it took counts."""
        try:
            status = self._store.put(url, content=part).status_code
        except httpx.TransportError:
            return False
        self.directly += status == 200
        return status == 200

    def _ask(self, method: str, path: str, **what: object) -> dict[str, object] | None:
        try:
            answer = self._chance.choice(self._clients).request(method, path, **what)  # type: ignore[arg-type]
        except httpx.TransportError:
            self.told.count("no answer")
            return None
        return self.told.answer(answer)  # type: ignore[no-any-return]
