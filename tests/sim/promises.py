"""What the clients of a simulated world were promised, and whether it is so.

A call that returned is promised. Power loss takes back what nobody had asked to be durable, and every index that was
told before a durable commit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dreamlake.reader.lines import Lines
from dreamlake.reader.replay import Loaded, committed, leftovers, load
from dreamlake.reader.spools import Spooled
from dreamlake.wire.state import (
    FILES_LOG,
    FILES_VIEW,
    LOGS_LOG,
    PARAMETERS_LOG,
    PARAMETERS_VIEW,
    SESSION_VIEW,
    State,
    track_view,
    view,
)
from dreamlake.world.disk import Disk, read_file
from dreamlake_agent.store.files import place_of

if TYPE_CHECKING:
    from tests.sim.places import Place

NUMBERED = ("index", "sequenceNumber")


class Violation(AssertionError):
    """A promise was broken."""


@dataclass
class Call:
    """One value that a client wrote, in the order of its journal."""

    value: str
    log: str
    track: str = ""
    ordinal: int = 0
    end: int | None = None  # in the journal; None as long as the call has not returned
    durable: bool = False  # not even power loss may take it
    index: int | None = None  # as an ack told it
    pinned: bool = False  # and neither may power loss change it
    lost: bool = False  # power loss may have taken it
    refused: bool = False  # it never returned: the disk did not take it
    free: bool = False  # its directory was removed: it may be there or not
    content: bytes | None = None  # of an upload


@dataclass
class Book:
    """Everything that one journal's client called."""

    client: bytes
    name: str
    place: Place
    forked: bool = False
    calls: list[Call] = field(default_factory=list)
    closed: bool | None = False  # its CLOSE is in the journal; None when that cannot be known
    end: str | None = None  # how the process ended: "left", "died"
    spooled: bool = False
    lost_spool: bool = False  # and it was removed

    @property
    def gone(self) -> bool:
        return self.place.removed

    def lose_spool(self) -> None:
        """What a dead client had there is gone, or covered."""
        self.lost_spool = True
        if self.end is not None:
            self.closed = None
            for call in self.calls:
                call.free, call.index = True, None

    def returned(self, upto: int | None = None) -> Iterable[Call]:
        return [call for call in self.calls if call.end is not None and (upto is None or call.end <= upto)]


def power_loss(books: Iterable[Book]) -> None:
    """Nobody is owed more than was durable."""
    for book in books:
        book.closed = None if book.closed else book.closed
        for call in book.calls:
            call.lost = call.lost or not call.durable
            if not call.pinned:
                call.index = None


# ── what a directory says ───────────────────────────────────────────────────────────────────────────────────────────


def _expect(right: bool, text: str) -> None:
    if not right:
        raise Violation(text)


@dataclass
class Found:
    """The rows of a directory: log → rows."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def read_rows(tree: dict[str, bytes]) -> Found:
    """Every log in a tree of files, as any program would read it; each line must parse."""
    found = Found()
    for path, data in tree.items():
        if not path.endswith(".jsonl") or path.startswith(".dreamlake/cut/"):
            continue
        _expect(data.endswith(b"\n") or not data, f"{path} ends in half a line: {data[-80:]!r}")
        rows = []
        for line in data.split(b"\n")[:-1]:
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise Violation(f"{path} has a line that is no JSON: {line[:200]!r}") from None
        found.rows[path] = rows
    return found


@contextmanager
def with_spools(disk: Disk, at: int, path: str) -> Iterator[Spooled]:
    """The directory at that path, with the journals that are not in it."""
    spooled = Spooled(disk, at, path, "sim")
    try:
        yield spooled
    finally:
        spooled.let_go()


def replayed(disk: Disk, at: int) -> tuple[Loaded, Found]:
    """The directory as a reader sees it that replays the journals in memory."""
    loaded = load(disk, at, "0" * 32)
    sizes = {log: mark.size for log, mark in loaded.marks.items()}
    extra: dict[str, list[bytes]] = {}
    for out in [*(out for _commit, out in committed(disk, at, loaded)), *leftovers(disk, at, loaded)]:
        for log in out.rows:
            extra.setdefault(log, []).extend(out.lines(log))
    return loaded, Found(
        {log: list(Lines(disk, at, log, sizes.get(log, 0), extra.get(log, [])).rows()) for log in {**sizes, **extra}}
    )


def _values(log: str, row: dict[str, Any]) -> list[str]:
    if log.endswith("/data.jsonl"):
        return [row["data"]["v"]]
    if log == LOGS_LOG:
        return [row["message"]]
    if log == PARAMETERS_LOG:
        return sorted(row["set"])
    if log == FILES_LOG and row["op"] == "upload":
        return [row["record"]["id"]]
    return []


def check_rows(found: Found, books: Iterable[Book], free: Iterable[Call] = ()) -> None:
    """Every promised call is there once, in its client's order, with the index it was told; indexes have no holes.
    ``free`` are calls of another directory, which may have come here."""
    places: dict[str, list[tuple[str, int]]] = {}
    for log, rows in found.rows.items():
        for position, row in enumerate(rows):
            for number in NUMBERED:
                _expect(row.get(number, position) == position, f"{log}: row {position} is numbered {row.get(number)}")
            for value in _values(log, row):
                places.setdefault(value, []).append((log, position))
    known = {call.value for call in free}
    for value in known:
        _expect(len(places.get(value, [])) <= 1, f"{value} is there more than once: {places.get(value)}")
    for book in books:
        _check_book(book, places)
        known.update(call.value for call in book.calls)
    strange = sorted(set(places) - known)
    _expect(not strange, f"nobody wrote {strange[:5]}")


def _check_book(book: Book, places: dict[str, list[tuple[str, int]]]) -> None:
    last: dict[str, int] = {}
    missing: Call | None = None
    for call in book.calls:
        at = places.get(call.value, [])
        _expect(len(at) <= 1, f"{call.value} is there {len(at)} times: {at}")
        promised = call.end is not None and not call.lost and not call.free
        if not at:
            _expect(not promised, f"{call.value} returned{' and was durable' if call.durable else ''}, and is lost")
            if call.end is not None and not call.free:
                missing = missing or call
            continue
        if call.free:
            continue
        (log, position) = at[0]
        _expect(not call.refused, f"{call.value} raised, and is there")
        _expect(missing is None, f"{call.value} is there, and {missing and missing.value} that came before it is not")
        _expect(log == call.log, f"{call.value} is in {log}")
        _expect(position > last.get(log, -1), f"{call.value} is at {position} of {log}, before what came before it")
        last[log] = position
        told = call.index
        _expect(told is None or told == position, f"{call.value} was told the index {told} and has {position}")


def check_views(tree: dict[str, bytes], state: State, edits: dict[str, list[bytes]]) -> None:
    """Each view is there and is the projection of its history; or it is as a person left it, and was not due since."""
    for path in sorted({SESSION_VIEW, PARAMETERS_VIEW, FILES_VIEW} | {track_view(name) for name in state.tracks}):
        shown = view(state, path)
        if shown is None:
            _expect(path not in tree, f"{path} shows what never was")
            continue
        _expect(path in tree, f"{path} is not there")
        if tree[path] in edits.get(path, []):
            continue
        try:
            found = json.loads(tree[path])
        except ValueError:
            raise Violation(f"{path} is no JSON: {tree[path][:80]!r}") from None
        _expect(found == shown, f"{path} shows {found}, and the history says {shown}")


def check_edits(tree: dict[str, bytes], edits: dict[str, list[bytes]]) -> None:
    """What a person wrote into a view is there, or in ``cut/``."""
    for path, contents in edits.items():
        kept = {data for name, data in tree.items() if name.startswith(f".dreamlake/cut/{path.replace('/', '__')}.")}
        for content in contents:
            _expect(content in kept or tree.get(path) == content, f"an edit of {path} is gone: {content!r}")


def check_files(tree: dict[str, bytes], state: State, books: Iterable[Book]) -> None:
    """Every upload that was not replaced has its bytes, and their checksum."""
    uploads = {call.value: call for book in books for call in book.calls if call.content is not None}
    for record in state.files.values():
        call = uploads.get(record["id"])
        if call is None or call.content is None or call.free or call.lost:
            continue
        place = place_of(record)
        _expect(place in tree, f"{call.value} was uploaded, and {place} is not there")
        _expect(tree[place] == call.content, f"{place} is not what was uploaded as {call.value}")
        checksum = hashlib.sha256(call.content).hexdigest()
        _expect(record["checksum"] == checksum, f"{place} has the checksum {record['checksum']}, not {checksum}")


def check_ends(state: State, books: Iterable[Book], *, doubtful: bool) -> None:
    """A client that closed has finished, one that vanished was killed, but for a forked child: it has finished."""
    for book in books:
        client = state.clients.get(book.client.hex())
        if client is not None:
            vanished = "finished" if book.forked else "killed"
            wanted = {True: {"finished"}, False: {vanished}, None: {"finished", vanished}}[book.closed]
            if doubtful:  # somebody took it for dead while it lived
                wanted |= {vanished}
            _expect(client.state in wanted, f"client {book.name} is {client.state}, and should be {sorted(wanted)}")


def is_committed(disk: Disk, at: int, path: str, client: bytes, end: int) -> bool:
    """Whether ``commits.log`` covers that much of the client's stream."""
    with with_spools(disk, at, path) as seen:
        loaded = load(seen, at, read_file(disk, ".dreamlake/origin", at, 100).decode().strip())
        for _ in committed(seen, at, loaded):
            pass
    return loaded.is_finished(client) or loaded.position(client)[0] >= end
