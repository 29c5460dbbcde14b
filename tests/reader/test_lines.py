"""Lines: a log that somebody else is writing, or wrote badly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamlake.reader import lines as lines_module
from dreamlake.reader.lines import Lines
from dreamlake.world.disk import REAL_DISK

LOG = "data.jsonl"


@pytest.fixture
def write(tmp_path: Path, at: int) -> Any:
    def write(content: bytes, size: int | None = None, extra: list[bytes] | None = None) -> Lines:
        (tmp_path / LOG).write_bytes(content)
        return Lines(REAL_DISK, at, LOG, size, extra or [])

    return write


def row(number: int, pad: int = 0) -> bytes:
    return json.dumps({"index": number, "data": "x" * pad}).encode() + b"\n"


def numbers(rows: Any) -> list[int]:
    return [each["index"] for each in rows]


def test_a_log_that_is_not_there_has_no_rows(at: int) -> None:
    lines = Lines(REAL_DISK, at, "no/such.jsonl")
    assert (list(lines.rows()), lines.first(), lines.last(), lines.page("index", 0, 9)) == ([], None, [], [])


@pytest.mark.parametrize(
    ("content", "found", "skipped"),
    [
        (b"", [], 0),
        (row(0) + row(1), [0, 1], 0),
        (row(0) + row(1)[:-9], [0], 1),  # half a line
        (row(0) + row(1)[:-1], [0, 1], 0),  # whole but for its newline
        (row(0) + b"\0" * 4096, [0], 0),  # zeros where bytes will be
        (row(0) + b"\0" * 9 + b"\n" + row(1), [0, 1], 0),
        (row(0) + b"\n \n\r\n" + row(1), [0, 1], 0),
        (b'{"index":0,"da' + row(1) + row(2), [2], 1),  # half a line, and the next one glued to it
        (row(0) + b"[1]\n3\nnull\n" + row(1), [0, 1], 3),
        (b'{"index": NaN}\n' + row(1), None, 0),  # as 0.2.x wrote
        (row(0) + b"\xff\xfe\n" + row(1), [0, 1], 1),
    ],
)
def test_what_is_a_row_is_given_and_what_is_none_is_counted(
    content: bytes, found: list[int] | None, skipped: int, write: Any
) -> None:
    lines = write(content)
    if found is None:
        assert len(list(lines.rows())) == 2
    else:
        assert numbers(lines.rows()) == found
    assert lines.skipped == skipped


@pytest.mark.parametrize("content", [row(0) + row(1)[:-9], row(0) + row(1)[:-1], row(0) + b"\0\0"])
def test_up_to_a_size_only_what_ends_in_a_newline_counts(content: bytes, write: Any) -> None:
    lines = write(content, size=len(content))
    assert numbers(lines.rows()) == [0]
    assert lines.skipped == 0


def test_a_size_hides_what_is_behind_it_and_extra_rows_come_last(write: Any) -> None:
    two = row(0) + row(1)
    lines = write(two + row(2) + row(3), size=len(two), extra=[row(7)[:-1], row(8)[:-1]])
    assert numbers(lines.rows()) == [0, 1, 7, 8]
    assert numbers(lines.last(3)) == [1, 7, 8]
    assert numbers(lines.last(1)) == [8]
    assert numbers(lines.page("index", 1, 2)) == [1, 7]
    assert lines.first() == {"index": 0, "data": ""}


def test_offsets_are_those_of_the_lines(write: Any) -> None:
    content = b"".join(row(number, pad=number) for number in range(50))
    lines = write(content)
    for offset, line in lines.raw():
        assert content[offset : offset + len(line)] == line
        assert content[offset - 1 : offset] in (b"", b"\n")
    assert numbers(lines.rows(content.index(row(20, pad=20)))) == list(range(20, 50))


def test_a_line_longer_than_a_chunk_is_one_line(write: Any) -> None:
    lines = write(row(0) + row(1, pad=3 << 20) + row(2))
    assert numbers(lines.rows()) == [0, 1, 2]
    assert numbers(lines.last(2)) == [1, 2]


def test_the_index_need_not_be_whole_to_be_read(write: Any) -> None:
    lines = write(b'{"index":"0"}\n{"data":1}\n' + row(5) + row(3))
    assert numbers(lines.page("index", 0, 9)) == [5, 3]
    assert numbers(lines.page("index", 4, 9)) == [5]
    assert lines.page("index", 0, 0) == []


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("end", [b"", b'{"ind', b"\0\0\0"])
def test_the_last_rows_are_found_from_behind(count: int, end: bytes, write: Any) -> None:
    lines = write(b"".join(row(number, pad=number * 999 % 20_000) for number in range(40)) + end)
    assert numbers(lines.last(count)) == list(range(40))[-count:]


def test_the_last_row_may_lack_its_newline(write: Any) -> None:
    lines = write(row(0) + row(1)[:-1])
    assert numbers(lines.last()) == numbers(lines.rows())[-1:]


@pytest.mark.parametrize("first", [0, 1, 17, 4999, 5000, 9998, 9999, 10_000, 10**9])
@pytest.mark.parametrize("end", [b"", b'{"index":99', b"\0" * 5000])
def test_a_page_of_a_large_log_is_the_page_that_a_scan_gives(
    first: int, end: bytes, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "_SEARCH_ABOVE_BYTES", 2000)
    lines = write(b"".join(row(number, pad=number % 90) for number in range(10_000)) + end)
    assert numbers(lines.page("index", first, 25)) == list(range(10_000))[first : first + 25]


def test_a_search_reads_little_of_a_large_log(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(row(number, pad=900) for number in range(12_000))
    lines = write(content)
    starts: list[int] = []
    raw = Lines.raw
    monkeypatch.setattr(Lines, "raw", lambda self, start=0, **more: starts.append(start) or raw(self, start, **more))
    assert numbers(lines.page("index", 11_000, 3)) == [11_000, 11_001, 11_002]
    assert starts[-1] > len(content) // 2  # where the reading began, once it was found


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=80),
    st.integers(0, 200),
    st.integers(1, 10),
    st.integers(1, 400),
)
def test_whatever_the_lines_a_search_finds_what_a_scan_finds(
    write: Any, shape: list[tuple[int, int]], first: int, limit: int, above: int
) -> None:
    """Ascending indexes with holes, blank and foreign lines between, lines of any length."""
    content, index = b"", 0
    for step, pad in shape:
        index += step + 1
        content += row(index, pad) if step else b"\n" + b"x" * pad + b"\n"
    lines = write(content)
    wanted = [each for each in numbers(lines.rows()) if each >= first][:limit]
    before = lines_module._SEARCH_ABOVE_BYTES
    lines_module._SEARCH_ABOVE_BYTES = above
    try:
        assert numbers(lines.page("index", first, limit)) == wanted
    finally:
        lines_module._SEARCH_ABOVE_BYTES = before
