"""Journals: what clients write into an owned directory, as its owner sees it, follows it and clears it away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dreamlake import config
from dreamlake.reader.replay import RUN_BYTES, Loaded
from dreamlake.reader.segments import (
    JOURNALS,
    UNNAMED,
    Segment,
    begun_of,
    is_torn,
    journals,
    segment_path,
    syncing_path,
    whole_run,
)
from dreamlake.reader.spools import Spooled, marked, marker_path
from dreamlake.wire import ops
from dreamlake.world import processes
from dreamlake.world.disk import READ_APPEND, read_file, try_lock
from dreamlake_agent.store.cut import CutFolder
from dreamlake_agent.store.owner import Owner


@dataclass(frozen=True)
class Journal:
    """A client's journal as it stands in the directory."""

    client: bytes
    made: int
    end: int
    by: dict[str, Any]
    spooled: bool = False
    # what changes while its writer lives, when that one is on another node, and for how many seconds it did not
    sign: tuple[int, int] | None = None
    age: float = 0.0


class Journals:
    """The journals of one directory; only its owner has one. ``loaded`` says where each was applied to."""

    def __init__(self, owner: Owner, disk: Spooled, who: dict[str, Any], loaded: Loaded, cuts: CutFolder) -> None:
        self._owner, self._disk, self._at, self._who = owner, disk, owner.at, who
        self._loaded, self._cuts = loaded, cuts
        self.segments: dict[bytes, list[Segment]] = loaded.segments
        # Clients a part of whose journal was set aside: it may name what they captured.
        self.doubtful: set[bytes] = set()
        self.warnings: list[str] = []

    # ── what is there ───────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """See what has come and grown, and clear away what never became a journal."""
        known = {segment.path.rpartition("/")[2]: segment for each in self.segments.values() for segment in each}
        self.segments = journals(self._disk, self._at, known, fresh=self._is_foreign)
        self._clear_torn()

    def seen(self, but: bytes | None) -> list[Journal]:
        """Each as it was when last looked at, oldest first; not that of the client ``but``."""
        return [self._journal(client, segments) for client, segments in self.segments.items() if client != but]

    def _journal(self, client: bytes, segments: list[Segment]) -> Journal:
        last = segments[-1]
        found = (client, segments[0].made, last.end, last.by, self._disk.has(client))
        if not self._is_foreign(last.by):
            return Journal(*found)
        return Journal(*found, (last.end, last.mtime_ns), max(0, self._owner.beaten_ns - last.mtime_ns) / 1e9)

    def foreign(self) -> set[bytes]:
        """The clients that are on other nodes."""
        return {client for client, segments in self.segments.items() if self._is_foreign(segments[-1].by)}

    def _is_foreign(self, by: dict[str, Any]) -> bool:
        return not processes.is_here(by, self._who)

    def are_missing(self) -> bool:
        """Whether one is where it cannot be seen from here. What it uploaded and was placed stays in its place, and
        what that replaced is kept, until it is known whether the upload was."""
        return bool(marked(self._disk, self._at) - self.segments.keys())

    def is_finished(self, client: bytes) -> bool:
        """Whether that client's stream was wholly applied, covered and forgotten."""
        return self._loaded.is_finished(client)

    def follow(self, client: bytes, limit: int) -> tuple[bytes, int]:
        """What the client's journal holds beyond its position: (whole records, running checksum after them)."""
        segments = self.segments.get(client)
        if not segments:
            return b"", 0
        position, running = self._loaded.position(client)
        data, after, damaged = whole_run(self._disk, self._at, segments, position, running, limit)
        if damaged and not data and not self._is_foreign(segments[-1].by):  # theirs may only be late
            note = f"{segment_path(client, segments[-1].number)} is damaged after byte {position} of its stream"
            if note not in self.warnings:
                self.warnings.append(note)
        return data, after

    # ── whose writer lives ──────────────────────────────────────────────────────────────────────────────────────────

    def is_locked(self, client: bytes) -> bool | None:
        """Whether somebody still has the client's journal open: its writer, or a child of it. None where the file
        system has no locks."""
        segments = self.segments.get(client)
        return self._is_held(segments[-1].path) if segments is not None else False

    def is_away(self, client: bytes) -> bool:
        """Whether the client's journal is where it cannot be seen from here, and its writer has its marker open."""
        return client.hex() in self._disk.away and not self._is_free(marker_path(client))

    def _is_free(self, path: str) -> bool:
        return not self._is_held(path)

    def _is_held(self, path: str) -> bool | None:
        try:
            fd = self._disk.open(path, READ_APPEND, self._at)  # NFS locks nothing that is open for reading only
        except FileNotFoundError:
            return False
        try:
            is_mine = try_lock(self._disk, fd)
            return None if is_mine is None else not is_mine
        finally:
            self._disk.close(fd)

    # ── clearing away ───────────────────────────────────────────────────────────────────────────────────────────────

    def drop(self, client: bytes) -> bool:
        """Unlink a journal that is wholly covered and whose writer has gone; False when it holds more after all."""
        segments = self.segments[client] = journals(self._disk, self._at, only=client).get(client, [])
        if segments and not self.is_finished(client):
            position, running = self._loaded.position(client)
            data, _after, damaged = whole_run(self._disk, self._at, segments, position, running, RUN_BYTES)
            if data:
                return False
            for segment in segments:
                beyond = max(0, position - segment.base)
                if segment.base > position or (damaged and segment.size > beyond):
                    self.doubtful.add(client)
                    self._set_aside(segment.path, segment.start + beyond)
        elif segments:
            # It turned up again, from a backup; or so it seems, after checkpoint and commits.log were lost.
            self.doubtful.add(client)
            for segment in segments:
                self._set_aside(segment.path, 0, "is of a client that was applied wholly, as far as is known; it")
        for segment in self.segments.pop(client, []):
            self._unlink(segment.path)
        for mark in (syncing_path(client), marker_path(client)):
            self._unlink(mark)
        return True

    def _clear_torn(self) -> None:
        """Drop the segments that never became one: their process died, or the power went, before they held anything.
        Not at once: of a file that another node has begun, its name may be seen before its bytes."""
        whole = {segment.path for segments in self.segments.values() for segment in segments}
        for name in self._disk.listdir(JOURNALS, self._at):
            path = f"{JOURNALS}/{name}"
            if path not in whole and is_torn(self._disk, self._at, name) and self._is_left(path):
                self._set_aside(path, 0)
        for name in self._disk.litter:
            path = f"{JOURNALS}/{name}"
            if self._is_left(path) if name.endswith(UNNAMED) else self._is_free(path):
                self._clear_marker(name)

    def _is_left(self, path: str) -> bool:
        """Whether nobody has it open; and, unless it was begun on this node, it has been as it is for longer than other
        nodes' bytes are on their way. What has a name may be of a node that was cut off, and holds calls for it."""
        begun = begun_of(path)
        if begun is not None and begun[1] == processes.node(self._who):
            return self._is_free(path)
        try:
            age = self._owner.beaten_ns - self._disk.stat(path, self._at).mtime_ns
        except FileNotFoundError:
            return False
        kept = config.GONE_SECONDS if begun is not None else config.FOREIGN_KEPT_SECONDS
        return age >= kept * 1e9 and self._is_free(path)

    def _clear_marker(self, name: str) -> None:
        found = self._loaded.state.clients.get(name[:32])
        if found is not None and found.state == ops.RUNNING and not name.endswith(UNNAMED):
            self.warnings.append(f"{JOURNALS}/{name}: the journal is gone; what no checkpoint covered of it is lost")
        self._unlink(f"{JOURNALS}/{name}")

    def _unlink(self, path: str) -> None:
        """Whoever wrote it may have been quicker."""
        try:
            self._disk.unlink(path, self._at)
        except FileNotFoundError:
            pass

    def _set_aside(self, path: str, start: int, why: str = "is damaged; what could not be applied") -> None:
        """Keep what a journal holds from ``start`` on, unless it is nothing, and unlink it."""
        try:
            rest = read_file(self._disk, path, self._at, 1 << 40)[start:]
            if rest.strip(b"\0") and not path.endswith(UNNAMED):
                self.warnings.append(f"{path} {why} is kept in {self._cuts.keep(path, rest)}")
            self._disk.unlink(path, self._at)
        except FileNotFoundError:
            pass
