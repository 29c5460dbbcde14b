"""Late: a log that another node writes, as a network file system shows it: holes of zeros, sizes of before."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamlake.reader import late
from dreamlake.reader import lines as lines_module
from dreamlake.reader.late import Patience
from dreamlake.reader.lines import Lines
from dreamlake.world.disk import REAL_DISK

LOG = "data.jsonl"


@pytest.fixture(autouse=True)
def nothing_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "_in_vain", {})


def row(number: int, pad: int = 0) -> bytes:
    # Each has an object in it, which cut out by two holes is JSON, too.
    fields = {"index": number, "data": {"inner": {"index": -1, "rank": 0}, "x": "{}" * pad}, "rank": number % 3}
    return json.dumps(fields, separators=(",", ":")).encode()


def numbers(rows: Any) -> list[int]:
    return [each["index"] for each in rows]


def whole(rows: list[bytes], data: bytes, *, sized: bool) -> list[int]:
    """Which rows are there: every byte of them, and the newline before or behind."""
    found, start = [], 0
    for number, line in enumerate(rows):
        end = start + len(line)
        begins = start == 0 or data[start - 1 : start] == b"\n"
        ends = data[end : end + 1] == b"\n"
        if data[start:end] == line and (begins or ends) and (not sized or b"\n" in data[end:]):
            found.append(number)
        start = end + 1
    return found


@settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300
)
@given(
    pads=st.lists(st.integers(0, 60), max_size=40),
    holes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 400)), max_size=6),
    block=st.sampled_from([1, 1, 64]),
    chunk=st.sampled_from([16, 64, 100, 1 << 20]),
    sized=st.booleans(),
    first=st.integers(0, 40),
)
def test_a_hole_takes_the_rows_that_it_touches_and_no_others(
    pads: list[int],
    holes: list[tuple[float, int]],
    block: int,
    chunk: int,
    sized: bool,
    first: int,
    tmp_path: Path,
    at: int,
) -> None:
    rows = [row(number, pad) for number, pad in enumerate(pads)]
    data = bytearray(b"".join(line + b"\n" for line in rows))
    for where, size in holes:
        start = int(where * len(data)) // block * block
        end = min(len(data), -(-(start + size) // block) * block)
        data[start:end] = bytes(end - start)
    (tmp_path / LOG).write_bytes(data)
    lines = Lines(REAL_DISK, at, LOG, len(data) if sized else None)
    expected = whole(rows, bytes(data), sized=sized)
    limits = {"_CHUNK_BYTES": chunk, "_TAIL_BYTES": chunk, "_SEARCH_ABOVE_BYTES": 150}
    with mock.patch.multiple(lines_module, **limits):
        assert numbers(lines.rows()) == expected
        assert numbers(lines.of_rank(1)) == [each for each in expected if each % 3 == 1]
        assert numbers(lines.page("index", first, 5)) == [each for each in expected if each >= first][:5]
        of_rank = [each for each in expected if each >= first and each % 3 == 2]
        assert numbers(lines.page("index", first, 3, 2)) == of_rank[:3]
        for count in (1, 2, 7, 100):
            assert numbers(lines.last(count)) == expected[-count:]
        assert [offset for offset, line in lines.raw() if b"\0" not in line] == [
            offset for offset, line in _offsets(bytes(data)) if b"\0" not in line
        ]


def _offsets(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for line in data.split(b"\n")[:-1]:
        yield offset, line
        offset += len(line) + 1


@pytest.mark.parametrize(
    "piece",
    [
        b'{"index":7,"data":\0{"index":-1}\0,"rank":0}\n',  # what is inside a row is none
        b'\0\0{"index":-1}\0\0\n',
        b'\0\0{"index":-1}',  # where it began is not known, nor whether it ends there
    ],
)
def test_a_piece_out_of_the_middle_is_no_row(piece: bytes, tmp_path: Path, at: int) -> None:
    (tmp_path / LOG).write_bytes(row(0) + b"\n" + piece)
    lines = Lines(REAL_DISK, at, LOG)
    assert numbers(lines.rows()) == numbers(lines.last(9)) == numbers(lines.page("index", -9, 9)) == [0]


def test_a_hole_larger_than_any_line_hides_nothing_behind_it(tmp_path: Path, at: int) -> None:
    with (tmp_path / LOG).open("wb") as file:
        file.write(row(0) + b"\n" + row(1)[:5])
        file.seek(20 << 20)
        file.write(row(2)[-5:] + b"\n" + row(3) + b"\n")
    lines = Lines(REAL_DISK, at, LOG)
    assert numbers(lines.rows()) == [0, 3]
    assert numbers(lines.last(2)) == [0, 3]
    assert numbers(lines.page("index", 1, 9)) == [3]


def test_a_file_of_nothing_but_a_hole_is_not_read_to_its_end(tmp_path: Path, at: int) -> None:
    with (tmp_path / LOG).open("wb") as file:
        file.truncate(1 << 40)
    lines = Lines(REAL_DISK, at, LOG)
    assert (list(lines.rows()), lines.last(3)) == ([], [])


# ── what is seen later ──────────────────────────────────────────────────────────────────────────────────────────────


class Later:
    """A disk on which the log becomes what it is after so many moments, for whoever opens it again then."""

    def __init__(self, path: Path, shown: bytes, moments: int, content: bytes) -> None:
        self.path, self.content, self.moments = path, content, moments
        self.waited = 0
        path.write_bytes(shown)

    def moment(self, _seconds: float) -> None:
        self.waited += 1
        if self.waited == self.moments:
            fresh = self.path.with_name("fresh")
            fresh.write_bytes(self.content)
            fresh.replace(self.path)  # who has it open goes on to see the old one


READS: dict[str, Callable[[Lines], Any]] = {
    "rows": lambda lines: list(lines.rows()),
    "page": lambda lines: lines.page("index", 0, 10**9),
    "last": lambda lines: lines.last(10**9 >> 8),
    "one rank": lambda lines: sorted((each for rank in range(3) for each in lines.of_rank(rank)), key=str),
}


def shown(content: bytes, how: str) -> bytes:
    chance = random.Random(how)
    start = chance.randrange(len(content) // 2)
    if how == "shorter":
        return content[:start]
    if how == "nothing":
        return b""
    return content[:start] + bytes(4096) + content[start + 4096 :]


@pytest.mark.parametrize("how", ["shorter", "nothing", "a hole"])
@pytest.mark.parametrize("read", READS)
def test_what_the_checkpoint_says_is_waited_for(
    how: str, read: str, tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = b"".join(row(number, number % 50) + b"\n" for number in range(400))
    later = Later(tmp_path / LOG, shown(content, how), 3, content)
    lines = Lines(REAL_DISK, at, LOG, len(content), patience=Patience(str(tmp_path), later.moment))
    assert sorted(numbers(READS[read](lines))) == list(range(400))
    assert later.waited == 3
    assert not caplog.records


def test_a_hole_between_lines_is_waited_for_and_one_at_the_end_is_not(tmp_path: Path, at: int) -> None:
    content = b"".join(row(number) + b"\n" for number in range(100))
    later = Later(tmp_path / LOG, content[:200] + bytes(300) + content[500:], 2, content)
    lines = Lines(REAL_DISK, at, LOG, patience=Patience(str(tmp_path), later.moment))
    assert numbers(lines.rows()) == list(range(100))
    later = Later(tmp_path / LOG, content[:-300] + bytes(300), 2, content)
    lines = Lines(REAL_DISK, at, LOG, patience=Patience(str(tmp_path), later.moment))
    seen = numbers(lines.rows())
    assert seen == list(range(len(seen)))
    assert numbers(lines.last(3)) == seen[-3:]
    assert later.waited == 0


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("how", ["shorter", "a hole"])
def test_what_does_not_come_is_said_once_and_not_waited_for_again(
    how: str, read: str, tmp_path: Path, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    content = b"".join(row(number, 9) + b"\n" for number in range(400))
    left = shown(content, how)
    later = Later(tmp_path / LOG, left, 10**9, content)
    for _ in range(2):
        lines = Lines(REAL_DISK, at, LOG, len(content), patience=Patience(str(tmp_path), later.moment))
        rows = [row(number, 9) for number in range(400)]
        assert sorted(numbers(READS[read](lines))) == whole(rows, left, sized=True)
    assert later.waited == pytest.approx(late.LATE_SECONDS / 0.05, abs=1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert LOG in record.getMessage()


def test_a_log_that_is_replaced_while_it_is_open_is_opened_again(tmp_path: Path, at: int) -> None:
    content = b"".join(row(number) + b"\n" for number in range(50))
    (tmp_path / LOG).write_bytes(content)
    stale = {"left": 2}

    def pread(fd: int, size: int, offset: int) -> bytes:
        if stale["left"]:
            stale["left"] -= 1
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return os.pread(fd, size, offset)

    with mock.patch.object(type(REAL_DISK), "pread", staticmethod(pread)):
        for read in READS.values():
            stale["left"] = 2
            lines = Lines(REAL_DISK, at, LOG, len(content), patience=Patience(str(tmp_path), lambda _seconds: None))
            assert sorted(numbers(read(lines))) == list(range(50))
            assert not stale["left"]
        stale["left"] = 10**9
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            list(Lines(REAL_DISK, at, LOG, patience=Patience(str(tmp_path), lambda _seconds: None)).rows())
