"""JSON: what values become, and that they come back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import uuid
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import jsons
from tests import reading

PURE = settings(deadline=None, derandomize=True)


class Colour(enum.Enum):
    RED = "red"
    DEEP = math.inf


class Level(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Config:
    lr: float
    inner: Any = None


NAN, INF = math.nan, math.inf


def stored(value: Any) -> Any:
    """What stands in the line, parsed strictly."""
    data, _nonfinite = jsons.encode_fields({"value": value})
    return reading.strict(data)["value"]


def nonfinite(**fields: Any) -> list[str] | None:
    return jsons.encode_fields(fields)[1]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (0.1, 0.1),
        (1e308, 1e308),
        (-0.0, -0.0),
        ('é\n"', 'é\n"'),
        ("NaN", "NaN"),
        ("null", "null"),
        (2**63 - 1, 2**63 - 1),
        (2**64 - 1, 2**64 - 1),
        (2**64, 2**64),
        (-(10**40), -(10**40)),
        ([1, (2, None)], [1, [2, None]]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        ({2: "a", True: "b", None: "c"}, {"2": "a", "true": "b", "null": "c"}),
        (Colour.RED, "red"),
        (Level.ONE, 1),
        (Config(0.5, Config(1.0)), {"lr": 0.5, "inner": {"lr": 1.0, "inner": None}}),
        (datetime.datetime(2026, 1, 1, 12), "2026-01-01T12:00:00"),
        (datetime.date(2026, 1, 1), "2026-01-01"),
        (datetime.time(12, 30), "12:30:00"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (numpy.float64(0.5), 0.5),
        (numpy.float32(0.5), 0.5),
        (numpy.int64(7), 7),
        (numpy.bool_(True), True),
        (numpy.array(3), 3),
        (numpy.array(0.25), 0.25),
        (numpy.str_("x"), "x"),
        ([numpy.float32(0.5), None], [0.5, None]),
    ],
    ids=repr,
)
def test_a_value_is_stored_as_plain_json(value: Any, plain: Any) -> None:
    found = stored(value)
    assert found == plain
    assert type(found) is type(plain)
    assert nonfinite(value=value) is None


@pytest.mark.parametrize(
    ("fields", "listed", "text"),
    [
        ({"value": NAN}, ["value"], '{"value":"NaN"}'),
        ({"value": INF, "step": 1}, ["value"], '{"value":"Infinity","step":1}'),
        ({"value": -INF}, ["value"], '{"value":"-Infinity"}'),
        ({"a": {"b": [1.0, NAN]}}, ["a.b.1"], '{"a":{"b":[1.0,"NaN"]}}'),
        ({"a": numpy.float32("nan")}, ["a"], '{"a":"NaN"}'),
        ({"a": Colour.DEEP}, ["a"], '{"a":"Infinity"}'),
        ({"a": Config(NAN)}, ["a.lr"], '{"a":{"lr":"NaN","inner":null}}'),
        ({"a": "NaN", "b": NAN}, ["b"], '{"a":"NaN","b":"NaN"}'),
    ],
)
def test_a_float_that_json_cannot_hold_is_a_string_and_its_field_is_listed(
    fields: dict[str, Any], listed: list[str], text: str
) -> None:
    assert jsons.encode_fields(fields) == (text.encode(), listed)


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), r"field 'x': a value of type object cannot be stored"),
        (b"bytes", "type bytes"),
        ({1, 2}, "type set"),
        (1j, "type complex"),
        (decimal.Decimal("0.1"), "type Decimal"),
        (numpy.zeros(3), r"an array of shape \(3,\)"),
        ([1, [object()]], r"field 'x.1.0'"),
        ({"a": {"b": b""}}, r"field 'x.a.b'"),
        ({(1, 2): 1}, "key of type tuple"),
        ({1.5: 1}, "key of type float"),
        ("\ud800", "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        (LOOP, "nested deeper than 64 levels"),
        (Config, "type type"),
    ],
    ids=lambda each: each if isinstance(each, str) else type(each).__name__,
)
def test_what_json_cannot_hold_is_a_type_error_that_names_the_field(value: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        jsons.encode_fields({"ok": 1, "x": value})


def test_the_message_says_of_what_the_field_is() -> None:
    with pytest.raises(TypeError, match="parameter 'lr'"):
        jsons.encode_fields({"lr": object()}, "parameter")


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.just(NAN),
    st.sampled_from(["NaN", "Infinity", "-Infinity", "", "a"]),
)
KEYS = st.sampled_from(["a", "b", "value", "long name"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)), max_leaves=8
)
FLAT = st.one_of(LEAVES, st.lists(LEAVES, max_size=3), st.dictionaries(KEYS, LEAVES, max_size=3))


def same(one: Any, other: Any) -> bool:
    """Equal, NaN being itself, and 1 not True."""
    return repr(one) == repr(other)


@PURE
@given(st.dictionaries(KEYS, FLAT, max_size=3))
def test_fields_come_back_as_they_were(fields: dict[str, Any]) -> None:
    data, listed = jsons.encode_fields(fields)
    assert reading.strict(data) is not None
    assert jsons.is_object(data)
    assert same(jsons.restore(jsons.loads(data), listed), fields)


@pytest.mark.parametrize("value", [[[NAN]], [[1.0, NAN], [INF, 2.0]], {"a": [[NAN]]}, [[[NAN]]], [{"a": NAN}, [NAN]]])
def test_lists_in_lists_come_back_as_they_were(value: Any) -> None:
    data, listed = jsons.encode_fields({"value": value})
    assert same(jsons.restore(jsons.loads(data), listed), {"value": value})


@pytest.mark.parametrize(
    ("data", "listed", "restored"),
    [
        ({"a": "NaN"}, None, {"a": "NaN"}),
        ({"a": "NaN"}, [], {"a": "NaN"}),
        ({"a": "x"}, ["a"], {"a": "x"}),  # edited by hand
        ({"a": 1}, ["b", "a.b", "a.0"], {"a": 1}),
        ({"a": ["NaN"]}, ["a.7"], {"a": ["NaN"]}),
        ({"model.lr": "Infinity"}, ["model.lr"], {"model.lr": INF}),
        # Lists that are none of ours.
        ({"a": ["NaN"]}, ["a.\u00b2", "a." + "9" * 5000], {"a": ["NaN"]}),
        ({"a": "NaN"}, 5, {"a": "NaN"}),
        ({"a": "NaN"}, [None, ["a"], {}], {"a": "NaN"}),
    ],
)
def test_what_is_listed_and_is_not_there_is_left_alone(data: Any, listed: Any, restored: Any) -> None:
    assert same(jsons.restore(data, listed), restored)


def test_a_list_under_a_listed_name_is_left_alone() -> None:
    data, listed = jsons.encode_fields({"a": {"b": NAN}, "a.b": [1]})
    assert jsons.restore(jsons.loads(data), listed)["a.b"] == [1]


@pytest.mark.parametrize("kind", [lambda inner: {"a": inner}, lambda inner: [inner], lambda inner: (inner,)])
def test_whatever_the_client_takes_may_stand_in_a_line_and_in_a_view(kind: Any) -> None:
    deepest = 0
    for depth in range(1, 600):
        value: Any = 1
        for _ in range(depth):
            value = kind(value)
        try:
            data, _ = jsons.encode_fields({"a": value})
        except TypeError:
            continue
        deepest = depth
        assert jsons.is_object(data)
        row = {"op": "set", "set": {"x": jsons.loads(data)}}
        assert jsons.loads(jsons.encode(row)) == row
        assert jsons.loads(jsons.pretty({"data": row})) == {"data": row}
    assert deepest >= 64


def test_what_is_read_does_not_depend_on_how_deep_the_reader_stands() -> None:
    """Applied here and replayed there: both must take it, or neither."""

    def at_depth(frames: int, data: bytes) -> bool:
        return at_depth(frames - 1, data) if frames else jsons.is_object(data)

    for depth in (200, 256, 257, 500, 900, 1020):
        data = b'{"a":' * depth + b"1" + b"}" * depth
        assert at_depth(0, data) == at_depth(500, data) == (depth <= jsons.FIELD_DEPTH_MAX)


def test_a_dataclass_keeps_all_its_fields_whichever_way_it_is_encoded() -> None:
    hidden = dataclasses.make_dataclass("Hidden", [("lr", float), ("_note", int)])
    assert stored(hidden(0.5, 1)) == {"lr": 0.5, "_note": 1}
    assert stored([hidden(0.5, 1), None]) == [{"lr": 0.5, "_note": 1}, None]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", NAN),
        ('{"a": -Infinity}', {"a": -INF}),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ('{"a": 18446744073709551616}', {"a": 2**64}),
        ('"1234567890123456789012345"', "1234567890123456789012345"),
        (" [1] ", [1]),
    ],
)
def test_what_others_wrote_as_json_is_read(text: str, value: Any) -> None:
    assert same(jsons.loads(text), value)
    assert same(jsons.loads(text.encode()), value)


@pytest.mark.parametrize("text", ["", "{", "nan", "{'a': 1}", '{"a":1}{', "[1,]", "\0", "[" * 100_000])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - orjson, json and ours say it each in its own words
        jsons.loads(text)


@pytest.mark.parametrize("data", [b"{}", b'{"a":1}', b'{"a":18446744073709551616}', b'{"a":"\\n"}'])
def test_one_object_may_stand_in_a_line(data: bytes) -> None:
    assert jsons.is_object(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"{",
        b"{}{}",
        b'{"a":1}\n',
        b'{"a":\n1}',
        b' {"a":1}',
        b'{"a":NaN}',
        b'{"a":Infinity,"b":18446744073709551616}',
        b'{"a":"\xff"}',
        b'{"a":1},"b":{"c":2}',
        # What Python's json takes for UTF-16: its string holds the bytes of twenty digits.
        '{"a":"\u3131\u3131\u3131\u3131\u3131\u3131\u3131\u3131\u3131\u3131"}'.encode("utf-16-le"),
        b'{"a":' * 300 + b"1" + b"}" * 300,
        b'{"a":' * 300 + b"18446744073709551616" + b"}" * 300,
    ],
)
def test_anything_else_may_not(data: bytes) -> None:
    assert not jsons.is_object(data)


@PURE
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_a_view_is_json_for_every_reader_and_says_the_same(fields: dict[str, Any]) -> None:
    plain = jsons.plain_value(fields, "x", [])
    text = jsons.pretty(plain)
    assert text.endswith(b"\n")
    assert same(reading.strict(text), json.loads(jsons.encode(plain)))
    assert same(jsons.loads(text), plain)


@PURE
@given(st.lists(st.one_of(st.dictionaries(KEYS, VALUES, max_size=3), st.just([1]), st.just({1: "a"})), min_size=1))
def test_many_at_once_are_each_alone_or_left_to_be_encoded_one_by_one(many: list[Any]) -> None:
    found = jsons.encode_plain(many)
    if found is not None:
        assert [(each, None) for each in found] == [jsons.encode_fields(fields) for fields in many]


@PURE
@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    b'{"a":1}',
                    b'{"a":[{}]}',
                    b' {"a":1}',
                    b'{"a":1} ',
                    b'{"a":\n1}',
                    b"[1]",
                    b'{"a":1},{"b":2}',
                    b"",
                    b"\0",
                ),
                *(b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", b'{"a":%d}' % (10**400), b'{"a":"\xff"}'),
            ]
        )
        | st.just(b'{"b":2}'),
        max_size=20,
    )
)
def test_many_are_objects_when_each_is_one(many: list[bytes]) -> None:
    assert jsons.are_objects(many) == all(map(jsons.is_object, many))
    found = jsons.objects_of(many)
    assert found is None or found == [jsons.object_of(each) for each in many]
