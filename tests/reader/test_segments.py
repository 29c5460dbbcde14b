"""Segments: a stream read from its files, whole or torn, by offset."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamlake import journal as journal_module
from dreamlake.journal import Journal
from dreamlake.reader import segments
from dreamlake.reader.segments import JOURNALS, encode_header, segment_path
from dreamlake.wire import codec
from dreamlake.world.disk import REAL_DISK

ALICE, BOB = bytes.fromhex("a1" * 16), bytes.fromhex("b0" * 16)
BY = {"host": "h", "pid": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / JOURNALS
    found.mkdir(parents=True)
    return found


def put(tmp_path: Path, client: bytes, number: int, base: int, running: int, data: bytes, made: int = 5) -> Path:
    path = tmp_path / segment_path(client, number)
    path.write_bytes(encode_header(client, number, base, running, made, BY) + data)
    return path


def records(payloads: list[Any], running: int) -> tuple[bytes, int]:
    data = b""
    for payload in payloads:
        record, running = codec.frame(codec.pack(payload), running)
        data += record
    return data, running


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        (f"{ALICE.hex()}.0", (ALICE, 0)),
        (f"{ALICE.hex()}.12", (ALICE, 12)),
        (ALICE.hex(), None),
        (f"{ALICE.hex()}.", None),
        (f"{ALICE.hex()}.x", None),
        (f"{ALICE.hex()}.-1", None),
        (f"{ALICE.hex()}.0.tmp", None),
        ("zz" * 16 + ".0", None),
        (f"{ALICE.hex()}.{'9' * 13}", None),
        ("README", None),
        # What would be opened under another name than it has.
        (f"{ALICE.hex()}.00", None),
        (f"{ALICE.hex()}.\uff11", None),
        (f"{ALICE.hex().upper()}.0", None),
        (f"{ALICE.hex()[:-2]}  .0", None),
    ],
)
def test_a_file_is_a_segment_by_its_name(name: str, parsed: tuple[bytes, int] | None) -> None:
    assert segments.parse_name(name) == parsed


def test_a_segment_says_whose_it_is_and_where_it_begins(folder: Path, tmp_path: Path, at: int) -> None:
    data, _running = records([1, 2], 77)
    put(tmp_path, ALICE, 3, 1000, 77, data)
    found = segments.read_segment(REAL_DISK, at, f"{ALICE.hex()}.3")
    assert found is not None
    assert (found.client, found.number, found.base, found.running, found.made) == (ALICE, 3, 1000, 77, 5)
    assert (found.by, found.size, found.end) == (BY, len(data), 1000 + len(data))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 200,
        encode_header(ALICE, 0, 0, 0, 0, BY)[:-1],  # not whole yet
        encode_header(BOB, 0, 0, 0, 0, BY),  # renamed
        encode_header(ALICE, 1, 0, 0, 0, BY),
        codec.frame(codec.pack({"v": 2, "client": ALICE, "n": 0}), codec.seed(ALICE))[0],
        codec.frame(codec.pack({"v": 1, "client": ALICE, "n": 0}), codec.seed(ALICE))[0],
        codec.frame(codec.pack([1, 2]), codec.seed(ALICE))[0],
        codec.frame(codec.pack(7), codec.seed(ALICE))[0],
        codec.frame(b"\xc1", codec.seed(ALICE))[0],
        *(encode_header(ALICE, 0, base, 0, 0, BY) for base in (math.inf, -5, 2**63, "0", None)),
        encode_header(ALICE, 0, 0, math.inf, 0, BY),
        encode_header(ALICE, 0, 0, 0, math.nan, BY),
    ],
)
def test_what_is_no_segment_is_left_alone(content: bytes, folder: Path, at: int) -> None:
    (folder / f"{ALICE.hex()}.0").write_bytes(content)
    (folder / "notes.txt").write_text("mine")
    assert segments.journals(REAL_DISK, at) == {}


def test_journals_come_in_the_order_in_which_they_began(folder: Path, tmp_path: Path, at: int) -> None:
    for client, made in ((ALICE, 9), (BOB, 3)):
        for number in (10, 2, 0):
            put(tmp_path, client, number, number, 0, b"", made)
    found = segments.journals(REAL_DISK, at)
    assert [(client, [each.number for each in mine]) for client, mine in found.items()] == [
        (BOB, [0, 2, 10]),
        (ALICE, [0, 2, 10]),
    ]


def test_known_segments_are_asked_for_their_size_alone(folder: Path, tmp_path: Path, at: int) -> None:
    path = put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), b"")
    (before,) = segments.journals(REAL_DISK, at)[ALICE]
    with path.open("ab") as file:
        file.write(b"12345")
    known = {path.name: before}
    with mock.patch.object(segments, "read_segment", side_effect=AssertionError):
        (after,) = segments.journals(REAL_DISK, at, known)[ALICE]
    assert after.size == 5
    path.unlink()
    assert segments.journals(REAL_DISK, at, known) == {}


def whole(at: int, limit: int = 1 << 20) -> tuple[bytes, int]:
    """Alice's stream from the files, and its running checksum."""
    mine = segments.journals(REAL_DISK, at).get(ALICE, [])
    if not mine:
        return b"", codec.seed(ALICE)
    data, running = b"", mine[0].running
    for chunk, _end, after in segments.runs(REAL_DISK, at, mine, mine[0].base, running, limit):
        data, running = data + chunk, after
    return data, running


def test_what_stands_behind_the_beginning_of_the_next_segment_is_no_part_of_the_stream(
    folder: Path, tmp_path: Path, at: int
) -> None:
    first, running = records(["a", "b"], codec.seed(ALICE))
    second, after = records(["c"], running)
    put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), first + b"\x93\xce torn")
    put(tmp_path, ALICE, 1, len(first), running, second)
    assert whole(at) == (first + second, after)


def test_a_stream_ends_where_a_segment_is_missing(folder: Path, tmp_path: Path, at: int) -> None:
    first, running = records(["a"], codec.seed(ALICE))
    second, after = records(["b"], running)
    third, _ = records(["c"], after)
    put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), first)
    put(tmp_path, ALICE, 2, len(first + second), after, third)
    assert whole(at) == (first, running)


@pytest.mark.parametrize(
    "end", [b"", b"\0" * 5000, b"\x93\xce\0\0", b"\x93\xce\0\0\0\x05\xce\0\0\0\0hello", b"garbage" * 9]
)
def test_a_stream_goes_to_its_last_whole_record(end: bytes, folder: Path, tmp_path: Path, at: int) -> None:
    data, running = records(list(range(30)), codec.seed(ALICE))
    put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), data + end)
    assert whole(at) == (data, running)
    assert whole(at, limit=100) == (data, running)


def test_a_record_longer_than_the_limit_comes_whole(folder: Path, tmp_path: Path, at: int) -> None:
    data, running = records(["short", "x" * 5000, "short"], codec.seed(ALICE))
    put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), data)
    assert whole(at, limit=64) == (data, running)


def test_what_a_growing_file_shows_later_is_read_later(folder: Path, tmp_path: Path, at: int) -> None:
    data, running = records(["a", "b"], codec.seed(ALICE))
    path = put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), data[:-3] + b"\0\0\0")
    mine = segments.journals(REAL_DISK, at)[ALICE]
    first, middle, damaged = segments.whole_run(REAL_DISK, at, mine, 0, codec.seed(ALICE), 1 << 20)
    assert (len(first), damaged) == (len(records(["a"], 0)[0]), True)
    path.write_bytes(path.read_bytes()[: -len(data)] + data)
    mine = segments.journals(REAL_DISK, at)[ALICE]
    rest, after, damaged = segments.whole_run(REAL_DISK, at, mine, len(first), middle, 1 << 20)
    assert (first + rest, after, damaged) == (data, running, False)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(sizes=st.lists(st.integers(0, 300), max_size=30), segment=st.integers(50, 600), cut=st.integers(0, 400))
def test_what_a_journal_wrote_is_what_is_read_wherever_the_last_file_is_torn(
    sizes: list[int], segment: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    top = tmp_path_factory.mktemp("session")
    (top / JOURNALS).mkdir(parents=True)
    at = REAL_DISK.root(str(top))
    try:
        with mock.patch.object(journal_module, "SEGMENT_BYTES", segment):
            journal = Journal(REAL_DISK, at, ALICE, 5, BY)
            ends = [0, *(journal.append((1, b"x" * size)) for size in sizes)]
        written = journal.read(0, journal.end)
        assert whole(at, limit=100) == (written, journal.running)
        last = segments.journals(REAL_DISK, at)[ALICE][-1]
        journal.close()
        kept = max(0, last.size - cut)
        with (top / last.path).open("r+b") as file:
            file.truncate(last.start + kept)
        end = max(each for each in ends if each <= last.base + kept)
        assert whole(at, limit=100) == (written[:end], codec.run_on(written[:end], codec.seed(ALICE)))
    finally:
        REAL_DISK.close(at)


def test_a_large_journal_whose_header_is_damaged_is_seen_to_be_torn(folder: Path, at: int) -> None:
    """A segment goes to 16 MiB; one flipped bit in it must not keep the directory closed."""
    name = f"{ALICE.hex()}.0"
    with (folder / name).open("wb") as file:
        file.write(b"\x92")
        file.truncate(codec.OP_BYTES_MAX + 1)
    assert segments.is_torn(REAL_DISK, at, name)


def test_a_segment_of_another_node_is_opened_to_see_its_size(folder: Path, tmp_path: Path, at: int) -> None:
    """A network file system asks its server when a file is opened, and may answer a stat out of its cache."""
    data, running = records(["a"], codec.seed(ALICE))
    path = put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), data)
    os.utime(path, ns=(1, 1))
    (before,) = segments.journals(REAL_DISK, at)[ALICE]
    assert before.mtime_ns == 1
    known = {path.name: before}
    of_before = REAL_DISK.stat(before.path, at)
    more, _ = records(["b"], running)
    with path.open("ab") as file:
        file.write(more)
    os.utime(path, ns=(2, 2))
    with mock.patch.object(type(REAL_DISK), "stat", return_value=of_before):
        (cached,) = segments.journals(REAL_DISK, at, known)[ALICE]
        (asked,) = segments.journals(REAL_DISK, at, known, fresh=lambda by: by == before.by)[ALICE]
        (other,) = segments.journals(REAL_DISK, at, known, fresh=lambda by: by != before.by)[ALICE]
    assert (cached.size, cached.mtime_ns) == (other.size, other.mtime_ns) == (len(data), 1)
    assert (asked.size, asked.mtime_ns) == (len(data + more), 2)
    path.unlink()
    assert segments.journals(REAL_DISK, at, known, fresh=lambda by: True) == {}


@pytest.mark.parametrize("kept", [0, 5, 60])
@pytest.mark.parametrize("hole", [False, True])
def test_a_segment_whose_header_comes_late_is_read_once_it_is_there(
    kept: int, hole: bool, folder: Path, tmp_path: Path, at: int
) -> None:
    data, _ = records(["a"], codec.seed(ALICE))
    path = put(tmp_path, ALICE, 0, 0, codec.seed(ALICE), data)
    content = path.read_bytes()
    path.write_bytes(content[:kept] + bytes(len(content) - kept if hole else 0))
    assert segments.journals(REAL_DISK, at) == {}
    path.write_bytes(content)
    (found,) = segments.journals(REAL_DISK, at, {})[ALICE]
    assert found.size == len(data)
