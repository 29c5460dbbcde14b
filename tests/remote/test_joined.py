"""Joined reads: a session with a remote sees what its other directories have sent, and its own at once."""

from __future__ import annotations

import logging
import math
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamlake import RemoteUnavailable, Session
from dreamlake.reader.base import BASE, Base, encode_base
from dreamlake.remote import others
from dreamlake.remote.lake import Lake, Unreachable
from dreamlake.wire.marks import Mark
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote.pull import Pull
from dreamlake_agent.remote.source import Source
from dreamlake_agent.remote.upload import Upload
from dreamlake_agent.repair import repair
from tests.remote.lakes import Wire, lake_of
from tests.server.serving import HERE, LOSS, Directory, Serving, as_bytes, msgpack, opened, points, said

WEIGHTS = bytes(range(256)) * 3000
ORIGINS, RECORDS = "POST /v1/origins", "POST /v1/records"


class Net:
    """The way to the server: ``down`` or not, and what was asked."""

    def __init__(self, serving: Serving) -> None:
        self.serving, self.down, self.refused = serving, False, False
        self.asked: list[str] = []
        self.now = 0.0

    def fault(self, request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        if answer is not None:
            return None
        self.asked.append(f"{request.method} {request.url.path}")
        if self.down:
            raise httpx.ConnectError("nobody is there")
        return httpx.Response(401, json={"message": "no such token"}) if self.refused else None

    def lake(self) -> Lake:
        wire = Wire(self.serving.alice, self.fault)
        return Lake(HERE, None, tries=1, whole_seconds=10.0, clock=lambda: self.now, transport=wire)

    def take(self) -> list[str]:
        found, self.asked = self.asked, []
        return found


@pytest.fixture
def net(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    with opened() as serving:
        net = Net(serving)

        def lake(_url: str, _user: object, _key: object, *, tries: int, connect_seconds: float, **more: float) -> Lake:
            assert (tries, connect_seconds, more) == (1, 3.0, {"answer_seconds": 10.0, "whole_seconds": 10.0})
            return net.lake()

        monkeypatch.setattr(Lake, "open", lake)
        monkeypatch.setattr(others.Others.__init__, "__defaults__", (lambda: net.now,))
        yield net


def session(folder: Path, **more: Any) -> Session:
    return Session("run", "project", local_path=str(folder), **{"remote": HERE, **more})


def send(folder: Path, net: Net) -> None:
    """What ``dreamlake sync`` does."""
    where = str(folder / "project" / "run")
    repair(where, lambda _text: None)
    source = Source(REAL_DISK, where)
    try:
        with lake_of(net.serving)[0] as lake:
            assert Upload(source, lake).run().problems == []
    finally:
        source.close()


def losses(page: dict[str, Any]) -> list[Any]:
    return [row["data"]["value"] for row in page["data"]]


@pytest.fixture
def two(tmp_path: Path, net: Net) -> tuple[Path, Path]:
    """Two directories of one session: one writes and is sent, then the other."""
    one, other = tmp_path / "one", tmp_path / "other"
    (tmp_path / "weights.bin").write_bytes(WEIGHTS)
    with session(one, remote=None) as first:
        first.parameters().set(lr=0.1, by="one", worst=math.inf)
        first.track("loss", description="of one").append_batch([{"value": f"one{n}"} for n in range(3)])
        first.track("only/one").append(value=math.nan, text="NaN")
        first.files().upload(tmp_path / "weights.bin", path="/models", tags=["t"])
    send(one, net)
    with session(other, remote=None) as second:
        second.parameters().set(by="other", epochs=3)
        second.track("loss", tags=["b"]).append_batch([{"value": f"other{n}"} for n in range(2)])
    send(other, net)
    return one, other


def test_each_sees_the_others(net: Net, two: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in two:
        with session(folder) as run:
            wanted = {"lr": 0.1, "by": "other", "worst": math.inf, "epochs": 3}
            assert run.parameters().get() == wanted
            page = run.track("loss").read()
            assert losses(page) == ["one0", "one1", "one2", "other0", "other1"]
            assert [row["index"] for row in page["data"]] == ["0", "1", "2", "0", "1"]
            assert len({row["origin"] for row in page["data"]}) == 2
            assert (page["total"], page["hasMore"]) == (5, False)
            arrays = run.track("loss").to_numpy(start_index=1, limit=3)
            assert {name: array.tolist() for name, array in arrays.items()} == {
                "index": [1, 2, 0],
                "value": ["one1", "one2", "other0"],
            }
            stats = run.track("loss").stats()
            assert (stats["totalDataPoints"], stats["description"], stats["tags"]) == ("5", "of one", ["b"])
            assert (stats["firstDataAt"], stats["lastDataAt"]) == (
                page["data"][0]["createdAt"],
                page["data"][-1]["createdAt"],
            )
            assert [each["name"] for each in run.track("loss").list_all()] == ["loss", "only/one"]
            [point] = run.track("only/one").read()["data"]
            assert math.isnan(point["data"]["value"])
            assert point["data"]["text"] == "NaN"
            assert "origin" not in point
            [file] = run.files().list("/models", tags=["t"])
            assert Path(run.files().download(file["id"], tmp_path / f"got-{folder.name}")).read_bytes() == WEIGHTS
            assert [each["id"] for each in run.file(prefix="/models").list()] == [file["id"]]


def test_own_writes_are_seen_at_once(net: Net, two: tuple[Path, Path]) -> None:
    one, _ = two
    with session(one) as run:
        run.parameters().set(by="one again", nested={"a": 1})
        run.track("loss").append(value="one3")
        assert run.parameters().get(flatten=False)["nested"] == {"a": 1}
        assert run.parameters().get()["by"] == "one again"
        assert losses(run.track("loss").read())[-2:] == ["other1", "one3"]
        assert run.track("loss").stats()["totalDataPoints"] == "6"
        run.track("new").append(value=1)
        assert "new" in [each["name"] for each in run.track("loss").list_all()]


def test_alone_the_server_is_asked_once_a_read_and_rows_are_as_ever(net: Net, tmp_path: Path) -> None:
    with session(tmp_path) as run:
        run.track("loss").append(value=1)
        run.parameters().set(lr=1)
        net.take()
        with run._reader() as reader:
            assert run.track("loss").read()["data"] == [{**reader.points("loss")[0][0], "index": "0"}]
            assert run.track("loss").stats() == reader.stats("loss")
        assert run.parameters().get() == {"lr": 1}
        assert run.files().list() == []
        assert run.track("never").read()["data"] == []
        with pytest.raises(FileNotFoundError):
            run.track("never").stats()
        assert net.take() == [ORIGINS] * 6
    send(tmp_path, net)
    with session(tmp_path) as run:
        assert run.parameters().get() == {"lr": 1}
        assert net.take() == [ORIGINS]


def test_logging_asks_nobody(net: Net, two: tuple[Path, Path], tmp_path: Path) -> None:
    with session(two[0]) as run:
        run.log("hello")
        run.track("loss").append(value=1)
        run.parameters().set(a=1)
        run.files().upload(tmp_path / "weights.bin", path="/again")
        run.flush(durable=True)
    assert net.take() == []


def test_a_history_is_read_once(net: Net, two: tuple[Path, Path]) -> None:
    with session(two[0]) as run:
        run.parameters().get()
        assert net.take() == [ORIGINS, RECORDS]
        run.parameters().get()
        assert net.take() == [ORIGINS]
        with session(two[1], remote=None) as other:
            other.parameters().set(epochs=4)
        send(two[1], net)
        assert run.parameters().get()["epochs"] == 4
        assert net.take() == [ORIGINS, RECORDS]


def test_a_server_that_is_away_is_told_of_once_and_left_alone(
    net: Net, two: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dreamlake.remote")
    with session(two[0]) as run:
        net.down = True
        caplog.clear()
        for _ in range(5):
            assert run.parameters().get()["by"] == "one"
            assert losses(run.track("loss").read()) == ["one0", "one1", "one2"]
        assert run.track("loss").stats()["totalDataPoints"] == "3"
        [file] = run.files().list()
        assert file["filename"] == "weights.bin"
        assert net.take() == [ORIGINS]
        [warning] = [each for each in caplog.messages if "reads of project/run" in each]
        assert "nobody is there" in warning
        net.now += 14
        run.parameters().get()
        assert net.take() == []
        net.now += 2
        run.parameters().get()
        assert net.take() == [ORIGINS]
        net.down = False
        net.now += 60
        assert run.parameters().get()["by"] == "other"
        net.down = True
        assert run.parameters().get()["by"] == "other"  # heard before
        assert len([each for each in caplog.messages if "reads of project/run" in each]) == 2


def test_an_empty_answer_is_given_only_when_it_is_known(net: Net, tmp_path: Path) -> None:
    net.down = True
    with session(tmp_path) as run:
        for read in (
            run.parameters().get,
            run.track("loss").read,
            run.track("loss").stats,
            run.track("loss").list_all,
            run.files().list,
            run.file().list,
        ):
            with pytest.raises(RemoteUnavailable, match=r"nobody is there.*Try again when it answers"):
                read()
        run.track("loss").append(value=1)
        assert losses(run.track("loss").read()) == [1]
        with pytest.raises(RemoteUnavailable):
            run.track("loss").read(start_index=1)
        net.down = False
        net.now += 20
        assert run.parameters().get() == {}
        net.down = True
        assert run.parameters().get() == {}  # nobody else was there when the server was heard last
        assert run.track("loss").read(start_index=1)["data"] == []


def test_not_let_in_says_what_to_do(net: Net, tmp_path: Path) -> None:
    net.refused = True
    with session(tmp_path) as run:
        with pytest.raises(RemoteUnavailable, match=r"no such token.*dreamlake login"):
            run.parameters().get()
        net.refused = False
        net.now += 20
        assert run.parameters().get() == {}


def test_the_server_goes_away_in_the_middle(net: Net, two: tuple[Path, Path]) -> None:
    with session(two[0]) as run:
        run.parameters().get()
        real = net.fault

        def fault(request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
            net.down = request.url.path == "/v1/records"
            return real(request, answer)

        net.fault = fault  # type: ignore[method-assign]
        run._others = None
        assert losses(run.track("loss").read()) == ["one0", "one1", "one2"]
        assert run.parameters().get()["by"] == "one"
        assert net.take()[-2:] == [ORIGINS, RECORDS]


def test_an_answer_that_trickles_is_not_waited_for(net: Net, two: tuple[Path, Path]) -> None:
    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(1000):
                net.now += 1
                yield b" "

    net.fault = lambda _request, _answer: httpx.Response(200, stream=Trickle())  # type: ignore[method-assign]
    with session(two[0]) as run:
        began = net.now
        assert run.parameters().get()["by"] == "one"
        assert net.now - began < 12
        assert "too slowly" in str(run._others.away)  # type: ignore[union-attr]


def test_bytes_that_are_not_there(net: Net, two: tuple[Path, Path], tmp_path: Path) -> None:
    with session(two[1]) as run:
        [file] = run.files().list()
        with pytest.raises(FileNotFoundError, match="no file with the id"):
            run.files().download("nobody's", tmp_path / "x" / "got")
        with pytest.raises(FileNotFoundError, match="no file with the id"):
            run.files().delete(file["id"])  # another directory's
        net.down = True
        with pytest.raises(RemoteUnavailable, match="cannot get weights"):
            run.files().download(file["id"], tmp_path / "x" / "got")
        net.down = False
        net.now += 20
        real = net.fault

        def other_bytes(request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
            if request.url.path.startswith("/v1/blobs/"):
                return httpx.Response(200, stream=httpx.ByteStream(WEIGHTS[1:]))
            return real(request, answer)

        net.fault = other_bytes  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="damaged"):
            run.files().download(file["id"], tmp_path / "x" / "got")
    assert not (tmp_path / "x" / "got").exists()
    assert list((tmp_path / "x").iterdir()) == []


# ── several origins, page by page ───────────────────────────────────────────────────────────────────────────────────


def pushed(net: Net, origin: str, lines: list[bytes], refused: int | None = None, log: str = LOSS) -> None:
    """Another origin's track, one record of it refused."""
    directory = Directory(net.serving.alice, origin, logs={log: lines})
    if refused is None:
        directory.pushed()
        return
    said(directory.push({log: directory.piece(log, 0, refused)}))
    size = sum(len(each) + 1 for each in lines[:refused])
    before, after = (Mark().after(b"".join(each + b"\n" for each in lines[:end])) for end in (refused, refused + 1))
    assert before.size == size
    stone = {"from": refused, "prev": before.text, "refused": "it is no JSON", "next": after.text}
    said(directory.push({log: stone}))
    said(directory.push({log: directory.piece(log, refused + 1)}))


def odd(lines: list[bytes]) -> list[bytes]:
    """Rows that are not finite, have no time, or go back in it."""
    lines = list(lines)
    lines[3] = (
        b'{"index":3,"data":{"value":"NaN","text":"NaN"},"createdAt":"2026-01-01T00:00:09.000000Z","nonfinite":["value"]}'
    )
    lines[4] = b'{"index":4,"data":{"value":4}}'
    lines[5] = b'{"index":5,"data":{"value":5},"createdAt":"2025-01-01T00:00:00.000000Z"}'
    return lines


def server_rows(net: Net, name: str, step: int) -> list[dict[str, Any]]:
    """The server's own joined read, in pages."""
    found: list[dict[str, Any]] = []
    [session] = said(net.serving.alice.get("/sessions"))["sessions"]
    while True:
        url = f"/sessions/{session['id']}/tracks/{name}/data"
        page = said(net.serving.alice.get(url, params={"startIndex": len(found), "limit": step}))
        found += page["data"]
        if not page["hasMore"]:
            return found


def client_rows(run: Session, name: str, step: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = run.track(name).read(len(found), step)
        assert page["total"] == len(page["data"]) <= step
        found += page["data"]
        if not page["hasMore"]:
            return found


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they are in the file."""
    words = {math.inf: "Infinity", -math.inf: "-Infinity"}

    def word(value: Any) -> Any:
        return ("NaN" if math.isnan(value) else words.get(value, value)) if isinstance(value, float) else value

    return [
        {"createdAt": None, **row, "data": {key: word(value) for key, value in row["data"].items()}} for row in rows
    ]


@pytest.mark.parametrize("own", [True, False], ids=["with our own", "of others alone"])
@pytest.mark.parametrize("step", [3, 1000])
def test_pages_are_the_servers(net: Net, tmp_path: Path, own: bool, step: int) -> None:
    pushed(net, "b" * 32, odd(points(20, "b")), refused=2)
    pushed(net, "0" * 31 + "1", points(15, "c"))
    based = Directory(net.serving.alice, "d" * 32, logs={LOSS: points(9, "d")})
    begin = {"from": 0, "prev": "0-00000000", "base": 4, "next": based.piece(LOSS, 4)["prev"]}
    said(based.push({LOSS: {**begin, "time": "2026-01-01T00:00:10.000000Z"}}))
    said(based.push({LOSS: based.piece(LOSS, 4)}))
    if own:
        with session(tmp_path, remote=None) as run:
            run.track("train/loss").append_batch([{"value": f"own{n}", "odd": -math.inf} for n in range(12)])
        send(tmp_path, net)
    with session(tmp_path) as run:
        found = client_rows(run, "train/loss", step)
        assert plain(found) == server_rows(net, "train/loss", step)
        assert len(found) == 19 + 15 + 5 + 12 * own
        assert run.track("train/loss").stats()["totalDataPoints"] == str(20 + 15 + 5 + 12 * own)
        again = [run.track("train/loss").read(start, 5)["data"] for start in (7, 33, 0, 21)]  # in any order
        assert plain([row for rows in again for row in rows]) == plain(
            [row for start in (7, 33, 0, 21) for row in found[start : start + 5]]
        )


def test_one_other_origin_alone_is_read_as_the_server_reads_it(net: Net, tmp_path: Path) -> None:
    pushed(net, "b" * 32, odd(points(20, "b")), refused=2)
    with session(tmp_path) as run:
        assert plain(client_rows(run, "train/loss", 1000)) == server_rows(net, "train/loss", 1000)
        rows = run.track("train/loss").read(5, 3)["data"]
        assert [row["index"] for row in rows] == ["5", "6", "7"]
        assert "origin" not in rows[0]
        assert run.track("train/loss").stats()["totalDataPoints"] == "20"


def test_a_page_goes_on_where_the_last_one_ended(net: Net, tmp_path: Path) -> None:
    pushed(net, "b" * 32, points(30, "b"))
    pushed(net, "c" * 32, points(10, "c"))
    with session(tmp_path) as run:
        first = run.track("train/loss").read(0, 15)["data"]
        net.take()
        rest = run.track("train/loss").read(15, 25)["data"]
        assert net.take() == [ORIGINS]  # what was at hand is enough
        assert losses({"data": first + rest}) == [row["data"]["value"] for row in server_rows(net, "train/loss", 100)]
        assert run.track("train/loss").read(40)["data"] == []
        pushed(net, "b" * 32, points(33, "b"))
        net.take()
        assert losses(run.track("train/loss").read(40)) == ["b30", "b31", "b32"]
        assert net.take() == [ORIGINS, RECORDS]
        pushed(net, "d" * 32, points(1, "early"))  # which belongs before all that, and comes all the same
        assert losses(run.track("train/loss").read(43)) == ["early0"]
        assert losses(run.track("train/loss").read(0, 2)) == ["b0", "c0"]
        assert losses(run.track("train/loss").read(2, 2)) == ["early0", "b1"]


def test_a_server_that_was_restored_from_a_backup(net: Net, tmp_path: Path) -> None:
    with opened() as backup, session(tmp_path) as run:
        for caller, say in ((net.serving.alice, "b"), (backup.alice, "x")):
            Directory(caller, "b" * 32, logs={LOSS: points(9, say)}).pushed()
            Directory(caller, "c" * 32, logs={LOSS: points(3, "c")}).pushed()
            row = b'{"op":"set","time":"2026-01-01T00:00:00Z","set":{"say":"%b"}}' % say.encode()
            more = [row] if say == "b" else [row, row]
            Directory(caller, "b" * 32, logs={".dreamlake/parameters.jsonl": more}).pushed()
        run.track("train/loss").read(0, 5)
        assert run.parameters().get() == {"say": "b"}
        net.serving = backup
        run._others.failed(Unreachable("the connection is lost"))  # type: ignore[union-attr]
        net.now += 20
        assert losses(run.track("train/loss").read(5, 3)) == ["c2", "x3", "x4"]
        assert run.parameters().get() == {"say": "x"}


def test_a_base_is_not_read_twice(net: Net, tmp_path: Path) -> None:
    """A directory that was pulled has 10 points and a parameter of another origin; that one has gone on since."""
    history = ".dreamlake/parameters.jsonl"
    set_ = b'{"op":"set","time":"2026-01-01T00:0%d:00.000000Z","set":{"lr":%d,"only":"there"}}'
    pushed(net, "b" * 32, points(10, "b"))
    pushed(net, "b" * 32, [set_ % (0, 1), set_ % (2, 3)], log=history)
    with session(tmp_path, remote=None) as run:
        run.track("train/loss").append_batch([{"value": f"b{n}"} for n in range(10)])
        run.parameters().set(lr=1, here=True)
    folder = tmp_path / "project" / "run"
    repair(str(folder), lambda _text: None)
    # Pulled rows keep their times; these are later than all others', and must not win for that.
    base = Base({LOSS: (10, Mark()), history: (1, Mark())}, {"b" * 32: {LOSS: (10, "2026-01-01T00:00:09.000000Z")}})
    (folder / BASE).write_bytes(encode_base(base))
    with session(tmp_path) as run:
        assert losses(run.track("train/loss").read()) == [f"b{n}" for n in range(10)]
        assert "origin" not in run.track("train/loss").read()["data"][0]
        assert run.parameters().get() == {"lr": 3, "only": "there", "here": True}
        pushed(net, "b" * 32, points(13, "b"))
        run.track("train/loss").append(value="own")
        page = run.track("train/loss").read()
        assert sorted(losses(page)) == sorted([*(f"b{n}" for n in range(13)), "own"])
        assert run.track("train/loss").stats()["totalDataPoints"] == "14"
        run.parameters().set(lr=4)
        assert run.parameters().get()["lr"] == 4


@pytest.mark.parametrize("files", [True, False], ids=["with its files", "without"])
def test_what_was_pulled_goes_on_with_the_others(net: Net, two: tuple[Path, Path], tmp_path: Path, files: bool) -> None:
    third = tmp_path / "third"
    with lake_of(net.serving)[0] as lake:
        folder = str(third / "project" / "run")
        Pull(lake, "project", "run", folder, lambda: "2026-02-03T00:00:00.000000Z", files=files).run()
    with session(two[0], remote=None) as run:
        run.track("loss").append(value="one3")
        run.parameters().set(by="one again")
    send(two[0], net)
    with session(third) as run:
        run.track("loss").append(value="third")
        run.parameters().set(third=True)
        wanted = {"lr": 0.1, "by": "one again", "worst": math.inf, "epochs": 3, "third": True}
        assert run.parameters().get() == wanted
        assert losses(run.track("loss").read()) == ["one0", "one1", "one2", "other0", "other1", "one3", "third"]
        assert run.track("loss").stats()["totalDataPoints"] == "7"
        assert [row["data"]["text"] for row in run.track("only/one").read()["data"]] == ["NaN"]
        net.take()
        [file] = run.files().list()
        assert Path(run.files().download(file["id"], tmp_path / "got")).read_bytes() == WEIGHTS
        assert (f"GET /v1/blobs/{file['checksum']}" in net.take()) is not files
    send(third, net)
    for each in (*two, third):
        with session(each) as run:
            assert losses(run.track("loss").read())[-2:] == ["one3", "third"]
            assert run.track("loss").read()["total"] == 7
            assert run.parameters().get() == wanted


def test_a_large_other_origin_is_paged_with_flat_memory(net: Net, tmp_path: Path) -> None:
    count = 100_000
    large = Directory(net.serving.alice, "b" * 32, logs={LOSS: points(count, "b")})
    said(net.serving.alice.post("/v1/push", **msgpack(large.body(**{LOSS: as_bytes(large.piece(LOSS))}))))
    pushed(net, "c" * 32, points(3, "c"))
    with session(tmp_path) as run:
        run.track("train/loss").append(value="own")
        for start in (0, 5_000, 10_000):
            assert run.track("train/loss").read(start, 5_000)["total"] == 5_000
        tracemalloc.start()
        try:
            assert run.track("train/loss").read(90_000, 1_000)["hasMore"]  # walks over all before
            assert tracemalloc.get_traced_memory()[1] < 50 << 20  # the server's part is among it
        finally:
            tracemalloc.stop()
        kept = sum(size for _place, size in run._others.places._kept.values())  # type: ignore[union-attr]
        assert kept < 30 << 20
        assert run.track("train/loss").read(count + 1)["total"] == 3
        assert run.track("train/loss").stats()["totalDataPoints"] == str(count + 4)


def test_a_forked_child_asks_by_a_connection_of_its_own(net: Net, two: tuple[Path, Path]) -> None:
    with session(two[0]) as run:
        run.parameters().get()
        parents = run._others
        assert parents is not None
        parents._pid += 1
        parents.lock = None  # type: ignore[assignment]  # held by another thread at the fork
        assert run.parameters().get()["epochs"] == 3
        assert run._others is not parents


def test_what_a_strange_server_says_becomes_no_path(net: Net, two: tuple[Path, Path], tmp_path: Path) -> None:
    (two[0] / "project" / "secret").mkdir()
    (two[0] / "project" / "secret" / "metadata.json").write_text('{"name": "secret", "totalDataPoints": 1}')
    head = {"count": 1, "mark": "9-00000000", "base": 0, "first": None, "last": None}
    heads = {"b" * 32: {"tracks/../../secret/data.jsonl": head}}
    answer = {"session": {"id": "x", "deletedAt": None}, "origins": heads}
    net.fault = lambda _request, _answer: httpx.Response(200, json=answer)  # type: ignore[method-assign]
    with session(two[0]) as run:
        assert [each["name"] for each in run.track("loss").list_all()] == ["loss", "only/one"]


def test_many_threads_read_at_once(net: Net, two: tuple[Path, Path]) -> None:
    with session(two[0]) as run, ThreadPoolExecutor(4) as pool:
        for found in pool.map(
            lambda _n: (run.parameters().get()["epochs"], losses(run.track("loss").read())), range(8)
        ):
            assert found == (3, ["one0", "one1", "one2", "other0", "other1"])


def test_what_is_kept_is_bounded() -> None:
    kept: others.Kept[str] = others.Kept(10)
    for key, size in (("a", 4), ("b", 4), ("a", 5), ("c", 4)):
        kept.put(key, key.upper(), size)
    assert [kept.get(each) for each in "abc"] == ["A", None, "C"]
    kept.put("d", "D", 100)
    assert [kept.get(each) for each in "acd"] == [None, None, "D"]


@pytest.mark.parametrize("own", [True, False])
def test_one_rank_of_several_directories(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, folder in ((0, "one"), (1, "one"), (1, "other")):
        monkeypatch.setenv("RANK", str(rank))
        with session(tmp_path / folder, remote=None) as one:
            one.track("loss").append_batch([{"value": f"{folder}{rank}{n}"} for n in range(3)])
        send(tmp_path / folder, net)
    monkeypatch.delenv("RANK")
    mine = [f"{folder}1{n}" for folder in ("one", "other") for n in range(3)]
    with session(tmp_path / ("other" if own else "third")) as reading:
        track = reading.track("loss")
        assert losses(track.read(rank=1)) == mine
        first, rest = track.read(limit=2, rank=1), track.read(start_index=2, rank=1)
        assert (losses(first), first["hasMore"]) == (mine[:2], True)
        assert (losses(rest), rest["hasMore"]) == (mine[2:], False)
        assert {row["rank"] for row in rest["data"]} == {1}
        counted = track.stats(rank=1)
        rows = track.read(rank=1)["data"]
        assert counted["totalDataPoints"] == "6"
        assert (counted["firstDataAt"], counted["lastDataAt"]) == (rows[0]["createdAt"], rows[-1]["createdAt"])
        assert track.stats(rank=0)["totalDataPoints"] == "3"
        assert track.stats()["totalDataPoints"] == "9"
        net.down = True
        net.now += 100
        if own:
            assert losses(track.read(rank=1)) == mine[3:]
        else:
            with pytest.raises(RemoteUnavailable):
                track.read(rank=1)
