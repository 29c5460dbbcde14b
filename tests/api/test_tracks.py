from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading

pytestmark = pytest.mark.home("shared")


def test_a_point_is_stored_with_its_index_and_time(session: Session, folder: Path) -> None:
    session.track("loss").append(value=0.5, epoch=1)
    session.flush()
    (point,) = reading.points(folder)
    assert reading.TIMESTAMP.fullmatch(point.pop("createdAt"))
    assert point == {"index": 0, "data": {"value": 0.5, "epoch": 1}}


def test_the_receipt_is_a_mapping(session: Session) -> None:
    receipt = session.track("loss").append(value=0.5)
    assert isinstance(receipt, Mapping)
    assert receipt["index"] == "0"
    assert isinstance(receipt["trackId"], str)
    assert receipt["trackId"]
    assert int(receipt["bufferedDataPoints"]) >= 0
    assert int(receipt["chunkSize"]) > 0
    assert {"trackId", "index", "bufferedDataPoints", "chunkSize"} <= set(receipt)
    assert dict(receipt)["index"] == receipt.get("index") == "0"
    assert "index" in receipt
    assert "nothing" not in receipt
    assert len(receipt) == len(list(receipt))
    with pytest.raises(KeyError):
        receipt["nothing"]


def test_receipts_may_be_read_late_and_in_any_order(session: Session) -> None:
    track = session.track("loss")
    receipts = [track.append(value=value) for value in range(200)]
    assert [receipt["index"] for receipt in reversed(receipts)] == [str(index) for index in reversed(range(200))]
    assert len({receipt["trackId"] for receipt in receipts}) == 1


def test_a_receipt_may_be_read_after_close(home: Path, root: Path) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        receipt = session.track("loss").append(value=1)
    assert receipt["index"] == "0"


def test_printing_a_receipt_is_harmless(session: Session) -> None:
    assert isinstance(repr(session.track("loss").append(value=1)), str)


def test_a_batch_is_stored_whole_and_in_order(session: Session, folder: Path) -> None:
    track = session.track("loss")
    track.append(value=-1)
    receipt = track.append_batch([{"value": value, "epoch": 1} for value in range(1000)])
    assert isinstance(receipt, Mapping)
    assert (int(receipt["startIndex"]), int(receipt["endIndex"]), int(receipt["count"])) == (1, 1000, 1000)
    assert receipt["trackId"] == track.append(value=-2)["trackId"]
    session.flush()
    reading.assert_consecutive(reading.points(folder))
    assert reading.values(folder) == [-1, *range(1000), -2]


def test_an_empty_batch_is_an_error_and_stores_nothing(session: Session, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"(?i)empty|least one"):
        session.track("loss").append_batch([])
    session.flush()
    assert reading.points(folder) == []


@pytest.mark.parametrize("name", ["train/loss", "a/b/c/d", "val loss (%)", "métrique", "loss.v2", "Loss"])
def test_a_name_nests_folders(name: str, session: Session, folder: Path) -> None:
    session.track(name).append(value=1)
    session.flush()
    assert reading.values(folder, name) == [1]
    assert reading.view(folder / "tracks" / name / "metadata.json")["name"] == name
    assert [point["data"] for point in session.track(name).read()["data"]] == [{"value": 1}]


def test_a_track_may_lie_inside_another(session: Session, folder: Path) -> None:
    for name in ("train", "train/loss", "train/loss/raw"):
        session.track(name).append(value=len(name))
    session.flush()
    for name in ("train", "train/loss", "train/loss/raw"):
        assert reading.values(folder, name) == [len(name)]
    assert sorted(summary["name"] for summary in session.track("train").list_all()) == [
        "train",
        "train/loss",
        "train/loss/raw",
    ]


def test_every_track_counts_for_itself(session: Session, folder: Path) -> None:
    for value in range(30):
        session.track(f"track{value % 3}").append(value=value)
    session.flush()
    for number in range(3):
        reading.assert_consecutive(reading.points(folder, f"track{number}"))
        assert reading.values(folder, f"track{number}") == list(range(number, 30, 3))


def test_a_track_continues_on_reopen(home: Path, root: Path, folder: Path) -> None:
    for value in range(3):
        with Session("run", "project", local_path=str(root)) as session:
            assert session.track("loss").append(value=value)["index"] == str(value)
            assert [point["data"]["value"] for point in session.track("loss").read()["data"]] == [*range(value + 1)]
    reading.assert_consecutive(reading.points(folder))


def test_a_smaller_step_is_kept_in_order_of_arrival(session: Session, folder: Path) -> None:
    for step in (5, 3, 3, 1):
        session.track("loss").append(value=step, step=step)
    session.flush()
    assert reading.values(folder) == [5, 3, 3, 1]


@pytest.mark.parametrize(
    ("start", "limit", "expected", "more"),
    [
        (0, 1000, range(25), False),
        (0, 10, range(10), True),
        (10, 10, range(10, 20), True),
        (20, 10, range(20, 25), False),
        (15, 10, range(15, 25), False),
        (24, 1, range(24, 25), False),
        (25, 10, range(0), False),
        (999, 10, range(0), False),
    ],
)
def test_reading_gives_pages(start: int, limit: int, expected: range, more: bool, session: Session) -> None:
    session.track("loss").append_batch([{"value": value} for value in range(25)])
    page = session.track("loss").read(start_index=start, limit=limit)
    assert [int(point["index"]) for point in page["data"]] == list(expected)
    assert [point["data"] for point in page["data"]] == [{"value": value} for value in expected]
    assert all(reading.TIMESTAMP.fullmatch(point["createdAt"]) for point in page["data"])
    assert (int(page["total"]), page["hasMore"]) == (len(expected), more)
    if expected:
        assert (int(page["startIndex"]), int(page["endIndex"])) == (expected[0], expected[-1])


def test_reading_gives_a_thousand_points_unless_told(session: Session) -> None:
    session.track("loss").append_batch([{"value": value} for value in range(1001)])
    page = session.track("loss").read()
    assert (len(page["data"]), page["hasMore"]) == (1000, True)


def test_reading_sees_every_earlier_append_at_once(session: Session) -> None:
    track = session.track("loss")
    for value in range(50):
        track.append(value=value)
        assert len(track.read()["data"]) == value + 1


def test_arrays_have_every_earlier_append_at_once(session: Session) -> None:
    track = session.track("loss")
    for step in range(100):
        track.append(value=step / 4, step=step)
        if step % 20 == 0:
            found = track.to_numpy("value", "step", start_index=step)
            assert (found["index"].tolist(), found["value"].tolist()) == ([step], [step / 4])
    session.flush()
    track.append(value=25.0, step=100)
    found = track.to_numpy()
    assert list(found) == ["index", "value", "step"]
    assert found["index"].tolist() == found["step"].tolist() == list(range(101))
    assert track.to_numpy("value", start_index=40, limit=2, times=True)["createdAt"].dtype == "datetime64[us]"


def test_arrays_of_an_unknown_track_are_empty_and_names_of_rows_are_no_fields(session: Session) -> None:
    assert session.track("nowhere").to_numpy("value")["value"].shape == (0,)
    with pytest.raises(ValueError, match="'index' is what a row says"):
        session.track("loss").to_numpy("index")


def test_without_numpy_it_is_said_what_to_install(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dreamlake.reader.arrays", raising=False)
    monkeypatch.delattr("dreamlake.reader.arrays", raising=False)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ImportError, match=r"pip install 'dreamlake\[numpy\]'"):
        session.track("loss").to_numpy("value")


def test_reading_an_unknown_track_is_empty_and_makes_none(session: Session, folder: Path) -> None:
    page = session.track("nothing").read()
    assert (page["data"], int(page["total"]), page["hasMore"]) == ([], 0, False)
    session.flush()
    assert not (folder / "tracks" / "nothing").exists()
    assert session.track("nothing").list_all() == []


STATS = {
    "trackId": str,
    "name": str,
    "totalDataPoints": str,
    "bufferedDataPoints": str,
    "chunkedDataPoints": str,
    "totalChunks": int,
    "chunkSize": int,
    "firstDataAt": str,
    "lastDataAt": str,
    "createdAt": str,
    "updatedAt": str,
}


def test_stats_have_the_documented_fields(session: Session) -> None:
    track = session.track("loss", description="cross entropy", tags=["train"], metadata={"unit": "nats"})
    receipt = track.append_batch([{"value": value} for value in range(5)])
    stats = track.stats()
    for field, kind in STATS.items():
        assert isinstance(stats[field], kind), (field, stats[field])
    assert stats["trackId"] == receipt["trackId"]
    assert (stats["name"], stats["totalDataPoints"]) == ("loss", "5")
    assert int(stats["bufferedDataPoints"]) + int(stats["chunkedDataPoints"]) == 5
    assert (stats["description"], stats["tags"], stats["metadata"]) == (
        "cross entropy",
        ["train"],
        {"unit": "nats"},
    )
    assert stats["firstDataAt"] <= stats["lastDataAt"]


def test_stats_of_an_unknown_track_are_an_error(session: Session) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        session.track("nothing").stats()


def test_list_all_gives_every_track_of_the_session(session: Session) -> None:
    assert session.track("any").list_all() == []
    for name in ("loss", "train/acc", "lr"):
        session.track(name).append(value=1)
    summaries = session.track("any").list_all()
    assert sorted(summary["name"] for summary in summaries) == ["loss", "lr", "train/acc"]
    assert all(summary["trackId"] for summary in summaries)
    assert {str(summary["totalDataPoints"]) for summary in summaries} == {"1"}


def test_the_metadata_file_says_what_the_log_holds(session: Session, folder: Path) -> None:
    track = session.track("loss", description="d", tags=["a", "b"], metadata={"unit": "nats"})
    receipt = track.append_batch([{"value": value} for value in range(7)])
    session.flush()
    view = reading.view(folder / "tracks" / "loss" / "metadata.json")
    for key in ("createdAt", "updatedAt"):
        assert reading.TIMESTAMP.fullmatch(view[key]), key
    assert view["trackId"] == receipt["trackId"]
    assert (int(view["totalDataPoints"]), int(view["nextIndex"])) == (7, 7)
    assert (view["name"], view["description"], view["tags"], view["metadata"]) == (
        "loss",
        "d",
        ["a", "b"],
        {"unit": "nats"},
    )


@pytest.mark.parametrize(
    ("field", "first", "second"),
    [("description", "x", "y"), ("tags", ["a"], ["b", "c"]), ("metadata", {"a": 1}, {"b": 2})],
)
def test_what_describes_a_track_is_replaced_when_given_and_kept_when_not(
    field: str, first: Any, second: Any, session: Session
) -> None:
    seen = []
    for given in ({field: first}, {}, {field: second}):
        track = session.track("loss", **given)
        track.append(value=1)
        seen.append(track.stats()[field])
    assert seen == [first, first, second]


def test_a_track_keeps_its_id(home: Path, root: Path) -> None:
    ids = set()
    for _ in range(2):
        with Session("run", "project", local_path=str(root)) as session:
            ids.add(session.track("loss").append(value=1)["trackId"])
            other = session.track("other").append(value=1)["trackId"]
    assert len(ids) == 1
    assert other not in ids
