"""Bad input gets a clear error, and changes nothing on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session, config
from tests import reading
from tests.conftest import Cli

pytestmark = pytest.mark.home("shared")

BAD_NAMES = {
    "empty": "",
    "256 bytes": "n" * 256,
    "256 bytes in 128 characters": "é" * 128,
    "a NUL": "a\0b",
    "the folder above": "..",
    "a way up": "../x",
    "a way up and down": "a/../../x",
    "absolute": "/etc/x",
    "this folder": ".",
    "half a surrogate": "a\ud800",
}
NOT_TEXT: dict[str, Any] = {"nothing": None, "a number": 3, "bytes": b"name"}


@pytest.mark.parametrize("field", ["name", "workspace"])
@pytest.mark.parametrize("kind", BAD_NAMES)
def test_a_session_cannot_have_the_name(kind: str, field: str, home: Path, root: Path) -> None:
    given = {"name": "run", "workspace": "project", field: BAD_NAMES[kind]}
    with pytest.raises(ValueError, match=r"(?i)name|workspace"):
        Session(**given, local_path=str(root)).open()
    assert reading.snapshot(root) == {}
    assert reading.snapshot(root.parent) in ({}, {"experiments": None})


@pytest.mark.parametrize("field", ["name", "workspace"])
@pytest.mark.parametrize("kind", NOT_TEXT)
def test_a_session_name_is_text(kind: str, field: str, home: Path, root: Path) -> None:
    given: dict[str, Any] = {"name": "run", "workspace": "project", field: NOT_TEXT[kind]}
    with pytest.raises((TypeError, ValueError), match=r"(?i)name|workspace"):
        Session(**given, local_path=str(root)).open()
    assert reading.snapshot(root) == {}


def test_our_own_folder_is_no_session_name(home: Path, root: Path) -> None:
    with pytest.raises(ValueError, match=r"\.dreamlake"):
        Session(".dreamlake", "project", local_path=str(root)).open()
    assert reading.snapshot(root) == {}


OWN_TRACK_FILES = {
    "our own log": "data.jsonl",
    "our own view": "metadata.json",
    "our own, below": "a/data.jsonl",
}


@pytest.mark.parametrize("kind", [*BAD_NAMES, *OWN_TRACK_FILES])
def test_a_track_cannot_have_the_name(kind: str, session: Session, folder: Path) -> None:
    name = {**BAD_NAMES, **OWN_TRACK_FILES}[kind]
    with pytest.raises(ValueError, match=r"(?i)track|name"):
        session.track(name).append(value=1)
    with pytest.raises(ValueError, match=r"(?i)track|name"):
        session.track(name).append_batch([{"value": 1}])
    session.flush()
    assert reading.snapshot(folder / "tracks") == {}
    assert len(session.track("good").list_all()) == 0


@pytest.mark.parametrize("kind", NOT_TEXT)
def test_a_track_name_is_text(kind: str, session: Session, folder: Path) -> None:
    with pytest.raises((TypeError, ValueError), match=r"(?i)track|name"):
        session.track(NOT_TEXT[kind]).append(value=1)
    session.flush()
    assert reading.snapshot(folder / "tracks") == {}


BAD_PATHS = {kind: name for kind, name in BAD_NAMES.items() if kind not in ("empty", "absolute", "this folder")} | {
    "a way up from the top": "/../x",
    "a way up at the end": "/models/..",
}


UPLOADS: dict[str, Callable[[Session, str], object]] = {
    "files": lambda session, path: session.files().upload(__file__, path=path),
    "file": lambda session, path: session.file(file_path=__file__, prefix=path).save(),
}


@pytest.mark.parametrize("kind", BAD_PATHS)
@pytest.mark.parametrize("spelling", UPLOADS)
def test_a_file_cannot_lie_at_the_path(kind: str, spelling: str, session: Session, folder: Path) -> None:
    before = reading.snapshot(folder / "files")
    with pytest.raises(ValueError, match=r"(?i)path|prefix|name"):
        UPLOADS[spelling](session, BAD_PATHS[kind])
    session.flush()
    assert reading.snapshot(folder / "files") == before
    assert len(session.files().list()) == 0


def test_our_own_list_of_files_cannot_be_uploaded_over(session: Session, folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".files_metadata.json").write_text("mine")
    with pytest.raises(ValueError, match=r"\.files_metadata\.json"):
        session.files().upload(tmp_path / ".files_metadata.json")
    session.flush()
    assert not reading.kept_somewhere(folder / "files", b"mine")


def test_a_link_in_the_directory_does_not_lead_out_of_it(session: Session, folder: Path, tmp_path: Path) -> None:
    """Somebody put links where our folders would be; nothing may be written at their other end."""
    outside = tmp_path / "outside"
    outside.mkdir()
    session.flush()
    (folder / "files" / "models").symlink_to(outside, target_is_directory=True)
    (folder / "tracks" / "loss").symlink_to(outside, target_is_directory=True)
    try:
        session.files().upload(__file__, path="/models")
        session.track("loss").append(value=1)
        session.flush()
    except (OSError, ValueError, RuntimeError):
        pass  # refusing at the call, or at the flush, is as good as refusing in the agent
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("level", ["loud", "", "warning!", "informational"])
def test_an_unknown_level_is_refused_with_the_known_ones_named(level: str, session: Session, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)debug.*info.*warn.*error.*fatal"):
        session.log("x", level=level)
    session.flush()
    assert reading.lines(folder / "logs" / "logs.jsonl") == []


WRONG_CALLS: dict[str, Callable[[Session], object]] = {
    "level is a number": lambda session: session.log("x", level=3),  # type: ignore[arg-type]
    "message is no text": lambda session: session.log(b"bytes"),  # type: ignore[arg-type]
    "metadata is a list": lambda session: session.log("x", metadata=[1]),  # type: ignore[arg-type]
    "parameters are a list": lambda session: session.parameters().set([1]),  # type: ignore[arg-type]
    "a batch of numbers": lambda session: session.track("loss").append_batch([1]),  # type: ignore[list-item]
    "a batch that is a number": lambda session: session.track("loss").append_batch(1),  # type: ignore[arg-type]
    "tags are a number": lambda session: session.track("loss", tags=3).append(value=1),  # type: ignore[arg-type]
    "no file": lambda session: session.files().upload(None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_a_wrong_call_raises_at_the_call_and_stores_nothing(call: str, session: Session, folder: Path) -> None:
    with pytest.raises((TypeError, ValueError)):
        WRONG_CALLS[call](session)
    session.flush()
    assert reading.lines(folder / "logs" / "logs.jsonl") == []
    assert reading.points(folder) == []
    assert not (folder / "parameters.json").exists()
    assert len(session.files().list()) == 0


@pytest.mark.parametrize("where", ["a file", "below a file", "/proc", "a dangling link"])
def test_a_root_that_cannot_be_written_is_an_error_that_names_it(where: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("/proc/nowhere/at/all")
    path = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "experiments",
        "/proc": Path("/proc/experiments"),
        "a dangling link": tmp_path / "link",
    }[where]
    session = Session("run", "project", local_path=str(path))
    with pytest.raises((OSError, ValueError, RuntimeError), match=str(path)):
        session.open()
    assert not session._is_open
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]


DAMAGE = {
    "empty": b"",
    "cut": b'{"name": "ru',
    "zeros": b"\0" * 200,
    "a list": b"[1, 2]",
    "text": b"oops, vim\n",
}


@pytest.mark.home("own")  # its log is read
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_session_json_is_rebuilt_from_its_history_and_kept_aside(
    kind: str, home: Path, root: Path, folder: Path, dreamlake: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    with Session("run", "project", local_path=str(root), description="kept", tags=["a"]) as session:
        session.track("loss").append(value=1)
    before = reading.view(folder / "session.json")
    (folder / "session.json").write_bytes(DAMAGE[kind])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Session("run", "project", local_path=str(root)) as session:
            session.track("loss").append(value=2)
    after = reading.view(folder / "session.json")
    same = ("name", "workspace", "description", "tags", "created_at")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert reading.values(folder) == [1, 2]
    aside = [
        path
        for path, content in reading.snapshot(folder).items()
        if content == DAMAGE[kind] and "session.json" in path and path != "session.json"
    ]
    assert len(aside) == 1
    said = [str(warning.message) for warning in caught]
    assert "session.json" in " ".join([*said, *capfd.readouterr(), dreamlake("agent", "logs").stdout])


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_session_json_without_history_is_an_error_and_stays(
    kind: str, home: Path, root: Path, folder: Path
) -> None:
    (folder / "tracks" / "loss").mkdir(parents=True)
    (folder / "session.json").write_bytes(DAMAGE[kind])
    (folder / "tracks" / "loss" / "data.jsonl").write_text('{"index":0,"data":{"value":1},"createdAt":"x"}\n')
    before = reading.snapshot(folder)
    session = Session("run", "project", local_path=str(root), description="new")
    with pytest.raises((ValueError, OSError, RuntimeError), match=r"session\.json"):
        session.open()
    assert not session._is_open
    after = reading.snapshot(folder)
    assert {path: after[path] for path in before} == before


def test_an_oversize_file_is_refused_before_a_byte_is_copied(
    session: Session, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(b"x" * 101)
    monkeypatch.setattr(config, "FILE_BYTES_MAX", 100)
    with pytest.raises(ValueError, match=r"big\.bin: 101 bytes is over 100"):
        session.files().upload(big)
    assert list((folder / ".dreamlake" / "incoming").iterdir()) == []
    assert session.files().list() == []
