"""Files: upload as a form, find, change, delete, and give the bytes back."""

from __future__ import annotations

import mimetypes
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from dreamlake.wire import jsons
from dreamlake.wire.names import file_folder, file_place
from dreamlake.wire.state import FILES_LOG
from dreamlake_server import here
from dreamlake_server.api import ranges
from dreamlake_server.api.multipart import Form
from dreamlake_server.api.sessions import gone, refuse_protected, the_session
from dreamlake_server.blobs import TooLarge
from dreamlake_server.limits import FILE_BYTES
from dreamlake_server.problem import bad, not_found, too_large
from dreamlake_server.push import SessionGone
from dreamlake_server.route import Call, Response
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.meta import Session


class FileAnswer(msgspec.Struct, rename="camel"):
    """A file's record. ``checksum`` is the SHA-256; null while it is not known yet."""

    id: str
    session_id: str
    path: str
    filename: str
    description: str | None
    tags: list[str]
    content_type: str | None
    size_bytes: int | None
    checksum: str | None
    metadata: dict[str, Any] | None
    uploaded_at: str | None
    updated_at: str | None
    deleted_at: str | None


class FileQuery(msgspec.Struct):
    """``prefix`` is a folder; ``tags``, separated by commas, must all be there."""

    prefix: str | None = None
    tags: str | None = None


class FileList(msgspec.Struct):
    files: list[FileAnswer]


class FileChange(msgspec.Struct):
    """What is given is replaced."""

    description: str | UnsetType | None = UNSET
    tags: list[str] | UnsetType | None = UNSET
    metadata: dict[str, Any] | UnsetType | None = UNSET


class DeletedFile(msgspec.Struct, rename="camel"):
    id: str
    deleted_at: str


def _answer(record: dict[str, Any], session: Session) -> FileAnswer:
    """A row is a file that anybody may have written: what is of another kind is not answered."""

    def text(key: str) -> str | None:
        found = record.get(key)
        return found if isinstance(found, str) else None

    tags, metadata, size = record.get("tags"), record.get("metadata"), record.get("sizeBytes")
    return FileAnswer(
        id=str(record["id"]),
        session_id=session.id,
        path=str(record["path"]),
        filename=str(record["filename"]),
        description=text("description"),
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else [],
        content_type=text("contentType"),
        size_bytes=size if isinstance(size, int) else None,
        checksum=text("checksum"),
        metadata=metadata if isinstance(metadata, dict) else None,
        uploaded_at=text("uploadedAt"),
        updated_at=text("updatedAt"),
        deleted_at=text("deletedAt"),
    )


async def upload(call: Call) -> FileAnswer:
    session = await the_session(call)
    refuse_protected(session)
    form = Form(call.stream(), call.headers.get("content-type", ""))
    try:
        sha256, size = await call.server.owned.store(call.user, form.file(), Path(call.server.spool))
    except TooLarge:
        raise too_large("FILE_BYTES", FILE_BYTES, "the file") from None
    assert form.part is not None
    given = form.fields
    filename = (form.part.filename or "").replace("\\", "/").rpartition("/")[2]
    try:
        folder = file_folder(given.get("prefix") or "/")
        file_place(folder, filename)
    except ValueError as error:
        raise bad(str(error), "bad-name") from None
    if given.get("checksum") and given["checksum"].lower() != sha256:
        raise bad(f"the file came with SHA-256 {sha256}, and its checksum says another: send it again", "wrong-bytes")
    if given.get("sizeBytes") and given["sizeBytes"].strip() != str(size):
        raise bad(f"{size} bytes came, and sizeBytes says {given['sizeBytes'][:20]}: send it again", "wrong-bytes")
    now = call.server.now()
    record = {
        "id": secrets.token_hex(12),
        "sessionId": session.id,
        "path": f"/{folder}",
        "filename": filename,
        "description": given.get("description") or None,
        "tags": _tags(given.get("tags")),
        "contentType": form.part.content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream",
        "sizeBytes": size,
        "checksum": sha256,
        "metadata": _metadata(given.get("metadata")),
        "uploadedAt": now,
        "updatedAt": now,
        "deletedAt": None,
    }
    await _write(call, session, {"op": "upload", "time": now, "record": record})
    if await call.server.owned.find(call.user, sha256) is None:
        # The last session that had the same bytes was purged, after they were stored and before this one spoke of them.
        raise StoreUnavailable(f"the bytes of {filename} went with a session that was purged just now")
    return _answer(record, session)


def _tags(text: str | None) -> list[str]:
    return [tag for each in (text or "").split(",") if (tag := each.strip())]


def _metadata(text: str | None) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        found = jsons.loads(text)
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        raise bad(f"metadata is no JSON object: {error}") from None
    return here.plain(found)[0]


async def _write(call: Call, session: Session, row: dict[str, Any]) -> None:
    try:
        await here.write(call.server.meta, session, [FILES_LOG], lambda _heads: {FILES_LOG: [row]})
    except SessionGone as error:
        raise gone(error) from None


async def _the_file(call: Call) -> tuple[Session, dict[str, Any]]:
    session = await the_session(call)
    record = (await call.server.projections.of(session.id)).file(call.path["fid"])
    if record is None or record.get("deletedAt") is not None:
        raise not_found(f"no file {call.path['fid'][:40]!r}: it was deleted, replaced, or never was")
    return session, record


async def list_files(call: Call) -> FileList:
    session = await the_session(call)
    query: FileQuery = call.query
    folder, tags = (query.prefix or "").strip("/"), set(_tags(query.tags))
    found = (await call.server.projections.of(session.id)).file_records()
    answers = [_answer(record, session) for record in found]
    return FileList([each for each in answers if _is_under(each.path, folder) and tags <= set(each.tags)])


def _is_under(path: str, folder: str) -> bool:
    inner = path.strip("/")
    return not folder or inner == folder or inner.startswith(f"{folder}/")


async def show(call: Call) -> FileAnswer:
    session, record = await _the_file(call)
    return _answer(record, session)


async def change(call: Call) -> FileAnswer:
    session, _record = await _the_file(call)
    refuse_protected(session)
    given: FileChange = call.body
    said = {key: getattr(given, key) for key in ("description", "tags", "metadata")}
    said, _ = here.plain({key: value for key, value in said.items() if value is not UNSET})
    if said:
        await _write(call, session, {"op": "change", "time": call.server.now(), "id": call.path["fid"], "set": said})
    return await show(call)


async def delete(call: Call) -> DeletedFile:
    session, record = await _the_file(call)
    refuse_protected(session)
    now = call.server.now()
    await _write(call, session, {"op": "delete", "time": now, "id": record["id"]})
    return DeletedFile(record["id"], now)


async def download(call: Call) -> Response:
    session, record = await _the_file(call)
    answer = _answer(record, session)
    blob = None
    if answer.checksum is not None:
        try:
            blob = await call.server.owned.find(call.user, answer.checksum)
        except ValueError:
            blob = None
    if blob is None:
        raise not_found(
            f"the bytes of {answer.filename!r} have not arrived yet: try again later", code="bytes-not-here"
        )
    return await ranges.answer(
        call,
        blob,
        {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(answer.filename, safe='')}",
        },
    )
