"""Afar: a session directory whose owner is on another node, as a client sees it (docs/decisions/0025-epochs.md).

No agent hears this process then. The owner follows its journal on the shared disk, and what an ack says elsewhere, the
owner's checkpoint says here: how far the journal is in the logs, for good.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from dreamlake import config
from dreamlake.journal import Journal
from dreamlake.reader.commits import CHECKPOINT, Checkpoint, read_checkpoint
from dreamlake.reader.lines import Lines
from dreamlake.reader.owners import is_elsewhere, last_word
from dreamlake.wire import codec
from dreamlake.wire.state import SESSION_LOG
from dreamlake.world.disk import READ, Disk, sync_folder

KEPT_AFAR = "dreamlake: the agent on %s keeps %s, and reads this process's journal there"

# A checkpoint that looks as it did is read all the same this often: what a file looks like may be of before.
_READ_SECONDS = 5.0
_AWAITED_SECONDS = config.SCAN_SECONDS / 4  # between two looks while somebody waits
_SILENT_BEATS = 3  # an owner that has missed so many says nothing
_HANGS_SECONDS = 0.5  # a caller does not wait longer for a disk that does not answer the link


class Afar:
    """One journal, and the directory that it is for. ``find_owner`` may be called from any thread; the rest is the
    link's."""

    def __init__(
        self, disk: Disk, at: int, journal: Journal, me: dict[str, Any], make_durable: Callable[[], None]
    ) -> None:
        self._disk, self._at, self._journal, self._me = disk, at, journal, me
        self._make_durable = make_durable
        try:
            self._beat_seconds = config.beat_seconds()
        except ValueError:  # the agent says so
            self._beat_seconds = config.BEAT_SECONDS
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, Any] | None] = (-1e9, None)  # when it was looked for, and what was found
        self._sign: tuple[Any, float] = (None, 0.0)  # of life, and since when it is this one
        self._looked = self._touched = self._synced = self._read_at = -1e9
        self._known: tuple[int, int, int] | None = None  # what the checkpoint looked like when it was read
        self._named_end = 0  # how far the journal went when its file was last seen to have a name

    # ── the owner ───────────────────────────────────────────────────────────────────────────────────────────────────

    def find_owner(self, now: float, *, again: bool = False) -> dict[str, Any] | None:
        """What the owner said of itself within the last second, while it is on another node; None else. ``again``:
        look now, for somebody has said that there is one."""
        if not self._lock.acquire(timeout=_HANGS_SECONDS):
            return self._found[1]
        try:
            if again or now - self._found[0] >= config.SCAN_SECONDS:
                self._find_owner(now)
            return self._found[1]
        finally:
            self._lock.release()

    def _find_owner(self, now: float) -> None:
        try:
            record = last_word(self._disk, self._at)
        except OSError:
            return  # as it was
        said = record is not None and isinstance(record.get("host"), str) and not record.get("released")
        owner = record if said and is_elsewhere(record, self._me) else None
        self._found = (now, owner)
        sign = owner and (owner.get("epoch"), owner.get("beat"))
        if sign != self._sign[0]:
            self._sign = (sign, now)

    def silence(self, now: float) -> float | None:
        """How long the owner has given no sign of life, as far as it was watched; None while it gives them."""
        silent = now - self._sign[1]
        return silent if silent > _SILENT_BEATS * self._beat_seconds else None

    # ── what is done for it, and what it says ───────────────────────────────────────────────────────────────────────

    def is_due(self, now: float, *, busy: bool, awaited: bool) -> bool:
        """Whether it is time to look at the directory."""
        wait = _AWAITED_SECONDS if awaited else config.SCAN_SECONDS if busy else self._beat_seconds
        if now - self._looked < wait:
            return False
        self._looked = now
        return True

    def notice_name(self) -> bool:
        """Whether the journal's file has its name still. An owner that takes its writer for gone removes it, wholly
        applied."""
        end = self._journal.end
        if self._journal.is_gone():
            return False
        self._named_end = end
        return True

    def show_life(self, now: float) -> None:
        """Let any owner see that somebody has the journal open: also one that comes only later."""
        if now - self._touched >= self._beat_seconds:
            self._touched = now
            with contextlib.suppress(OSError):
                self._journal.touch()

    def show(self, now: float, *, awaited: bool) -> None:
        """Let the owner see what was written. Raises :class:`OSError`."""
        grown = self._journal.end > self._journal.synced
        if grown and now - self._synced >= (_AWAITED_SECONDS if awaited else config.SYNC_SECONDS):
            self._synced = now
            self._make_durable()

    def read(self, now: float) -> Checkpoint | None:
        """The owner's checkpoint, unless it is the one that was read before. It survives power loss: only then may
        anything go for its sake. Raises :class:`OSError`."""
        # Opened, not only looked at: a network file system asks its server then.
        fd = self._disk.open(CHECKPOINT, READ, self._at)
        try:
            found = self._disk.fstat(fd)
        finally:
            self._disk.close(fd)
        looks = (found.ino, found.mtime_ns, found.size)
        if looks == self._known and now - self._read_at < _READ_SECONDS:
            return None
        try:
            checkpoint = read_checkpoint(self._disk, self._at)
        except codec.Damaged:
            return None  # not whole here yet
        if checkpoint is not None:
            sync_folder(self._disk, CHECKPOINT.rpartition("/")[0], self._at)
            self._known, self._read_at = looks, now
        return checkpoint

    def position(self, checkpoint: Checkpoint, *, closed: bool) -> tuple[int, int | None] | None:
        """How far the journal is in the logs: (position, running checksum there, where one is told). None while the
        owner has not taken in any of it."""
        told = checkpoint.clients.get(self._journal.client)
        if told is not None:
            return told
        # Neither there nor among the journals, but in the history: it was applied wholly (docs/disk.md, section 8).
        if self.notice_name() or not self._is_known(checkpoint):
            return None
        return self._journal.end if closed else self._named_end, None

    def _is_known(self, checkpoint: Checkpoint) -> bool:
        mark, client = checkpoint.logs.get(SESSION_LOG), self._journal.client.hex()
        rows = Lines(self._disk, self._at, SESSION_LOG, mark.size).rows() if mark is not None else ()
        return any(row.get("op") == "open" and row.get("client") == client for row in rows)
