"""Operations: what a client asks of a session, one tuple each. The page is docs/wire.md.

An operation starts with its kind and the time of the call (nanoseconds since 1970, UTC, by the client's clock). What
the user gave as fields travels as JSON text, encoded once, by the caller; the agent checks it and places it in the
line.

=============  ====================================================================================================
OPEN           kind, time, {workspace, name, rank, world_size, pid, host, forked, parent, remote}, fields given (JSON)
CLOSE          kind, time, state, {type, message} or nil
LOG            kind, time, level, message, metadata (JSON) or nil, nonfinite or nil
PARAMETERS     kind, time, flat fields (JSON), nonfinite or nil
TRACK          kind, time, track, {description, tags, metadata} given (JSON)
POINT          kind, time, track, ordinal, fields (JSON) [, nonfinite]
POINTS         kind, time, track, ordinal, [fields (JSON), …] [, [nonfinite or nil, …]]
FILE           kind, time, record (JSON), name in incoming/
FILE_CHANGE    kind, time, file id, fields given (JSON)
FILE_DELETE    kind, time, file id
KILLED         kind, time, client           (agent only: that client vanished without a CLOSE)
HASHED         kind, time, file id, sha256  (agent only: the checksum of a placed file)
=============  ====================================================================================================

``ordinal`` counts a client's own points on that track from 0; with it an acknowledgement can say in a few bytes which
index each of a thousand points was given.
"""

from __future__ import annotations

from typing import Any

OPEN = 1
CLOSE = 2
LOG = 3
PARAMETERS = 4
TRACK = 5
POINT = 6
POINTS = 7
FILE = 8
FILE_CHANGE = 9
FILE_DELETE = 10
KILLED = 20
HASHED = 21

LEVELS = ("debug", "info", "warn", "error", "fatal")

RUNNING = "running"
FINISHED = "finished"
FAILED = "failed"
KILLED_STATE = "killed"
END_STATES = (FINISHED, FAILED, KILLED_STATE)

# A single point of a batch: what is left of OP_BYTES_MAX (8 MiB) for it.
POINT_BYTES_MAX = 7 << 20

Op = tuple[Any, ...]

_TEXT_OR_NONE = (str, type(None))
_LIST_OR_NONE = (tuple, list, type(None))
_BYTES_OR_NONE = (bytes, type(None))

# kind → the types after kind and time; the number that must be there; who may say it
_SHAPES: dict[int, tuple[tuple[Any, ...], int]] = {
    OPEN: ((dict, bytes), 2),
    CLOSE: ((str, (dict, type(None))), 2),
    LOG: ((str, str, _BYTES_OR_NONE, _LIST_OR_NONE), 4),
    PARAMETERS: ((bytes, _LIST_OR_NONE), 2),
    TRACK: ((str, bytes), 2),
    POINT: ((str, int, bytes, _LIST_OR_NONE), 3),
    POINTS: ((str, int, (tuple, list), _LIST_OR_NONE), 3),
    FILE: ((bytes, str), 2),
    FILE_CHANGE: ((str, bytes), 2),
    FILE_DELETE: ((str,), 1),
    KILLED: ((bytes,), 1),
    HASHED: ((str, str), 2),
}

# 0001-01-01 … 9999-12-31 as nanoseconds: what ISO 8601 with four digits of year can say.
TIME_MIN = -62_135_596_800 * 10**9
TIME_MAX = 253_402_300_800 * 10**9 - 1


class Impossible(ValueError):
    """An operation that cannot be applied, however valid its checksum: refused, counted, told to its caller."""


def check(op: Any) -> Op:
    """``op`` when it has the shape of an operation, else :class:`Impossible`."""
    if not isinstance(op, tuple) or len(op) < 2 or not isinstance(op[0], int) or not isinstance(op[1], int):
        raise Impossible("not an operation")
    shape = _SHAPES.get(op[0])
    if shape is None:
        raise Impossible(f"operation of kind {op[0]}, which this version of the agent does not know")
    if not TIME_MIN <= op[1] <= TIME_MAX:
        raise Impossible("time outside the years 1 to 9999")
    types, least = shape
    given = op[2:]
    if not least <= len(given) <= len(types) or not all(map(isinstance, given, types)):
        raise Impossible("operation of the wrong shape")
    return op
