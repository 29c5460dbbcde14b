from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dreamlake import Session
from tests import reading

pytestmark = pytest.mark.home("shared")

# What may never change in a write-protected session, given the id of a file in it.
CHANGES: dict[str, Callable[[Session, str], object]] = {
    "parameters": lambda session, _: session.parameters().set(a=2),
    "upload": lambda session, _: session.files().upload(__file__),
    "save": lambda session, _: session.file(file_path=__file__).save(),
    "update": lambda session, known: session.files().update(known, description="x"),
    "delete": lambda session, known: session.files().delete(known),
    "old update": lambda session, known: session.file(file_id=known, description="x").update(),
    "old delete": lambda session, known: session.file(file_id=known).delete(),
}

# What may not be added any more once it is finished.
ADDITIONS: dict[str, Callable[[Session], object]] = {
    "log": lambda session: session.log("late"),
    "log builder": lambda session: session.log().info("late"),
    "append": lambda session: session.track("loss").append(value=2),
    "append_batch": lambda session: session.track("loss").append_batch([{"value": 2}]),
}


@pytest.fixture
def known(home: Path, root: Path, tmp_path: Path) -> str:
    """A session with something in it, finished and not protected; the id of its file."""
    (tmp_path / "model.pth").write_bytes(b"weights")
    with Session("run", "project", local_path=str(root)) as session:
        session.parameters().set(a=1)
        session.log("early")
        session.track("loss").append(value=1)
        return str(session.files().upload(tmp_path / "model.pth")["id"])


def protect(root: Path) -> None:
    with Session("run", "project", local_path=str(root), write_protected=True):
        pass


@pytest.mark.parametrize("change", CHANGES)
def test_a_protected_session_refuses_the_change(change: str, known: str, root: Path, folder: Path) -> None:
    with Session("run", "project", local_path=str(root), write_protected=True) as session:
        with pytest.raises(RuntimeError, match=r"(?i)protected"):
            CHANGES[change](session, known)
        assert session.parameters().get() == {"a": 1}
        assert [record["id"] for record in session.files().list()] == [known]
    assert reading.view(folder / "parameters.json")["data"] == {"a": 1}
    assert (folder / "files" / "model.pth").read_bytes() == b"weights"


@pytest.mark.parametrize("change", CHANGES)
def test_the_protection_is_kept_in_the_directory(change: str, known: str, root: Path, folder: Path) -> None:
    protect(root)
    assert reading.view(folder / "session.json")["write_protected"] is True
    with Session("run", "project", local_path=str(root)) as session:
        assert session.write_protected is True
        with pytest.raises(RuntimeError, match=r"(?i)protected"):
            CHANGES[change](session, known)


def test_a_new_protected_session_takes_logs_and_points_until_it_is_finished(
    home: Path, root: Path, folder: Path
) -> None:
    with Session("run", "project", local_path=str(root), write_protected=True) as session:
        session.log("early")
        session.track("loss").append(value=1)
        with pytest.raises(RuntimeError, match=r"(?i)protected"):
            session.parameters().set(a=1)
    assert reading.messages(folder) == ["early"]
    assert reading.values(folder) == [1]
    assert not (folder / "parameters.json").exists()


@pytest.mark.parametrize("addition", ADDITIONS)
def test_a_finished_protected_session_takes_nothing_more(addition: str, home: Path, root: Path, folder: Path) -> None:
    with Session("run", "project", local_path=str(root), write_protected=True) as session:
        session.log("early")
        session.track("loss").append(value=1)
    with (
        Session("run", "project", local_path=str(root)) as session,
        pytest.raises(RuntimeError, match=r"(?i)protected"),
    ):
        ADDITIONS[addition](session)
    assert reading.messages(folder) == ["early"]
    assert reading.values(folder) == [1]
    assert reading.view(folder / "session.json")["state"] == "finished"


@pytest.mark.parametrize("addition", ADDITIONS)
def test_a_failed_protected_session_may_be_resumed(addition: str, home: Path, root: Path, folder: Path) -> None:
    def fail() -> None:
        with Session("run", "project", local_path=str(root), write_protected=True) as session:
            session.log("early")
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    assert reading.view(folder / "session.json")["state"] == "failed"
    with Session("run", "project", local_path=str(root)) as session:
        ADDITIONS[addition](session)
        with pytest.raises(RuntimeError, match=r"(?i)protected"):
            session.parameters().set(a=1)
    assert len(reading.messages(folder)) + len(reading.points(folder)) == 2


def test_a_protected_session_may_be_read(known: str, root: Path, tmp_path: Path) -> None:
    protect(root)
    with Session("run", "project", local_path=str(root)) as session:
        assert session.parameters().get() == {"a": 1}
        assert [point["data"] for point in session.track("loss").read()["data"]] == [{"value": 1}]
        assert session.track("loss").stats()["totalDataPoints"] == "1"
        assert len(session.track("loss").list_all()) == 1
        session.files().download(known, dest_path=str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"weights"
