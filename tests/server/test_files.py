"""Files over HTTP: a form in, a record and the bytes out."""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import Any

import pytest

from dreamlake.wire.state import FILES_LOG
from tests.reading import TIMESTAMP
from tests.server.serving import Directory, Serving, msgpack, over_each_store, over_memory, said

__all__ = ["over_each_store", "over_memory"]

BYTES = bytes(range(256)) * 20
SHA256 = hashlib.sha256(BYTES).hexdigest()
BOUNDARY = "5f3b0c"


def form(*parts: tuple[str, bytes] | tuple[str, bytes, str]) -> dict[str, Any]:
    """A request of parts (name, value) in this order; with a third word, which is a filename, one is a file."""
    found = b""
    for name, value, *filename in parts:
        of = f'; filename="{filename[0]}"\r\nContent-Type: application/x-thing' if filename else ""
        found += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{of}\r\n\r\n'.encode() + value + b"\r\n"
    found += f"--{BOUNDARY}--\r\n".encode()
    return {"content": found, "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}}


def upload(serving: Serving, session: str, name: str = "model.pth", data: bytes = BYTES, **fields: str) -> Any:
    url = f"/sessions/{session}/files"
    return said(serving.alice.post(url, data=fields, files={"file": (name, data)}))


def names(serving: Serving, session: str, **query: str) -> list[str]:
    found = said(serving.alice.get(f"/sessions/{session}/files", params=query))["files"]
    return [each["filename"] for each in found]


def test_a_file_as_the_old_client_sends_it(serving: Serving) -> None:
    session = serving.alice.session()
    record = upload(
        serving,
        session,
        prefix="/models",
        checksum=SHA256,
        sizeBytes=str(len(BYTES)),
        description="weights",
        tags="best, final,",
        metadata=json.dumps({"epoch": 3, "loss": float("nan")}),
    )
    assert (record["path"], record["filename"], record["description"]) == ("/models", "model.pth", "weights")
    assert (record["tags"], record["metadata"]) == (["best", "final"], {"epoch": 3, "loss": "NaN"})
    assert (record["checksum"], record["sizeBytes"], record["sessionId"]) == (SHA256, len(BYTES), session)
    assert record["deletedAt"] is None
    assert TIMESTAMP.fullmatch(record["uploadedAt"])
    url = f"/sessions/{session}/files/{record['id']}"
    assert said(serving.alice.get(url)) == record
    assert said(serving.alice.get(f"/sessions/{session}/files"))["files"] == [record]
    download = serving.alice.get(f"{url}/download")
    assert (download.status_code, download.content) == (200, BYTES)
    assert "attachment" in download.headers["content-disposition"]
    assert download.headers["content-type"] == "application/octet-stream", "nothing that a browser would run"


def test_a_file_is_all_that_a_form_needs(serving: Serving) -> None:
    session = serving.alice.session()
    record = upload(serving, session, "notes.txt", b"")
    assert (record["path"], record["sizeBytes"], record["tags"], record["metadata"]) == ("/", 0, [], None)
    assert serving.alice.get(f"/sessions/{session}/files/{record['id']}/download").content == b""


@pytest.mark.parametrize("order", list(itertools.permutations(["file", "prefix", "checksum", "tags"]))[::3], ids=str)
def test_the_fields_come_in_any_order(in_memory: Serving, order: tuple[str, ...]) -> None:
    session = in_memory.alice.session()
    parts: dict[str, Any] = {
        "file": ("file", BYTES, "model.pth"),
        "prefix": ("prefix", b"models/"),
        "checksum": ("checksum", SHA256.upper().encode()),
        "tags": ("tags", b"a,b"),
    }
    record = said(in_memory.alice.post(f"/sessions/{session}/files", **form(*(parts[each] for each in order))))
    assert (record["path"], record["filename"], record["tags"]) == ("/models", "model.pth", ["a", "b"])
    assert (record["contentType"], record["checksum"]) == ("application/x-thing", SHA256)


@pytest.mark.parametrize(
    "name", ["größe 漢字.bin", "a;b=c.txt", "two words.txt", "100%.txt", 'quote".txt', "back\\slash", ".hidden"]
)
def test_names_of_every_kind_go_there_and_back(in_memory: Serving, name: str) -> None:
    session = in_memory.alice.session()
    record = upload(in_memory, session, name)
    expected = name.replace("\\", "/").rpartition("/")[2].replace('"', "%22")  # a client's escape (HTML 5) stays
    assert record["filename"] == expected
    assert in_memory.alice.get(f"/sessions/{session}/files/{record['id']}/download").content == BYTES


def test_a_name_in_a_form_that_rfc_7578_forbids_is_refused(in_memory: Serving) -> None:
    """Not stored under another name, which nobody would look for."""
    session = in_memory.alice.session()
    found = form(("file", BYTES, "XX"))
    found["content"] = found["content"].replace(b'filename="XX"', b"filename*=utf-8''gr%C3%B6%C3%9Fe.bin")
    assert "filename" in said(in_memory.alice.post(f"/sessions/{session}/files", **found), 400)["message"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"checksum": "0" * 64}, "m"),
        ({"sizeBytes": "7"}, "m"),
        ({"sizeBytes": "many"}, "m"),
        ({"prefix": "../x"}, "m"),
        ({"prefix": "/a//b"}, "m"),
        ({"prefix": "/.files_metadata.json"}, "m"),
        ({"metadata": "[1]"}, "m"),
        ({"metadata": "{"}, "m"),
        ({"metadata": '{"a":"\\ud800"}'}, "m"),
        ({}, ".."),
        ({}, ".files_metadata.json"),
        ({"description": "x" * (1 << 20)}, "m"),
    ],
    ids=str,
)
def test_a_form_that_cannot_be_is_refused_and_nothing_is_kept(
    in_memory: Serving, fields: dict[str, str], name: str
) -> None:
    session = in_memory.alice.session()
    url = f"/sessions/{session}/files"
    refused = in_memory.alice.post(url, data=fields, files={"file": (name, BYTES)})
    assert refused.status_code == (413 if len(str(fields)) > 1 << 20 else 400), refused.text
    assert names(in_memory, session) == []


@pytest.mark.parametrize(
    "request_",
    [
        {"content": b"x"},
        {"json": {}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"content": b"", "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}},
        {"content": b"x" * 99, "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}},
        form(),
        form(("file", BYTES)),
        form(("file", BYTES, "")),
        form(("file", BYTES, "a"), ("more", BYTES, "b")),
        {**form(("file", BYTES, "a")), "content": form(("file", BYTES, "a"))["content"][:-40]},
        {**form(("file", BYTES, "a")), "content": form(("file", BYTES, "a"))["content"][:-4]},
        form(*[("x", b"y")] * 60, ("file", BYTES, "a")),
        {"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=" + "x" * 5000}},
        {"content": b"", "headers": {"Content-Type": 'multipart/form-data; boundary="'}},
    ],
    ids=str,
)
def test_what_is_no_form_with_one_file_is_refused(in_memory: Serving, request_: dict[str, Any]) -> None:
    session = in_memory.alice.session()
    assert in_memory.alice.post(f"/sessions/{session}/files", **request_).status_code in (400, 413)
    assert names(in_memory, session) == []


def test_they_are_found_by_folder_and_tags(serving: Serving) -> None:
    session = serving.alice.session()
    upload(serving, session, "a", prefix="/models", tags="x,y")
    upload(serving, session, "b", prefix="/models/best", tags="x")
    upload(serving, session, "c", prefix="/models-old")
    assert names(serving, session) == ["a", "b", "c"]
    assert names(serving, session, prefix="/") == ["a", "b", "c"]
    assert names(serving, session, prefix="/models") == names(serving, session, prefix="models/") == ["a", "b"]
    assert names(serving, session, tags="x") == ["a", "b"]
    assert names(serving, session, tags="y, x") == ["a"]
    assert names(serving, session, prefix="/models/best", tags="y") == []


def test_the_same_place_again_replaces_the_file_under_a_new_id(serving: Serving) -> None:
    session = serving.alice.session()
    old = upload(serving, session, "m", b"old")
    new = upload(serving, session, "m", b"new")
    assert old["id"] != new["id"]
    assert [each["id"] for each in said(serving.alice.get(f"/sessions/{session}/files"))["files"]] == [new["id"]]
    said(serving.alice.get(f"/sessions/{session}/files/{old['id']}"), 404)
    said(serving.alice.get(f"/sessions/{session}/files/{old['id']}/download"), 404)
    said(serving.alice.patch(f"/sessions/{session}/files/{old['id']}", json={"description": "x"}), 404)
    assert serving.alice.get(f"/sessions/{session}/files/{new['id']}/download").content == b"new"


def test_what_is_given_is_changed(serving: Serving) -> None:
    session = serving.alice.session()
    record = upload(serving, session, description="old", tags="a", metadata='{"x":1}')
    url = f"/sessions/{session}/files/{record['id']}"
    changed = said(serving.alice.patch(url, json={"description": "new", "tags": ["b", "c"]}))
    assert (changed["description"], changed["tags"], changed["metadata"]) == ("new", ["b", "c"], {"x": 1})
    assert changed["updatedAt"] >= record["updatedAt"]
    assert said(serving.alice.get(url)) == changed
    changed = said(serving.alice.patch(url, content=b'{"metadata":{"y":NaN}}'))
    assert (changed["description"], changed["metadata"]) == ("new", {"y": "NaN"})
    assert said(serving.alice.patch(url, json={})) == changed
    said(serving.alice.patch(url, **msgpack({"metadata": {"y": b"x"}})), 400)
    said(serving.alice.patch(url, json={"tags": "x"}), 400)
    said(serving.alice.patch(url, json={"description": "x" * (8 << 20)}), 400)
    assert said(serving.alice.get(url)) == changed


def test_a_deleted_file_is_not_there_any_more(serving: Serving) -> None:
    session = serving.alice.session()
    record = upload(serving, session)
    url = f"/sessions/{session}/files/{record['id']}"
    deleted = said(serving.alice.delete(url))
    assert deleted["id"] == record["id"]
    assert TIMESTAMP.fullmatch(deleted["deletedAt"])
    for response in (
        serving.alice.get(url),
        serving.alice.get(f"{url}/download"),
        serving.alice.patch(url, json={"description": "x"}),
        serving.alice.delete(url),
    ):
        said(response, 404)
    assert names(serving, session) == []


@pytest.mark.parametrize(
    ("asked", "status", "data", "told"),
    [
        ("bytes=0-9", 206, BYTES[:10], f"bytes 0-9/{len(BYTES)}"),
        ("bytes=-3", 206, BYTES[-3:], f"bytes {len(BYTES) - 3}-{len(BYTES) - 1}/{len(BYTES)}"),
        ("bytes=5000-", 206, BYTES[5000:], f"bytes 5000-{len(BYTES) - 1}/{len(BYTES)}"),
        ("bytes=5119-99999", 206, BYTES[5119:], f"bytes 5119-5119/{len(BYTES)}"),
        ("bytes=5120-", 416, None, f"bytes */{len(BYTES)}"),
        ("bytes=-0", 416, None, f"bytes */{len(BYTES)}"),
        ("bytes=9-0", 200, BYTES, None),
        ("bytes=0-1,3-4", 200, BYTES, None),
        ("lines=0-1", 200, BYTES, None),
        ("bytes=x-", 200, BYTES, None),
        ("bytes=" + "9" * 30 + "-", 200, BYTES, None),
    ],
)
def test_ranges(in_memory: Serving, asked: str, status: int, data: bytes | None, told: str | None) -> None:
    session = in_memory.alice.session()
    url = f"/sessions/{session}/files/{upload(in_memory, session)['id']}/download"
    found = in_memory.alice.get(url, headers={"Range": asked})
    assert (found.status_code, found.headers.get("content-range")) == (status, told)
    if data is not None:
        assert found.content == data


def test_a_protected_session_takes_no_file_and_no_change(serving: Serving) -> None:
    session = serving.alice.session()
    record = upload(serving, session)
    serving.alice.session(writeProtected=True)
    url = f"/sessions/{session}/files"
    said(serving.alice.post(url, files={"file": ("m", b"x")}), 409)
    said(serving.alice.patch(f"{url}/{record['id']}", json={"description": "x"}), 409)
    said(serving.alice.delete(f"{url}/{record['id']}"), 409)
    assert said(serving.alice.get(f"{url}/{record['id']}")) == record


def test_a_file_whose_bytes_have_not_come_yet(serving: Serving) -> None:
    row = {"op": "upload", "time": "2026-01-01T00:00:00.000000Z", "record": {"id": "f", "path": "/", "filename": "m"}}
    hashed = {"op": "hashed", "time": "2026-01-01T00:00:01.000000Z", "id": "f", "checksum": SHA256}
    directory = Directory(serving.alice, logs={FILES_LOG: [json.dumps(row).encode()]})
    session = directory.pushed()
    url = f"/sessions/{session}/files/f"
    assert said(serving.alice.get(url))["checksum"] is None
    assert said(serving.alice.get(f"{url}/download"), 404)["error"] == "not-found"
    directory.logs[FILES_LOG].append(json.dumps(hashed).encode())
    assert said(directory.push())["lacking"] == [SHA256]
    assert said(serving.alice.get(url))["checksum"] == SHA256
    said(serving.alice.get(f"{url}/download"), 404)
    upload(serving, serving.alice.session("other"))  # the same bytes, by another way
    assert serving.alice.get(f"{url}/download").content == BYTES
    assert said(directory.push())["lacking"] == []


def test_what_a_row_says_wrongly_of_a_file_is_not_answered(serving: Serving) -> None:
    record: dict[str, Any] = {key: [{"x": 1}] for key in ("description", "contentType", "sizeBytes", "metadata")}
    record |= {"id": "f", "path": "/", "filename": "m", "tags": {"a": 1}, "uploadedAt": 7, "checksum": "../../x"}
    row = {"op": "upload", "time": "2026-01-01T00:00:00.000000Z", "record": record}
    session = Directory(serving.alice, logs={FILES_LOG: [json.dumps(row).encode()]}).pushed()
    found = said(serving.alice.get(f"/sessions/{session}/files/f"))
    assert (found["filename"], found["description"], found["tags"], found["sizeBytes"]) == ("m", None, [], None)
    said(serving.alice.get(f"/sessions/{session}/files/f/download"), 404)


def test_bytes_that_are_purged_under_an_upload_are_not_acked(
    in_memory: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another session had the same bytes, and goes for good between their storing and this one's record."""
    session, shipped = in_memory.alice.session(), in_memory.server.meta.append

    async def append(*given: Any, **more: Any) -> bool:
        await in_memory.server.owned.forget("alice", hashlib.sha256(b"weights").hexdigest(), only_of="0" * 24)
        return await shipped(*given, **more)

    async def only(*_given: Any) -> list[str]:
        return [hashlib.sha256(b"weights").hexdigest()]

    monkeypatch.setattr(in_memory.server.meta, "append", append)
    monkeypatch.setattr(in_memory.server.meta, "blobs_only_of", only)
    said(in_memory.alice.post(f"/sessions/{session}/files", files={"file": ("m.pth", b"weights")}), 503)
    monkeypatch.undo()
    record = said(in_memory.alice.post(f"/sessions/{session}/files", files={"file": ("m.pth", b"weights")}))
    assert in_memory.alice.get(f"/sessions/{session}/files/{record['id']}/download").content == b"weights"
