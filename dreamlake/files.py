"""Files: captured at the call, disk to disk, and placed, hashed and kept by the agent."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dreamlake import config
from dreamlake.reader.session import SessionReader
from dreamlake.wire import jsons, names, ops
from dreamlake.wire.times import time_text
from dreamlake.world.disk import NEW, REAL_DISK, WRITE, clone

if TYPE_CHECKING:
    from dreamlake.session import Session
    from dreamlake.writer import Writer

Tags = list[str]  # inside the classes below, "list" is their method
_CAPTURE_TRIES = 3


class FileRecord(Mapping[str, Any]):
    """What ``upload`` returns: the file's record. ``checksum`` (sha256, hex) is computed when it is asked for, from
    the bytes as they were captured, if the agent has not done it yet."""

    def __init__(self, session: Session, fields: dict[str, Any]) -> None:
        self._session, self._fields = session, fields

    def __getitem__(self, key: str) -> Any:
        if key == "checksum" and self._fields["checksum"] is None and not self._session._disabled:
            self._fields["checksum"] = self._checksum()
        if key == "sessionId" and self._fields["sessionId"] is None:
            self._fields["sessionId"] = self._session.id
        return self._fields[key]

    def _checksum(self) -> str | None:
        with SessionReader(self._session.path) as reader:
            found = next((each for each in reader.files() if each["id"] == self._fields["id"]), None)
        if found is not None and found.get("checksum"):
            return str(found["checksum"])
        with self._session._reader(hashed=True) as reader:
            for record in reader.files():
                if record["id"] == self._fields["id"]:
                    checksum = record.get("checksum")
                    return str(checksum) if checksum else None
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<FileRecord {self._fields['path']} {self._fields['filename']}>"


class Files:
    """The files of an open session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def upload(
        self,
        file_path: str | os.PathLike[str],
        *,
        path: str = "/",
        description: str | None = None,
        tags: Tags | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> FileRecord | list[FileRecord]:
        """Keep a file, or a folder with everything in it, under ``path``; returns its record (for a folder, a list).

        When it returns, the content is captured: the script may change or delete its file at once. The bytes go from
        disk to disk (shared where the file system can), whatever their number. The same path and filename again
        replaces the file.

        Raises :class:`ValueError` for a missing or oversize file and for names that cannot be stored, :class:`OSError`
        when the capture fails, :class:`RuntimeError` when the session is write-protected or not open.
        """
        source = os.fspath(file_path)
        session = self._session
        given = _given(description, tags, metadata)
        if os.path.isdir(source):
            found = [(inner, f"{path.rstrip('/')}/{folder}" if folder else path) for inner, folder in _walk(source)]
            for inner, place in found:
                names.file_place(place, os.path.basename(inner))
            return [self._upload_one(inner, place, given) for inner, place in found]
        if not os.path.isfile(source):
            raise ValueError(f"cannot upload {source}: there is no such file")
        if session._disabled:
            session._check_open()
        return self._upload_one(source, path, given)

    def _upload_one(self, source: str, path: str, given: dict[str, Any]) -> FileRecord:
        import mimetypes  # with the first file: it brings urllib

        session = self._session
        filename = os.path.basename(source)
        place = names.file_place(path, filename)
        record: dict[str, Any] = {
            "id": os.urandom(16).hex(),
            "sessionId": None,
            "path": "/" + place.rpartition("/")[0],
            "filename": filename,
            "description": given.get("description"),
            "tags": given.get("tags") or [],
            "contentType": mimetypes.guess_type(filename)[0] or "application/octet-stream",
            "sizeBytes": 0,
            "checksum": None,
            "metadata": given.get("metadata"),
        }
        if session._disabled:
            return FileRecord(session, record)
        writer = session._ready_for_change()
        _check_place(writer, place)
        incoming = f"{writer.journal.client.hex()}-{record['id']}"
        record["sizeBytes"] = _capture(writer, source, incoming)
        time = writer.now()
        kept = writer.put(ops.FILE, jsons.encode(record), incoming, time=time)
        record.update(uploadedAt=time_text(time), updatedAt=time_text(time), deletedAt=None)
        if kept is None:
            with contextlib.suppress(OSError):
                REAL_DISK.unlink(f".dreamlake/incoming/{incoming}", writer.at)
            raise OSError(f"cannot keep {source}: the session's journal could not take it (is the disk full?)")
        writer.remember_capture(kept, f".dreamlake/incoming/{incoming}", f"files/{place}")
        return FileRecord(session, record)

    def list(self, path: str | None = None, tags: Tags | None = None) -> list[dict[str, Any]]:
        """The records of the session's files: all, those directly or deeper under ``path``, those with all of
        ``tags``."""
        folder = names.file_folder(path) if path else ""
        wanted = set(tags or ())
        if self._session._disabled:
            return []
        with self._session._reader(hashed=True) as reader:
            records = (self._session._joined(reader) or reader).files()
        return [
            record
            for record in records
            if _is_under(str(record.get("path", "")), folder) and wanted <= set(record.get("tags") or ())
        ]

    def download(self, file_id: str, dest_path: str | os.PathLike[str] | None = None) -> str:
        """Copy a file out, to ``dest_path`` (a file or a folder; the working directory when not given); returns where
        it is.

        The content is checked against its SHA-256. Raises :class:`FileNotFoundError` for an unknown id,
        :class:`ValueError` when the content is not what was uploaded.
        """
        if self._session._disabled:
            raise self._unknown(file_id)
        with self._session._reader(hashed=True) as reader:
            found = self._session._joined(reader) or reader
            record = next((each for each in found.files() if each.get("id") == file_id), None)
            if record is None:
                raise self._unknown(file_id)
            target = os.fspath(dest_path) if dest_path is not None else str(record["filename"])
            if os.path.isdir(target):
                target = os.path.join(target, str(record["filename"]))
            _copy_out(found.chunks(record), record, target)
        return target

    def update(
        self,
        file_id: str,
        *,
        description: str | None = None,
        tags: Tags | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Change what is said of a file; returns the new record. :class:`FileNotFoundError` for an unknown id."""
        given = _given(description, tags, metadata)
        if self._session._disabled:
            return {"id": file_id, **given}
        writer = self._session._ready_for_change()
        record = self._record(file_id)
        if given:
            writer.put(ops.FILE_CHANGE, file_id, jsons.encode(given))
            record = self._record(file_id)
        return record

    def delete(self, file_id: str) -> dict[str, Any]:
        """Mark a file as deleted; it is no longer listed, its bytes stay until its place is used again.

        Returns ``{"id", "deletedAt"}``. :class:`FileNotFoundError` for an unknown id.
        """
        if self._session._disabled:
            return {"id": file_id, "deletedAt": None}
        writer = self._session._ready_for_change()
        self._record(file_id)
        writer.put(ops.FILE_DELETE, file_id)
        with self._session._reader() as reader:
            found = reader.file_records().get(file_id, {})
        return {"id": file_id, "deletedAt": found.get("deletedAt")}

    def _record(self, file_id: str) -> dict[str, Any]:
        """Of a file of this directory: only those can be changed here."""
        with self._session._reader() as reader:
            for record in reader.files():
                if record.get("id") == file_id:
                    return record
        raise self._unknown(file_id)

    def _unknown(self, file_id: str) -> FileNotFoundError:
        return FileNotFoundError(f"no file with the id {file_id!r} in session {self._session.name}")


class FileBuilder:
    """The older spelling: what to do is said by the method, with what by ``session.file(…)``."""

    def __init__(
        self,
        session: Session,
        file_path: str | os.PathLike[str] | None,
        prefix: str,
        description: str | None,
        tags: Tags | None,
        metadata: dict[str, Any] | None,
        file_id: str | None,
        dest_path: str | os.PathLike[str] | None,
    ) -> None:
        self._files = Files(session)
        self._file_path, self._prefix, self._file_id, self._dest_path = file_path, prefix, file_id, dest_path
        self._description, self._tags, self._metadata = description, tags, metadata

    def save(self) -> FileRecord | list[FileRecord]:
        """Upload ``file_path`` under ``prefix``."""
        if self._file_path is None:
            raise ValueError("save() needs file_path")
        return self._files.upload(
            self._file_path,
            path=self._prefix,
            description=self._description,
            tags=self._tags,
            metadata=self._metadata,
        )

    def list(self) -> list[dict[str, Any]]:
        """The records under ``prefix`` with all of ``tags``."""
        return self._files.list(None if self._prefix == "/" else self._prefix, self._tags)

    def download(self) -> str:
        """Copy the file ``file_id`` out to ``dest_path``."""
        return self._files.download(self._need_id("download"), self._dest_path)

    def update(self) -> dict[str, Any]:
        """Change description, tags, metadata of the file ``file_id``."""
        return self._files.update(
            self._need_id("update"), description=self._description, tags=self._tags, metadata=self._metadata
        )

    def delete(self) -> dict[str, Any]:
        """Mark the file ``file_id`` as deleted."""
        return self._files.delete(self._need_id("delete"))

    def _need_id(self, what: str) -> str:
        if self._file_id is None:
            raise ValueError(f"{what}() needs file_id")
        return self._file_id


def _given(description: str | None, tags: list[str] | None, metadata: dict[str, Any] | None) -> dict[str, Any]:
    given = {"description": description, "tags": names.tag_list(tags), "metadata": metadata}
    nonfinite: list[str] = []
    return {key: jsons.plain_value(value, key, nonfinite) for key, value in given.items() if value is not None}


def _walk(source: str) -> list[tuple[str, str]]:
    """(file, its folder below the uploaded folder's parent) of every regular file, in order."""
    found: list[tuple[str, str]] = []
    top = os.path.basename(os.path.abspath(source))
    for folder, folders, files in os.walk(source):
        folders.sort()
        inner = os.path.relpath(folder, source)
        place = top if inner == "." else f"{top}/{inner}"
        found += [(os.path.join(folder, name), place) for name in sorted(files)]
    return [each for each in found if os.path.isfile(each[0])]


def _is_under(path: str, folder: str) -> bool:
    inner = path.strip("/")
    return not folder or inner == folder or inner.startswith(folder + "/")


def _check_place(writer: Writer, place: str) -> None:
    """Say at the call what the agent would refuse: a file where a folder is needed, or the other way round."""
    parts = place.split("/")
    for depth in range(1, len(parts) + 1):
        inner = "files/" + "/".join(parts[:depth])
        try:
            found = REAL_DISK.stat(inner, writer.at)
        except OSError:
            return
        if found.is_dir == (depth == len(parts)):
            kind = "a folder" if found.is_dir else "a file"
            raise ValueError(f"cannot upload to {place!r}: {inner} is {kind} already. Choose another path")


def _capture(writer: Writer, source: str, incoming: str) -> int:
    """Copy the source as it is now into ``incoming/``; returns its size in bytes."""
    path = f".dreamlake/incoming/{incoming}"
    try:
        origin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"cannot read {source}: {error.strerror}") from error
    try:
        for attempt in range(_CAPTURE_TRIES):
            before = os.fstat(origin)
            if not stat.S_ISREG(before.st_mode):
                raise ValueError(f"cannot upload {source}: it is not a regular file")
            if before.st_size > config.FILE_BYTES_MAX:
                raise ValueError(f"cannot upload {source}: {before.st_size} bytes is over {config.FILE_BYTES_MAX}")
            REAL_DISK.mkdirs(".dreamlake/incoming", writer.at)
            target = REAL_DISK.open(path, WRITE | NEW, writer.at)
            try:
                size = clone(origin, target)
            finally:
                REAL_DISK.close(target)
            after = os.fstat(origin)
            unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
            if unchanged and size == after.st_size:
                return size
            REAL_DISK.unlink(path, writer.at)
            if attempt == _CAPTURE_TRIES - 1:
                raise OSError(f"cannot capture {source}: it is being written; upload it when it is whole")
        raise AssertionError("unreachable")
    except OSError as error:
        with contextlib.suppress(OSError):
            REAL_DISK.unlink(path, writer.at)
        if error.errno is None:
            raise
        raise OSError(error.errno, f"cannot capture {source}: {error.strerror}") from error
    finally:
        os.close(origin)


def _copy_out(chunks: Iterator[bytes], record: dict[str, Any], target: str) -> None:
    temp = f"{target}.{os.urandom(4).hex()}.part"
    import hashlib  # not with every session: it brings OpenSSL

    digest = hashlib.sha256()
    first = next(chunks, b"")  # before anything is made: there may be none to have
    try:
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        with open(temp, "xb") as out:
            for chunk in itertools.chain((first,), chunks):
                digest.update(chunk)
                out.write(chunk)
        wanted = record.get("checksum")
        if wanted and digest.hexdigest() != wanted:
            raise ValueError(f"{record['filename']} is damaged: its SHA-256 is not the one it was uploaded with")
        os.replace(temp, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temp)
