from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from tests import reading, scripts

pytestmark = pytest.mark.home("shared")

CONTENT = bytes(range(256)) * 100


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class New:
    """`session.files()`."""

    @staticmethod
    def upload(session: Session, source: Path, path: str = "/", **described: Any) -> Any:
        return session.files().upload(str(source), path=path, **described)

    @staticmethod
    def list(session: Session, path: str | None = None, tags: list[str] | None = None) -> Any:
        given = {"path": path, "tags": tags}
        return session.files().list(**{key: value for key, value in given.items() if value is not None})

    @staticmethod
    def download(session: Session, file_id: str, dest: Path) -> Any:
        return session.files().download(file_id, dest_path=str(dest))

    @staticmethod
    def update(session: Session, file_id: str, **described: Any) -> Any:
        return session.files().update(file_id, **described)

    @staticmethod
    def delete(session: Session, file_id: str) -> Any:
        return session.files().delete(file_id)


class Old:
    """`session.file()`, the spelling of 0.2.x."""

    @staticmethod
    def upload(session: Session, source: Path, path: str = "/", **described: Any) -> Any:
        return session.file(file_path=str(source), prefix=path, **described).save()

    @staticmethod
    def list(session: Session, path: str | None = None, tags: list[str] | None = None) -> Any:
        given = {"prefix": path, "tags": tags}
        return session.file(**{key: value for key, value in given.items() if value is not None}).list()

    @staticmethod
    def download(session: Session, file_id: str, dest: Path) -> Any:
        return session.file(file_id=file_id, dest_path=str(dest)).download()

    @staticmethod
    def update(session: Session, file_id: str, **described: Any) -> Any:
        return session.file(file_id=file_id, **described).update()

    @staticmethod
    def delete(session: Session, file_id: str) -> Any:
        return session.file(file_id=file_id).delete()


both_spellings = pytest.mark.parametrize("spelling", [New, Old])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    path.write_bytes(CONTENT)
    return path


def names(listed: Any) -> list[str]:
    return sorted(record["filename"] for record in listed)


def stored_records(session: Session, folder: Path) -> list[dict[str, Any]]:
    session.files().list()  # waits for the checksums, too, which flush() does not promise
    path = folder / "files" / ".files_metadata.json"
    return list(reading.view(path)["files"]) if path.exists() else []


@both_spellings
def test_an_upload_leaves_the_bytes_and_a_record(spelling: Any, session: Session, folder: Path, model: Path) -> None:
    given = {"description": "best", "tags": ["best", "v1"], "metadata": {"epoch": 3}}
    record = spelling.upload(session, model, "/models", **given)
    expected = {
        **given,
        "path": "/models",
        "filename": "model.pth",
        "sizeBytes": len(CONTENT),
        "checksum": sha256(CONTENT),
    }
    assert {key: record[key] for key in expected} == expected
    (stored,) = stored_records(session, folder)
    assert (folder / "files" / "models" / "model.pth").read_bytes() == CONTENT
    assert {key: stored[key] for key in expected} == expected
    assert stored["id"] == record["id"]
    assert stored["deletedAt"] is None
    for key in ("uploadedAt", "updatedAt"):
        assert reading.TIMESTAMP.fullmatch(stored[key]), key
    assert {"sessionId", "contentType"} <= set(stored)


@both_spellings
def test_without_a_path_the_file_lies_at_the_top(spelling: Any, session: Session, folder: Path, model: Path) -> None:
    spelling.upload(session, model)
    session.flush()
    assert (folder / "files" / "model.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/models", "models", "/models/", "models/"])
def test_a_path_is_the_same_however_its_slashes_are_written(
    path: str, session: Session, folder: Path, model: Path
) -> None:
    session.files().upload(str(model), path=path)
    session.flush()
    assert (folder / "files" / "models" / "model.pth").read_bytes() == CONTENT
    assert names(session.files().list(path="/models")) == ["model.pth"]


@pytest.mark.parametrize("name", ["with space.bin", "ünïcödé.bin", "no_extension", ".hidden", "a" * 255])
@pytest.mark.parametrize("content", [b"", b"x"])
def test_any_name_and_any_size_will_do(
    name: str, content: bytes, session: Session, folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / name
    source.write_bytes(content)
    record = session.files().upload(source, path="/deep/er")
    session.flush()
    assert (folder / "files" / "deep" / "er" / name).read_bytes() == content
    assert (record["sizeBytes"], record["checksum"]) == (len(content), sha256(content))


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:  # in place: a hard link to the file would show it
        file.write(b"\0" * len(CONTENT))


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@both_spellings
@pytest.mark.parametrize("change", [overwrite, truncate, append, Path.unlink])
def test_the_source_may_be_changed_right_after_the_upload(
    change: Callable[[Path], None], spelling: Any, session: Session, folder: Path, model: Path
) -> None:
    record = spelling.upload(session, model, "/models")
    change(model)
    session.flush()
    assert (folder / "files" / "models" / "model.pth").read_bytes() == CONTENT
    assert record["checksum"] == sha256(CONTENT)


def test_changing_what_was_stored_does_not_change_the_source(session: Session, folder: Path, model: Path) -> None:
    session.files().upload(model)
    session.flush()
    overwrite(folder / "files" / "model.pth")
    assert model.read_bytes() == CONTENT


@both_spellings
def test_the_same_path_and_name_again_replaces(spelling: Any, session: Session, folder: Path, model: Path) -> None:
    ids = []
    for version in range(5):
        model.write_bytes(b"version %d" % version)
        ids.append(spelling.upload(session, model, "/models")["id"])
    assert len(set(ids)) == 5
    assert [record["id"] for record in spelling.list(session)] == [ids[-1]]
    session.flush()
    assert (folder / "files" / "models" / "model.pth").read_bytes() == b"version 4"


def test_one_name_under_two_paths_is_two_files(session: Session, folder: Path, model: Path) -> None:
    session.files().upload(model, path="/a")
    model.write_bytes(b"other")
    session.files().upload(model, path="/b")
    session.flush()
    assert (folder / "files" / "a" / "model.pth").read_bytes() == CONTENT
    assert (folder / "files" / "b" / "model.pth").read_bytes() == b"other"
    assert len(session.files().list()) == 2


@both_spellings
def test_a_delete_is_soft(spelling: Any, session: Session, folder: Path, model: Path) -> None:
    kept = spelling.upload(session, model, "/kept")
    gone = spelling.upload(session, model, "/gone")
    answer = spelling.delete(session, gone["id"])
    assert answer["id"] == gone["id"]
    assert reading.TIMESTAMP.fullmatch(answer["deletedAt"])
    assert [record["id"] for record in spelling.list(session)] == [kept["id"]]
    deleted = {record["id"]: record["deletedAt"] for record in stored_records(session, folder)}
    assert deleted[kept["id"]] is None
    assert reading.TIMESTAMP.fullmatch(deleted[gone["id"]])


def test_a_deleted_file_may_be_uploaded_again(session: Session, folder: Path, model: Path) -> None:
    first = session.files().upload(model, path="/models")
    session.files().delete(first["id"])
    second = session.files().upload(model, path="/models")
    assert [record["id"] for record in session.files().list()] == [second["id"]]
    session.flush()
    assert (folder / "files" / "models" / "model.pth").read_bytes() == CONTENT


@both_spellings
@pytest.mark.parametrize(
    "change",
    [{"description": "new"}, {"tags": ["c"]}, {"metadata": {"epoch": 2}}, {"description": "n", "tags": []}],
)
def test_an_update_changes_what_it_names_and_nothing_else(
    change: dict[str, Any], spelling: Any, session: Session, folder: Path, model: Path
) -> None:
    given: dict[str, Any] = {"description": "old", "tags": ["a", "b"], "metadata": {"epoch": 1}}
    uploaded = dict(spelling.upload(session, model, "/models", **given))
    answer = spelling.update(session, uploaded["id"], **change)
    (stored,) = stored_records(session, folder)
    for record in (answer, stored, spelling.list(session)[0]):
        assert {key: record[key] for key in given} == {**given, **change}
        assert (record["id"], record["checksum"]) == (uploaded["id"], sha256(CONTENT))
    assert stored["updatedAt"] > uploaded["uploadedAt"] == stored["uploadedAt"]


@both_spellings
def test_lists_may_be_narrowed_by_path_and_tag(spelling: Any, session: Session, tmp_path: Path) -> None:
    uploads = [
        ("a.txt", "/x", ["red"]),
        ("b.txt", "/x", ["blue", "red"]),
        ("c.txt", "/y", ["blue"]),
        ("d.txt", "/", []),
    ]
    for name, path, tags in uploads:
        source = tmp_path / name
        source.write_text(name)
        spelling.upload(session, source, path, tags=tags)
    assert names(spelling.list(session)) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert names(spelling.list(session, path="/x")) == ["a.txt", "b.txt"]
    assert names(spelling.list(session, path="/y")) == ["c.txt"]
    assert names(spelling.list(session, tags=["red"])) == ["a.txt", "b.txt"]
    assert names(spelling.list(session, path="/x", tags=["blue"])) == ["b.txt"]
    assert names(spelling.list(session, path="/nowhere")) == []
    assert names(spelling.list(session, tags=["green"])) == []


@both_spellings
def test_a_path_is_no_prefix_of_a_longer_name(spelling: Any, session: Session, model: Path) -> None:
    spelling.upload(session, model, "/models2")
    assert names(spelling.list(session, path="/models")) == []


@both_spellings
def test_a_download_gives_the_bytes_back(spelling: Any, session: Session, model: Path, tmp_path: Path) -> None:
    record = spelling.upload(session, model, "/models")
    destination = tmp_path / "back.bin"
    answer = spelling.download(session, record["id"], destination)
    assert destination.read_bytes() == CONTENT
    assert Path(answer) == destination


@both_spellings
def test_a_download_refuses_bytes_that_are_not_those_uploaded(
    spelling: Any, session: Session, folder: Path, model: Path, tmp_path: Path
) -> None:
    record = spelling.upload(session, model, "/models")
    assert record["checksum"] == sha256(CONTENT)
    session.flush()
    overwrite(folder / "files" / "models" / "model.pth")
    destination = tmp_path / "back.bin"
    with pytest.raises((ValueError, OSError, RuntimeError), match=r"(?i)checksum|sha-?256"):
        spelling.download(session, record["id"], destination)
    assert not destination.exists()


UNKNOWN: dict[str, Callable[[Any, Session, Path], Any]] = {
    "download": lambda spelling, session, path: spelling.download(session, "no-such-id", path / "x"),
    "update": lambda spelling, session, path: spelling.update(session, "no-such-id", description="x"),
    "delete": lambda spelling, session, path: spelling.delete(session, "no-such-id"),
}


@both_spellings
@pytest.mark.parametrize("operation", UNKNOWN)
def test_an_unknown_id_is_an_error(
    operation: str, spelling: Any, session: Session, folder: Path, model: Path, tmp_path: Path
) -> None:
    assert spelling.upload(session, model)["checksum"] == sha256(CONTENT)  # it comes later than the record
    before = stored_records(session, folder)
    with pytest.raises(FileNotFoundError, match="no-such-id"):
        UNKNOWN[operation](spelling, session, tmp_path)
    assert stored_records(session, folder) == before
    assert not (tmp_path / "x").exists()


@both_spellings
def test_a_missing_file_is_an_error_and_stores_nothing(
    spelling: Any, session: Session, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"missing\.pth"):
        spelling.upload(session, tmp_path / "missing.pth", "/models")
    assert stored_records(session, folder) == []
    assert len(spelling.list(session)) == 0


def test_what_is_no_file_is_an_error_and_never_waits(session: Session, folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises((ValueError, OSError), match="pipe"):
        session.files().upload(tmp_path / "pipe")
    assert stored_records(session, folder) == []


TREE = {"a.txt": b"a", "sub/b.bin": b"\0" * 5000, "sub/deep/er/c": b"", "other/a.txt": b"another a"}


def test_a_directory_uploads_with_its_structure(session: Session, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "configs"
    for name, content in TREE.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    session.files().upload(source, path="/inputs", tags=["config"])
    for name in TREE:
        (source / name).unlink()
    session.flush()
    top = folder / "files" / "inputs"
    base = top / "configs" if (top / "configs").is_dir() else top
    assert {name: content for name, content in reading.snapshot(base).items() if content is not None} == TREE
    records = stored_records(session, folder)
    assert sorted((record["filename"], record["checksum"]) for record in records) == sorted(
        (Path(name).name, sha256(content)) for name, content in TREE.items()
    )
    assert all(record["tags"] == ["config"] for record in records)


def test_a_link_that_leads_out_of_a_directory_or_round_in_it_does_no_harm(
    session: Session, folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "configs"
    source.mkdir()
    (source / "a.txt").write_bytes(b"a")
    (source / "round").symlink_to(source, target_is_directory=True)
    session.files().upload(source, path="/inputs")
    session.flush()
    assert [record["filename"] for record in stored_records(session, folder)] == ["a.txt"]


def test_lists_and_downloads_see_every_earlier_upload_at_once(session: Session, tmp_path: Path) -> None:
    for number in range(20):
        source = tmp_path / f"{number}.txt"
        source.write_text(str(number))
        record = session.files().upload(source)
        assert len(session.files().list()) == number + 1
        session.files().download(record["id"], dest_path=str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == str(number)


def test_files_are_kept_on_reopen(home: Path, root: Path, folder: Path, model: Path, tmp_path: Path) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        record = session.files().upload(model, path="/models")
    with Session("run", "project", local_path=str(root)) as session:
        assert [kept["id"] for kept in session.files().list()] == [record["id"]]
        session.files().download(record["id"], dest_path=str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_nothing_is_left_between_capture_and_place(session: Session, folder: Path, model: Path) -> None:
    for number in range(10):
        session.files().upload(model, path=f"/{number}")
    session.flush()
    incoming = folder / ".dreamlake" / "incoming"
    assert not incoming.exists() or [path for path in incoming.rglob("*") if path.is_file()] == []


def test_a_large_file_never_lies_in_memory_whole(home: Path, root: Path, folder: Path, tmp_path: Path) -> None:
    size = 256 << 20
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(size)
    done = scripts.run(
        """
        import resource, sys
        from dreamlake import Session
        with Session("run", "project", local_path=sys.argv[1]) as session:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            session.files().upload(sys.argv[2])
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """,
        root,
        tmp_path / "large.bin",
    )
    assert int(done.stdout) < 64 << 10  # KiB
    assert (folder / "files" / "large.bin").stat().st_size == size
