"""Tracks: points in, pages and counts out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dreamlake.wire import jsons
from dreamlake.wire.projection import Projection
from dreamlake.wire.state import CHUNK_SIZE, TRACKS_LOG, track_id
from dreamlake_server import here
from dreamlake_server.api.sessions import gone, log_of, refuse_protected, the_session
from dreamlake_server.limits import PAGE_ROWS, PAGE_ROWS_DEFAULT, SCAN_ROWS
from dreamlake_server.problem import bad, not_found
from dreamlake_server.push import SessionGone
from dreamlake_server.read import Reader, at_cursor, cursor_of
from dreamlake_server.route import Call
from dreamlake_server.stores.meta import Head


class NewPoint(msgspec.Struct):
    data: dict[str, Any]
    description: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None


class NewPoints(msgspec.Struct, rename="camel"):
    data_points: list[dict[str, Any]]
    description: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None


class AppendedPoint(msgspec.Struct, rename="camel"):
    track_id: str
    index: str
    buffered_data_points: str
    chunk_size: int


class AppendedPoints(msgspec.Struct, rename="camel"):
    track_id: str
    start_index: str
    end_index: str
    count: int
    buffered_data_points: str
    chunk_size: int


class DataQuery(msgspec.Struct, rename="camel"):
    """By number, or by the cursor of the page before: that costs the same however many origins there are. ``rank``:
    only what that rank of a training wrote."""

    start_index: int = 0
    limit: int = PAGE_ROWS_DEFAULT
    cursor: str | None = None
    rank: int | None = None


class DataPage(msgspec.Struct, rename="camel"):
    """``index`` is the position within the point's origin; ``total`` how many points are in this page."""

    data: list[dict[str, Any]]
    start_index: str
    end_index: str
    total: int
    has_more: bool
    next_cursor: str | None


class TrackStats(msgspec.Struct, rename="camel"):
    track_id: str
    name: str
    description: str | None
    tags: list[str] | None
    metadata: dict[str, Any] | None
    total_data_points: str
    buffered_data_points: str
    chunked_data_points: str
    total_chunks: int
    chunk_size: int
    first_data_at: str | None
    last_data_at: str | None
    created_at: str | None
    updated_at: str | None


class TrackList(msgspec.Struct):
    tracks: list[TrackStats]


async def append(call: Call) -> AppendedPoint:
    given: NewPoint = call.body
    track, before, size = await _append(call, [given.data], given)
    return AppendedPoint(track, str(before), str(size), CHUNK_SIZE)


async def append_batch(call: Call) -> AppendedPoints:
    given: NewPoints = call.body
    if not given.data_points:
        raise bad("dataPoints is empty: send at least one point")
    if len(given.data_points) > PAGE_ROWS:
        raise bad(f"more than {PAGE_ROWS} points (PAGE_ROWS): send them in several requests")
    track, before, size = await _append(call, given.data_points, given)
    count = len(given.data_points)
    return AppendedPoints(track, str(before), str(before + count - 1), count, str(size), CHUNK_SIZE)


async def _append(call: Call, points: list[dict[str, Any]], given: NewPoint | NewPoints) -> tuple[str, int, int]:
    """The track's id, how many points this origin had, and has now."""
    session = await the_session(call)
    refuse_protected(session, ended_only=True)
    name = call.path["name"]
    log = log_of(name)
    try:
        encoded = [jsons.encode_fields(point) for point in points]
    except TypeError as error:
        raise bad(str(error)) from None
    time = call.server.now()
    said = {"description": given.description, "tags": given.tags, "metadata": given.metadata}
    said, _ = here.plain({key: value for key, value in said.items() if value is not None})
    known = (await call.server.projections.of(session.id)).tracks.get(name)
    mine = track_id(here.origin_of(session), name)

    def rows(heads: Mapping[str, Head]) -> dict[str, list[dict[str, Any]]]:
        first = heads[log].count
        data = [
            {
                "index": first + number,
                "data": jsons.loads(fields),
                "createdAt": time,
                **({"nonfinite": nonfinite} if nonfinite else {}),
            }
            for number, (fields, nonfinite) in enumerate(encoded)
        ]
        track: dict[str, Any] = {"time": time, "track": name}
        if known is None or first == 0:
            track["trackId"] = mine
        if said:
            track["set"] = said
        return {log: data, TRACKS_LOG: [track] if len(track) > 2 else []}

    try:
        before = await here.write(call.server.meta, session, [log, TRACKS_LOG], rows)
    except SessionGone as error:
        raise gone(error) from None
    return known.id if known else mine, before[log].count, before[log].count + len(points)


async def read(call: Call) -> DataPage:
    """In order; a page that looked at many points and found few of its rank ends early, with a cursor."""
    session = await the_session(call)
    query: DataQuery = call.query
    if not 1 <= query.limit <= PAGE_ROWS:
        raise bad(f"limit must be 1 to {PAGE_ROWS} (PAGE_ROWS)")
    if query.start_index < 0:
        raise bad("startIndex must not be negative")
    log = log_of(call.path["name"])
    try:
        positions = at_cursor(query.cursor) if query.cursor else None
    except ValueError as error:
        raise bad(str(error)) from None
    reader = await Reader.open(call.server.meta, session.id, log, positions)
    if positions is None and query.start_index:
        await reader.skip(query.start_index)
    found: list[dict[str, Any]] = []
    looked = 0
    if reader.origins:
        async for record in reader.records():
            looked += 1
            if query.rank is None or record.row.get("rank") == query.rank:
                row: dict[str, Any] = {
                    "index": str(record.index),
                    "data": record.row.get("data"),
                    "createdAt": record.row.get("createdAt"),
                }
                for key in ("nonfinite", "rank"):
                    if record.row.get(key) not in (None, []):
                        row[key] = record.row[key]
                if reader.origins > 1:
                    row["origin"] = record.origin
                found.append(row)
            if len(found) == query.limit or looked == SCAN_ROWS:
                break
    more = bool(reader.origins) and await reader.has_more()
    return DataPage(
        data=found,
        start_index=found[0]["index"] if found else str(query.start_index),
        end_index=found[-1]["index"] if found else str(query.start_index - 1),
        total=len(found),
        has_more=more,
        next_cursor=cursor_of(reader.positions) if more else None,
    )


async def stats(call: Call) -> TrackStats:
    session = await the_session(call)
    name = call.path["name"]
    log = log_of(name)
    heads = await call.server.meta.heads(session.id, logs=[log])
    found = _stats(name, list(heads.values()), await call.server.projections.of(session.id))
    if found is None:
        raise not_found(f"the session has no track {name!r}: list them with GET /sessions/{{id}}/tracks")
    return found


async def list_tracks(call: Call) -> TrackList:
    session = await the_session(call)
    said = await call.server.projections.of(session.id)
    heads: dict[str, list[Head]] = {}
    for (_origin, log), head in (await call.server.meta.heads(session.id)).items():
        heads.setdefault(log, []).append(head)
    names = {log[len("tracks/") : -len("/data.jsonl")] for log in heads if log.startswith("tracks/")} | set(said.tracks)
    found = [_stats(name, heads.get(f"tracks/{name}/data.jsonl", []), said) for name in sorted(names)]
    return TrackList([each for each in found if each is not None])


def _stats(name: str, heads: list[Head], said: Projection) -> TrackStats | None:
    track = said.tracks.get(name)
    if track is None and not heads:
        return None
    given = {key: last.value for key, last in track.given.items()} if track else {}
    total = str(sum(head.count - head.base for head in heads))
    firsts = [head.time_first for head in heads if head.time_first]
    lasts = [head.time_max for head in heads if head.time_max]
    tags = given.get("tags")
    return TrackStats(
        track_id=track.id if track else "",
        name=name,
        description=given.get("description") if isinstance(given.get("description"), str) else None,
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else None,
        metadata=given.get("metadata") if isinstance(given.get("metadata"), dict) else None,
        total_data_points=total,
        buffered_data_points=total,
        chunked_data_points="0",
        total_chunks=0,
        chunk_size=CHUNK_SIZE,
        first_data_at=min(firsts) if firsts else None,
        last_data_at=max(lasts) if lasts else None,
        created_at=track.created if track else (min(firsts) if firsts else None),
        updated_at=max([*([track.updated] if track else []), *lasts], default=None),
    )
