"""Choices read out of bytes, so that hypothesis, atheris and a file of the corpus all drive a target the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# What nobody who writes our formats ever meant.
ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
    0.5,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "0",
    "-1",
    "\u00b2",
    "a/b",
    "../../../outside/new",
    "..",
    "/etc/outside",
    "a\0b",
    "lr.0.0",
    "x" * 300,
    "9" * 5000,
    "\x01\n\u2028\U0001f600",
    "running",
    ".dreamlake/owner",
    [],
    [None],
    ["x", 1],
    {},
    {"a": {"b": [1]}},
)
ODD_BYTES: tuple[bytes, ...] = (b"", b"\xff" * 16, b"\0" * 16, b"{}", b'{"a":1e999}', b"[" * 2000, b'{"a":' * 600)


class Choices:
    """A tape: every choice takes bytes off it, and past its end every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def rest(self) -> bytes:
        return self.take(max(0, len(self._data) - self._at))

    def number(self, size: int = 2) -> int:
        return int.from_bytes(self.take(size), "big")

    def below(self, limit: int) -> int:
        return self.number(1 if limit <= 256 else 3) % limit if limit > 0 else 0

    def one_of(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def blob(self) -> bytes:
        return self.take(self.number(2))

    def odd(self, *, raw: bool) -> Any:
        """An odd value; ``raw``: bytes may be one (msgpack), else only what JSON has."""
        kind = self.below(4)
        if kind == 0:
            return nested(self.one_of((10, 70, 300, 520, 900, 1000)))
        if kind == 1 and raw:
            return self.one_of(ODD_BYTES)
        return self.one_of(ODD)


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"d": value}
    return value


def spoil(data: bytes, choices: Choices) -> bytes:
    """``data`` as a bad disk, a bad network or a person leaves it: a few places flipped, cut, doubled, zeroed."""
    for _ in range(1 + choices.below(3)):
        at = choices.below(len(data) + 1)
        length = 1 + choices.below(64)
        kind = choices.below(10)
        if kind == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ (1 << choices.below(8))]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data = data[:at] + data[at + length :]
        elif kind == 3:
            data = data[:at] + data[at : at + length] * (2 + choices.below(3)) + data[at + length :]
        elif kind == 4:
            data = data[:at] + b"\0" * length + data[at + length :]
        elif kind == 5:
            data = data[:at] + choices.one_of(LENGTHS) + data[at:]
        elif kind == 6:
            data = data[:at] + choices.one_of(LENGTHS) + data[at + 5 :]
        elif kind == 7:
            data = data[:at] + choices.take(length) + data[at:]
        elif kind == 8:
            data += choices.take(length) or b"\0" * 4096
        else:
            other = choices.below(len(data) + 1)
            data = data[:at] + data[other : other + length] + data[at:]
    return data


# msgpack's heads of something enormous, or of something nested.
LENGTHS = (
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xce\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + b"\0" * 7,
    b"\xcb\x7f\xf0" + b"\0" * 6,
    b"\x91" * 700,
    b"\x81\xa1d" * 1000,
    b"\xd7\xff" + b"\xff" * 8,
    b"9" * 5000,
    b"1e999",
    b"[" * 1500,
    b'{"a":' * 800,
)


def change_leaf(value: Any, choices: Choices, *, raw: bool) -> Any:
    """A copy of ``value`` with one thing in it, somewhere, made odd, taken away or doubled."""
    if isinstance(value, dict) and value and choices.below(5):
        keys = list(value)
        key = choices.one_of(keys)
        what = choices.below(8)
        if what == 0:
            return {k: v for k, v in value.items() if k != key}
        if what == 1:
            other = choices.one_of(ODD)
            return {**value, (repr(other) if isinstance(other, (list, dict)) else other): value[key]}
        return {**value, key: change_leaf(value[key], choices, raw=raw)}
    if isinstance(value, (list, tuple)) and value and choices.below(5):
        at = choices.below(len(value))
        what = choices.below(8)
        inner = list(value)
        if what == 0:
            del inner[at]
        elif what == 1:
            inner.insert(at, inner[at])
        else:
            inner[at] = change_leaf(inner[at], choices, raw=raw)
        return inner
    if isinstance(value, bytes) and value and choices.below(2):
        return spoil(value, choices)
    if isinstance(value, int) and choices.below(2):
        return value + choices.one_of((1, -1, 7, 1 << 20, -(1 << 20), 1 << 40))
    return choices.odd(raw=raw)
