"""Arrays: a series as NumPy arrays, one for each field. NumPy and msgspec are there with ``dreamlake[numpy]``.

A log is decoded a block of lines at a time, and only the fields that are asked for become objects. A block in which
anything is unusual (a hole, half a line, a field that is not finite) is read row by row, as everybody else reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy

from dreamlake.reader.lines import Lines
from dreamlake.wire import jsons

INDEX, CREATED_AT = "index", "createdAt"
OF_ROWS = (INDEX, CREATED_AT, "rank", "nonfinite", "origin")  # what a row says beside its data

Arrays = dict[str, "numpy.ndarray[Any, Any]"]


class _Row(msgspec.Struct, gc=False):
    index: int
    rank: int | None = None


class _Fields(msgspec.Struct, gc=False):
    data: dict[str, msgspec.Raw]


_fields_of = msgspec.json.Decoder(_Fields).decode_lines


def of_lines(
    lines: Lines, fields: Sequence[str], *, first: int, limit: int | None, rank: int | None, times: bool
) -> Arrays:
    """The arrays of a log; of all fields that occur anywhere in it when none is named."""
    columns = Columns(fields or fields_in(lines), first=first, limit=limit, rank=rank, times=times)
    for block, ended in lines.blocks_from(INDEX, first):
        if ended:
            columns.add_block(block, lines)
        else:
            columns.add_rows(lines.rows_of(block, ended=False))
        if columns.are_full:
            break
    return columns.arrays()


def of_rows(rows: list[dict[str, Any]], fields: Sequence[str], *, times: bool) -> Arrays:
    """The arrays of rows that were read one by one."""
    named = fields or dict.fromkeys(key for row in rows for key in row["data"] if key not in OF_ROWS)
    columns = Columns([*named], first=0, limit=None, rank=None, times=times)
    columns.add_rows(rows)
    return columns.arrays()


def fields_in(lines: Lines) -> list[str]:
    """Every field that a row of a log has, in the order of their first appearance."""
    found: dict[str, None] = {}
    for block, ended in lines.blocks_from(INDEX, 0):
        try:
            rows = _fields_of(block)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            texts = block.split(b"\n") if ended else [block]
            for row in (row for line in texts for row in lines.rows_of(line, ended)):
                found.update(dict.fromkeys(row["data"] if isinstance(row.get("data"), dict) else ()))
        else:
            for each in rows:
                if not found.keys() >= each.data.keys():
                    found.update(dict.fromkeys(each.data))
    return [each for each in found if each not in OF_ROWS]


class Columns:
    """The arrays of some fields, as they grow by blocks and rows."""

    def __init__(self, fields: Sequence[str], *, first: int, limit: int | None, rank: int | None, times: bool) -> None:
        self._fields, self._first, self._rank, self._times = list(fields), first, rank, times
        self._left = math.inf if limit is None else limit
        self._decode = _decoder(self._fields, times)
        self._parts: dict[str, list[numpy.ndarray[Any, Any]]] = {each: [] for each in (INDEX, *self._fields)}
        if times:
            self._parts[CREATED_AT] = []

    @property
    def are_full(self) -> bool:
        return self._left <= 0

    def add_block(self, block: bytes, lines: Lines) -> None:
        """Whole lines of a log, with their newlines."""
        try:
            rows = self._decode(block) if b'"nonfinite":' not in block else None
        except (msgspec.MsgspecError, ValueError, RecursionError):
            rows = None
        if rows is None:
            self.add_rows(row for line in block[:-1].split(b"\n") for row in lines.rows_of(line))
            return
        if self._rank is not None or self._first > 0:
            rows = [each for each in rows if each.index >= self._first and self._rank in (None, each.rank)]
        if len(rows) > self._left:
            rows = rows[: int(self._left)]
        self._left -= len(rows)
        if rows:
            self._add(INDEX, list(map(attrgetter("index"), rows)))
            for number, name in enumerate(self._fields):
                self._add(name, list(map(attrgetter(f"data.f{number}"), rows)))
            if self._times:
                self._add_times([each.createdAt for each in rows])

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows as :meth:`dreamlake.reader.session.SessionReader.points` has them, or not restored yet."""
        kept: list[dict[str, Any]] = []
        for row in rows:
            index = row.get(INDEX)
            counts = isinstance(index, int) and index >= self._first and self._rank in (None, row.get("rank"))
            if counts and self._left > 0:
                kept.append(row)
                self._left -= 1
        if kept:
            self._add(INDEX, [row[INDEX] for row in kept])
            datas = [row["data"] if isinstance(row.get("data"), dict) else {} for row in kept]
            datas = [jsons.restore(data, row.get("nonfinite")) for data, row in zip(datas, kept, strict=True)]
            for name in self._fields:
                self._add(name, [data.get(name) for data in datas])
            if self._times:
                self._add_times([row.get(CREATED_AT) for row in kept])

    def _add(self, name: str, values: list[Any]) -> None:
        self._parts[name].append(array_of(values))

    def _add_times(self, values: list[Any]) -> None:
        texts = [each[:-1] if isinstance(each, str) and each.endswith("Z") else "NaT" for each in values]
        self._parts[CREATED_AT].append(numpy.array(texts, dtype="datetime64[us]"))

    def arrays(self) -> Arrays:
        """One array for each field, all of the same length."""
        return {name: _joined(name, parts) for name, parts in self._parts.items()}


def _decoder(fields: list[str], times: bool) -> Any:
    names = [(f"f{number}", Any, msgspec.field(default=None, name=name)) for number, name in enumerate(fields)]
    data = msgspec.defstruct("_Data", names, gc=False)
    more = [(CREATED_AT, Any, None)] if times else []
    row = msgspec.defstruct("_DataRow", [("data", data), *more], bases=(_Row,), gc=False, kw_only=True)
    return msgspec.json.Decoder(row).decode_lines


def array_of(values: list[Any]) -> numpy.ndarray[Any, Any]:
    """Values as the narrowest kind of array that holds them all: bool, int64, float64 (NaN where there is none), or
    object.

    >>> [array_of(each).dtype.name for each in ([1, 2], [1, 2.5], [None, 1], [True], ["a", 1], [2**70])]
    ['int64', 'float64', 'float64', 'bool', 'object', 'object']
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        try:
            return numpy.array(values, dtype=numpy.int64)
        except OverflowError:
            return _objects(values)
    if kinds == {float}:
        return numpy.array(values, dtype=numpy.float64)
    if kinds == {bool}:
        return numpy.array(values, dtype=numpy.bool_)
    if kinds <= {int, float, type(None)}:
        try:
            return numpy.array([math.nan if each is None else each for each in values], dtype=numpy.float64)
        except OverflowError:
            return _objects(values)
    return _objects(values)


def _objects(values: list[Any]) -> numpy.ndarray[Any, Any]:
    found = numpy.empty(len(values), dtype=object)
    for at, value in enumerate(values):  # at once, lists of one length would become rows of a table
        found[at] = value
    return found


def _joined(name: str, parts: list[numpy.ndarray[Any, Any]]) -> numpy.ndarray[Any, Any]:
    if not parts:
        return numpy.empty(0, dtype={INDEX: "int64", CREATED_AT: "datetime64[us]"}.get(name, "float64"))
    kinds = {part.dtype.kind for part in parts}
    if len(kinds) > 1 and not kinds <= {"i", "f"}:
        parts = [part.astype(object) for part in parts]  # or True and 1.0 would be the same
    return numpy.concatenate(parts)
