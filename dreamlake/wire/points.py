"""Points that come in a row: applied together, at a fraction of what one operation after the other costs. PURE.

What is done here is what :mod:`dreamlake.wire.apply` does with each; docs/decisions/0027 has what that saves.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import Any

from dreamlake.wire import jsons, ops
from dreamlake.wire.applied import Applied, rank_in_line
from dreamlake.wire.state import State
from dreamlake.wire.times import time_text

_SECOND = 1_000_000_000  # nanoseconds


def more_points(
    state: State, author: str, run: list[Any], position: int, skipped: Collection[int], out: Applied
) -> int:
    """Apply the points that follow an accepted one; returns where the first operation stands that it left alone.

    What lets a client's point in cannot change while only its points come. Whatever is new, odd or wrong is left to
    whoever asked, who applies one operation at a time.
    """
    end = min(len(run), position + _FEW)
    while True:
        reached = _one_by_one(state, author, run, position, end, skipped, out)
        if reached < end or end == len(run):
            return reached
        position = end
        while not skipped and _at_once(state, author, run[position : position + _MANY], out):
            position = min(len(run), position + _MANY)
            if position == len(run):
                return position
        end = min(len(run), position + _MANY)


_FEW, _MANY = 16, 256  # operations: so many go one by one before it is tried how many go at once


def _at_once(state: State, author: str, block: list[Any], out: Applied) -> bool:
    """Apply operations that are all plain points of tracks known here, each step for all of them; or do nothing.

    Every check is that of ``_one_by_one``.
    """
    if set(map(type, block)) != {tuple} or set(map(len, block)) != {5}:
        return False
    kinds, times, names, ordinals, datas = zip(*block, strict=True)
    # Exact types only: 6.0 == 6 as a kind, and a time may be True. ops.check says what those are.
    if set(map(type, chain(kinds, times, ordinals))) != {int} or set(kinds) != {ops.POINT}:
        return False
    if set(map(type, names)) != {str} or set(map(type, datas)) != {bytes}:
        return False
    first, last = min(times), max(times)
    if first // _SECOND != last // _SECOND or not ops.TIME_MIN <= first <= ops.TIME_MAX:
        return False
    if not jsons.are_objects(datas):
        return False
    second = time_text(first)[:-8]
    tracks = set(names)
    if not tracks <= state.tracks.keys():
        return False
    line = b'{"index":%%d,"data":%%b,"createdAt":"%b.%%06dZ"%b}\n' % (
        second.encode(),
        rank_in_line(state, author, out),
    )
    if len(tracks) > len(block) // 4:
        _in_turn(state, block, line, second, out)
        return True
    for name, points in _by_track(block, names).items():
        track, count = state.tracks[name], len(points)
        tail = track.tail
        index = tail.next
        _kinds, times, _names, ordinals, datas = zip(*points, strict=True)
        values: list[Any] = [None] * (3 * count)
        values[::3], values[1::3] = range(index, index + count), datas
        values[2::3] = micros = [time % _SECOND // 1000 for time in times]
        out.blocks_of(track, name).append(line * count % tuple(values))
        if ordinals == tuple(range(ordinals[0], ordinals[0] + count)):
            out.place(name, ordinals[0], index, count)
        else:
            for at, ordinal in enumerate(ordinals, index):
                out.place(name, ordinal, at, 1)
        tail.next += count
        tail.rows += count
        tail.time = f"{second}.{micros[-1]:06d}Z"
    return True


def _in_turn(state: State, block: list[Any], line: bytes, second: str, out: Applied) -> None:
    """Apply points of many tracks, each of which has few: what is done once for a track would be done for each."""
    tracks, rows, placed = state.tracks, out.rows, out.placed
    for _kind, time, name, ordinal, data in block:
        track = tracks[name]
        tail, log, spans = track.tail, rows.get(track.log), placed.get(name)
        index, micros = tail.next, time % _SECOND // 1000
        if log is None:
            log = out.blocks_of(track, name)
        log.append(line % (index, data, micros))
        if spans is None:
            placed[name] = [[ordinal, index, 1]]
        else:
            out.place(name, ordinal, index, 1)
        tail.next = index + 1
        tail.rows += 1
        tail.time = f"{second}.{micros:06d}Z"


def _by_track(block: list[Any], names: tuple[str, ...]) -> dict[str, list[Any]]:
    if names.count(names[0]) == len(names):
        return {names[0]: block}
    found: dict[str, list[Any]] = {}
    for name, op in zip(names, block, strict=True):
        if name in found:
            found[name].append(op)
        else:
            found[name] = [op]
    return found


def _one_by_one(
    state: State, author: str, run: list[Any], position: int, end: int, skipped: Collection[int], out: Applied
) -> int:
    """Apply the plain points among ``run[position:end]``, until one is none; returns where that stands."""
    known: dict[str, list[Any]] = {}  # track → its tail, its lines, the time of its last point
    second, stamp, rank = None, b"", rank_in_line(state, author, out)
    while position < end:
        op = run[position]
        if type(op) is not tuple or len(op) != 5 or op[0] != ops.POINT or position in skipped:
            break
        kind, time, name, ordinal, data = op
        if type(kind) is not int or type(time) is not int or type(ordinal) is not int:
            break
        if type(name) is not str or type(data) is not bytes:
            break
        track = state.tracks.get(name)
        if track is None:
            break
        seconds, rest = divmod(time, _SECOND)
        if seconds != second:
            if not ops.TIME_MIN <= time <= ops.TIME_MAX:
                break
            second, stamp = seconds, time_text(time)[:-8].encode()
        if not jsons.is_object(data):
            break
        found = known.get(name)
        if found is None:
            found = known[name] = [track.tail, out.blocks_of(track, name), time]
        tail, lines, _ = found
        index = tail.next
        lines.append(b'{"index":%d,"data":%b,"createdAt":"%b.%06dZ"%b}\n' % (index, data, stamp, rest // 1000, rank))
        tail.next = index + 1
        tail.rows += 1
        out.place(name, ordinal, index, 1)
        found[2] = time
        position += 1
    for tail, _lines, time in known.values():
        tail.time = time_text(time)
    return position
