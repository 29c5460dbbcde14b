"""JSON: what users' values become, and how lines that others wrote are read.

Every line and every view is valid JSON. A float that JSON cannot hold is stored as one of the strings ``"NaN"``,
``"Infinity"``, ``"-Infinity"`` and its field is listed, so that a user's own string ``"NaN"`` stays a string.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import re
import sys
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import orjson

DEPTH_MAX = 64
# What may stand in a line: a little more than orjson writes (254 levels), and so little that every encoder and decoder
# takes it however deep its own stack is. What is applied must not depend on who calls.
FIELD_DEPTH_MAX = 256
# A row or a view around it.
ROW_DEPTH_MAX = FIELD_DEPTH_MAX + 8

# orjson would leave out the fields of a dataclass whose name begins with "_".
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS

# Digits as 0, and all else as a space: finding 19 zeros then takes a sixth of the time of a regular expression.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG = b"0" * 19
_INDEX = re.compile(r"[0-9]{1,9}\Z")
_NONFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

dumps = orjson.dumps
parse = orjson.loads  # one JSON value from bytes; ValueError for anything else, and for some integers beyond 64 bits
# What is no longer than this cannot be nested deeper than FIELD_DEPTH_MAX.
SHALLOW_BYTES = 2 * FIELD_DEPTH_MAX
_MANY = 8


def encode_fields(fields: dict[str, Any], what: str = "field") -> tuple[bytes, list[str] | None]:
    """A user's fields as one JSON object, and the fields whose value is not finite (None when all are).

    Accepts numpy and torch scalars and 0-d arrays, enums, datetimes, paths, UUIDs and dataclasses. Raises
    :class:`TypeError` naming the field for anything that JSON cannot hold; nothing is stored then.

    >>> encode_fields({"value": float("nan"), "epoch": 1})
    (b'{"value":"NaN","epoch":1}', ['value'])
    """
    try:
        data = dumps(fields, None, _OPTIONS)
    except (TypeError, RecursionError):
        return _encode_slowly(fields, what)
    if len(data) > SHALLOW_BYTES and _may_be_deep(data, FIELD_DEPTH_MAX) and not is_object(data):
        return _encode_slowly(fields, what)  # which says where it is too deep: orjson does not count tuples
    # orjson writes NaN as null. The word alone does not say so; the slow way does.
    return _encode_slowly(fields, what) if data.find(b"null") >= 0 else (data, None)


def encode_plain(many: Sequence[Any]) -> list[bytes] | None:
    """Each of many users' fields as :func:`encode_fields` would have it, when none of them needs a second look; else
    None."""
    if set(map(type, many)) != {dict}:
        return None
    try:
        data = [dumps(fields, None, _OPTIONS) for fields in many]
    except (TypeError, RecursionError):
        return None
    if max(map(len, data)) > SHALLOW_BYTES or b"".join(data).find(b"null") >= 0:
        return None
    return data


def _encode_slowly(fields: dict[str, Any], what: str) -> tuple[bytes, list[str] | None]:
    nonfinite: list[str] = []
    plain = {str(key): plain_value(value, str(key), nonfinite, what) for key, value in fields.items()}
    return encode(plain), nonfinite or None


def encode(plain: Any) -> bytes:
    """Plain values as JSON; integers beyond 64 bits too, which orjson refuses."""
    try:
        return orjson.dumps(plain)
    except TypeError:
        return json.dumps(plain, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def plain_value(value: Any, field: str, nonfinite: list[str], what: str = "field", depth: int = 0) -> Any:
    """``value`` made of None, bool, int, float, str, list and dict only; appends the fields that are not finite."""
    if depth > DEPTH_MAX:
        raise TypeError(f"{what} {field!r} is nested deeper than {DEPTH_MAX} levels (or contains itself)")
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is str:
        return _text(value, field, what)
    if kind is float:
        return value if math.isfinite(value) else _set_aside(value, field, nonfinite)
    if isinstance(value, enum.Enum):
        return plain_value(value.value, field, nonfinite, what, depth + 1)
    if isinstance(value, dict):
        return {
            _key(key, field, what): plain_value(inner, f"{field}.{key}", nonfinite, what, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain_value(inner, f"{field}.{index}", nonfinite, what, depth + 1) for index, inner in enumerate(value)]
    if isinstance(value, str):
        return _text(str.__str__(value), field, what)
    if isinstance(value, float):  # numpy.float64 is one
        return plain_value(float(value), field, nonfinite, what, depth)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if _is_uuid(value):
        return str(value)
    if hasattr(value, "__fspath__"):
        return _text(str(value), field, what)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: plain_value(getattr(value, each.name), f"{field}.{each.name}", nonfinite, what, depth + 1)
            for each in dataclasses.fields(value)
        }
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # numpy, torch, jax: one number
        inner = value.item()
        if type(inner) is not kind:
            return plain_value(inner, field, nonfinite, what, depth + 1)
    raise TypeError(f"{what} {field!r}: {_refusal(value)}")


def _is_uuid(value: Any) -> bool:
    uuid = sys.modules.get("uuid")  # whoever has one has imported it
    return uuid is not None and isinstance(value, uuid.UUID)


def _refusal(value: Any) -> str:
    name = type(value).__name__
    if getattr(value, "shape", None) not in (None, ()):
        return f"an array of shape {tuple(value.shape)} cannot be stored; give .item(), .tolist(), or upload a file"
    return f"a value of type {name} cannot be stored as JSON; convert it to a number, string, list or dict"


def _set_aside(value: float, field: str, nonfinite: list[str]) -> str:
    nonfinite.append(field)
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _text(value: str, field: str, what: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TypeError(f"{what} {field!r} is not valid Unicode (a lone surrogate) and cannot be stored") from None
    return value


def _key(key: Any, field: str, what: str) -> str:
    if isinstance(key, str):
        return _text(str(key), field, what)
    if isinstance(key, (bool, int)) or key is None:
        return "null" if key is None else str(key).lower() if isinstance(key, bool) else str(int(key))
    raise TypeError(f"{what} {field!r} has a key of type {type(key).__name__}; JSON keys are strings")


def loads(data: bytes | str) -> Any:
    """Read JSON that anyone wrote: also bare ``NaN`` and ``Infinity`` (0.2.x) and integers of any size.

    Raises :class:`ValueError` for anything else.
    """
    raw = data.encode() if isinstance(data, str) else data
    found = _loads(raw)
    if len(raw) > 2 * ROW_DEPTH_MAX and _may_be_deep(raw, ROW_DEPTH_MAX) and _is_deeper(found, ROW_DEPTH_MAX):
        raise ValueError("nested too deeply")
    return found


def object_of(data: bytes | str) -> dict[str, Any] | None:
    """The object that somebody's JSON is, as :func:`loads` reads it; None for anything else.

    >>> object_of(b'{"index":0}'), object_of(b"[]"), object_of(b'{"ind')
    ({'index': 0}, None, None)
    """
    try:
        found = loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def objects_of(many: list[bytes]) -> list[dict[str, Any]] | None:
    """What :func:`object_of` reads of each, when each is an object and none needs a second look; else None."""
    if max(map(len, many), default=0) > 2 * ROW_DEPTH_MAX or _has_long_number(b"\n".join(many)):
        return None
    try:
        found = list(map(parse, many))
    except ValueError:
        return None
    return found if set(map(type, found)) <= {dict} else None


def _loads(raw: bytes) -> Any:
    if not _has_long_number(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    try:
        return json.loads(raw)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _has_long_number(raw: bytes) -> bool:
    """Whether an integer may be in it that is beyond 64 bits."""
    return raw.translate(_DIGITS).find(_LONG) >= 0


def _may_be_deep(raw: bytes, limit: int) -> bool:
    return raw.count(b"{") + raw.count(b"[") > limit


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True


def is_object(data: bytes) -> bool:
    """Whether ``data`` is exactly one JSON object: what may stand inside a line that we write."""
    try:
        # The first byte decides the kind; the parse decides that it is one value and complete.
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        if not _has_long_number(data):  # an integer that orjson takes for infinite is one all the same
            return False
        try:
            # As text: of bytes json would also take UTF-16, which is no line of ours.
            found = json.loads(data.decode(), parse_constant=_no_constant)
            encode(found)
        except (ValueError, TypeError, RecursionError):
            return False
    if len(data) > SHALLOW_BYTES and _may_be_deep(data, FIELD_DEPTH_MAX) and _is_deeper(found, FIELD_DEPTH_MAX):
        return False
    return data[0] == 0x7B and 0x0A not in data


def are_objects(many: Sequence[bytes]) -> bool:
    """Whether each is what :func:`is_object` says; quicker for many."""
    if len(many) >= _MANY:
        try:
            if (
                set(map(type, map(parse, many))) == {dict}
                and set(map(itemgetter(0), many)) == {0x7B}
                and max(map(len, many)) <= SHALLOW_BYTES
                and b"".join(many).find(b"\n") < 0
            ):
                return True
        except ValueError:
            pass
    return all(map(is_object, many))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def restore(data: dict[str, Any], nonfinite: Any) -> dict[str, Any]:
    """Give the listed fields their float back, for readers in Python. A field may be a path such as ``a.b.0``; what is
    no list of names, in a line that somebody else wrote, lists nothing."""
    for field in nonfinite if isinstance(nonfinite, (list, tuple)) else ():
        if isinstance(field, str):
            _restore_one(data, field)
    return data


def _restore_one(holder: Any, field: str) -> None:
    """Walk one path, as the writer made it; a key may itself hold dots."""
    if isinstance(holder, dict):
        if field in holder:
            holder[field] = _restored(holder[field])
            return
        for key in holder:
            if field.startswith(f"{key}."):
                _restore_one(holder[key], field[len(key) + 1 :])
    elif isinstance(holder, list):
        head, _, rest = field.partition(".")
        if _INDEX.match(head) and int(head) < len(holder):
            if rest:
                _restore_one(holder[int(head)], rest)
            else:
                holder[int(head)] = _restored(holder[int(head)])


def _restored(value: Any) -> Any:
    return _NONFINITE.get(value, value) if isinstance(value, str) else value


def pretty(plain: Any) -> bytes:
    """A view as a person reads it: indented, ending in a newline."""
    try:
        return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
