"""Origins: directories whose logs grow, and which know every line that they ever held."""

from __future__ import annotations

import json
import random
import threading
import uuid
import zlib
from typing import Any

LOGS = "logs/logs.jsonl"
LOSS, ACCURACY = "loss", "train/accuracy"
TRACKS = {track: f"tracks/{track}/data.jsonl" for track in (LOSS, ACCURACY)}
PARAMETERS, FILES, SESSION = (f".dreamlake/{name}.jsonl" for name in ("parameters", "files", "session"))
EVERY_LOG = (LOGS, *TRACKS.values(), PARAMETERS, FILES, SESSION)
SESSION_ROWS = 40  # of a run; each makes the server read all of them


class History:
    """One log, to the byte, and the mark before each of its records (docs/push.md)."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.marks = ["0-00000000"]
        self._size = self._checksum = 0

    def __len__(self) -> int:
        return len(self.marks) - 1  # the line is there before the mark

    def write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        self.lines.append(line)
        self._size, self._checksum = self._size + len(line), zlib.crc32(line, self._checksum)
        self.marks.append(f"{self._size}-{self._checksum:08x}")

    def piece(self, first: int, end: int) -> tuple[str, list[bytes]]:
        return self.marks[first], self.lines[first:end]


class Origin:
    """One directory. Those who upload it may be several, in threads."""

    def __init__(self, session: str, seed: int) -> None:
        self.name, self.session = uuid.uuid4().hex, {"workspace": "project", "name": session}
        self.logs = {log: History() for log in EVERY_LOG}
        self._chance, self._lock = random.Random(seed), threading.Lock()
        self._ticks = 0
        self.write(SESSION, 1)

    def grow(self) -> None:
        """As a run writes: some logs, by a few lines, now and then by many."""
        for log in self._chance.sample((LOGS, *TRACKS.values(), PARAMETERS), k=self._chance.randint(1, 3)):
            self.write(log, self._chance.choices((self._chance.randint(1, 20), 1500), (60, 1))[0])
        if self._chance.random() < 0.05 and len(self.logs[SESSION]) < SESSION_ROWS:
            self.write(SESSION, 1)

    def write(self, log: str, count: int) -> None:
        with self._lock:
            for _ in range(count):
                self.logs[log].write(self._row(log, len(self.logs[log])))

    def _row(self, log: str, index: int) -> dict[str, Any]:
        self._ticks += self._chance.randint(0, 3)  # several rows may be of the same time
        time = f"2026-01-01T{self._ticks // 3_600_000_000:02}:{self._ticks // 60_000_000 % 60:02}:"
        time += f"{self._ticks // 1_000_000 % 60:02}.{self._ticks % 1_000_000:06}Z"
        who = f"{self.name[:8]} {index}"
        if log == LOGS:
            level = ("info", "warn")[index % 2]
            return {"sequenceNumber": index, "timestamp": time, "level": level, "message": who}
        if log == PARAMETERS:
            return {"op": "set", "time": time, "client": self.name, "set": {f"{self.name[:8]}-{index % 20}": index}}
        if log == SESSION:
            said = {"description": who, "tags": [who]}
            names = {"name": self.session["name"], "workspace": self.session["workspace"]}
            return {"op": "open", "time": time, "client": self.name, **names, "set": said}
        return {"index": index, "data": {"value": index / 4, "who": who}, "createdAt": time}

    def push_of(self, log: str, first: int) -> dict[str, Any]:
        """The request that pushes one log from a record to its end."""
        prev, lines = self.logs[log].piece(first, len(self.logs[log]))
        batch = {"from": first, "prev": prev, "records": [line[:-1].decode() for line in lines]}
        return {"origin": self.name, "session": self.session, "logs": {log: batch}}

    def uploaded(self, sha256: str, size: int) -> str:
        """The directory has a file with these bytes; returns its id."""
        record = {
            "id": f"f-{sha256[:20]}",
            "path": "/models",
            "filename": f"{sha256[:8]}.bin",
            "sizeBytes": size,
            "checksum": sha256,
            "contentType": "application/octet-stream",
            "uploadedAt": "2026-01-01T00:00:00.000000Z",
            "updatedAt": "2026-01-01T00:00:00.000000Z",
            "deletedAt": None,
        }
        with self._lock:
            self.logs[FILES].write({"op": "upload", "time": record["uploadedAt"], "record": record})
        return str(record["id"])
