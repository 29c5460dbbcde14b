"""Joined: a session directory, and what other directories of the same session have sent to its server, read as one.

The directory has all of its own, also what is still on its way; the server has the rest. So nothing is asked for twice:
own records come from here, those of other origins from there, and they are joined as the server joins them. A directory
that was pulled or forked holds others' records as well, and its base says how many (docs/disk.md, section 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dreamlake import config
from dreamlake.errors import RemoteUnavailable
from dreamlake.reader.lines import Lines
from dreamlake.reader.session import SessionReader, ends_of
from dreamlake.remote.follow import Head, OtherHistory
from dreamlake.remote.lake import Lake, Trouble
from dreamlake.remote.others import Others
from dreamlake.remote.series import Here, Place, Spot, Stream, There, Walk
from dreamlake.wire import jsons
from dreamlake.wire.marks import Mark
from dreamlake.wire.names import is_sha256, track_folder
from dreamlake.wire.projection import Projection, time_of
from dreamlake.wire.state import CHUNK_SIZE, FILES_LOG, PARAMETERS_LOG, TRACKS_LOG, data_log

if TYPE_CHECKING:
    from dreamlake.session import Session

Row = dict[str, Any]
_NOBODY = "0" * 32  # a directory that no agent has kept yet
_Answer = TypeVar("_Answer")


def joined(session: Session, reader: SessionReader) -> Joined:
    """What ``reader`` and the server of a session with a remote say together; the server is asked now."""
    remote, others = session._remote, session._others
    assert remote is not None
    if others is None or not others.is_ours:
        api_key = session.api_key

        def opened() -> Lake:
            return Lake.open(
                remote.url,
                remote.user,
                api_key,
                tries=1,
                connect_seconds=config.REMOTE_CONNECT_SECONDS,
                answer_seconds=config.REMOTE_ANSWER_SECONDS,
                whole_seconds=config.REMOTE_ANSWER_SECONDS,
            )

        others = session._others = Others(opened, session.workspace, session.name)
    return Joined(reader, others)


@dataclass(frozen=True)
class End:
    """What an origin has of a log and is not here: records [first, head.count)."""

    first: int
    head: Head

    @property
    def count(self) -> int:
        return self.head.count - self.first


class Joined:
    """Reads as :class:`~dreamlake.reader.session.SessionReader` does, over all origins.

    While the server is away the answer is what is here, and a warning says so. An empty one may be wrong then, unless
    the server said last that there is nobody else: :class:`~dreamlake.errors.RemoteUnavailable` instead.
    """

    def __init__(self, reader: SessionReader, others: Others) -> None:
        self._reader, self._others = reader, others
        self._own, self._base = reader.origin(), reader.base()
        self._tracks: tuple[Projection | None] | None = None
        with others.lock:
            self._heads = others.heads(self._own)

    def _be_sure(self, what: str) -> None:
        """Raise unless it is known that there is nothing elsewhere."""
        if self._others.away is not None and self._heads != {}:
            raise RemoteUnavailable(
                f"cannot tell {what}: nothing is on this machine, and the server cannot be asked: {self._others.why}. "
                "Try again when it answers; what is written meanwhile is kept"
            )

    def _ends(self, log: str) -> dict[str, End]:
        found = {}
        for origin, heads in (self._heads or {}).items():
            if log in heads:
                here, _time = self._base.origins.get(origin, {}).get(log, (0, ""))
                end = End(max(here, heads[log].base), heads[log])
                if end.count > 0:
                    found[origin] = end
        return found

    # ── histories ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _said(self, log: str) -> Projection | None:
        """What a history of all origins says; None when no other one has any."""
        heads = {origin: heads[log] for origin, heads in sorted((self._heads or {}).items()) if log in heads}
        found, theirs = Projection(), 0
        with self._others.lock:
            for origin, head in heads.items():
                try:
                    lines = self._others.history(origin, log, head)
                except Trouble as trouble:
                    self._others.failed(trouble)
                    lines = self._others.history(origin, log, head)
                theirs += len(lines)
                _take(found, log, origin, head.base, lines, 0)
        if not theirs:
            return None
        # What was pulled is there as its origins have it, and speaks here only where they do not.
        own = (line for _offset, line in self._reader.lines(log).placed())
        _take(found, log, self._own or _NOBODY, 0, own, self._base.logs.get(log, (0, Mark()))[0])
        return found

    def parameters(self) -> Row:
        """Flat parameters, key by key as they were set last."""
        said = self._said(PARAMETERS_LOG)
        if said is None:
            found = self._reader.parameters()
        else:
            found = jsons.restore(dict(said.parameters or {}), said.parameters_nonfinite)
        if not found:
            self._be_sure("the parameters")
        return found

    def files(self) -> list[Row]:
        """The records of all files that are not deleted; of two in one place, the later one."""
        said = self._said(FILES_LOG)
        found = self._reader.files() if said is None else said.file_records()
        if not found:
            self._be_sure("which files there are")
        return found

    def chunks(self, file: Row) -> Iterator[bytes]:
        """The bytes of a file, from here when it is one of this directory's, else from the server.

        Raises :class:`FileNotFoundError` when they are nowhere yet, and :class:`RemoteUnavailable` when the server
        cannot be asked.
        """
        if str(file.get("id")) in self._reader.file_records():
            try:
                yield from self._reader.chunks(file)
                return
            except FileNotFoundError:
                pass  # pulled without its bytes
        name, sha256 = file.get("filename"), file.get("checksum")
        if not is_sha256(sha256):
            raise FileNotFoundError(
                f"the bytes of {name} are not here, and their SHA-256 is not known yet: try again later"
            )
        try:
            if self._others.away is not None:
                raise self._others.away
            yield from self._others.blob(sha256)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"the bytes of {name} have not arrived at the server yet: try again later"
            ) from None
        except Trouble as trouble:
            with self._others.lock:
                self._others.failed(trouble)
            raise RemoteUnavailable(
                f"cannot get {name}: its bytes are not on this machine, and {self._others.why}"
            ) from None

    # ── tracks ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def tracks(self) -> list[str]:
        """The names of all tracks, sorted."""
        logs = {log for heads in (self._heads or {}).values() for log in heads if log.startswith("tracks/")}
        said = self._said_of_tracks()
        names = {log[len("tracks/") : -len("/data.jsonl")] for log in logs}
        theirs = {*names, *(said.tracks if said else ())}
        found = sorted({*self._reader.tracks(), *filter(_is_track, theirs)})
        if not found:
            self._be_sure("which tracks there are")
        return found

    def _said_of_tracks(self) -> Projection | None:
        if self._tracks is None:
            self._tracks = (self._said(TRACKS_LOG),)
        return self._tracks[0]

    def stats(self, name: str, rank: int | None = None) -> Row:
        """A track's metadata and counts over all origins; :class:`FileNotFoundError` when there is no such track. With
        ``rank``, the counts and times of that rank's points."""
        found = self._stats(name)
        return found if rank is None else {**found, **self._counted(name, rank)}

    def _counted(self, name: str, rank: int) -> Row:
        """What of a track's stats is of one rank."""
        log, found = data_log(name), None
        ends = self._ends(log)
        if ends:
            with self._others.lock:
                found = self._asked(lambda _: ends_of(self._of_rank(log, ends, rank)))
        first, last, total = found or ends_of(self._reader.lines(log).of_rank(rank))
        return {
            "totalDataPoints": str(total),
            "bufferedDataPoints": str(total),
            "firstDataAt": first.get("createdAt") if first else None,
            "lastDataAt": last.get("createdAt") if last else None,
        }

    def _of_rank(self, log: str, ends: dict[str, End], rank: int) -> Iterator[Row]:
        walk = Walk(self._streams(log, self._reader.lines(log), ends, {}))
        while walk.find(rank) is not None:
            yield walk.take()

    def _stats(self, name: str) -> Row:
        said = self._said_of_tracks()
        track = said.tracks.get(name) if said else None
        ends = self._ends(data_log(name))
        try:
            found = self._reader.stats(name)
        except FileNotFoundError:
            if track is None and not ends:
                self._be_sure(f"whether there is a track {name!r}")
                raise
            found = {"trackId": None, "name": name, "totalChunks": 0, "chunkedDataPoints": "0", "chunkSize": CHUNK_SIZE}
        if track is None and not ends:
            return found
        given = {key: last.value for key, last in track.given.items()} if track else {}
        total = str(int(found.get("totalDataPoints", 0)) + sum(end.count for end in ends.values()))
        firsts = _times(found.get("firstDataAt"), *(end.head.first for end in ends.values()))
        lasts = _times(found.get("lastDataAt"), *(end.head.last for end in ends.values()))
        created = _times(found.get("createdAt"), track.created if track else None) or firsts
        updated = _times(found.get("updatedAt"), track.updated if track else None, *lasts)
        return {
            "trackId": track.id if track else found["trackId"],
            "name": name,
            **{key: given.get(key, found.get(key)) for key in ("description", "tags", "metadata")},
            "totalDataPoints": total,
            "bufferedDataPoints": total,
            **{key: found[key] for key in ("chunkedDataPoints", "totalChunks", "chunkSize")},
            "firstDataAt": min(firsts, default=None),
            "lastDataAt": max(lasts, default=None),
            "createdAt": min(created, default=None),
            "updatedAt": max(updated, default=None),
        }

    def points(self, name: str, start: int = 0, limit: int = 1000, rank: int | None = None) -> tuple[list[Row], bool]:
        """Up to ``limit`` rows of a track (of that ``rank`` alone), and whether there are more. With several origins
        ``start`` counts from the beginning of the joined series, ``index`` is the place within the row's ``origin``."""
        log = data_log(name)
        ends = self._ends(log)
        if ends and limit > 0:
            with self._others.lock:
                found = self._asked(lambda again: self._walked(log, ends, max(0, start), limit, rank, again))
                if found is not None:
                    return found
        rows, more = self._reader.points(name, start, limit, rank)
        if not rows and limit > 0:
            self._be_sure(f"the points of {name!r} from {start} on")
        if rows and not ends:
            with self._others.lock:  # by the next page another one's may be there
                self._others.places.put((log, rank, rows[-1]["index"] + 1), Place(), Place().size)
        return rows, more

    def _asked(self, ask: Callable[[bool], _Answer]) -> _Answer | None:
        """What the server says to ``ask(whether to believe what is remembered)``; None when it is away."""
        for again in (True, False):
            if self._others.away is not None:
                return None
            try:
                return ask(again)
            except OtherHistory as trouble:  # the server was restored from a backup: what is remembered is of no use
                if not again:
                    self._others.failed(trouble)
            except Trouble as trouble:
                self._others.failed(trouble)
        return None

    def _walked(
        self, log: str, ends: dict[str, End], start: int, limit: int, rank: int | None, use_places: bool
    ) -> tuple[list[Row], bool]:
        lines = self._reader.lines(log)
        is_one = len(ends) == 1 and lines.first() is None
        if is_one:  # not joined with anything: its numbers are those of the page
            [(origin, end)] = ends.items()
            walk = Walk([self._there(origin, log, Spot(end.first + start))])
        else:
            walk = self._walk_to(log, rank, start, lines, ends, use_places)
        rows: list[Row] = []
        while len(rows) < limit and (at := walk.find(rank)) is not None:
            row = walk.take()
            if not is_one:
                row["origin"] = at[1]
            if isinstance(row.get("data"), dict):
                jsons.restore(row["data"], row.get("nonfinite"))
            rows.append(row)
        if rows and not lines.extra:  # which stand where they are only once they are committed
            behind = rows[-1]["index"] + 1 - end.first if is_one else start + len(rows)
            place = Place({self._own or _NOBODY: Spot(), **walk.spots()})
            self._others.places.put((log, rank, behind), place, place.size)
        return rows, walk.find(rank) is not None

    def _walk_to(
        self, log: str, rank: int | None, start: int, lines: Lines, ends: dict[str, End], use_places: bool
    ) -> Walk:
        """From record ``start`` of the joined series on (of those of that rank). Where a page has ended it goes on
        there, also when something has come meanwhile that belongs before: so pages in a row have each record once."""
        place = self._others.places.get((log, rank, start)) if use_places else None
        spots = {} if place is None else place.spots
        own = self._own or _NOBODY
        if spots is None:
            alone = Walk([Here(own, lines, Spot())])
            while (at := alone.find(None)) is not None and at[2] < start:
                alone.take()
            spots = alone.spots()
        if own in spots and all(spot.may_be_of(ends[origin].head) for origin, spot in spots.items() if origin in ends):
            return Walk(self._streams(log, lines, ends, spots))
        walk = Walk(self._streams(log, lines, ends, {}))
        walk.skip(start, rank)
        return walk

    def _streams(self, log: str, lines: Lines, ends: dict[str, End], spots: dict[str, Spot]) -> list[Stream]:
        own = self._own or _NOBODY
        streams: list[Stream] = [Here(own, lines, spots.get(own, Spot()))]
        for origin, end in ends.items():
            begin = Spot(end.first, mark=None if end.first else Mark())
            streams.append(self._there(origin, log, spots.get(origin, begin)))
        return streams

    def _there(self, origin: str, log: str, spot: Spot) -> There:
        head = (self._heads or {})[origin][log]
        return There(origin, lambda first, mark: self._others.pieces(origin, log, first, mark, head), spot)


def _take(found: Projection, log: str, origin: str, first: int, lines: Iterable[bytes], quiet: int) -> None:
    """The rows of one origin; those before index ``quiet`` are older than whatever another one says."""
    time = ""
    for index, line in enumerate(lines, first):
        row = jsons.object_of(line)
        if row is not None:
            time = max(time, time_of(row) or "") if index >= quiet else ""
            found.take(log, (time, origin, index), row)


def _is_track(name: str) -> bool:
    """A server may say anything, and what it says becomes a path here."""
    try:
        return track_folder(name) == name
    except ValueError:
        return False


def _times(*found: Any) -> list[str]:
    return [each for each in found if isinstance(each, str) and each]
