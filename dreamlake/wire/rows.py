"""Rows: the lines of logs, read by whoever did not write them. PURE.

A line may hold what no answer and no line of ours can. A row that was read so is plain: what is not finite is a string
and listed, as in our own rows, and half a surrogate pair is U+FFFD.
"""

from __future__ import annotations

import math
import re
from typing import Any

from dreamlake.wire import jsons

# What lines may hold and no answer can: bare NaN and Infinity (0.2.x wrote them), numbers that no float holds, half a
# surrogate pair. It also finds some that an answer can hold; those come out of _plain as they were.
_UNANSWERABLE = re.compile(rb"NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{309}|\\u[dD][89a-fA-F]")
_LISTED_OF = ("data", "metadata", "set")


def row_of(line: bytes) -> dict[str, Any]:
    """
    >>> row_of(b'{"data":{"value":NaN}}')
    {'data': {'value': 'NaN'}, 'nonfinite': ['value']}

    Raises :class:`ValueError` that says why a line is no row.
    """
    try:
        row = jsons.loads(line)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(row, dict):
        raise ValueError("it is no JSON object")
    return _plain(row) if _UNANSWERABLE.search(line) else row


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    listed = row.get("nonfinite")
    nonfinite = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
    known = len(nonfinite)
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key in _LISTED_OF and isinstance(value, dict):
            found[key] = {_text(inner): _value(each, inner, nonfinite) for inner, each in value.items()}
        else:
            found[_text(key)] = _value(value, key, [])
    if len(nonfinite) > known:
        found["nonfinite"] = nonfinite
    return found


def _value(value: Any, name: str, nonfinite: list[str]) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return jsons.plain_value(value, _text(name), nonfinite)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {_text(key): _value(inner, f"{name}.{key}", nonfinite) for key, inner in value.items()}
    if isinstance(value, list):
        return [_value(inner, f"{name}.{index}", nonfinite) for index, inner in enumerate(value)]
    return value


def _text(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
