from __future__ import annotations

import datetime
import enum
import math
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pytest

from dreamlake import Session
from tests import reading

pytestmark = pytest.mark.home("shared")

UTC = datetime.timezone.utc


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


@dataclass
class Optimizer:
    name: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass
class Config:
    lr: float = 0.1
    optimizer: Optimizer = field(default_factory=Optimizer)


# What is given, and what any JSON reader finds afterwards.
ACCEPTED: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (0, 0),
    (-(2**63), -(2**63)),
    (2**64 - 1, 2**64 - 1),
    (0.1 + 0.2, 0.1 + 0.2),
    (5e-324, 5e-324),
    (1.7976931348623157e308, 1.7976931348623157e308),
    ("ünïcödé 日本 🚀", "ünïcödé 日本 🚀"),
    ([1, [2, {"x": None}]], [1, [2, {"x": None}]]),
    ((1, 2), [1, 2]),
    (numpy.float64(0.1), 0.1),
    (numpy.float32(0.5), 0.5),
    (numpy.float16(0.5), 0.5),
    (numpy.int64(7), 7),
    (numpy.uint8(255), 255),
    (numpy.bool_(True), True),
    (numpy.array(2.5), 2.5),
    (numpy.array(3), 3),
    ([numpy.float32(0.5), {"x": numpy.int32(1)}], [0.5, {"x": 1}]),
    (Colour.RED, "red"),
    (Size.LARGE, 3),
    (pathlib.PurePosixPath("/data/train"), "/data/train"),
    (Path("relative/path"), "relative/path"),
    (Optimizer(), {"name": "adam", "betas": [0.9, 0.999]}),
]


def test_what_python_calls_a_value_is_stored_in_a_point(session: Session, folder: Path) -> None:
    for given, _ in ACCEPTED:
        session.track("loss").append(value=given)
    session.flush()
    expected = [stored for _, stored in ACCEPTED]
    found = reading.values(folder)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]
    assert not any("nonfinite" in point for point in reading.points(folder))


def test_what_python_calls_a_value_is_stored_with_a_message(session: Session, folder: Path) -> None:
    for given, _ in ACCEPTED:
        session.log("x", value=given)
    session.flush()
    lines = reading.lines(folder / "logs" / "logs.jsonl")
    assert [line["metadata"]["value"] for line in lines] == [stored for _, stored in ACCEPTED]


def test_what_python_calls_a_value_is_stored_as_a_parameter(session: Session, folder: Path) -> None:
    for number, (given, _) in enumerate(ACCEPTED[:-1]):
        session.parameters().set({f"p{number}": given})
    session.flush()
    data = reading.view(folder / "parameters.json")["data"]
    assert data == {f"p{number}": stored for number, (_, stored) in enumerate(ACCEPTED[:-1])}
    assert session.parameters().get() == data


def test_a_dataclass_of_parameters_is_flattened_as_a_dict_is(session: Session, folder: Path) -> None:
    session.parameters().set(config=Config())
    session.flush()
    assert reading.view(folder / "parameters.json")["data"] == {
        "config.lr": 0.1,
        "config.optimizer.name": "adam",
        "config.optimizer.betas": [0.9, 0.999],
    }


@pytest.mark.parametrize(
    "moment",
    [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    ],
)
def test_a_moment_is_stored_as_the_same_moment(moment: datetime.datetime, session: Session, folder: Path) -> None:
    session.track("loss").append(value=moment)
    session.flush()
    (stored,) = reading.values(folder)
    assert isinstance(stored, str)
    assert datetime.datetime.fromisoformat(stored.replace("Z", "+00:00")) == moment


def test_a_date_is_stored_as_iso(session: Session, folder: Path) -> None:
    session.track("loss").append(value=datetime.date(2026, 1, 2))
    session.flush()
    assert reading.values(folder) == ["2026-01-02"]


NOT_FINITE = [
    (float("nan"), "NaN"),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    (numpy.float32("nan"), "NaN"),
    (numpy.array(numpy.inf), "Infinity"),
]


def same(one: Any, other: Any) -> bool:
    return isinstance(one, float) and (one == other or (math.isnan(one) and math.isnan(other)))


@pytest.mark.parametrize(("given", "text"), NOT_FINITE)
def test_a_point_that_is_not_finite_is_a_string_and_the_record_says_so(
    given: Any, text: str, session: Session, folder: Path
) -> None:
    session.track("loss").append(value=given, epoch=1)
    session.flush()
    (point,) = reading.points(folder)
    assert point["data"] == {"value": text, "epoch": 1}
    assert point["nonfinite"] == ["value"]
    (read,) = session.track("loss").read()["data"]
    assert same(read["data"]["value"], float(given))


@pytest.mark.parametrize(("given", "text"), NOT_FINITE)
def test_a_parameter_that_is_not_finite_is_a_string_and_the_view_says_so(
    given: Any, text: str, session: Session, folder: Path
) -> None:
    session.parameters().set(model={"clip": given}, lr=0.1)
    session.flush()
    view = reading.view(folder / "parameters.json")
    assert view["data"] == {"model.clip": text, "lr": 0.1}
    assert view["nonfinite"] == ["model.clip"]
    assert same(session.parameters().get()["model.clip"], float(given))
    session.parameters().set(model={"clip": 1.0})
    session.flush()
    assert not reading.view(folder / "parameters.json").get("nonfinite")
    assert session.parameters().get() == {"model.clip": 1.0, "lr": 0.1}


def test_what_is_not_finite_deep_in_a_value_is_named(session: Session, folder: Path) -> None:
    session.log("x", loss=float("nan"), lr=0.1)
    session.track("loss").append(value={"a": [0.0, float("inf")]}, other=float("nan"))
    session.flush()
    (line,) = reading.lines(folder / "logs" / "logs.jsonl")
    assert line["metadata"] == {"loss": "NaN", "lr": 0.1}
    assert len(line["nonfinite"]) == 1
    assert "loss" in line["nonfinite"][0]
    (point,) = reading.points(folder)
    assert point["data"] == {"value": {"a": [0.0, "Infinity"]}, "other": "NaN"}
    assert len(point["nonfinite"]) == 2
    (read,) = session.track("loss").read()["data"]
    assert same(read["data"]["other"], math.nan)
    assert read["data"]["value"] == {"a": [0.0, math.inf]}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_users_string_stays_a_string(text: str, session: Session, folder: Path) -> None:
    session.track("loss").append(value=text)
    session.log("x", value=text)
    session.parameters().set(value=text)
    session.flush()
    (point,) = reading.points(folder)
    (line,) = reading.lines(folder / "logs" / "logs.jsonl")
    view = reading.view(folder / "parameters.json")
    for record, stored in ((point, point["data"]), (line, line["metadata"]), (view, view["data"])):
        assert stored == {"value": text}
        assert not record.get("nonfinite")
    assert session.track("loss").read()["data"][0]["data"] == {"value": text}
    assert session.parameters().get() == {"value": text}


def circular() -> dict[str, Any]:
    inner: dict[str, Any] = {}
    inner["again"] = inner
    return inner


def deep(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


UNSTORABLE: dict[str, Any] = {
    "an object": object(),
    "a function": lambda: None,
    "a class": dict,
    "a complex number": 1j,
    "an object in a list": [1, [object()]],
    "an object in a dict": {"inner": {"deep": object()}},
    "half a surrogate": "\ud800",
    "a circle": circular(),
    "a pit": deep(100_000),
    "a numpy object": numpy.array([object()], dtype=object),
}

# How a user may hand over a value called "culprit".
WAYS: dict[str, Callable[[Session, Any], object]] = {
    "append": lambda session, value: session.track("loss").append(value=1, culprit=value),
    "append_batch": lambda session, value: session.track("loss").append_batch(
        [{"value": 1}, {"value": 2, "culprit": value}]
    ),
    "track metadata": lambda session, value: session.track("loss", metadata={"culprit": value}).append(value=1),
    "log extra": lambda session, value: session.log("x", culprit=value),
    "log metadata": lambda session, value: session.log("x", metadata={"culprit": value}),
    "builder": lambda session, value: session.log().info("x", culprit=value),
    "parameters": lambda session, value: session.parameters().set(good=1, culprit=value),
    "upload": lambda session, value: session.files().upload(__file__, metadata={"culprit": value}),
    "save": lambda session, value: session.file(file_path=__file__, metadata={"culprit": value}).save(),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_stored_raises_naming_the_field_and_stores_nothing(
    way: str, session: Session, folder: Path
) -> None:
    accepted = []
    for what, value in UNSTORABLE.items():
        try:
            WAYS[way](session, value)
        except TypeError as error:
            assert "culprit" in str(error), what  # noqa: PT017 - one call for each of the values
        else:
            accepted.append(what)
    assert accepted == []
    session.flush()
    assert reading.points(folder) == []
    assert reading.lines(folder / "logs" / "logs.jsonl") == []
    assert not (folder / "parameters.json").exists()
    assert len(session.files().list()) == 0
    assert session.track("loss").append(value=1)["index"] == "0"


def test_the_message_says_where_in_the_field(session: Session) -> None:
    with pytest.raises(TypeError, match=r"model.*layers.*first"):
        session.track("loss").append(model={"layers": {"first": object()}})


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**30, 10**400], ids=["2^64", "-2^63-1", "10^30", "10^400"])
def test_a_huge_integer_is_stored_whole_or_refused_by_name(value: int, session: Session, folder: Path) -> None:
    try:
        session.track("loss").append(value=value)
    except TypeError as error:
        assert "value" in str(error)  # noqa: PT017 - refusing is one of two good answers
        expected = []
    else:
        expected = [value]
    session.flush()
    assert reading.values(folder) == expected


def test_a_session_with_unstorable_metadata_is_refused(home: Path, root: Path) -> None:
    with pytest.raises(TypeError, match="culprit"):
        Session("run", "project", local_path=str(root), metadata={"culprit": object()}).open()
    assert reading.snapshot(root) == {}


def test_a_value_is_what_it_was_at_the_call(session: Session, folder: Path) -> None:
    value = {"list": [1]}
    array = numpy.array(1.0)
    session.track("loss").append(value=value, array=array)
    value["list"].append(2)
    array += 1
    session.flush()
    assert [point["data"] for point in reading.points(folder)] == [{"value": {"list": [1]}, "array": 1.0}]
