"""The sender's lanes: logs that go on, small files, large files; and what holds up what."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dreamlake import Session
from dreamlake.reader.superseded import Superseded, place_digest
from dreamlake.remote.lake import Lake, Unreachable
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote import blobs as module
from dreamlake_agent.remote import logs as logs_module
from dreamlake_agent.remote.blobs import Blobs, Digests
from dreamlake_agent.remote.logs import Logs
from dreamlake_agent.remote.outcome import Outcome
from dreamlake_agent.remote.source import Source
from tests.remote.lakes import lake_of
from tests.remote.test_upload import in_directory, on_server, sent, settled, train, with_files
from tests.server.serving import Serving, opened

pytestmark = pytest.mark.no_agent

LOSS = "tracks/train/loss/data.jsonl"


@pytest.fixture
def source_of() -> Iterator[Callable[[Path], Source]]:
    opened_here: list[Source] = []

    def open_source(folder: Path) -> Source:
        opened_here.append(Source(REAL_DISK, str(folder)))
        return opened_here[-1]

    yield open_source
    for each in opened_here:
        each.close()


Open = Callable[[Path], Source]

# ── logs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_came_since_is_pushed_without_asking(root: Path, serving: Serving, source_of: Open) -> None:
    folder = train(root, 5)
    lake, wire = lake_of(serving)
    logs = Logs(source_of(folder), lake)
    logs.send()
    del wire.requests[:]
    train(root, 3, "b")
    with Session("run", "project", local_path=str(root)) as session:
        session.track("new").append(value=1)
    settled(folder)
    logs.renew(source_of(folder))
    assert logs.behind > 0
    logs.send()
    assert (set(wire.requests), logs.behind) == ({"POST /v1/push"}, 0)
    assert on_server(serving) == in_directory(folder)
    assert logs.acked[LOSS].count == 8


def test_a_directory_that_was_put_back_is_asked_about_anew(root: Path, serving: Serving, source_of: Open) -> None:
    """And goes on from another history: nothing is sent behind a mark that is not its own."""
    folder = train(root, 5)
    backup = root.parent / "backup"
    shutil.copytree(folder, backup)
    train(root, 3, "b")
    lake, _wire = lake_of(serving)
    logs = Logs(source_of(folder), lake)
    logs.send()
    before = on_server(serving)
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    train(root, 6, "c")
    logs.renew(source_of(folder))
    assert not logs.is_asked
    logs.send()
    assert LOSS in logs.outcome.forks
    assert on_server(serving) == before
    count = len(logs.outcome.problems)
    logs.renew(source_of(train(root, 1, "d")))
    logs.send()
    logs.status()
    assert (LOSS in logs.outcome.forks, len(logs.outcome.problems)) == (True, count)  # said once


def test_another_directory_under_the_same_path_is_asked_about_anew(
    root: Path, serving: Serving, source_of: Open
) -> None:
    """Also before the server has answered, nothing is said of logs that it does not have."""
    folder = train(root, 5)
    lake, _wire = lake_of(serving)
    logs = Logs(source_of(folder), lake)
    logs.send()
    shutil.rmtree(folder)
    with Session("run", "project", local_path=str(root)) as session:
        session.log("another one")
    other = source_of(settled(folder))
    assert LOSS not in other.ends
    logs.renew(other)
    assert not logs.is_asked
    assert logs.behind >= 0
    logs.send()
    assert (logs.behind, logs.outcome.problems) == (0, [])


def test_an_answer_that_was_lost_leads_back_to_the_status(root: Path, serving: Serving, source_of: Open) -> None:
    folder = train(root, 5)
    lost: list[str] = []

    def fault(request: httpx.Request, answer: httpx.Response | None) -> None:
        if answer is not None and request.url.path == "/v1/push" and len(lost) < 8:
            lost.append("answer")
            raise httpx.ReadError("lost")

    lake, wire = lake_of(serving, fault)
    logs = Logs(source_of(folder), lake)
    with pytest.raises(Unreachable):
        logs.send()
    assert not logs.is_asked
    del wire.requests[:]
    logs.send()
    assert (wire.requests, logs.outcome.records) == (["POST /v1/status"], 0)  # it had arrived
    assert on_server(serving) == in_directory(folder)


def test_a_log_that_is_damaged_holds_up_no_other(root: Path, serving: Serving, source_of: Open) -> None:
    folder = train(root, 50)
    whole = (folder / LOSS).read_bytes()
    os.truncate(folder / LOSS, 100)
    logs = Logs(source_of(folder), lake_of(serving)[0])
    logs.send()
    [problem] = logs.outcome.problems
    assert problem.startswith(f"{LOSS} could not be sent")
    there = on_server(serving)
    assert {log: lines for log, lines in in_directory(folder).items() if log != LOSS} == there
    (folder / LOSS).write_bytes(whole)
    logs.renew(source_of(folder))
    logs.send()
    assert on_server(serving) == in_directory(folder)


def test_a_log_that_was_changed_by_hand_is_sent_and_told(root: Path, serving: Serving) -> None:
    """It is the user's; but a disk that rots would look the same."""
    folder = train(root, 50)
    (folder / LOSS).write_bytes((folder / LOSS).read_bytes().replace(b"a17", b"z17"))
    for _ in range(2):
        [problem] = sent(folder, lake_of(serving)[0]).problems
        assert problem.startswith(f"{LOSS} is not what its checkpoint says")
    assert on_server(serving) == in_directory(folder)


def test_it_stops_where_it_is_told(
    root: Path, serving: Serving, source_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs_module, "BATCH_BYTES", 500)
    lake, wire = lake_of(serving)
    logs = Logs(source_of(train(root, 300)), lake)
    logs.send(lambda: len(wire.requests) > 3)
    assert (len(wire.requests), logs.behind > 0) == (4, True)
    logs.send()
    assert (wire.requests.count("POST /v1/status"), logs.behind) == (1, 0)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def stored(serving: Serving, data: bytes) -> bool:
    return serving.alice.get(f"/v1/blobs/{hashlib.sha256(data).hexdigest()}").status_code == 200


def puts(requests: list[str]) -> list[str]:
    return [each for each in requests if each.startswith("PUT")]


def test_each_lane_sends_its_sizes_the_smallest_first(
    root: Path, serving: Serving, source_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    sizes = {"c": 3000, "a": 10, "e": 50_000, "b": 20, "d": 40_000}
    contents = {name: name.encode() * size for name, size in sizes.items()}
    folder = with_files(root, **contents)
    names = {hashlib.sha256(data).hexdigest(): name for name, data in contents.items()}
    lake, wire = lake_of(serving)
    blobs = Blobs(source_of(folder), lake)

    def sent_now() -> str:
        found = "".join(names[each.split("/")[3]] for each in puts(wire.requests))
        del wire.requests[:]
        return found

    blobs.send(least=1000, most=45_000)
    assert sent_now() == "cd"
    blobs.send(most=1000)
    assert sent_now() == "ab"
    blobs.send()
    assert sent_now() == "e"
    assert blobs.outcome == Outcome(files=5, file_bytes=sum(sizes.values()))
    blobs.send()
    assert wire.requests == []  # the server has said that it has them


def test_an_upload_that_was_killed_goes_on_at_the_part_that_is_missing(
    root: Path, serving: Serving, source_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamlake_server.limits.PART_BYTES", 1000)
    monkeypatch.setattr(module, "SMALL_BYTES", 10_000)
    data = os.urandom(63_500)
    folder = with_files(root, model=data)
    count = 0

    def killed(request: httpx.Request, answer: httpx.Response | None) -> None:
        nonlocal count
        count += request.method == "PUT" and answer is not None
        if count > 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Blobs(source_of(folder), lake_of(serving, killed)[0]).send()
    lake, wire = lake_of(serving)
    blobs = Blobs(source_of(folder), lake)
    blobs.send()
    assert len(puts(wire.requests)) == 64 - count
    assert stored(serving, data)
    assert blobs.outcome.problems == []


def test_parts_go_in_parallel_and_memory_stays_flat(
    root: Path, source_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more than a chunk of each part is held."""
    data = os.urandom(24 << 20)
    folder = with_files(root, model=data)
    at_once, held, lock = threading.Barrier(module.AT_ONCE, timeout=20), 0, threading.Lock()
    most = 0
    real = Source.chunks

    def chunks(source: Source, path: str, start: int, end: int) -> Iterator[bytes]:
        nonlocal held, most
        for chunk in real(source, path, start, end):
            with lock:
                held += len(chunk)
                most = max(most, held)
            yield chunk
            with lock:
                held -= len(chunk)

    monkeypatch.setattr(Source, "chunks", chunks)
    monkeypatch.setattr(module, "SINGLE_BYTES", 1 << 20)
    parts: dict[int, int] = {}

    def server(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "PUT":
            at_once.wait()  # all of them are here together
            size = sum(map(len, request.stream))  # type: ignore[arg-type]
            with lock:
                parts[int(path.rpartition("/")[2])] = size
            return httpx.Response(200, json={})
        if path == "/v1/status":
            return httpx.Response(200, json={"session": None, "logs": {}, "lacking": [sha256]})
        if path.endswith("/complete"):
            return httpx.Response(200, json={"state": "stored"})
        return httpx.Response(200, json={"state": "wanted", "part_bytes": 3 << 20, "parts": {}, "urls": {}})

    sha256 = hashlib.sha256(data).hexdigest()
    lake = Lake("http://127.0.0.1:3000", None, transport=httpx.MockTransport(server))
    Blobs(source_of(folder), lake).send()
    assert parts == dict.fromkeys(range(1, 9), 3 << 20)
    assert most <= module.AT_ONCE * (1 << 20)


def test_a_file_is_read_for_its_hash_once(
    root: Path, serving: Serving, source_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For however many servers and rounds; again when it was changed."""
    folder = with_files(root, model=b"weights" * 1000)
    readings: list[str] = []
    real = Source.chunks

    def chunks(source: Source, path: str, start: int, end: int) -> Iterator[bytes]:
        readings.append(path)
        return real(source, path, start, end)

    monkeypatch.setattr(Source, "chunks", chunks)
    digests = Digests()
    with opened() as other:
        for where in (serving, other):
            for _ in range(2):
                Blobs(source_of(folder), lake_of(where)[0], digests=digests).send()
    path = "files/models/model"
    assert readings == [path] * 3  # one is for the hash, and one each is sent
    (folder / path).write_bytes(b"weightz" * 1000)
    assert digests.of(source_of(folder), path) == hashlib.sha256(b"weightz" * 1000).hexdigest()


@pytest.mark.parametrize("what", ["other bytes", "fewer bytes", "other bytes that look the same"])
def test_a_file_that_changes_on_the_way_is_never_there(
    root: Path, serving: Serving, source_of: Open, what: str
) -> None:
    data = os.urandom(3 << 20)
    folder = with_files(root, model=data, other=b"other")
    path = folder / "files" / "models" / "model"
    before = path.stat()
    sha256 = hashlib.sha256(data).hexdigest().encode()

    def changing(request: httpx.Request, answer: httpx.Response | None) -> None:
        if request.url.path == "/v1/blobs" and answer is not None and sha256 in request.read():
            path.write_bytes(data[: 2 << 20] if what == "fewer bytes" else data[:-1] + b"!")
            if what == "other bytes that look the same":
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    lake, _wire = lake_of(serving, changing)
    blobs = Blobs(source_of(folder), lake)
    blobs.send()
    [problem] = blobs.outcome.problems
    assert problem.startswith("files/models/model is not what was uploaded any more")
    assert (stored(serving, data), stored(serving, b"other")) == (False, True)
    again = Blobs(source_of(folder), lake_of(serving)[0], digests=blobs._digests)
    again.send()
    [problem] = again.outcome.problems
    assert "is not what was uploaded any more" in problem
    path.write_bytes(data)  # brought back
    last = Blobs(source_of(folder), lake_of(serving)[0])
    last.send()
    assert (last.outcome.problems, stored(serving, data)) == ([], True)


def replaced(root: Path) -> tuple[Path, str]:
    """A file of which there were two versions; and where the first one is kept, if it is."""
    with_files(root, model=b"first")
    folder = with_files(root, model=b"second")
    at = REAL_DISK.root(str(folder))
    source = Source(REAL_DISK, str(folder))
    [version] = [each for file in source.files() if file.stands for each in file.versions]
    source.close()
    REAL_DISK.mkdirs(".dreamlake/superseded", at)
    REAL_DISK.close(at)
    return folder, Superseded(1, version.id, place_digest("files/models/model")).path


def test_a_version_that_was_replaced_is_sent_from_where_it_is_kept(root: Path, serving: Serving) -> None:
    folder, kept = replaced(root)
    (folder / kept).write_bytes(b"first")
    outcome = sent(folder, lake_of(serving)[0])
    assert (outcome.files, outcome.problems) == (2, [])
    assert stored(serving, b"first")
    assert stored(serving, b"second")


@pytest.mark.parametrize("there", [None, b"other", b"tsrif"])
def test_a_version_that_was_replaced_and_is_nowhere_is_no_problem(
    root: Path, serving: Serving, there: bytes | None
) -> None:
    folder, kept = replaced(root)
    if there is not None:
        (folder / kept).write_bytes(there)
    outcome = sent(folder, lake_of(serving)[0])
    assert (outcome.files, outcome.problems) == (1, [])


def test_the_version_that_stands_is_missed(root: Path, serving: Serving) -> None:
    folder, _kept = replaced(root)
    (folder / "files" / "models" / "model").unlink()
    [problem] = sent(folder, lake_of(serving)[0]).problems
    assert problem.startswith("files/models/model is not there")


def test_a_version_that_was_replaced_since_is_sent_or_left_to_the_next_checkpoint(
    root: Path, serving: Serving, source_of: Open
) -> None:
    """What the last checkpoint does not cover may have moved it."""
    folder = with_files(root, model=b"first")
    source = source_of(folder)
    blobs = Blobs(source, lake_of(serving)[0])
    source.places(source.files()[0])  # looked up before it moved
    path = folder / "files" / "models" / "model"
    kept = folder / Superseded(1, "newcomer", place_digest("files/models/model")).path
    kept.parent.mkdir(exist_ok=True)
    path.rename(kept)
    path.write_bytes(b"newer")
    blobs.send()
    assert (blobs.outcome.problems, stored(serving, b"first")) == ([], True)

    with opened() as other:
        kept.unlink()
        with_files(root, model=b"newest")  # and a checkpoint
        late = Blobs(source, lake_of(other)[0])
        late.send()
        assert (late.outcome.problems, late.outcome.files) == ([], 0)


def test_what_a_server_cannot_do_with_one_file_holds_up_no_other(root: Path, serving: Serving, source_of: Open) -> None:
    folder = with_files(root, a=b"a", b=b"bb", c=b"ccc")
    bad = hashlib.sha256(b"bb").hexdigest()

    def fault(request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        return httpx.Response(500, content=b"oh") if bad in request.url.path and answer is None else None

    blobs = Blobs(source_of(folder), lake_of(serving, fault)[0])
    with pytest.raises(Unreachable) as raised:
        blobs.send()
    assert not raised.value.whole
    assert (stored(serving, b"a"), stored(serving, b"bb"), stored(serving, b"ccc")) == (True, False, True)


def test_parts_that_somebody_else_drops_are_sent_again(
    root: Path, serving: Serving, source_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"weights" * 100
    folder = with_files(root, model=data)
    sha256 = hashlib.sha256(data).hexdigest()
    drops = 2

    def fault(request: httpx.Request, answer: httpx.Response | None) -> None:
        nonlocal drops
        if request.method == "PUT" and answer is not None and drops:
            drops -= 1
            serving.run(serving.server.owned.forget("alice", sha256))

    lake, wire = lake_of(serving, fault)
    blobs = Blobs(source_of(folder), lake)
    blobs.send()
    assert (stored(serving, data), len(puts(wire.requests)), blobs.outcome.problems) == (True, 3, [])


def test_urls_that_cannot_be_reached_are_done_without(root: Path, serving: Serving, source_of: Open) -> None:
    """Bytes go past the server where that can be; a bucket that this network does not let through is no obstacle."""
    data = b"weights" * 100
    folder = with_files(root, model=data)

    def fault(request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        if request.url.path != "/v1/blobs" or answer is None:
            return None
        said = answer.json()
        said["urls"] = {"1": "http://127.0.0.1:1/part"}
        answer._content = httpx.Response(200, json=said).content
        answer.headers["content-length"] = str(len(answer._content))
        return None

    blobs = Blobs(source_of(folder), lake_of(serving, fault)[0])
    blobs.send()
    assert (stored(serving, data), blobs.outcome.problems, blobs._direct) == (True, [], False)
