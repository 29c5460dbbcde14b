from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamlake import OperationMode, Session, dreamlake_session
from tests import reading

pytestmark = pytest.mark.home("shared")


def use(session: Session) -> None:
    session.log("Training started")
    session.parameters().set(learning_rate=0.001)
    session.track("loss").append(value=0.5)


def with_block(root: Path) -> None:
    with Session(name="run", workspace="project", local_path=str(root)) as session:
        use(session)


def decorated(root: Path) -> None:
    @dreamlake_session(name="run", workspace="project", local_path=str(root))
    def train(session: Session) -> None:
        use(session)

    train()


def direct(root: Path) -> None:
    session = Session(name="run", workspace="project", local_path=str(root))
    session.open()
    try:
        use(session)
    finally:
        session.close()


@pytest.mark.parametrize("style", [with_block, decorated, direct])
def test_every_style_of_use_leaves_the_same(
    style: Callable[[Path], None], home: Path, root: Path, folder: Path
) -> None:
    style(root)
    assert reading.messages(folder) == ["Training started"]
    assert reading.view(folder / "parameters.json")["data"] == {"learning_rate": 0.001}
    assert reading.values(folder) == [0.5]
    assert reading.view(folder / "session.json")["state"] == "finished"


def test_open_returns_the_session_and_may_be_called_twice(home: Path, root: Path, folder: Path) -> None:
    session = Session("run", "project", local_path=str(root))
    assert session.open() is session
    session.log("between")
    assert session.open() is session
    session.log("after")
    session.close()
    assert reading.messages(folder) == ["between", "after"]


def test_close_may_be_called_twice_and_before_any_open(home: Path, root: Path, folder: Path) -> None:
    session = Session("run", "project", local_path=str(root))
    session.close()
    assert not root.exists()
    session.open()
    session.log("once")
    session.close()
    session.close()
    assert reading.messages(folder) == ["once"]


def test_the_same_object_opens_again_and_continues(home: Path, root: Path, folder: Path) -> None:
    session = Session("run", "project", local_path=str(root))
    for value in range(3):
        session.open()
        assert session.track("loss").append(value=value)["index"] == str(value)
        session.close()
    assert reading.values(folder) == [0, 1, 2]


def test_is_open_follows_open_and_close(home: Path, root: Path) -> None:
    session = Session("run", "project", local_path=str(root))
    seen = [session._is_open]
    session.open()
    seen.append(session._is_open)
    session.close()
    seen.append(session._is_open)
    assert seen == [False, True, False]


def test_with_gives_the_session_and_never_swallows_an_exception(home: Path, root: Path, folder: Path) -> None:
    fault = ValueError("diverged")
    outer = Session("run", "project", local_path=str(root))

    def train() -> None:
        with outer as session:
            assert session is outer
            session.log("before")
            raise fault

    with pytest.raises(ValueError, match="diverged") as caught:
        train()
    assert caught.value is fault
    assert not outer._is_open
    assert reading.messages(folder) == ["before"]


def test_the_attributes_are_what_was_given(home: Path, root: Path) -> None:
    given: dict[str, Any] = {
        "description": "ResNet-50",
        "tags": ["resnet", "baseline"],
        "folder": "/experiments/2025",
        "write_protected": False,
        "metadata": {"gpu": "H200"},
    }
    session = Session("run", "project", local_path=str(root), **given)
    with session:
        assert (session.name, session.workspace) == ("run", "project")
        for name, value in given.items():
            assert getattr(session, name) == value, name
        assert hasattr(session, "id")
        assert hasattr(session, "data")


def test_everything_after_name_and_workspace_is_by_keyword() -> None:
    with pytest.raises(TypeError):
        Session("run", "project", "a description")  # type: ignore[misc]


def test_a_local_session_is_in_local_mode(root: Path) -> None:
    assert {mode.name for mode in OperationMode} == {"LOCAL", "REMOTE", "HYBRID"}
    assert Session("run", "project", local_path=str(root)).mode is OperationMode.LOCAL
    assert Session("run", "project").mode is OperationMode.LOCAL


@pytest.mark.home("own")
def test_making_a_session_touches_nothing(home: Path, root: Path) -> None:
    Session("run", "project", local_path=str(root))
    assert not root.exists()
    assert reading.snapshot(home) == {}


FIELDS = [
    ("description", "first", "second"),
    ("tags", ["a", "b"], ["c"]),
    ("folder", "/2025/a", "/2025/b"),
    ("metadata", {"gpu": 1, "seed": 2}, {"gpu": 3}),
]


@pytest.mark.parametrize(("field", "first", "second"), FIELDS)
def test_reopening_replaces_a_field_whole_when_given_and_keeps_it_when_not(
    field: str, first: Any, second: Any, home: Path, root: Path, folder: Path
) -> None:
    stored = []
    for given in ({field: first}, {}, {field: second}, {field: None}):
        with Session("run", "project", local_path=str(root), **given):
            pass
        stored.append(reading.view(folder / "session.json")[field])
    assert stored == [first, first, second, second]


def test_a_reopened_session_knows_what_was_stored(home: Path, root: Path) -> None:
    given = {field: first for field, first, _ in FIELDS}
    with Session("run", "project", local_path=str(root), **given):
        pass
    with Session("run", "project", local_path=str(root)) as again:
        assert {field: getattr(again, field) for field in given} == given


def test_reopening_keeps_created_at_and_moves_updated_at(home: Path, root: Path, folder: Path) -> None:
    times = []
    for _ in range(2):
        with Session("run", "project", local_path=str(root)):
            pass
        stored = reading.view(folder / "session.json")
        times.append((stored["created_at"], stored["updated_at"]))
    (created, updated), (created_again, updated_again) = times
    assert reading.TIMESTAMP.fullmatch(created)
    assert created_again == created <= updated < updated_again


def test_session_json_has_the_documented_fields(home: Path, root: Path, folder: Path) -> None:
    with Session("run", "project", local_path=str(root), tags=["a"]):
        pass
    stored = reading.view(folder / "session.json")
    for key in ("created_at", "updated_at"):
        assert reading.TIMESTAMP.fullmatch(stored[key]), key
    expected = {
        "name": "run",
        "workspace": "project",
        "description": None,
        "tags": ["a"],
        "folder": None,
        "write_protected": False,
        "state": "finished",
    }
    assert {key: stored[key] for key in expected} == expected
    assert not stored["metadata"]


def test_open_makes_the_directory_at_once(session: Session, folder: Path) -> None:
    assert reading.view(folder / "session.json")["name"] == "run"
    for name in ("logs", "tracks", "files"):
        assert (folder / name).is_dir(), name


def test_the_state_is_running_while_the_session_is_open(session: Session, folder: Path) -> None:
    session.flush()
    assert reading.view(folder / "session.json")["state"] == "running"


def test_folder_does_not_change_the_path(home: Path, root: Path, folder: Path) -> None:
    with Session("run", "project", local_path=str(root), folder="/experiments/2025/resnet"):
        pass
    assert {path.name for path in root.iterdir()} == {"project"}
    assert reading.view(folder / "session.json")["folder"] == "/experiments/2025/resnet"


OPERATIONS: dict[str, Callable[[Session], object]] = {
    "log": lambda session: session.log("x"),
    "log builder": lambda session: session.log().info("x"),
    "parameters set": lambda session: session.parameters().set(a=1),
    "parameters get": lambda session: session.parameters().get(),
    "track append": lambda session: session.track("loss").append(value=1),
    "track read": lambda session: session.track("loss").read(),
    "files list": lambda session: session.files().list(),
    "files upload": lambda session: session.files().upload(__file__),
    "file save": lambda session: session.file(file_path=__file__).save(),
    "file list": lambda session: session.file().list(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_session_that_is_not_open_refuses(operation: str, home: Path, root: Path, folder: Path) -> None:
    session = Session("run", "project", local_path=str(root))
    with pytest.raises(RuntimeError, match=r"(?i)open"):
        OPERATIONS[operation](session)
    assert not root.exists()
    session.open()
    session.close()
    before = reading.recorded(folder)
    with pytest.raises(RuntimeError, match=r"(?i)open"):
        OPERATIONS[operation](session)
    assert reading.recorded(folder) == before


def test_what_was_taken_from_an_open_session_refuses_after_close(home: Path, root: Path) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        track, parameters = session.track("loss"), session.parameters()
    with pytest.raises(RuntimeError):
        track.append(value=1)
    with pytest.raises(RuntimeError):
        parameters.set(a=1)


def test_a_decorated_function_keeps_its_name_arguments_and_value(home: Path, root: Path, folder: Path) -> None:
    @dreamlake_session("run", "project", local_path=str(root))
    def train(rate: float, *, epochs: int, session: Session) -> tuple[float, int, Session]:
        """Trains."""
        session.track("loss").append(value=rate)
        return rate, epochs, session

    assert (train.__name__, train.__doc__) == ("train", "Trains.")
    rate, epochs, first = train(0.1, epochs=3)
    assert (rate, epochs, first._is_open) == (0.1, 3, False)
    _, _, second = train(0.2, epochs=3)
    assert second is not first
    assert reading.values(folder) == [0.1, 0.2]


def test_a_decorated_function_that_fails_closes_its_session_and_raises(home: Path, root: Path, folder: Path) -> None:
    fault = ZeroDivisionError("no batches")
    kept: list[Session] = []

    @dreamlake_session("run", "project", local_path=str(root))
    def train(session: Session) -> None:
        kept.append(session)
        session.log("started")
        raise fault

    with pytest.raises(ZeroDivisionError) as caught:
        train()
    assert caught.value is fault
    assert not kept[0]._is_open
    assert reading.messages(folder) == ["started"]
    assert reading.view(folder / "session.json")["state"] == "failed"


def test_an_async_function_may_be_decorated(home: Path, root: Path, folder: Path) -> None:
    kept: list[Session] = []

    @dreamlake_session("run", "project", local_path=str(root))
    async def train(rate: float, session: Session) -> float:
        kept.append(session)
        await asyncio.sleep(0)
        assert session._is_open
        session.track("loss").append(value=rate)
        if rate < 0:
            raise ValueError("negative")
        return rate * 2

    assert asyncio.run(train(0.5)) == 1.0
    assert not kept[-1]._is_open
    assert reading.view(folder / "session.json")["state"] == "finished"
    with pytest.raises(ValueError, match="negative"):
        asyncio.run(train(-1.0))
    assert not kept[-1]._is_open
    assert reading.values(folder) == [0.5, -1.0]
    assert reading.view(folder / "session.json")["state"] == "failed"


def test_the_default_root_is_in_the_working_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Session("run", "project") as session:
        session.log("here")
    assert reading.messages(tmp_path / ".dreamlake" / "project" / "run") == ["here"]


def test_the_environment_may_name_another_default_root(
    home: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DREAMLAKE_LOCAL_PATH", str(tmp_path / "elsewhere"))
    with Session("run", "project") as session:
        session.log("by environment")
    with Session("run", "project", local_path=str(root)) as session:
        session.log("by argument")
    assert reading.messages(tmp_path / "elsewhere" / "project" / "run") == ["by environment"]
    assert reading.messages(root / "project" / "run") == ["by argument"]
    assert not (tmp_path / ".dreamlake").exists()


@pytest.mark.parametrize("kind", [str, Path])
def test_local_path_is_a_string_or_a_path(kind: type, home: Path, root: Path, folder: Path) -> None:
    with Session("run", "project", local_path=kind(root)) as session:
        session.log("here")
    assert reading.messages(folder) == ["here"]


def test_a_relative_root_stays_where_it_was_when_the_script_changes_directory(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path)
    with Session("run", "project", local_path="./experiments") as session:
        session.log("before")
        os.chdir(tmp_path / "deeper")
        session.log("after")
        session.track("loss").append(value=1)
    assert reading.messages(tmp_path / "experiments" / "project" / "run") == ["before", "after"]
    assert list((tmp_path / "deeper").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "workspace", "where"),
    [
        ("sweep/lr=0.1", "team/vision", "team%2Fvision/sweep%2Flr=0.1"),
        ("with space", "ünïcödé", "ünïcödé/with space"),
        ("n" * 255, "w", "w/" + "n" * 255),
        (".hidden", "w", "w/.hidden"),
    ],
)
def test_a_name_is_one_folder_with_its_slashes_encoded(
    name: str, workspace: str, where: str, home: Path, root: Path
) -> None:
    with Session(name, workspace, local_path=str(root)) as session:
        session.log("here")
    assert reading.messages(root / where) == ["here"]
    stored = reading.view(root / where / "session.json")
    assert (stored["name"], stored["workspace"]) == (name, workspace)


def test_a_name_that_looks_encoded_is_another_session_than_the_one_it_looks_like(home: Path, root: Path) -> None:
    for name in ("a/b", "a%2Fb"):
        with Session(name, "project", local_path=str(root)) as session:
            session.log(name)
    found = sorted(reading.messages(path) for path in (root / "project").iterdir())
    assert found == [["a%2Fb"], ["a/b"]]


def test_two_objects_may_have_one_session_open(home: Path, root: Path, folder: Path) -> None:
    with (
        Session("run", "project", local_path=str(root)) as one,
        Session("run", "project", local_path=str(root)) as two,
    ):
        for value in range(50):
            (one if value % 2 else two).track("loss").append(value=value)
    stored = reading.points(folder)
    reading.assert_consecutive(stored)
    stored_values = reading.values(folder)
    assert sorted(stored_values) == list(range(50))
    for parity in (0, 1):
        own = [value for value in stored_values if value % 2 == parity]
        assert own == sorted(own)


def test_two_sessions_open_at_once_do_not_mix(home: Path, root: Path) -> None:
    with (
        Session("a", "project", local_path=str(root)) as a,
        Session("b", "project", local_path=str(root)) as b,
    ):
        for value in range(10):
            a.track("loss").append(value=value)
            b.track("loss").append(value=-value)
    assert reading.values(root / "project" / "a") == list(range(10))
    assert reading.values(root / "project" / "b") == [-value for value in range(10)]


def test_only_the_agents_folder_is_added_to_what_the_format_knows(home: Path, root: Path, folder: Path) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        use(session)
    assert {path.name for path in folder.iterdir()} == {
        ".dreamlake",
        "files",
        "logs",
        "parameters.json",
        "session.json",
        "tracks",
    }
