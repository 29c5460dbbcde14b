"""Times: nanoseconds on the wire, microseconds in files."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import ops
from dreamlake.wire.times import time_ns, time_text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_767_225_600 * 10**9, "2026-01-01T00:00:00.000000Z"),
        (-62_135_596_800 * 10**9, "0001-01-01T00:00:00.000000Z"),
        (253_402_300_800 * 10**9 - 1, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_written_in_utc_with_microseconds(ns: int, text: str) -> None:
    assert time_text(ns) == text


@settings(deadline=None, derandomize=True)
@given(st.integers(-62_135_596_800 * 10**9, 253_402_300_800 * 10**9 - 1))
def test_every_time_of_an_operation_can_be_written_and_read_back(ns: int) -> None:
    assert ops.check((ops.FILE_DELETE, ns, "id"))
    assert time_ns(time_text(ns)) == ns // 1000 * 1000


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_times_sort_as_their_texts(one: int, other: int) -> None:
    assert (time_text(one) <= time_text(other)) == (one // 1000 <= other // 1000)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-01-01T00:00:00Z", 1_767_225_600 * 10**9),
        ("2026-01-01T00:00:00", 1_767_225_600 * 10**9),
        ("2026-01-01T02:00:00+02:00", 1_767_225_600 * 10**9),
        ("2026-01-01", 1_767_225_600 * 10**9),
    ],
)
def test_what_others_wrote_as_a_time_is_read(text: str, ns: int) -> None:
    assert time_ns(text) == ns


@pytest.mark.parametrize("text", ["", "Z", "yesterday", "2026-13-01T00:00:00Z", None, 5])
def test_what_is_no_time_is_none(text: object) -> None:
    assert time_ns(text) is None  # type: ignore[arg-type]


def test_the_limits_are_those_of_the_calendar() -> None:
    assert (datetime.date.min.year, datetime.date.max.year) == (1, 9999)
    for ns in (-62_135_596_800 * 10**9 - 1, 253_402_300_800 * 10**9):
        with pytest.raises(ops.Impossible, match="years 1 to 9999"):
            ops.check((ops.FILE_DELETE, ns, "id"))
