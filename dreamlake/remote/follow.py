"""Follow: a session's logs read back from a server, origin by origin, as they were pushed (docs/push.md, Following).

Nothing is believed: what comes must continue the mark that is at hand, or it is not given.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dreamlake.remote.lake import Lake, Trouble
from dreamlake.wire import jsons, zstd
from dreamlake.wire.marks import Mark
from dreamlake.wire.projection import time_of

PIECES_BYTES = 4 << 20  # of lines asked for at once
SEGMENT_BYTES_MAX = 64 << 20  # that one piece may unpack to; a server's limit is far below it

Origin = str
Log = str


class OtherHistory(Trouble):
    """What came does not continue what was there before."""


@dataclass(frozen=True)
class Head:
    """How far a log of an origin is stored: ``count`` records, of which those before ``base`` are another origin's.
    ``first`` and ``last``: when the first record was made, and the latest one."""

    count: int
    mark: Mark
    base: int = 0
    first: str | None = None
    last: str | None = None


@dataclass(frozen=True)
class Piece:
    """Consecutive records of a log from index ``first`` on, as they are in the file, without newlines; b"" for one that
    was refused. ``next`` is the mark behind them, ``time`` the latest time in the log before them ("" without any)."""

    first: int
    lines: list[bytes]
    next: Mark
    time: str = ""

    @property
    def count(self) -> int:
        return len(self.lines)


class Follow:
    """One session on a server. Every method raises what :class:`~dreamlake.remote.lake.Lake` raises.

    ``session`` is what the last :meth:`origins` heard: ``{"id", "deletedAt"}``, or None where there is no such session.
    """

    def __init__(self, lake: Lake, workspace: str, name: str) -> None:
        self._lake, self._named = lake, {"workspace": workspace, "name": name}
        self.session: dict[str, Any] | None = None

    def origins(self, logs: Sequence[Log] | None = None) -> dict[Origin, dict[Log, Head]]:
        """What the server has of every log, or of ``logs``; nothing of a session that is deleted or not there."""
        said = self._lake.ask("/v1/origins", {"session": self._named, **({} if logs is None else {"logs": list(logs)})})
        try:
            self.session = said["session"]
            return {
                origin: {
                    log: Head(int(end["count"]), Mark.of(end["mark"]), int(end["base"]), end["first"], end["last"])
                    for log, end in ends.items()
                }
                for origin, ends in said["origins"].items()
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unreadable("/v1/origins", error) from None

    def pieces(
        self, origin: Origin, log: Log, first: int, mark_before: Mark | None, end: int | None = None
    ) -> Iterator[Piece]:
        """The records [first, end) in order; without ``end`` up to the end of what is stored now.

        ``mark_before`` is the log's mark before record ``first``; None: the server says it, as it has to where a log
        begins at a base. Raises :class:`OtherHistory` when the server's mark there is another one, when what comes
        does not continue it, and when it ends before ``end``.
        """
        while end is None or first < end:
            came = self._pieces(origin, log, first)
            for each in came:
                mark, piece = self._continued(each, log, first, mark_before)
                if end is not None and first + piece.count > end:
                    lines = piece.lines[: end - first]
                    piece = Piece(first, lines, mark.after(_joined(lines)), piece.time)
                first, mark_before = first + piece.count, piece.next
                yield piece
                if first == end:
                    return
            if not came:
                if end is not None:
                    raise OtherHistory(f"{self._lake.url} has fewer records of {log} than it said: ask again")
                return

    def _pieces(self, origin: Origin, log: Log, first: int) -> list[tuple[int, Mark, Piece]]:
        """As they are stored: the index and the mark that each begins at."""
        body = {"session": self._named, "origin": origin, "log": log, "from": first, "bytes": PIECES_BYTES}
        said = self._lake.ask("/v1/records", body)
        try:
            return [_piece(each) for each in said["pieces"]]
        except (AttributeError, KeyError, TypeError, ValueError, zstd.TooLarge, binascii.Error) as error:
            raise self._unreadable("/v1/records", error) from None

    def _continued(
        self, came: tuple[int, Mark, Piece], log: Log, first: int, mark_before: Mark | None
    ) -> tuple[Mark, Piece]:
        """What of a stored piece stands from record ``first`` on, and the mark before that."""
        begin, prev, piece = came
        known = first - begin
        if not 0 <= known < piece.count:
            raise OtherHistory(f"{self._lake.url} has no record {first} of {log}, though it has later ones")
        mark = prev.after(_joined(piece.lines[:known]))
        if mark_before is not None and mark != mark_before:
            raise OtherHistory(
                f"{self._lake.url} has another history of {log} before record {first}: the server was restored from a "
                "backup, or what is here was changed"
            )
        lines = piece.lines[known:]
        if lines != [b""] and mark.after(_joined(lines)) != piece.next:
            raise OtherHistory(f"what {self._lake.url} sent of {log} from record {first} on is damaged: ask again")
        return mark, Piece(first, lines, piece.next, _latest(piece.time, piece.lines[:known]))

    def _unreadable(self, path: str, error: Exception) -> Trouble:
        return Trouble(f"{self._lake.url}{path} answered what cannot be read ({error}): is it another version?")


def _piece(said: dict[str, Any]) -> tuple[int, Mark, Piece]:
    first, count, size = int(said["from"]), int(said["count"]), int(said.get("size", 0))
    prev, after = Mark.of(said["prev"]), Mark.of(said["next"])
    if said.get("refused") is not None:
        lines = [b""]
    else:
        if size > SEGMENT_BYTES_MAX:
            raise ValueError("a piece is too large")
        lines = zstd.unpack(base64.b64decode(said["lines"], validate=True), size).split(b"\n")[:-1]
    if len(lines) != count or count < 1:
        raise ValueError(f"a piece has {len(lines)} records and says {count}")
    return first, prev, Piece(first, lines, after, str(said.get("time") or ""))


def _latest(time: str, lines: list[bytes]) -> str:
    for line in lines:
        row = jsons.object_of(line)
        if row is not None:  # else it was refused
            time = max(time, time_of(row) or "")
    return time


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n" if lines else b""
