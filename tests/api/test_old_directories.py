"""Directories of 0.2.x, made by hand, sound and faulty: they open, are read whole, and continue."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading
from tests.conftest import Cli
from tests.waiting import wait_for

pytestmark = pytest.mark.home("shared")

THEN = "2025-01-01T00:00:0{}.000000Z"
WEIGHTS = b"old weights" * 1000
FILE_ID = "7250123456789012345"


def dump(record: Any) -> str:
    return json.dumps(record)


def point(index: int, value: Any = None) -> str:
    data = {"value": index / 10 if value is None else value, "epoch": index}
    return dump({"index": index, "data": data, "createdAt": THEN.format(index % 10)})


def log(number: int) -> str:
    return dump(
        {
            "sequenceNumber": number,
            "timestamp": THEN.format(number % 10),
            "level": "warn",
            "message": f"old {number}",
        }
    )


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def whole(*records: str) -> str:
    return "".join(record + "\n" for record in records)


def track_metadata(name: str, count: int) -> str:
    return dump(
        {
            "trackId": f"track-{name}",
            "name": name,
            "description": "old track",
            "tags": ["old"],
            "metadata": {"unit": "nats"},
            "totalDataPoints": count,
            "nextIndex": count,
            "createdAt": THEN.format(0),
            "updatedAt": THEN.format(4),
        }
    )


@pytest.fixture
def old(home: Path, folder: Path) -> Path:
    """A sound directory as 0.2.x left it: five logs, five points, a nested track, parameters, a file."""
    write(
        folder / "session.json",
        dump(
            {
                "name": "run",
                "workspace": "project",
                "description": "old run",
                "tags": ["old"],
                "folder": "/2025",
                "metadata": {"gpu": "V100"},
                "created_at": THEN.format(0),
                "updated_at": THEN.format(5),
                "write_protected": False,
            }
        ),
    )
    write(folder / "logs" / "logs.jsonl", whole(*(log(number) for number in range(5))))
    write(folder / "logs" / ".log_sequence", "5")
    write(folder / "logs" / "logs.jsonl.lock", "")
    write(folder / "tracks" / "loss" / "data.jsonl", whole(*(point(index) for index in range(5))))
    write(folder / "tracks" / "loss" / "metadata.json", track_metadata("loss", 5))
    write(folder / "tracks" / "loss" / "data.jsonl.lock", "")
    write(folder / "tracks" / "train" / "acc" / "data.jsonl", whole(point(0, 0.9)))
    write(folder / "tracks" / "train" / "acc" / "metadata.json", track_metadata("train/acc", 1))
    write(
        folder / "parameters.json",
        dump({"version": 3, "data": {"model.lr": 0.001, "seed": 7}, "updatedAt": THEN.format(1)}),
    )
    write(folder / "parameters.json.lock", "")
    write(folder / "files" / "models" / FILE_ID / "model.pth", WEIGHTS)
    write(
        folder / "files" / ".files_metadata.json",
        dump(
            {
                "files": [
                    {
                        "id": FILE_ID,
                        "sessionId": "project/run",
                        "path": "/models",
                        "filename": "model.pth",
                        "description": "old file",
                        "tags": ["old"],
                        "contentType": "application/octet-stream",
                        "sizeBytes": len(WEIGHTS),
                        "checksum": hashlib.sha256(WEIGHTS).hexdigest(),
                        "metadata": {"epoch": 4},
                        "uploadedAt": THEN.format(2),
                        "updatedAt": THEN.format(2),
                        "deletedAt": None,
                    }
                ]
            }
        ),
    )
    return folder


def read_values(session: Session, track: str = "loss") -> list[Any]:
    return [read["data"]["value"] for read in session.track(track).read()["data"]]


def test_a_directory_opens_and_is_read_whole(old: Path, root: Path, tmp_path: Path) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        assert (session.description, session.tags, session.folder) == ("old run", ["old"], "/2025")
        assert session.metadata == {"gpu": "V100"}
        assert session.parameters().get() == {"model.lr": 0.001, "seed": 7}
        assert read_values(session) == [0.0, 0.1, 0.2, 0.3, 0.4]
        assert read_values(session, "train/acc") == [0.9]
        stats = session.track("loss").stats()
        assert (stats["trackId"], stats["totalDataPoints"]) == ("track-loss", "5")
        assert (stats["description"], stats["tags"]) == ("old track", ["old"])
        assert sorted(summary["name"] for summary in session.track("loss").list_all()) == [
            "loss",
            "train/acc",
        ]
        (record,) = session.files().list(path="/models")
        assert (record["id"], record["description"], record["metadata"]) == (
            FILE_ID,
            "old file",
            {"epoch": 4},
        )
        session.files().download(FILE_ID, dest_path=str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == WEIGHTS


def test_a_directory_is_continued_at_the_right_numbers(old: Path, root: Path) -> None:
    before = reading.snapshot(old)
    with Session("run", "project", local_path=str(root)) as session:
        assert session.track("loss").append(value=5)["index"] == "5"
        assert session.track("train/acc").append(value=1)["index"] == "1"
        assert session.track("new").append(value=0)["index"] == "0"
        session.log("new")
        session.parameters().set(seed=8, epochs=3)
    reading.assert_consecutive(reading.points(old))
    assert reading.messages(old) == [*(f"old {number}" for number in range(5)), "new"]
    reading.assert_consecutive(reading.lines(old / "logs" / "logs.jsonl"), "sequenceNumber")
    view = reading.view(old / "parameters.json")
    assert view["data"] == {"model.lr": 0.001, "seed": 8, "epochs": 3}
    assert view["version"] == 4
    metadata = reading.view(old / "tracks" / "loss" / "metadata.json")
    assert (metadata["trackId"], int(metadata["totalDataPoints"]), int(metadata["nextIndex"])) == (
        "track-loss",
        6,
        6,
    )
    for log_file in ("logs/logs.jsonl", "tracks/loss/data.jsonl", "tracks/train/acc/data.jsonl"):
        assert (old / log_file).read_bytes().startswith(before[log_file] or b""), log_file


def test_what_describes_the_session_is_kept(old: Path, root: Path) -> None:
    with Session("run", "project", local_path=str(root), tags=["new"]):
        pass
    stored = reading.view(old / "session.json")
    expected = {
        "description": "old run",
        "tags": ["new"],
        "folder": "/2025",
        "metadata": {"gpu": "V100"},
        "created_at": THEN.format(0),
        "state": "finished",
    }
    assert {key: stored[key] for key in expected} == expected
    assert stored["updated_at"] > THEN.format(5)


def test_the_old_file_may_be_replaced_updated_and_deleted(old: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(b"new weights")
    with Session("run", "project", local_path=str(root)) as session:
        session.files().update(FILE_ID, description="renamed")
        assert session.files().list()[0]["description"] == "renamed"
        record = session.files().upload(tmp_path / "model.pth", path="/models")
        assert [kept["id"] for kept in session.files().list()] == [record["id"]]
        session.files().delete(record["id"])
        assert len(session.files().list()) == 0
    assert (old / "files" / "models" / FILE_ID).exists() or not reading.kept_somewhere(old, WEIGHTS)


def test_locks_and_counters_of_old_are_ignored(old: Path, root: Path) -> None:
    write(old / "logs" / ".log_sequence", "1")
    with Session("run", "project", local_path=str(root)) as session:
        session.log("new")
    assert reading.lines(old / "logs" / "logs.jsonl")[-1]["sequenceNumber"] == 5
    assert read_tracks(root) == ["loss", "train/acc"]


def read_tracks(root: Path) -> list[str]:
    with Session("run", "project", local_path=str(root)) as session:
        return sorted(summary["name"] for summary in session.track("loss").list_all())


def test_tracks_without_their_metadata_are_read_too(old: Path, root: Path) -> None:
    (old / "tracks" / "loss" / "metadata.json").unlink()
    with Session("run", "project", local_path=str(root)) as session:
        assert session.track("loss").stats()["totalDataPoints"] == "5"
        assert session.track("loss").append(value=5)["index"] == "5"


def test_a_directory_with_next_to_nothing_in_it_opens(home: Path, root: Path, folder: Path) -> None:
    write(folder / "session.json", dump({"name": "run", "workspace": "project"}))
    with Session("run", "project", local_path=str(root)) as session:
        assert session.track("loss").append(value=0)["index"] == "0"
        session.parameters().set(a=1)
    assert reading.values(folder) == [0]


def test_show_reads_an_old_directory_as_it_is(old: Path, dreamlake: Cli) -> None:
    before = reading.snapshot(old)
    shown = dreamlake("show", old)
    assert shown.returncode == 0, shown.stderr
    for part in ("run", "model.lr", "0.001", "loss", "0.4"):
        assert part in shown.stdout, part
    assert reading.snapshot(old) == before


# A faulty log of points: its bytes, the values that can be read, the next index.
FAULTS: dict[str, tuple[str, list[float], int]] = {
    "torn last line": (whole(point(0), point(1)) + point(2)[:25], [0.0, 0.1], 2),
    "torn to one byte": (whole(point(0), point(1)) + "{", [0.0, 0.1], 2),
    "last line without its newline": (whole(point(0)) + point(1), [0.0, 0.1], 2),
    "nothing but a torn line": (point(0)[:20], [], 0),
    "empty": ("", [], 0),
    "empty lines between": (whole(point(0), "", point(1), ""), [0.0, 0.1], 2),
    "zeros at the end": (whole(point(0), point(1)) + "\0" * 300, [0.0, 0.1], 2),
    "duplicated indexes": (whole(*map(point, (0, 1, 1, 2, 2, 2))), [0.0, 0.1, 0.1, 0.2, 0.2, 0.2], 3),
    "lost indexes": (whole(*map(point, (0, 3, 7))), [0.0, 0.3, 0.7], 8),
    "indexes out of order": (whole(*map(point, (0, 2, 1))), [0.0, 0.2, 0.1], 3),
    "an append glued to a torn line": (whole(point(0), point(1)[:20] + point(2), point(3)), [0.0, 0.3], 4),
    "a line of something else": (whole(point(0), "oops", point(2)), [0.0, 0.2], 3),
    "bare constants": (
        whole(point(0), point(1, math.nan), point(2, math.inf), point(3, -math.inf)),
        [0.0, math.nan, math.inf, -math.inf],
        4,
    ),
}


def alike(found: list[Any], expected: list[Any]) -> bool:
    return [repr(float(value)) for value in found] == [repr(float(value)) for value in expected]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_track_is_read_and_continued(fault: str, old: Path, root: Path) -> None:
    content, known, following = FAULTS[fault]
    write(old / "tracks" / "loss" / "data.jsonl", content)
    for turn in range(2):
        with Session("run", "project", local_path=str(root)) as session:
            assert alike(read_values(session), [*known, *([100.0] * turn)])
            assert session.track("loss").append(value=100.0)["index"] == str(following + turn)
            assert alike(read_values(session), [*known, *([100.0] * (turn + 1))])
    stored = (old / "tracks" / "loss" / "data.jsonl").read_text()
    assert stored.endswith("\n")
    new = [json.loads(line) for line in stored.splitlines()[-2:]]
    assert [record["index"] for record in new] == [following, following + 1]


@pytest.mark.parametrize(
    ("fault", "piece"),
    [
        ("torn last line", point(2)[:25]),
        ("an append glued to a torn line", point(1)[:20] + point(2)),
        ("a line of something else", "oops"),
    ],
)
def test_what_cannot_be_read_is_kept(fault: str, piece: str, old: Path, root: Path) -> None:
    write(old / "tracks" / "loss" / "data.jsonl", FAULTS[fault][0])
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=100.0)
    # the agent may be clearing away what it is through with
    wait_for(lambda: reading.kept_somewhere(old, piece.encode()))


@pytest.mark.parametrize(
    ("content", "known", "following"),
    [
        (whole(log(0), log(1)) + log(2)[:30], ["old 0", "old 1"], 2),
        (whole(log(0), log(1), log(1), log(1)), ["old 0", "old 1", "old 1", "old 1"], 2),
        (whole(log(0), log(6)), ["old 0", "old 6"], 7),
        ("", [], None),
    ],
    ids=["torn last line", "duplicated numbers", "lost numbers", "empty"],
)
def test_faulty_logs_are_continued(
    content: str, known: list[str], following: int | None, old: Path, root: Path
) -> None:
    write(old / "logs" / "logs.jsonl", content)
    with Session("run", "project", local_path=str(root)) as session:
        session.log("new")
        session.log("newer")
    assert reading.messages(old) == [*known, "new", "newer"]
    one, two = (line["sequenceNumber"] for line in reading.lines(old / "logs" / "logs.jsonl")[-2:])
    assert two == one + 1
    assert following is None or one == following


def test_parameters_with_bare_constants_are_read_and_written_as_json(old: Path, root: Path) -> None:
    write(
        old / "parameters.json",
        '{"version": 1, "data": {"clip": Infinity, "x": NaN, "lr": 0.1}, "updatedAt": "x"}',
    )
    with Session("run", "project", local_path=str(root)) as session:
        read = session.parameters().get()
        assert (read["clip"], read["lr"]) == (math.inf, 0.1)
        assert math.isnan(read["x"])
        session.parameters().set(seed=1)
    view = reading.view(old / "parameters.json")
    assert view["data"] == {"clip": "Infinity", "x": "NaN", "lr": 0.1, "seed": 1}
    assert sorted(view["nonfinite"]) == ["clip", "x"]


@pytest.mark.parametrize("damage", [b"", b'{"version": 3, "data": {"model.lr": 0.0', b"[]"])
@pytest.mark.parametrize("view", ["parameters.json", "files/.files_metadata.json", "tracks/loss/metadata.json"])
def test_a_damaged_view_never_costs_the_rest(view: str, damage: bytes, old: Path, root: Path) -> None:
    """0.2.x left such files; they are kept aside, or open() says which file it is and leaves it alone."""
    write(old / view, damage)
    try:
        with Session("run", "project", local_path=str(root)) as session:
            assert read_values(session) == [0.0, 0.1, 0.2, 0.3, 0.4]
            session.track("loss").append(value=0.5)
            session.parameters().set(seed=9)
    except (ValueError, RuntimeError, OSError) as error:
        assert Path(view).name in str(error)  # noqa: PT017 - refusing is one of two good answers
        assert (old / view).read_bytes() == damage
    else:
        assert reading.values(old) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
        assert reading.view(old / "parameters.json")["data"]["seed"] == 9
        wait_for(lambda: reading.kept_somewhere(old, damage))
