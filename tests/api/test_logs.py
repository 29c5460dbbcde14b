from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading

pytestmark = pytest.mark.home("shared")

LEVELS = ("debug", "info", "warn", "error", "fatal")


def stored(session: Session, folder: Path) -> list[dict[str, Any]]:
    session.flush()
    return reading.lines(folder / "logs" / "logs.jsonl")


def test_a_message_is_stored_with_its_time_level_and_number(session: Session, folder: Path) -> None:
    session.log("Training started")
    (line,) = stored(session, folder)
    assert reading.TIMESTAMP.fullmatch(line.pop("timestamp"))
    assert line.pop("sequenceNumber") in (0, 1)
    assert line == {"level": "info", "message": "Training started"}


def test_every_level_is_stored_in_lower_case_however_it_was_written(session: Session, folder: Path) -> None:
    for level in LEVELS:
        session.log(level, level=level)
        session.log(level, level=level.upper())
        session.log(level, level=level.title())
        getattr(session.log(), level)(level)
    lines = stored(session, folder)
    assert len(lines) == 4 * len(LEVELS)
    assert [line["level"] for line in lines] == [line["message"] for line in lines]


def test_numbers_are_consecutive_and_in_the_order_of_the_calls(session: Session, folder: Path) -> None:
    for step in range(500):
        session.log(f"step {step}")
    lines = stored(session, folder)
    assert [line["message"] for line in lines] == [f"step {step}" for step in range(500)]
    reading.assert_consecutive(lines, "sequenceNumber", lines[0]["sequenceNumber"])
    times = [line["timestamp"] for line in lines]
    assert times == sorted(times)


def test_numbers_continue_on_reopen(home: Path, root: Path, folder: Path) -> None:
    for part in range(3):
        with Session("run", "project", local_path=str(root)) as session:
            session.log(f"part {part}")
            session.log("more")
    lines = reading.lines(folder / "logs" / "logs.jsonl")
    assert len(lines) == 6
    reading.assert_consecutive(lines, "sequenceNumber", lines[0]["sequenceNumber"])


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({"metadata": {"epoch": 1}}, {"epoch": 1}),
        ({"epoch": 1, "lr": 0.1}, {"epoch": 1, "lr": 0.1}),
        ({"metadata": {"epoch": 1, "lr": 0.1}, "epoch": 2}, {"epoch": 2, "lr": 0.1}),
        ({"metadata": {"nested": {"deep": [1, None, True]}}}, {"nested": {"deep": [1, None, True]}}),
    ],
)
def test_extra_fields_are_merged_over_metadata(
    call: dict[str, Any], expected: dict[str, Any], session: Session, folder: Path
) -> None:
    session.log("x", **call)
    (line,) = stored(session, folder)
    assert line["metadata"] == expected


def test_metadata_that_was_given_is_not_changed(session: Session) -> None:
    given = {"epoch": 1}
    session.log("x", metadata=given, epoch=2, lr=0.1)
    assert given == {"epoch": 1}


@pytest.mark.parametrize("metadata", [None, {}])
def test_no_metadata_no_key(metadata: dict[str, Any] | None, session: Session, folder: Path) -> None:
    session.log("x", metadata=metadata)
    (line,) = stored(session, folder)
    assert "metadata" not in line


def test_the_builder_takes_extra_fields(session: Session, folder: Path) -> None:
    session.log().error("Failed", code=500, path="/x")
    session.log().debug("plain")
    first, second = stored(session, folder)
    assert (first["level"], first["message"], first["metadata"]) == (
        "error",
        "Failed",
        {"code": 500, "path": "/x"},
    )
    assert (second["level"], "metadata" in second) == ("debug", False)


def test_asking_for_the_builder_stores_nothing(session: Session, folder: Path) -> None:
    session.log()
    assert stored(session, folder) == []


@pytest.mark.parametrize(
    "message",
    [
        "",
        "two\nlines\r\n",
        'tab\tquote" back\\slash',
        "żółć 日本語 🚀",
        "\u2028\u2029\x00\x7f",
        "x" * 100_000,
    ],
)
def test_any_text_comes_back_as_it_was(message: str, session: Session, folder: Path) -> None:
    session.log(message)
    session.log("next")
    session.flush()
    content = (folder / "logs" / "logs.jsonl").read_bytes()
    records = [reading.strict(line) for line in content.split(b"\n")[:-1]]
    assert [record["message"] for record in records] == [message, "next"]


def test_a_builder_knows_the_five_levels_and_no_other(session: Session) -> None:
    builder = session.log()
    assert {name for name in dir(builder) if not name.startswith("_")} >= set(LEVELS)
    assert not hasattr(builder, "loud")
