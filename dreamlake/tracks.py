"""Tracks: series of points. A point is whatever fields you append; its index is its place in the series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dreamlake import config
from dreamlake.wire import jsons, names, ops
from dreamlake.wire.state import CHUNK_SIZE, data_log, track_id

if TYPE_CHECKING:
    import numpy

    from dreamlake.remote.joined import Joined
    from dreamlake.session import Session
    from dreamlake.writer import Writer

# One operation of a batch; a larger batch becomes several, in order.
_OPERATION_BYTES = 4 << 20
_FRAME_BYTES = 16  # of a point in an operation, at most
_PAGE_ROWS = 10_000

_encode = jsons.encode_fields


def _all_points(joined: Joined, name: str, start: int, limit: int | None, rank: int | None) -> Iterator[dict[str, Any]]:
    """What :meth:`Joined.points` has, page by page."""
    more = True
    while more and (limit is None or limit > 0):
        rows, more = joined.points(name, start, _PAGE_ROWS if limit is None else min(limit, _PAGE_ROWS), rank)
        yield from rows
        start += len(rows)
        limit = None if limit is None else limit - len(rows)


def _batches(points: Sequence[dict[str, Any]]) -> list[tuple[list[bytes], list[Any] | None]]:
    """Points as JSON, with the fields of each that are not finite (None where all are), in as many operations as their
    size needs. Raises as :meth:`Track.append_batch` says."""
    plain = jsons.encode_plain(points)
    if plain is not None and sum(map(len, plain)) + _FRAME_BYTES * len(plain) <= _OPERATION_BYTES:
        return [(plain, None)]
    batches: list[tuple[list[bytes], list[Any] | None]] = []
    data: list[bytes] = []
    listed: list[Any] = []
    size = 0
    for number, point in enumerate(points):
        if not isinstance(point, dict):
            raise TypeError(f"point {number} is a {type(point).__name__}, not a dict")
        encoded, nonfinite = _encode(point, f"point {number}: field")
        if len(encoded) > ops.POINT_BYTES_MAX:
            raise ValueError(f"point {number} is larger than {ops.POINT_BYTES_MAX} bytes: upload a file instead")
        if data and size + len(encoded) > _OPERATION_BYTES:
            batches.append((data, listed if any(listed) else None))
            data, listed, size = [], [], 0
        data.append(encoded)
        listed.append(nonfinite)
        size += len(encoded) + _FRAME_BYTES
    batches.append((data, listed if any(listed) else None))
    return batches


class Receipt(Mapping[str, Any]):
    """What ``append`` returns: a mapping that is filled in by the agent later.

    ``receipt["index"]`` waits for the agent, at most 30 s (:class:`~dreamlake.errors.AgentUnavailable` then; the point
    is kept all the same). A receipt that is not touched costs nothing; ``repr`` never waits.
    """

    __slots__ = ("_given",)

    def __init__(self, given: tuple[Writer | None, str, int, int | None, int]) -> None:
        """``given``: the writer, the track, the first ordinal, the end in the journal, and how many in a batch (0: a
        single point). All in one, for a call makes one of these each time."""
        self._given = given

    def _index(self, ordinal: int) -> str:
        writer, name, _first, end, _count = self._given
        return "0" if writer is None else str(writer.index_of(name, ordinal, end, config.RECEIPT_SECONDS))

    def __getitem__(self, key: str) -> Any:
        _writer, name, ordinal, _end, count = self._given
        if key == "trackId":
            origin = self._origin()
            return track_id(origin, name) if origin else None
        if key == "index" and not count:
            return self._index(ordinal)
        if key == "startIndex" and count:
            return self._index(ordinal)
        if key == "endIndex" and count:
            return self._index(ordinal + count - 1)
        if key == "count" and count:
            return count
        if key == "bufferedDataPoints":
            last = self._index(ordinal + max(1, count) - 1)
            return str(int(last) + 1)
        if key == "chunkSize":
            return CHUNK_SIZE
        raise KeyError(key)

    def _origin(self) -> str | None:
        writer, _name, ordinal, _end, _count = self._given
        if writer is None:
            return None
        self._index(ordinal)
        return writer.conversation.origin

    def __iter__(self) -> Iterator[str]:
        numbers = ("startIndex", "endIndex", "count") if self._given[-1] else ("index",)
        return iter(("trackId", *numbers, "bufferedDataPoints", "chunkSize"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"<Receipt of {self._given[-1] or 1} point(s) on {self._given[1]!r}>"


class Track:
    """One series of an open session."""

    __slots__ = ("_described", "_name", "_session")

    def __init__(
        self,
        session: Session,
        name: str,
        description: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._session = session
        self._name = name
        given = {"description": description, "tags": names.tag_list(tags), "metadata": metadata}
        given = {key: value for key, value in given.items() if value is not None}
        # Told with the first point, so that asking for a track makes none.
        self._described: bytes | None = _encode(given, "track")[0] if given else None

    def append(self, **fields: Any) -> Receipt:
        """Add a point with these fields; returns a receipt that knows its index later.

        The call is one write to this process's journal. Raises :class:`TypeError` naming a field that JSON cannot hold
        (nothing is kept then), :class:`RuntimeError` when the session is not open.
        """
        data, nonfinite = _encode(fields)
        session = self._session
        writer = session._writer
        if writer is None or self._described is not None or session._sealed:
            ready = self._prepare()
            if ready is None:
                return Receipt((None, self._name, 0, 0, 0))
            writer = ready
        ordinal, end = writer.point(self._name, data, nonfinite)
        return Receipt((writer, self._name, ordinal, end, 0))

    def _prepare(self) -> Writer | None:
        session = self._session
        if session._disabled:
            session._check_open()
            return None
        writer = session._ready_for_rows()
        if self._described is not None:
            writer.put(ops.TRACK, self._name, self._described)
            self._described = None
        return writer

    def append_batch(self, points: list[dict[str, Any]]) -> Receipt:
        """Add points, in order; returns a receipt with ``startIndex``, ``endIndex`` and ``count``.

        Raises :class:`ValueError` for an empty list, :class:`TypeError` for a point that is no dict or holds what JSON
        cannot (nothing is kept then). A batch of more than 4 MiB is kept as several operations: between those, another
        process's points may stand.
        """
        if not isinstance(points, (list, tuple)):
            raise TypeError(f"append_batch takes a list of dicts, not {type(points).__name__}")
        if not points:
            raise ValueError("append_batch needs at least one point")
        batches = _batches(points)
        writer = self._prepare()
        if writer is None:
            return Receipt((None, self._name, 0, 0, len(points)))
        first, end = writer.points(self._name, batches)
        return Receipt((writer, self._name, first, end, len(points)))

    def read(self, start_index: int = 0, limit: int = 1000, rank: int | None = None) -> dict[str, Any]:
        """Points from ``start_index`` on, at most ``limit``, your own among them; with ``rank``, that rank's alone. An
        unknown track is empty.

        Returns ``{"data": [{"index", "data", "createdAt"}], "startIndex", "endIndex", "total", "hasMore"}``; ``total``
        is the number returned. Where the training has several ranks, each row says its ``rank``. With a remote, what
        other directories of the session have sent is among them: then each row has its ``origin``, ``index`` is its
        place there, and ``start_index`` counts from the beginning of all (with ``rank``, of all that are of that rank).
        Raises :class:`~dreamlake.errors.RemoteUnavailable` when the answer is empty and the server, which may have
        points, cannot be asked.
        """
        rows: list[dict[str, Any]] = []
        more = False
        if not self._session._disabled:
            with self._session._reader() as reader:
                rows, more = (self._session._joined(reader) or reader).points(self._name, start_index, limit, rank)
        return {
            "data": [{**row, "index": str(row["index"])} for row in rows],
            "startIndex": str(rows[0]["index"] if rows else start_index),
            "endIndex": str(rows[-1]["index"] if rows else start_index - 1),
            "total": len(rows),
            "hasMore": more,
        }

    def to_numpy(
        self,
        *fields: str,
        start_index: int = 0,
        limit: int | None = None,
        rank: int | None = None,
        times: bool = False,
    ) -> dict[str, numpy.ndarray[Any, Any]]:
        """The series as NumPy arrays of one length: ``"index"`` (int64), one for each of ``fields`` (for all that occur
        when none is named; that reads the series twice), and with ``times`` ``"createdAt"`` (datetime64[us], UTC).

        The array of a field is bool, int64 or float64, whichever holds all its values; a point without it is NaN, and
        whole numbers are float64 beside such. Everything else is an array of objects. ``start_index``, ``limit``
        (``None``: all) and ``rank`` as for :meth:`read`. Memory is that of the arrays, and some MiB.

        Raises :class:`ImportError` without ``pip install 'dreamlake[numpy]'``, :class:`ValueError` for a field called
        as what a row says beside its data, :class:`~dreamlake.errors.RemoteUnavailable` as :meth:`read` does.

        >>> from dreamlake import Session
        >>> with Session("arrays", "docs") as session:
        ...     loss = session.track("loss")
        ...     _ = loss.append_batch([{"value": 1 / (step + 1), "step": step} for step in range(3)])
        ...     found = loss.to_numpy("value", "step")
        >>> found["value"], found["step"]
        (array([1.        , 0.5       , 0.33333333]), array([0, 1, 2]))
        """
        try:
            from dreamlake.reader import arrays
        except ImportError as error:
            raise ImportError(f"to_numpy needs NumPy and msgspec ({error}): pip install 'dreamlake[numpy]'") from None
        if reserved := [each for each in fields if each in arrays.OF_ROWS]:
            raise ValueError(
                f"{reserved[0]!r} is what a row says beside its data; a field of that name has read() alone"
            )
        if self._session._disabled:
            return arrays.of_rows([], fields, times=times)
        with self._session._reader() as reader:
            joined = self._session._joined(reader)
            if joined is not None:
                rows = list(_all_points(joined, self._name, start_index, limit, rank))
                return arrays.of_rows(rows, fields, times=times)
            lines = reader.lines(data_log(self._name))
            return arrays.of_lines(lines, fields, first=start_index, limit=limit, rank=rank, times=times)

    def stats(self, rank: int | None = None) -> dict[str, Any]:
        """The track's metadata and counts; with ``rank``, the counts and times of that rank's points (the whole series
        is read for them). :class:`FileNotFoundError` when nothing was ever appended to it."""
        if self._session._disabled:
            raise FileNotFoundError(f"no track {self._name!r}: DREAMLAKE_MODE=disabled keeps nothing")
        with self._session._reader() as reader:
            return (self._session._joined(reader) or reader).stats(self._name, rank)

    def list_all(self) -> list[dict[str, Any]]:
        """A summary of every track of the session."""
        if self._session._disabled:
            return []
        with self._session._reader() as reader:
            found = self._session._joined(reader) or reader
            return [found.stats(name) for name in found.tracks()]
