"""A series as arrays says what its rows say, however the log looks and wherever a block ends."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamlake.reader import lines as lines_module
from dreamlake.reader.arrays import Arrays, of_lines, of_rows
from dreamlake.reader.lines import Lines
from dreamlake.wire import jsons
from dreamlake.world.disk import REAL_DISK

TIME = "2026-11-26T03:17:12.%06dZ"


def line_of(index: int, data: dict[str, Any], rank: int | None = None) -> bytes:
    stored, nonfinite = jsons.encode_fields(data)
    more = b"" if nonfinite is None else b',"nonfinite":' + jsons.encode(nonfinite)
    more += b"" if rank is None else b',"rank":%d' % rank
    return b'{"index":%d,"data":%b,"createdAt":"%b"%b}' % (index, stored, (TIME % index).encode(), more)


def log_of(path: Path, content: bytes, extra: list[bytes] | None = None) -> Lines:
    (path / "log").write_bytes(content)
    return Lines(REAL_DISK, REAL_DISK.root(str(path)), "log", len(content) if extra is not None else None, extra or [])


def read(
    lines: Lines, *fields: str, first: int = 0, limit: int | None = None, rank: int | None = None, times: bool = False
) -> Arrays:
    return of_lines(lines, fields, first=first, limit=limit, rank=rank, times=times)


def plain(found: Arrays) -> dict[str, list[Any]]:
    return {
        name: ["nan" if isinstance(each, float) and math.isnan(each) else each for each in array.tolist()]
        for name, array in found.items()
    }


def test_the_kinds_of_arrays(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"loss": 0.5, "step": 1, "best": True, "note": "a", "list": [1, 2]},
        {"loss": 2, "step": 2, "best": False, "note": None, "list": [3, 4]},
    ]
    found = read(log_of(tmp_path, b"".join(line_of(at, row) + b"\n" for at, row in enumerate(rows))), times=True)
    kinds = {name: array.dtype.name for name, array in found.items()}
    assert kinds == {
        "index": "int64",
        "loss": "float64",
        "step": "int64",
        "best": "bool",
        "note": "object",
        "list": "object",
        "createdAt": "datetime64[us]",
    }
    assert plain(found)["list"] == [[1, 2], [3, 4]]
    assert found["createdAt"][1] == numpy.datetime64("2026-11-26T03:17:12.000001")


def test_what_a_point_lacks_is_nan_and_what_is_not_finite_is_itself(tmp_path: Path) -> None:
    rows = [{"a": 1.5}, {"b": 2}, {"a": math.inf}, {"a": -math.inf, "b": math.nan}, {"a": "NaN"}]
    lines = log_of(tmp_path, b"".join(line_of(at, row) + b"\n" for at, row in enumerate(rows)))
    assert plain(read(lines, "b", limit=4)) == {"index": [0, 1, 2, 3], "b": ["nan", 2.0, "nan", "nan"]}
    assert plain(read(lines, "a", first=2)) == {"index": [2, 3, 4], "a": [math.inf, -math.inf, "NaN"]}
    assert plain(read(lines, "nowhere")) == {"index": [0, 1, 2, 3, 4], "nowhere": ["nan"] * 5}


def test_rows_of_one_rank_and_rows_that_are_in_journals_only(tmp_path: Path) -> None:
    written = b"".join(line_of(at, {"v": at}, rank=at % 2) + b"\n" for at in range(4))
    lines = log_of(tmp_path, written, [line_of(4, {"v": 4}, rank=0), line_of(5, {"v": 5}, rank=1)])
    assert plain(read(lines, "v")) == {"index": list(range(6)), "v": list(range(6))}
    assert plain(read(lines, "v", rank=1)) == {"index": [1, 3, 5], "v": [1, 3, 5]}
    assert plain(read(lines, "v", rank=1, first=2, limit=1)) == {"index": [3], "v": [3]}


def test_an_empty_log_and_one_that_is_not_there(tmp_path: Path) -> None:
    for lines in (log_of(tmp_path, b""), Lines(REAL_DISK, REAL_DISK.root(str(tmp_path)), "nowhere")):
        found = read(lines, "v", times=True)
        assert {name: (len(array), array.dtype.name) for name, array in found.items()} == {
            "index": (0, "int64"),
            "v": (0, "float64"),
            "createdAt": (0, "datetime64[us]"),
        }
        assert set(read(lines)) == {"index"}


def test_a_last_line_that_lacks_its_newline_counts_as_read_counts_it(tmp_path: Path) -> None:
    content = line_of(0, {"v": 0}) + b"\n" + line_of(1, {"v": 1})
    assert plain(read(log_of(tmp_path, content)))["v"] == [0, 1]
    assert plain(read(log_of(tmp_path, content[:-1])))["v"] == [0]


values = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
    st.lists(st.integers(0, 9), max_size=2),
)
rows_of_logs = st.lists(st.dictionaries(st.sampled_from(["a", "b", "rank"]), values, max_size=3), max_size=30)


@given(
    rows=rows_of_logs,
    damage=st.sampled_from([b"", b"\0\0\0", b'{"half', b"\xff", b'{"index":"7","data":{}}', b'{"index":3,"data":[]}']),
    at=st.integers(0, 30),
    first=st.integers(0, 30),
    limit=st.none() | st.integers(0, 30),
    rank=st.sampled_from([None, 0, 1]),
    chunk=st.sampled_from([64, 1 << 20]),
)
def test_arrays_are_what_rows_are(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    damage: bytes,
    at: int,
    first: int,
    limit: int | None,
    rank: int | None,
    chunk: int,
) -> None:
    whole = [line_of(index, row, rank=index % 2) for index, row in enumerate(rows)]
    if damage:
        whole.insert(min(at, len(whole)), damage)
    path = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "_CHUNK_BYTES", chunk)
        lines = log_of(path, b"".join(each + b"\n" for each in whole))
        found = lines.page("index", first, 10_000 if limit is None else limit, rank)
        restored = [
            {**row, "data": jsons.restore(row["data"], row.get("nonfinite"))}
            for row in found
            if isinstance(row["data"], dict)
        ]
        told = read(lines, "a", "b", first=first, limit=limit, rank=rank)
    if len(restored) == len(found):
        expected = of_rows(restored, ["a", "b"], times=False)
        assert list(map(same, told["index"].tolist())) == list(map(same, expected["index"].tolist()))
        for name in ("a", "b"):
            assert [same(each) for each in told[name].tolist()] == [same(each) for each in expected[name].tolist()]


def same(value: Any) -> Any:
    """Whatever blocks made of it: None and NaN are both that there is none, and 1 may be 1.0 beside others."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "none"
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
