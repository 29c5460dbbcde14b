"""A sender that does what docs/push.md, section 3, says, and knows nothing that it was not told."""

from __future__ import annotations

import base64
import json
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgpack

from dreamlake.wire.zstd import pack
from tests.server_live.lake import client_of
from tests.server_live.origins import Origin
from tests.server_live.told import Told

# Some give up before the answer comes, which then nobody hears, and the request goes on without them.
PATIENCE_SECONDS = (0.02, 0.2, 2.0, 40.0)
PATIENCE_CHANCES = (1, 2, 3, 20)
PAUSE_SECONDS = 0.05
RECORDS_AT_ONCE = 5000
REPEATED = 200  # records of an old batch, at most


class Sender:
    """Uploads one origin to servers by chance, until it is told that it is enough and everything is acked."""

    def __init__(
        self, origin: Origin, urls: Sequence[str], token: str, told: Told, enough: threading.Event, seed: int
    ) -> None:
        self.origin, self.told, self.enough = origin, told, enough
        self.repeats = False  # now and then it sends again what it sent long ago
        self._chance = random.Random(seed)
        self._clients = [client_of(url, token) for url in urls]

    def run(self) -> None:
        try:
            with ThreadPoolExecutor(len(self._clients)) as at_once:
                while not self._is_done() and not self.told.faults:
                    if not self._converse(at_once):
                        self.enough.wait(PAUSE_SECONDS)
        except BaseException as error:
            self.told.fault(f"a sender died: {error!r}")
            raise
        finally:
            for client in self._clients:
                client.close()

    def _is_done(self) -> bool:
        acked = self.told.floor(self.origin)
        return self.enough.is_set() and all(acked[log] == len(each) for log, each in self.origin.logs.items())

    def _converse(self, at_once: ThreadPoolExecutor) -> bool:
        """Ask, and go on from the answer until there is nothing more to send. False: a request came to nothing, so that
        nothing is known any more."""
        counts = self._ask("/v1/status", {"logs": list(self.origin.logs)}, self._chance.choice(self._clients))
        while counts is not None:
            if not self.enough.is_set():
                self.origin.grow()
            logs = self._piece(counts)
            if not logs:
                return True
            if len(self._clients) > 1 and self._chance.random() < 0.2:
                # The same to two servers in the same moment.
                waiting = [at_once.submit(self._ask, "/v1/push", {"logs": logs}, each) for each in self._clients[:2]]
                answers = [each.result() for each in waiting]
            else:
                answers = [self._ask("/v1/push", {"logs": logs}, self._chance.choice(self._clients))]
            for heard in answers:
                counts = None if heard is None or counts is None else {**counts, **heard}
        return False

    def _piece(self, counts: dict[str, int]) -> dict[str, dict[str, Any]]:
        """Of each log what is to come; by chance with some of what is there already, or that alone."""
        logs: dict[str, dict[str, Any]] = {}
        for log, history in self.origin.logs.items():
            first, end = counts[log], len(history)
            if self.repeats and self._chance.random() < 0.3:
                first = self._chance.randint(0, first)
                end = min(end, first + self._chance.randint(1, REPEATED))
            elif first < end and self._chance.random() < 0.1:
                first = max(0, first - self._chance.randint(0, REPEATED))
            if first < end:
                prev, lines = history.piece(first, min(end, first + RECORDS_AT_ONCE))
                logs[log] = {"from": first, "prev": prev, "lines": b"".join(lines)}
        return logs

    def _ask(self, path: str, question: dict[str, Any], client: httpx.Client) -> dict[str, int] | None:
        """The counts that are told; None when there was no answer, or one that says to come again."""
        floor = self.told.floor(self.origin)
        body, headers = self._encoded({"origin": self.origin.name, "session": self.origin.session, **question})
        [patience] = self._chance.choices(PATIENCE_SECONDS, PATIENCE_CHANCES)
        try:
            answer = client.post(path, content=body, headers=headers, timeout=patience)
        except httpx.TransportError:
            self.told.count("no answer")
            return None
        said = self.told.answer(answer)
        return None if said is None else self.told.hear(self.origin, said["logs"], floor)

    def _encoded(self, body: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        """In any of the ways that the protocol knows."""
        if self._chance.random() < 0.5:
            data, headers = msgpack.packb(body), {"Content-Type": "application/msgpack"}
        else:
            data, headers = json.dumps(body, default=self._in_json).encode(), {"Content-Type": "application/json"}
        if self._chance.random() < 0.5:
            data, headers["Content-Encoding"] = pack(data), "zstd"
        return data, headers

    @staticmethod
    def _in_json(lines: bytes) -> str:
        return base64.b64encode(lines).decode()
