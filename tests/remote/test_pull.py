"""Pull: a session of a server as a directory, whole and verified or not at all; what is new of it goes back, once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from msgspec.msgpack import decode as unpackb

from dreamlake import Session
from dreamlake.cli.sessions import summary
from dreamlake.reader.base import read_base
from dreamlake.reader.session import SessionReader
from dreamlake.reader.verify import sessions_below, verify
from dreamlake.remote.lake import Lake, NotLetIn, Unreachable
from dreamlake.wire.marks import Mark
from dreamlake.wire.names import PULLING, folder_of
from dreamlake.wire.state import FILES_LOG, LOGS_LOG, PARAMETERS_LOG, SESSION_LOG, TRACKS_LOG
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.cli.pull import delete, pull
from dreamlake_agent.remote import pull as module
from dreamlake_agent.remote import staging
from dreamlake_agent.remote.pull import Pull, Pulled
from dreamlake_agent.remote.staging import CannotPull
from dreamlake_server.records import joined
from tests.conftest import Cli
from tests.remote.lakes import Wire, lake_of, lossy
from tests.remote.test_upload import sent, settled
from tests.server.serving import HERE, LOSS, Directory, Serving, mark, opened, points, said
from tests.server_live.lake import Lake as LiveLake
from tests.server_live.lake import lake as live_lake
from tests.server_live.lake import new_token

pytestmark = pytest.mark.no_agent

WEIGHTS = bytes(range(256)) * 300
NOW = "2026-02-03T00:00:00.000000Z"
Fault = Callable[[httpx.Request, httpx.Response | None], object]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there" / "project" / "run"


def pulled(serving: Serving, folder: Path, fault: Fault | None = None, name: str = "run", **more: Any) -> Pulled:
    with lake_of(serving, fault)[0] as lake:
        return Pull(lake, "project", name, str(folder), lambda: NOW, **more).run()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if not path.is_dir()}


def assert_sound(folder: Path) -> None:
    report = verify(str(folder))
    assert (report.problems, report.findings) == ([], [])
    assert os.listdir(folder.parent) == [folder.name], "nothing is left beside it"
    base = read_base(REAL_DISK, at := REAL_DISK.root(str(folder)))
    REAL_DISK.close(at)
    for log, (count, end) in base.logs.items():
        data = (folder / log).read_bytes()
        assert (data.count(b"\n"), Mark().after(data)) == (count, end), log


def train(root: Path, name: str = "run", say: str = "a", count: int = 300) -> Path:
    """A run, all of it durable, with one of everything."""
    file = root.parent / "weights"
    file.write_bytes(WEIGHTS)
    with Session(
        name, "project", local_path=str(root), tags=["t"], description="a run", metadata={"seed": 7}
    ) as session:
        session.log(f"{say} started", metadata={"eta": float("inf")})
        session.parameters().set(lr=0.1, clip=float("nan"), said="NaN", layers=[64, 64])
        session.track("train/loss", description="cross entropy", tags=["train"]).append_batch(
            [{"value": f"{say}{n}"} for n in range(count)]
        )
        session.track("acc").append(value=float("-inf"))
        session.files().upload(str(file), path="/models", description="epoch 1", tags=["best"])
        session.files().upload(str(file), path="/again")
        session.files().upload(str(file), path="/gone")
        (gone,) = session.files().list("/gone")
        session.files().delete(gone["id"])
    return settled(root / "project" / folder_of("name", name))


def told(folder: Path) -> str:
    """All that a reader says of a session, but whose directory it is."""
    found = summary(str(folder))
    session = {key: value for key, value in found["session"].items() if key not in ("id", "counts")}
    files = [{key: value for key, value in each.items() if key != "sessionId"} for each in found["files"]]
    with SessionReader(str(folder)) as reader:
        stats = {name: reader.stats(name) for name in reader.tracks()}
    said_of_it = {**found, "session": session, "files": files, "stats": stats, "path": None}
    return json.dumps(said_of_it, sort_keys=True, indent=1)  # which writes NaN


# ── what comes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["run", "sweep/lr=0.1", "a%2Fb", "日本"])
def test_a_session_comes_back_as_it_was(root: Path, serving: Serving, tmp_path: Path, name: str) -> None:
    source = train(root, name)
    assert sent(source, lake_of(serving)[0]).problems == []
    folder = tmp_path / "there" / "project" / source.name
    found = pulled(serving, folder, name=name)
    assert (found.records, found.files, found.file_bytes, found.problems) == (302, 2, 2 * len(WEIGHTS), [])
    assert_sound(folder)
    assert told(folder) == told(source)
    here, before = tree(folder), tree(source)
    for path in (LOGS_LOG, LOSS, "tracks/acc/data.jsonl", "files/models/weights", "files/again/weights"):
        assert here[path] == before[path], path
    assert here[".dreamlake/origin"] != before[".dreamlake/origin"]
    with Session(name, "project", local_path=str(tmp_path / "there")) as session:
        assert session.parameters().get()["lr"] == 0.1
        assert session.track("train/loss").read(start_index=298)["data"][1]["data"]["value"] == "a299"


def test_what_is_new_goes_back_and_every_record_is_there_once(root: Path, serving: Serving, there: Path) -> None:
    """Pull, resume, sync: the server has the whole session; and again from there."""
    source = train(root)
    sent(source, lake_of(serving)[0])
    for turn in range(2):
        folder = there.parents[1] / str(turn) / "project" / "run"
        pulled(serving, folder)
        assert sent(settled(folder), lake_of(serving)[0]).records == 0, "nothing is new"
        with Session("run", "project", local_path=str(folder.parents[1])) as session:
            session.log(f"resumed {turn}")
            session.parameters().set(lr=0.2 + turn)
            session.track("train/loss").append_batch([{"value": f"b{turn}{n}"} for n in range(5)])
            session.track(f"new{turn}").append(value=1)
            session.files().upload(str(root.parent / "weights"), path=f"/turn{turn}")
        first = sent(settled(folder), lake_of(serving)[0])
        assert first.problems == []
        assert first.records == 13, "open, end, a line, a set, 5 + 1 points, a track, an upload and its hash"
        assert sent(folder, lake_of(serving)[0]).records == 0
    assert sent(source, lake_of(serving)[0]).records == 0, "and where it came from has nothing to send"

    caller = serving.alice
    (session_there,) = said(caller.get("/sessions"))["sessions"]
    url = f"/sessions/{session_there['id']}"
    assert session_there["state"] == "finished"
    assert len(session_there["origins"]) == 3
    rows = said(caller.get(f"{url}/tracks/train%2Floss/data", params={"limit": 1000}))["data"]
    values = [f"a{n}" for n in range(300)] + [f"b{turn}{n}" for turn in range(2) for n in range(5)]
    assert [row["data"]["value"] for row in rows] == values
    assert [int(row["index"]) for row in rows] == list(range(310))
    assert said(caller.get(f"{url}/tracks/train%2Floss/stats"))["totalDataPoints"] == "310"
    tracks = said(caller.get(f"{url}/tracks"))["tracks"]
    assert [each["name"] for each in tracks] == ["acc", "new0", "new1", "train/loss"]
    lines = said(caller.get(f"{url}/logs"))["logs"]
    assert [each["message"] for each in lines] == ["a started", "resumed 0", "resumed 1"]
    parameters = said(caller.get(f"{url}/parameters"))
    assert (parameters["data"]["lr"], parameters["data"]["layers"]) == (1.2, [64, 64])
    files = said(caller.get(f"{url}/files"))["files"]
    assert sorted(each["path"] for each in files) == ["/again", "/models", "/turn0", "/turn1"]

    assert pulled(serving, there).problems == []
    assert_sound(there)
    assert [row["data"]["value"] for row in SessionReader(str(there)).points("train/loss")[0]] == values


def test_a_change_of_what_came_is_said_of_what_is_there(root: Path, serving: Serving, there: Path) -> None:
    sent(train(root), lake_of(serving)[0])
    pulled(serving, there)
    with Session("run", "project", local_path=str(there.parents[1]), tags=["u"]) as session:
        by_path = {each["path"]: each["id"] for each in session.files().list()}
        session.files().delete(by_path["/again"])
        session.files().update(by_path["/models"], description="epoch 2")
        session.track("train/loss", description="nats").append(value=1)
    assert sent(settled(there), lake_of(serving)[0]).problems == []
    (found,) = said(serving.alice.get("/sessions"))["sessions"]
    assert (found["tags"], found["description"]) == (["u"], "a run")
    files = said(serving.alice.get(f"/sessions/{found['id']}/files"))["files"]
    assert [(each["path"], each["description"]) for each in files] == [("/models", "epoch 2")]
    stats = said(serving.alice.get(f"/sessions/{found['id']}/tracks/train%2Floss/stats"))
    assert (stats["description"], stats["tags"]) == ("nats", ["train"])


def test_another_server_gets_all_of_it(root: Path, serving: Serving, there: Path) -> None:
    source = train(root)
    sent(source, lake_of(serving)[0])
    pulled(serving, there)
    with Session("run", "project", local_path=str(there.parents[1])) as session:
        session.track("train/loss").append(value="b")
    settled(there)
    with opened() as other:
        assert sent(there, lake_of(other)[0]).problems == []
        (found,) = said(other.alice.get("/sessions"))["sessions"]
        stats = said(other.alice.get(f"/sessions/{found['id']}/tracks/train%2Floss/stats"))
        assert stats["totalDataPoints"] == "301"
        assert sent(there, lake_of(other)[0]).records == 0
    assert sent(there, lake_of(serving)[0]).records == 3, "open, point, end"


# ── several origins, made by hand ───────────────────────────────────────────────────────────────────────────────────


def row(**fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def at(minute: int) -> str:
    return f"2026-01-01T00:{minute:02d}:00.000000Z"


def record(file_id: str, place: str, data: bytes, minute: int = 0, **more: Any) -> dict[str, Any]:
    path, _, filename = place.rpartition("/")
    sha256 = hashlib.sha256(data).hexdigest()
    times = {"uploadedAt": at(minute), "updatedAt": at(minute), "deletedAt": None}
    return {
        "id": file_id,
        "path": f"/{path}",
        "filename": filename,
        "checksum": sha256,
        "sizeBytes": len(data),
        **times,
        **more,
    }


def uploaded(serving: Serving, *datas: bytes) -> None:
    """Bytes that some session of alice's has."""
    session = serving.alice.session("elsewhere")
    for data in datas:
        said(serving.alice.post(f"/sessions/{session}/files", files={"file": ("x", data)}))


def two_origins(serving: Serving) -> tuple[Directory, Directory]:
    one = Directory(serving.alice, "a" * 32)
    one.logs = {
        SESSION_LOG: [
            row(op="open", time=at(0), client="1" * 32, name="run", workspace="project", set={"tags": ["one"]}),
            row(op="end", time=at(9), client="1" * 32, state="finished"),
        ],
        PARAMETERS_LOG: [row(op="set", time=at(1), set={"lr": 1, "a": "NaN"}, nonfinite=["a"])],
        TRACKS_LOG: [row(time=at(0), track="train/loss", trackId="t1", set={"description": "one"})],
        LOGS_LOG: [row(sequenceNumber=0, timestamp=at(1), level="info", message="one")],
        LOSS: [row(index=n, data={"value": n}, createdAt=at(2 * n)) for n in range(4)],
        FILES_LOG: [
            row(op="upload", record=record("f1", "m/w", b"old", 1)),
            row(op="upload", record=record("f2", "m/w", b"new", 2)),
            row(op="upload", record=record("f3", "m/x", b"x", 3)),
            row(op="delete", time=at(4), id="f3"),
        ],
    }
    other = Directory(serving.alice, "b" * 32)
    other.logs = {
        SESSION_LOG: [
            row(op="open", time=at(2), client="2" * 32, name="run", workspace="project", set={"tags": ["two"]}),
            row(op="end", time=at(8), client="2" * 32, state="failed", error={"type": "E", "message": "m"}),
        ],
        PARAMETERS_LOG: [row(op="set", time=at(2), set={"lr": 2, "b": 1})],
        LOGS_LOG: [row(sequenceNumber=0, timestamp=at(0), level="info", message="two")],
        LOSS: [row(index=n, data={"value": 10 + n}, createdAt=at(2 * n + 1)) for n in range(3)],
        FILES_LOG: [row(op="upload", record=record("f4", "m/y%2Fz", b"new", 5))],
    }
    uploaded(serving, b"new", b"x")
    return one, other


def test_several_origins_are_joined_in_the_server_s_order(serving: Serving, there: Path) -> None:
    one, other = two_origins(serving)
    # A record that was refused, in the middle of the one and at the end of the other.
    one.logs[LOSS][2:2] = [b"no json"]
    one.push({log: one.piece(log) for log in one.logs})
    lines = one.logs[LOSS]
    grave = {"from": 2, "prev": mark(lines[:2]), "refused": "no JSON", "next": mark(lines[:3])}
    said(one.push({LOSS: grave}))
    session = str(said(one.push({LOSS: one.piece(LOSS, 3)}))["session"]["id"])
    other.logs[LOSS].append(b"neither")
    other.push()
    lines = other.logs[LOSS]
    said(other.push({LOSS: {"from": 3, "prev": mark(lines[:3]), "refused": "no", "next": mark(lines)}}))

    found = pulled(serving, there)
    assert (found.records, found.files, found.problems) == (4 + 3 + 2, 2, [])
    assert_sound(there)
    with SessionReader(str(there)) as reader:
        rows, _more = reader.points("train/loss")
        assert [each["data"]["value"] for each in rows] == [0, 10, 1, 11, 2, 12, 3]
        assert [each["index"] for each in rows] == list(range(7))
        page = said(serving.alice.get(f"/sessions/{session}/tracks/train%2Floss/data"))["data"]
        assert [each["data"] for each in page] == [each["data"] for each in rows]
        assert [(each["sequenceNumber"], each["message"]) for each in reader.logs()] == [(0, "two"), (1, "one")]
        parameters = reader.parameters()
        assert (parameters["lr"], parameters["b"], repr(parameters["a"])) == (2, 1, "nan")
        assert reader.track("train/loss")["description"] == "one"
        assert (reader.session()["state"], reader.session()["tags"]) == ("failed", ["two"])
        assert {each["id"]: each["path"] for each in reader.files()} == {"f2": "/m", "f4": "/m"}
        assert reader.file_records()["f3"]["deletedAt"] == at(4)
    assert (there / "files/m/w").read_bytes() == (there / "files/m/y%2Fz").read_bytes() == b"new"
    assert not (there / "files/m/x").exists(), "it was deleted"
    base = read_base(REAL_DISK, root := REAL_DISK.root(str(there)))
    REAL_DISK.close(root)
    assert base.origins["a" * 32][LOSS] == (5, at(6)), "with the place of what was refused"
    assert base.origins["b" * 32][LOSS] == (4, at(5))
    assert base.logs[LOSS][0] == 7


def test_rows_of_0_2_x_are_kept_and_numbered(serving: Serving, there: Path) -> None:
    odd = [
        b'{"index": 0, "data": {"value": NaN}, "createdAt": "x"}',
        b'{"index": 0, "data": {"value": 1}}',
        b'{"data":{"value":2},"index":7}',
        b'{"data":{"value":Infinity,"index":1}}',
        b'{"index":"3","data":{"s":"\\ud800"}}',
    ]
    Directory(serving.alice, logs={LOSS: odd}).pushed()
    assert pulled(serving, there).records == 5
    lines = (there / LOSS).read_bytes().split(b"\n")[:-1]
    assert lines[:2] == [odd[0], odd[1].replace(b'"index": 0', b'"index": 1')]
    rows, _more = SessionReader(str(there)).points("train/loss")
    assert [each["index"] for each in rows] == list(range(5))
    assert repr([each["data"] for each in rows[2:4]]) == "[{'value': 2}, {'value': inf, 'index': 1}]"


def test_a_session_of_which_little_is_known(serving: Serving, there: Path) -> None:
    Directory(serving.alice, logs={LOSS: [b'{"data":{}}']}).pushed()
    assert pulled(serving, there).records == 1
    assert_sound(there)
    session = json.loads((there / "session.json").read_text())
    assert (session["name"], session["workspace"], session["created_at"]) == ("run", "project", NOW)
    assert not (there / "parameters.json").exists()


def test_parameters_of_any_size_come_in_rows_that_can_be_read(
    serving: Serving, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamlake_agent.remote.joining._ROW_BYTES", 4 << 10)
    large = "x" * (2 << 10)
    rows = [row(op="set", time=at(n), set={f"p{n}": large, f"nan{n}": "NaN"}, nonfinite=[f"nan{n}"]) for n in range(5)]
    Directory(serving.alice, logs={PARAMETERS_LOG: rows}).pushed()
    pulled(serving, there)
    assert_sound(there)
    found = SessionReader(str(there)).parameters()
    assert set(found) == {f"{word}{n}" for word in ("p", "nan") for n in range(5)}
    assert json.loads((there / "parameters.json").read_text())["version"] == 5
    assert (there / PARAMETERS_LOG).read_bytes().count(b"\n") == 5
    assert all(repr(found[f"nan{n}"]) == "nan" for n in range(5))


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_files(serving: Serving, *records: dict[str, Any]) -> None:
    Directory(serving.alice, logs={FILES_LOG: [row(op="upload", record=each) for each in records]}).pushed()


def test_bytes_that_are_not_there_are_said_and_hold_up_nothing(serving: Serving, there: Path) -> None:
    uploaded(serving, b"here", b"long")
    with_files(
        serving,
        record("f1", "a", b"here"),
        record("f2", "b", b"never sent"),
        record("f3", "c", b"x", checksum=None),
        record("f4", "d", b"long", sizeBytes=3),
        record("f5", "a/e", b"here"),
        record("f6", "f", b"here", sizeBytes="4"),
    )
    found = pulled(serving, there)
    assert found.files == 1
    names = sorted(text.partition(" was not pulled: ")[0] for text in found.problems)
    assert names[1:] == ["files/b", "files/c", "files/d", "files/f"]
    assert names[0] in ("files/a", "files/a/e"), "the one that was later"
    assert any("does not have its bytes yet" in text for text in found.problems)
    assert any("has another SHA-256" in text for text in found.problems)
    assert any("stands in its way" in text for text in found.problems)
    report = verify(str(there))
    assert (report.problems, [each.kind for each in report.findings]) == ([], ["elsewhere"])
    assert not list(there.rglob("*.copy"))


def test_without_files_their_bytes_stay_where_they_are(root: Path, serving: Serving, there: Path) -> None:
    sent(train(root), lake_of(serving)[0])
    lake, wire = lake_of(serving)
    found = Pull(lake, "project", "run", str(there), lambda: NOW, files=False).run()
    assert (found.files, found.problems) == (0, [])
    assert not any("/v1/blobs" in each for each in wire.requests)
    assert {each["path"] for each in SessionReader(str(there)).files()} == {"/models", "/again"}
    assert [each.kind for each in verify(str(there)).findings] == ["elsewhere"]
    assert sent(settled(there), lake_of(serving)[0]).problems == []


def test_bytes_go_on_where_they_stopped(serving: Serving, there: Path) -> None:
    data = Random(7).randbytes(3 << 20)
    uploaded(serving, data)
    with_files(serving, record("f1", "m", data))
    ranges: list[str] = []
    part = there.parent / "run.part"
    sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(Unreachable):
        pulled(serving, there, away_for("/v1/blobs/"))
    (part / "bytes" / sha256).write_bytes(data[: 2 << 20])
    found = pulled(serving, there, lambda request, answer: ranges.append(request.headers.get("range", "none")))
    assert found.problems == []
    assert f"bytes={2 << 20}-" in ranges
    assert (there / "files" / "m").read_bytes() == data


def test_bytes_that_were_damaged_here_are_brought_again(serving: Serving, there: Path) -> None:
    data = Random(7).randbytes(1 << 20)
    uploaded(serving, data)
    with_files(serving, record("f1", "m", data))
    with pytest.raises(Unreachable):
        pulled(serving, there, away_for("/v1/blobs/"))
    place = there.parent / "run.part" / "bytes" / hashlib.sha256(data).hexdigest()
    place.write_bytes(b"\0" * (1 << 19))
    assert pulled(serving, there).problems == []
    assert (there / "files" / "m").read_bytes() == data


def away_for(path: str) -> Fault:
    """A server that answers everything but that."""

    def fault(request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        if answer is None and request.url.path.startswith(path):
            raise httpx.ConnectError("away")
        return None

    return fault


# ── deaths ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The process is gone: nothing after it is done."""


class Mortal:
    """The disk of a process that dies after so many changes of it; a write is then half done."""

    def __init__(self, changes: int) -> None:
        self.changes, self.dead = changes, False

    def __getattr__(self, name: str) -> Any:
        if name == "fsync":  # no power loss here, and it costs
            return self.mortal(name, lambda _fd: None)
        real = getattr(REAL_DISK, name)
        return self.mortal(name, real) if name in ("write", "rename", "unlink", "mkdirs") else real

    def mortal(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if self.dead:
                raise Killed
            self.changes -= 1
            if self.changes < 0:
                self.dead = True
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                raise Killed
            return real(*args, **more)

        return call


@contextlib.contextmanager
def mortal(changes: int) -> Iterator[Mortal]:
    disk = Mortal(changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "REAL_DISK", disk)
        patch.setattr(module, "REAL_DISK", disk)
        patch.setattr(os, "rename", disk.mortal("rename", os.rename))
        patch.setattr(os, "rmdir", disk.mortal("rmdir", os.rmdir))
        patch.setattr(shutil, "rmtree", disk.mortal("rmtree", shutil.rmtree))
        yield disk


@pytest.fixture
def settled_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pull makes the same directory, byte by byte."""
    monkeypatch.setattr("dreamlake_agent.remote.pull.secrets", SimpleNamespace(token_hex=lambda _size: "f" * 32))
    monkeypatch.setattr(module, "LOGS_AT_ONCE", 1)
    monkeypatch.setattr(module, "FILES_AT_ONCE", 1)
    monkeypatch.setattr(module, "WRITE_BYTES", 150)  # so that a log is several writes


class Memory(httpx.BaseTransport):
    """A server to which nothing new comes: what it said once it says again, without a thought."""

    def __init__(self, wire: httpx.BaseTransport) -> None:
        self._wire = wire
        self._said: dict[tuple[str, str, bytes], tuple[int, bytes]] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        key = str(request.url), request.headers.get("range", ""), request.read()
        if key not in self._said:
            answer = self._wire.handle_request(request)
            self._said[key] = answer.status_code, answer.read()
        status, data = self._said[key]
        return httpx.Response(status, stream=httpx.ByteStream(data))


@pytest.mark.usefixtures("settled_chance")
def test_killed_at_any_moment_and_run_again_it_is_the_same_directory(serving: Serving, there: Path) -> None:
    one, other = two_origins(serving)
    one.pushed()
    other.pushed()
    transport = Memory(Wire(serving.alice, None))

    def life(changes: int) -> Mortal:
        """One pull, killed at its so manieth change of the disk, if it makes so many."""
        with mortal(changes) as disk, Lake(HERE, None, transport=transport) as lake:
            try:
                Pull(lake, "project", "run", str(there), lambda: NOW).run()
            except Killed:
                assert sessions_below(str(there.parents[1])) == ([str(there)] if there.exists() else [])
            except CannotPull:  # all but the empty folder beside it was done
                assert tree(there) == whole
        return disk

    whole: dict[str, bytes] = {}
    most = 1 << 30
    changes = most - life(most).changes
    assert changes > 60
    whole |= tree(there)
    shutil.rmtree(there)
    random = Random(1)
    for first in range(changes):
        lives = first
        while life(lives).dead:
            lives = random.choice((most, random.randrange(changes)))  # it may die again
        assert tree(there) == whole, first
        assert os.listdir(there.parent) == ["run"]
        shutil.rmtree(there)


@pytest.mark.usefixtures("settled_chance")
def test_a_log_goes_on_where_it_stopped(serving: Serving, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamlake_server.records.SEGMENT_ROWS", 100)
    monkeypatch.setattr("dreamlake.remote.follow.PIECES_BYTES", 1)
    Directory(serving.alice, logs={LOSS: points(3000)}).pushed()

    def until(count: int) -> Fault:
        asked: list[str] = []

        def fault(request: httpx.Request, answer: httpx.Response | None) -> None:
            if answer is None and request.url.path == "/v1/records":
                asked.append(request.url.path)
                if len(asked) > count:
                    raise httpx.ConnectError("away")

        return fault

    with pytest.raises(Unreachable):
        pulled(serving, there, until(20))
    log = there.parent / "run.part" / "tree" / LOSS
    kept = log.read_bytes()
    assert kept.count(b"\n") == 2000
    log.write_bytes(kept[:-7])  # half a line at its end
    firsts: list[int] = []

    def listened(request: httpx.Request, answer: httpx.Response | None) -> None:
        if answer is None and request.url.path == "/v1/records":
            firsts.append(unpackb(request.read())["from"])

    assert pulled(serving, there, listened).records == 3000
    assert firsts[0] == 1999
    assert (there / LOSS).read_bytes() == joined(points(3000))
    assert_sound(there)


@pytest.mark.usefixtures("settled_chance")
def test_what_was_damaged_between_two_runs_is_brought_again(serving: Serving, there: Path) -> None:
    one, other = two_origins(serving)
    one.pushed()
    other.pushed()
    pulled(serving, there)
    whole = tree(there)
    shutil.rmtree(there)
    part = there.parent / "run.part"
    for damage in ("zeros", "shorter", "other", "gone", "done"):
        with pytest.raises(Unreachable):
            pulled(serving, there, away_for("/v1/blobs/"))
        log = part / "tree" / LOSS
        data = log.read_bytes()
        if damage == "gone":
            log.unlink()
        elif damage == "done":
            (part / "done").write_bytes(b'\0\0\0{"log":3}\n\xff\n[]\n' + (part / "done").read_bytes()[:-9])
        else:
            log.write_bytes({"zeros": b"\0" * len(data), "shorter": data[:-30], "other": data[::-1]}[damage])
        assert pulled(serving, there).problems == []
        assert tree(there) == whole, damage
        shutil.rmtree(there)


def test_a_network_that_loses_requests_and_answers(serving: Serving, there: Path) -> None:
    one, other = two_origins(serving)
    one.pushed()
    other.pushed()
    assert pulled(serving, there, lossy(Random(3))).problems == []
    assert_sound(there)


def test_what_comes_meanwhile_comes_with_the_next_pull(serving: Serving, there: Path) -> None:
    directory = Directory(serving.alice, logs={LOSS: points(50)})
    directory.push({LOSS: directory.piece(LOSS, 0, 20)})
    calls: list[int] = []

    def more(request: httpx.Request, answer: httpx.Response | None) -> None:
        if answer is not None and request.url.path == "/v1/origins":
            calls.append(1)
            directory.push({LOSS: directory.piece(LOSS, 0, 30 + len(calls))})

    assert pulled(serving, there, more).records == 20
    assert_sound(there)


def purge(serving: Serving, session: str) -> None:
    meta, run = serving.server.meta, serving.run
    run(meta.mark_deleted("alice", session, NOW))
    run(meta.begin_purge("alice", session))
    run(meta.purge_session("alice", session))


def test_a_server_that_was_restored_from_a_backup_between_two_runs(serving: Serving, there: Path) -> None:
    directory = Directory(serving.alice, logs={LOSS: points(50)})
    session = directory.pushed()
    with pytest.raises(Unreachable):
        pulled(serving, there, away_for("/v1/records"))
    purge(serving, session)
    serving.run(serving.server.meta.make_session("alice", "project", "run", session, NOW))
    Directory(serving.alice, logs={LOSS: points(30, "b")}).pushed()
    assert pulled(serving, there).records == 30
    assert (there / LOSS).read_bytes() == joined(points(30, "b"))
    assert_sound(there)


def test_a_session_that_was_made_anew_between_two_runs(serving: Serving, there: Path) -> None:
    session = Directory(serving.alice, logs={LOSS: points(50)}).pushed()
    with pytest.raises(Unreachable):
        pulled(serving, there, away_for("/v1/records"))
    purge(serving, session)
    Directory(serving.alice, logs={LOSS: points(60)}).pushed()
    assert pulled(serving, there).records == 60


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_that_is_there_is_overwritten(serving: Serving, there: Path) -> None:
    Directory(serving.alice, logs={LOSS: points(5)}).pushed()
    there.mkdir(parents=True)
    (there / "mine").write_text("precious")
    with pytest.raises(CannotPull, match="overwrites nothing"):
        pulled(serving, there)
    assert tree(there) == {"mine": b"precious"}
    assert os.listdir(there.parent) == ["run"]
    (there / "mine").unlink()
    pulled(serving, there)
    with pytest.raises(CannotPull, match="overwrites nothing"):
        pulled(serving, there)
    assert_sound(there)


def test_another_pull_is_not_mixed_with_this_one(serving: Serving, there: Path) -> None:
    Directory(serving.alice, logs={LOSS: points(5)}).pushed()
    Directory(serving.alice, session={"workspace": "project", "name": "other"}, logs={LOSS: points(5)}).pushed()
    with pytest.raises(Unreachable):
        pulled(serving, there, away_for("/v1/records"))
    with pytest.raises(CannotPull, match="unfinished pull of project/run"):
        pulled(serving, there, name="other")
    part = there.parent / "run.part"
    held = staging.Staging(str(there))
    with pytest.raises(CannotPull, match="another pull is at work"):
        pulled(serving, there)
    held.close()
    (part / PULLING).write_bytes(b"no plan")
    with pytest.raises(CannotPull, match="cannot be read"):
        pulled(serving, there)
    (part / PULLING).unlink()
    with pytest.raises(CannotPull, match="holds something else"):
        pulled(serving, there)
    shutil.rmtree(part)
    assert pulled(serving, there).records == 5


def test_a_session_that_is_not_there_or_not_ours_leaves_nothing_behind(serving: Serving, there: Path) -> None:
    with pytest.raises(CannotPull, match="has no session project/run"):
        pulled(serving, there)
    session = Directory(serving.alice, logs={LOSS: points(5)}).pushed()
    said(serving.alice.delete(f"/sessions/{session}"))
    with pytest.raises(CannotPull, match="was deleted"):
        pulled(serving, there)
    lake, wire = lake_of(serving)
    wire.caller = serving.nobody
    with pytest.raises(NotLetIn):
        Pull(lake, "project", "run", str(there), lambda: NOW).run()
    assert os.listdir(there.parent) == []


@pytest.mark.parametrize(
    "log", ["tracks/../../x/data.jsonl", "../x", "/etc/passwd", "tracks//data.jsonl", ".dreamlake/base"]
)
def test_a_server_that_names_what_is_no_log_is_not_followed(serving: Serving, there: Path, log: str) -> None:
    Directory(serving.alice, logs={LOSS: points(5)}).pushed()

    def wicked(request: httpx.Request, answer: httpx.Response | None) -> None:
        if answer is not None and request.url.path == "/v1/origins":
            body = json.loads(answer.content)
            for logs in body["origins"].values():
                logs[log] = logs.pop(LOSS)
            answer._content = json.dumps(body).encode()

    with pytest.raises(CannotPull, match="names a log that no session has"):
        pulled(serving, there, wicked)
    assert not there.exists()


def test_a_file_s_name_never_leaves_the_directory(serving: Serving, there: Path) -> None:
    uploaded(serving, b"x")
    with_files(
        serving,
        record("f1", "../../escaped", b"x"),
        record("f2", "ok", b"x"),
        record("f3", "x", b"x", path="/a/../../..", filename="escaped"),
        record("f4", "x", b"x", path="/", filename="../escaped"),
        record("f5", "x", b"x", path="/", filename=".files_metadata.json"),
        record("f6", "x", b"x", path="/", filename="\0"),
    )
    assert pulled(serving, there).files == 1
    assert_sound(there)
    assert {each["id"] for each in SessionReader(str(there)).files()} == {"f2"}
    assert not list(there.parents[2].rglob("escaped"))


# ── as it is typed ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def live(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveLake]:
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    folder = tmp_path / "server"
    folder.mkdir()
    with live_lake(folder, "--data", folder / "data", "--purge-days", "12") as found:
        monkeypatch.setenv("DREAMLAKE_API_KEY", new_token("alice", "--data", folder / "data"))
        yield found
        found.assert_no_complaints()


def typed(*args: object) -> Result:
    """A command, in this process."""
    command = {"pull": pull, "delete": delete}[str(args[0])]
    return CliRunner().invoke(command, [str(each) for each in args[1:]])


def test_pull_and_delete_as_they_are_typed(
    live: LiveLake, root: Path, tmp_path: Path, dreamlake: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lake.open(live.url) as lake:
        sent(train(root, "sweep/a", count=20), lake)
    monkeypatch.setenv("DREAMLAKE_LOCAL_PATH", str(tmp_path / "local"))
    done = dreamlake("pull", live.url, "project/sweep/a")
    folder = tmp_path / "local" / "project" / "sweep%2Fa"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"project/sweep/a: pulled 22 records (1.8 KiB), 2 files (150.0 KiB) into {folder}\n"
    assert_sound(folder)
    again = typed("pull", live.url, "project/sweep/a")
    assert (again.exit_code, "overwrites nothing" in again.output) == (1, True)
    done_there = typed("pull", live.url, "project/sweep%2Fa", tmp_path / "copy", "--no-files", "--json")
    found = json.loads(done_there.output)
    assert (found["session"], found["path"], found["records"]) == ("project/sweep/a", str(tmp_path / "copy"), 22)
    assert (found["files"], found["problems"], done_there.exit_code) == (0, [], 0)

    asked = typed("delete", live.url, "project/sweep/a")
    assert (asked.exit_code, "--yes" in asked.output) == (2, True)
    deleted = typed("delete", live.url, "project/sweep/a", "--yes")
    assert deleted.exit_code == 0
    back = f"dreamlake delete --restore {live.url} project/sweep%2Fa"
    assert f"For 12 days it can be restored: {back}" in deleted.output
    missing = typed("pull", live.url, "project/sweep/a", tmp_path / "third")
    assert (missing.exit_code, "was deleted" in missing.output) == (1, True)
    restored = typed("delete", "--restore", live.url, "project/sweep%2Fa", "--json")
    assert json.loads(restored.output) == {"session": "project/sweep/a", "deletedAt": None}
    assert typed("pull", live.url, "project/sweep/a", tmp_path / "third").exit_code == 0
    assert typed("delete", live.url, "project/other", "--yes").exit_code == 1

    for wrong in (("lake.example.org", "a/b"), (live.url, "project"), (live.url, "../a"), (live.url, "a/../b")):
        assert typed("pull", *wrong).exit_code == typed("delete", *wrong, "--yes").exit_code == 2
    monkeypatch.setenv("DREAMLAKE_API_KEY", "dlk_wrong")
    nobody = typed("pull", live.url, "project/other")
    assert (nobody.exit_code, "dreamlake login" in nobody.output, "dlk_wrong" in nobody.output) == (1, True, False)
