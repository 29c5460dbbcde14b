"""A session directory as Python values.

Where an agent of this node owns the directory, or nothing is left in its journals, the files say everything and are
read as they stand. Where journals hold more than any agent has applied, the directory is replayed in memory first; the
answers are the same that the next agent will write. So it is where the owner is on another node: what this process has
written is in its journal, and nobody waits for that node.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dreamlake.reader.base import Base, read_base
from dreamlake.reader.baseline import DamagedView, read_view, track_names
from dreamlake.reader.commits import CHECKPOINT, COMMITS, ORIGIN, read_checkpoint
from dreamlake.reader.late import Patience
from dreamlake.reader.lines import Lines
from dreamlake.reader.owners import is_elsewhere, last_word, owner_of
from dreamlake.reader.replay import Loaded, committed, is_whole, leftovers, load
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.spools import Away, Spooled, is_spool, marked
from dreamlake.reader.superseded import places_of, superseded
from dreamlake.wire import jsons
from dreamlake.wire.applied import Applied
from dreamlake.wire.codec import Damaged
from dreamlake.wire.names import name_of
from dreamlake.wire.state import (
    CHUNK_SIZE,
    FILES_VIEW,
    HISTORIES,
    LOGS_LOG,
    PARAMETERS_VIEW,
    SESSION_VIEW,
    State,
    data_log,
    track_view,
    view,
)
from dreamlake.world.disk import READ, REAL_DISK, Disk, read_file

_CHUNK_BYTES = 1 << 20
_LOOKS_MAX = 5  # at a directory whose owner writes a checkpoint while it is replayed


class SessionReader:
    """One directory, opened for reading. Close it, or use it in a ``with``. ``me``: a process of the node that reads,
    in place of this one; ``patience``: how long it waits for what an owner on another node has written.

    Raises :class:`FileNotFoundError` for a path that is no session directory, and
    :class:`~dreamlake.reader.baseline.DamagedView` when a view cannot be read and there is no history to replace it.
    """

    def __init__(
        self,
        path: str,
        disk: Disk = REAL_DISK,
        me: dict[str, Any] | None = None,
        patience: Callable[[str], Patience] = Patience,
    ) -> None:
        self.path = path
        self._at = disk.root(path)
        self._disk = Spooled(disk, self._at, os.path.realpath(path))
        self._state: State | None = None
        self._sizes: dict[str, int] = {}
        self._extra: dict[str, list[bytes]] = {}
        self.pending = 0  # rows that are in journals only
        self._patience: Patience | None = None
        try:
            if self._is_far(me):
                self._patience = patience(os.path.realpath(path))
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SessionReader:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._disk.let_go()
        self._disk.close(self._at)

    def away(self) -> list[Away]:
        """The journals that are on another node's disk, or on one that is not here: what only they hold is not among
        the answers."""
        return [each for each in self._disk.away.values() if not each.is_copied]

    def _read(self) -> None:
        entries = self._disk.listdir(".", self._at)
        if ("session.json" not in entries and ".dreamlake" not in entries) or is_spool(self._disk, self._at):
            raise FileNotFoundError(f"{self.path} is not a session directory: it has no session.json")
        if self._disk.listdir(JOURNALS, self._at) and (self._patience is not None or self.owner() is None):
            self._replay()

    def _is_far(self, me: dict[str, Any] | None) -> bool:
        try:
            return is_elsewhere(last_word(self._disk, self._at), me)
        except OSError:
            return False

    def _replay(self) -> None:
        """Somebody may own the directory, put the next checkpoint in its place and drop what it covers, all while it is
        replayed. Then it is replayed again."""
        looks = 1
        while True:
            try:
                loaded, runs = self._replayed()
            except (OSError, DamagedView):
                patience = self._patience if looks < _LOOKS_MAX else None
                if patience is None or not patience.again(JOURNALS, "cannot be read"):
                    raise
                looks += 1
                continue
            if looks < _LOOKS_MAX and self._has_moved(loaded):
                looks += 1
            elif self._is_all_here(loaded):
                break
        if (
            self._patience is not None
            and loaded.checkpoint is None
            and any(mark.size for mark in loaded.marks.values())
        ):
            # Nothing says which rows of the journals are among the lines: these alone, or some would be there twice.
            loaded, runs = self._loaded(), []
        self._state = loaded.state
        self._sizes = {log: mark.size for log, mark in loaded.marks.items()}
        for log, row in loaded.baseline.imports if loaded.baseline else ():
            self._extra.setdefault(log, []).append(jsons.encode(row))
        for out in runs:
            for log in out.rows:
                lines = out.lines(log)
                self._extra.setdefault(log, []).extend(lines)
                self.pending += len(lines)

    def _replayed(self) -> tuple[Loaded, list[Applied]]:
        loaded = self._loaded()
        runs = [out for _commit, out in committed(self._disk, self._at, loaded)]
        return loaded, runs + list(leftovers(self._disk, self._at, loaded))

    def _loaded(self) -> Loaded:
        return load(self._disk, self._at, self.origin() or "0" * 32)

    def _has_moved(self, loaded: Loaded) -> bool:
        """Whether an owner has written another checkpoint meanwhile, after which it may have dropped what was read."""
        before = loaded.checkpoint
        try:
            now = read_checkpoint(self._disk, self._at)
        except (Damaged, OSError):
            return False  # as it was
        return (before and (before.seq, before.origin)) != (now and (now.seq, now.origin))

    def _is_all_here(self, loaded: Loaded) -> bool:
        """False when it is to be replayed again, after a moment: this node does not see yet all that the owner's has
        written."""
        if self._patience is None:
            return True
        if loaded.checkpoint is None:  # an owner writes one before anything else
            return not self._patience.again(CHECKPOINT, "is not seen, or not whole")
        for log in HISTORIES:
            if log in loaded.checkpoint.logs and not is_whole(self._disk, self._at, log, loaded.checkpoint):
                return not self._patience.again(log, "is not what its checkpoint says")
        commits = loaded.commit_log
        if commits is None or loaded.seq >= commits.next_seq or marked(self._disk, self._at):
            return True  # what is in another node's spool does not come
        return not self._patience.again(COMMITS, "says more than the journals that are seen here")

    # ── the directory ───────────────────────────────────────────────────────────────────────────────────────────────

    def origin(self) -> str | None:
        """The directory's identity; None before its first owner."""
        try:
            return read_file(self._disk, ORIGIN, self._at, 4096).decode("ascii", "replace").strip() or None
        except OSError:
            return None

    def owner(self) -> dict[str, Any] | None:
        """The agent that owns the directory now, as far as it can be seen to live; else None."""
        return owner_of(self._disk, self._at)

    def base(self) -> Base:
        """What of the logs is other origins'. Raises :class:`~dreamlake.reader.base.BaseDamaged`."""
        return read_base(self._disk, self._at)

    def lines(self, log: str) -> Lines:
        """A log as it stands, and what is in journals only."""
        size = self._sizes.get(log, 0) if self._state is not None else None
        return Lines(self._disk, self._at, log, size, self._extra.get(log, []), patience=self._patience)

    def _view(self, path: str) -> dict[str, Any] | None:
        if self._state is not None:
            return view(self._state, path)
        return read_view(self._disk, self._at, path)

    # ── nouns ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def session(self) -> dict[str, Any]:
        """What session.json says."""
        found = self._view(SESSION_VIEW)
        if found is None:
            workspace, name = os.path.split(os.path.abspath(self.path))
            found = {"name": name_of(name), "workspace": name_of(os.path.basename(workspace)), "state": None}
        return found

    def parameters(self) -> dict[str, Any]:
        """Flat parameters, floats that are not finite restored; empty when none were set."""
        found = self._view(PARAMETERS_VIEW)
        data = (found or {}).get("data")
        if not isinstance(data, dict):
            return {}
        return jsons.restore(dict(data), (found or {}).get("nonfinite"))

    def tracks(self) -> list[str]:
        """The names of all tracks, sorted."""
        if self._state is not None:
            return sorted(self._state.tracks)
        return sorted(track_names(self._disk, self._at))

    def track(self, name: str) -> dict[str, Any]:
        """A track's metadata; :class:`FileNotFoundError` when there is no such track."""
        if self._state is not None:
            if name not in self._state.tracks:
                raise FileNotFoundError(f"no track {name!r} in {self.path}")
            return view(self._state, track_view(name)) or {}
        try:
            found = read_view(self._disk, self._at, track_view(name))
        except DamagedView:
            found = None
        if found is None:
            lines = self.lines(data_log(name))
            first, last = lines.first(), lines.last()
            if first is None:
                raise FileNotFoundError(f"no track {name!r} in {self.path}")
            total = _number(last[-1].get("index"), -1) + 1 if last else 0
            found = {"trackId": None, "name": name, "totalDataPoints": total, "nextIndex": total}
        return found

    def stats(self, name: str, rank: int | None = None) -> dict[str, Any]:
        """A track's metadata and counts, in the spelling of 0.2.x; with ``rank``, those of that rank's points."""
        found = self.track(name)
        lines = self.lines(data_log(name))
        total = _number(found.get("totalDataPoints"), 0)
        if rank is None:
            first, last = lines.first(), next(iter(lines.last()), None)
        else:
            first, last, total = ends_of(lines.of_rank(rank))
        return {
            "trackId": found.get("trackId"),
            "name": name,
            "description": found.get("description"),
            "tags": found.get("tags"),
            "metadata": found.get("metadata"),
            "totalDataPoints": str(total),
            "bufferedDataPoints": str(total),
            "chunkedDataPoints": "0",
            "totalChunks": 0,
            "chunkSize": CHUNK_SIZE,
            "firstDataAt": first.get("createdAt") if first else None,
            "lastDataAt": last.get("createdAt") if last else None,
            "createdAt": found.get("createdAt"),
            "updatedAt": found.get("updatedAt"),
        }

    def points(
        self, name: str, start: int = 0, limit: int = 1000, rank: int | None = None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Up to ``limit`` rows of a track from index ``start`` on (of that ``rank`` alone), and whether there are
        more."""
        rows = self.lines(data_log(name)).page("index", start, limit + 1, rank)
        return [_restored(row) for row in rows[:limit]], len(rows) > limit

    def last_point(self, name: str) -> dict[str, Any] | None:
        rows = self.lines(data_log(name)).last()
        return _restored(rows[-1]) if rows else None

    def logs(self, start: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
        """Up to ``limit`` log lines from sequence number ``start`` on."""
        return self.lines(LOGS_LOG).page("sequenceNumber", start, limit)

    def last_logs(self, count: int) -> list[dict[str, Any]]:
        return self.lines(LOGS_LOG).last(count)

    def log_count(self) -> int:
        """How many log lines there are."""
        last = self.lines(LOGS_LOG).last()
        return _number(last[-1].get("sequenceNumber"), -1) + 1 if last else 0

    def file_records(self) -> dict[str, dict[str, Any]]:
        """Every file's record by id, the deleted ones too."""
        found = (self._view(FILES_VIEW) or {}).get("files")
        return (
            {str(each.get("id")): each for each in found if isinstance(each, dict)} if isinstance(found, list) else {}
        )

    def files(self) -> list[dict[str, Any]]:
        """The records of all files that are not deleted."""
        return [each for each in self.file_records().values() if each.get("deletedAt") is None]

    def open_file(self, record: dict[str, Any]) -> int:
        """A descriptor of a file's bytes. :class:`FileNotFoundError` when they are not where the record says."""
        incoming = self._state.incoming if self._state is not None else {}
        for place in places_of(record, incoming, superseded(self._disk, self._at) if incoming else []):
            try:
                return self._disk.open(place, READ, self._at)
            except (FileNotFoundError, NotADirectoryError):
                continue
        raise FileNotFoundError(f"the bytes of {record.get('filename')} are not in {self.path}/files")

    def chunks(self, record: dict[str, Any]) -> Iterator[bytes]:
        """A file's bytes. :class:`FileNotFoundError` when they are not where the record says."""
        fd = self.open_file(record)
        try:
            offset = 0
            while chunk := self._disk.pread(fd, _CHUNK_BYTES, offset):
                yield chunk
                offset += len(chunk)
        finally:
            self._disk.close(fd)


def ends_of(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any] | None, dict[str, Any] | None, int]:
    """The first row, the last one, and how many there are."""
    first = last = None
    count = 0
    for last in rows:
        first = first or last
        count += 1
    return first, last, count


def _number(value: Any, otherwise: int) -> int:
    """A count as a line or view says it; 0.2.x wrote some as text."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return otherwise


def _restored(row: dict[str, Any]) -> dict[str, Any]:
    data = row.get("data")
    if isinstance(data, dict):
        jsons.restore(data, row.get("nonfinite"))
    return row
