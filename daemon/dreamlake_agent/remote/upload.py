"""Upload: one directory to one server, now; whoever calls it, however often, everything arrives once.

Status, then logs from where the server is, then bytes of files that it lacks. The server's marks are byte offsets of
our own logs, so nothing has to be counted or remembered; that they are of the same history is checked before anything
is sent behind them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire.marks import Mark
from dreamlake.wire.state import FILES_LOG
from dreamlake_agent.remote.lake import Lake, Refused
from dreamlake_agent.remote.source import Bytes, OtherBytes, Source, in_order

BATCH_BYTES = 4 << 20  # of log in one push, unless one line is larger
BATCH_RECORDS = 100_000
BATCH_LOGS = 1_000
STATUS_BLOBS = 1_000  # asked about at once
PARTS_AT_ONCE = 4
STATUS_TRIES = 5  # with a server that forgets what it has acked

PUSHED = (200, 409, 422)


@dataclass
class Outcome:
    """What one upload did. ``problems`` are sentences for people; without any, all is on the server."""

    records: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Place:
    """Where the server is in one log; ``mark`` is one that the log has."""

    count: int
    mark: Mark


class Upload:
    """Raises what :class:`~dreamlake_agent.remote.lake.Lake` raises; what was acked by then stays acked.

    ``advance`` is told of bytes of logs and files as they arrive.
    """

    def __init__(self, source: Source, lake: Lake) -> None:
        self._source, self._lake = source, lake
        self.advance: Callable[[int], None] = lambda _bytes: None
        self._session = {"workspace": source.workspace, "name": source.name}
        self._places: dict[str, _Place] = {}
        self._stopped: set[str] = set()
        self._asked = False
        self._has_lost = False  # whether the server had less than it had acked: it was restored from a backup
        self.outcome = Outcome()

    def status(self) -> tuple[int, int]:
        """Ask where the server is; how many bytes of logs it lacks, and how many logs have forked."""
        said = self._lake.ask("/v1/status", self._body(logs=list(self._source.ends)))
        if said["session"] is not None and said["session"].get("deletedAt"):
            raise Refused(f"session {self._source.workspace}/{self._source.name} was deleted on the server", 410, said)
        self._places, self._has_lost = {}, False
        for log in self._source.ends:
            if log not in self._stopped:
                self._heard(log, said["logs"][log], Mark())
        self._asked = True
        behind = sum(self._source.ends[log].size - place.mark.size for log, place in self._places.items())
        return behind, len(self._stopped)

    def run(self) -> Outcome:
        """Send what is missing; by the status that was asked just now, if it was."""
        for tried in range(STATUS_TRIES):
            if tried or not self._asked:
                self.status()
            while batch := self._batch():
                self._push(batch)
            if not self._has_lost:
                break
        self._send_files()
        return self.outcome

    def _body(self, **more: Any) -> dict[str, Any]:
        return {"origin": self._source.origin, "session": self._session, **more}

    # ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _heard(self, log: str, said: dict[str, Any], known: Mark) -> None:
        """Take how far the server says it is, unless it has another history."""
        mark = Mark.of(said["mark"])
        if said.get("problem") == "fork" or not self._source.has(log, mark, known):
            self._stop(
                log,
                f"{log} on the server has another history than this directory: a copy of it, or a backup, went on by "
                "itself; nothing was overwritten",
            )
            return
        self._places[log] = _Place(said["count"], mark)

    def _stop(self, log: str, why: str) -> None:
        self._stopped.add(log)
        self._places.pop(log, None)
        self.outcome.problems.append(why)

    def _batch(self) -> dict[str, tuple[_Place, bytes]]:
        """The next pieces, as many as a request takes."""
        found: dict[str, tuple[_Place, bytes]] = {}
        size = records = 0
        for log in in_order(set(self._places)):
            place = self._places[log]
            room = BATCH_BYTES - size
            if place.mark.size >= self._source.ends[log].size or room <= 0:
                continue
            data = self._source.piece(log, place.mark.size, room)
            records += data.count(b"\n")
            if found and (size + len(data) > BATCH_BYTES or records > BATCH_RECORDS or len(found) == BATCH_LOGS):
                break
            found[log] = (place, data)
            size += len(data)
        return found

    def _push(self, batch: dict[str, tuple[_Place, bytes]]) -> None:
        logs = {
            log: {"from": place.count, "prev": place.mark.text, "lines": data} for log, (place, data) in batch.items()
        }
        said = self._lake.ask("/v1/push", self._body(logs=logs), accept=PUSHED)
        for log, (place, data) in batch.items():
            self._acked(log, place, data, said["logs"][log])

    def _acked(self, log: str, place: _Place, data: bytes, said: dict[str, Any]) -> None:
        before = place.mark
        self._heard(log, said, before if Mark.of(said["mark"]).size >= before.size else Mark())
        now = self._places.get(log)
        if now is None:
            return
        self._has_lost = self._has_lost or said.get("problem") == "gap"
        self.outcome.records += max(0, now.count - place.count)
        sent = max(0, now.mark.size - before.size)
        self.outcome.bytes += sent
        self.advance(sent)
        if said.get("problem") == "record":
            self._bury(log, now, str(said.get("why") or "the server does not take it"))
        elif now.mark == before and said.get("problem") is None and data:
            raise OtherBytes(f"{log} does not get on: the server acks, and takes nothing")

    def _bury(self, log: str, place: _Place, why: str) -> None:
        """A record that the server will never take: a tombstone in its place, so that what comes behind it arrives."""
        line = self._source.piece(log, place.mark.size, 1 << 16)
        line = line[: line.index(b"\n") + 1]
        tombstone = {
            "from": place.count,
            "prev": place.mark.text,
            "refused": why,
            "next": place.mark.after(line).text,
        }
        said = self._lake.ask("/v1/push", self._body(logs={log: tombstone}), accept=PUSHED)
        self.outcome.problems.append(f"record {place.count} of {log} was set aside by the server: {why}")
        self._heard(log, said["logs"][log], place.mark)

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send_files(self) -> None:
        if FILES_LOG in self._stopped:
            return  # the server's session speaks of other files
        files = self._source.files()
        for first in range(0, len(files), STATUS_BLOBS):
            some = files[first : first + STATUS_BLOBS]
            said = self._lake.ask("/v1/status", self._body(logs=[], blobs=[each.sha256 for each in some]))
            lacking = set(said["lacking"])
            for each in some:
                if each.sha256 not in lacking:
                    continue
                try:
                    self._send_file(each)
                except (Refused, OSError) as error:  # of this file, and no other is held up by it
                    self.outcome.problems.append(f"{each.path} could not be sent: {error}")

    def _send_file(self, file: Bytes) -> None:
        # Read once before anything is sent: a file that was damaged since it was captured is never half there.
        try:
            digest, size = hashlib.sha256(), 0
            for chunk in self._source.chunks(file.path, 0, file.size):
                digest.update(chunk)
                size += len(chunk)
        except OSError as error:
            self.outcome.problems.append(f"{file.path} cannot be read: {error.strerror}")
            return
        if digest.hexdigest() != file.sha256 or size != file.size:
            self.outcome.problems.append(f"{file.path} is not what was uploaded any more: its SHA-256 is another one")
            return
        while (said := self._lake.ask("/v1/blobs", {"sha256": file.sha256, "size": file.size}))["state"] != "stored":
            part_bytes, there, urls = said["part_bytes"], said["parts"], said["urls"]
            numbers = range(1, max(1, -(-file.size // part_bytes)) + 1)
            missing = [number for number in numbers if str(number) not in there]
            if urls:
                missing = [number for number in missing if str(number) in urls]
            with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
                jobs = [pool.submit(self._send_part, file, part_bytes, n, urls.get(str(n))) for n in missing]
                for job in jobs:
                    job.result()
            if len(there) + len(missing) == len(numbers):
                self._lake.ask(f"/v1/blobs/{file.sha256}/complete", {"size": file.size})
        self.outcome.files += 1
        self.outcome.file_bytes += file.size

    def _send_part(self, file: Bytes, part_bytes: int, number: int, url: str | None) -> None:
        start = (number - 1) * part_bytes
        end = min(file.size, start + part_bytes)
        where = url or f"/v1/blobs/{file.sha256}/parts/{number}?size={file.size}"
        self._lake.put(where, end - start, lambda: self._source.chunks(file.path, start, end))
        self.advance(end - start)
