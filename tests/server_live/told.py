"""What servers told senders: how far each log is acked, and whatever an honest sender should never be answered."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import httpx

from tests.server_live.origins import Origin


class Told:
    """Shared by senders in threads."""

    def __init__(self) -> None:
        self.acked: dict[tuple[str, str], int] = {}
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()  # of answers by status, and of requests that had none
        self._lock = threading.Lock()

    def fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def floor(self, origin: Origin) -> dict[str, int]:
        """What is acked by now: whoever is asked later must not know less."""
        with self._lock:
            return {log: self.acked.get((origin.name, log), 0) for log in origin.logs}

    def hear(self, origin: Origin, logs: dict[str, Any], floor: dict[str, int]) -> dict[str, int]:
        """The counts of an answer to a question that was asked when ``floor`` was acked."""
        for log, said in logs.items():
            count, history = said["count"], origin.logs[log]
            if count < floor[log]:
                self.fault(f"{log} has {count} records, and {floor[log]} were acked before it was asked for")
            if "problem" in said or count > len(history) or history.marks[count] != said["mark"]:
                self.fault(f"{log} has {len(history)} records and is said to be {said}")
            with self._lock:
                self.acked[origin.name, log] = max(count, self.acked.get((origin.name, log), 0))
        return {log: said["count"] for log, said in logs.items()}

    def answer(self, answer: httpx.Response) -> Any:
        """What it says; None when it is to come again."""
        what = f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}"
        self.count(str(answer.status_code))
        if answer.headers.get("content-type") != "application/json":
            self.fault(f"no JSON: {what}")
            return None
        body = answer.json()
        if answer.status_code == 503:
            if body.get("error") != "unavailable" or "retry-after" not in answer.headers:
                self.fault(f"a 503 that does not say to come again: {what}")
            return None
        if answer.status_code != 200:
            self.fault(what)
            return None
        return body
