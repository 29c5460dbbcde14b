"""Upload: whatever happens on the way, the server has each log as the directory has it, once."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from dreamlake import Session
from dreamlake.remote.lake import Lake, NotLetIn, Refused, Unreachable
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote import blobs, logs
from dreamlake_agent.remote.source import Source
from dreamlake_agent.remote.upload import Outcome, Upload
from dreamlake_agent.repair import repair
from dreamlake_server import records
from tests.conftest import fresh_home
from tests.remote.lakes import lake_of, lossy
from tests.server.serving import HERE, Serving, opened, said

pytestmark = pytest.mark.no_agent

SEEDS = 60
WEIGHTS = bytes(range(256)) * 300


def train(root: Path, points: int = 300, say: str = "a") -> Path:
    """A run, all of it durable: no agent, and then an agent's life."""
    with Session("run", "project", local_path=str(root), tags=["t"]) as session:
        session.log(f"{say} started")
        session.parameters().set(lr=0.1, said=say)
        session.track("train/loss").append_batch([{"value": f"{say}{n}"} for n in range(points)])
        session.track("acc").append(value=1)
    return settled(root / "project" / "run")


def settled(folder: Path) -> Path:
    repair(str(folder), lambda _text: None)
    return folder


def sent(folder: Path, lake: Lake) -> Outcome:
    source = Source(REAL_DISK, str(folder))
    try:
        return Upload(source, lake).run()
    finally:
        source.close()


def on_server(serving: Serving, user: str = "alice") -> dict[str, list[bytes]]:
    """Every log of the one session and origin that there are."""
    meta, run = serving.server.meta, serving.run
    [session] = run(meta.sessions(user, None, None, 10))
    found: dict[str, list[bytes]] = {}
    for origin, log in run(meta.heads(session.id)):
        lines: list[bytes] = []
        for segment in run(meta.segments(session.id, origin, log, 0, 100_000)):
            assert segment.first == len(lines)
            lines += records.lines_of(segment)
        found[log] = lines
    return found


def in_directory(folder: Path) -> dict[str, list[bytes]]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jsonl")}
    return {log: data.split(b"\n")[:-1] for log, data in found.items() if data and "/cut/" not in log}


def test_everything_arrives_once(root: Path, serving: Serving) -> None:
    folder = train(root)
    lake, _ = lake_of(serving)
    outcome = sent(folder, lake)
    assert outcome.problems == []
    assert on_server(serving) == in_directory(folder)
    assert outcome.records == sum(map(len, in_directory(folder).values()))
    session = said(serving.alice.get("/sessions"))["sessions"][0]
    assert (session["name"], session["tags"], session["state"]) == ("run", ["t"], "finished")


def test_a_second_time_the_server_is_asked_and_nothing_is_read_or_sent(root: Path, serving: Serving) -> None:
    folder = train(root)
    sent(folder, lake_of(serving)[0])
    for log in ("logs/logs.jsonl", "tracks/train/loss/data.jsonl"):
        (folder / log).chmod(0)  # for whoever is not root
        shutil.move(folder / log, folder / f"{log}.away")
    lake, wire = lake_of(serving)
    assert sent(folder, lake) == Outcome()
    assert wire.requests == ["POST /v1/status"]


def test_what_came_since_follows(root: Path, serving: Serving) -> None:
    folder = train(root)
    sent(folder, lake_of(serving)[0])
    train(root, 17, "b")
    outcome = sent(folder, lake_of(serving)[0])
    assert on_server(serving) == in_directory(folder)
    assert 17 < outcome.records < 40


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """One directory as it was after each of four runs."""
    with fresh_home() as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMLAKE_HOME", str(home))
        patch.setenv("DREAMLAKE_AGENT", "never")
        root = tmp_path_factory.mktemp("stages")
        found = []
        for number in range(4):
            folder = train(root / "live", 20 + 20 * number, f"s{number}-")
            shutil.copytree(folder, root / str(number))
            found.append(root / str(number))
        yield found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_over_a_network_that_loses_requests_and_answers(
    stages: list[Path], serving: Serving, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    monkeypatch.setattr(logs, "BATCH_BYTES", random.choice((300, 2000, 20_000)))
    monkeypatch.setattr(logs, "BATCH_LOGS", random.choice((1, 2, 1000)))
    for folder in stages:
        try:
            assert sent(folder, lake_of(serving, lossy(random))[0]).problems == []
        except Unreachable:
            pass  # it gave up: the next one goes on
    assert sent(stages[-1], lake_of(serving)[0]).problems == []
    assert on_server(serving) == in_directory(stages[-1])


def test_two_at_once_do_no_harm(root: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's, and somebody's sync on another machine: turn by turn."""
    monkeypatch.setattr(logs, "BATCH_BYTES", 700)
    folder = train(root)
    uploads = [Upload(Source(REAL_DISK, str(folder)), lake_of(serving)[0]) for _ in range(2)]
    for each in uploads:
        each.status()
    random = Random(1)
    left = list(uploads)
    while left:
        each = random.choice(left)
        batch = each.logs._batch(each.logs.acked)
        if batch.pieces:
            each.logs._push(batch)
        else:
            left.remove(each)
    for each in uploads:
        assert each.outcome.problems == []
        each.logs._source.close()
    assert on_server(serving) == in_directory(folder)


def test_a_copy_that_went_on_by_itself_is_a_fork_and_overwrites_nothing(root: Path, serving: Serving) -> None:
    folder = train(root, 5)
    copy = root.parent / "copy" / "project" / "run"
    shutil.copytree(folder, copy)
    train(root, 5, "mine")
    sent(folder, lake_of(serving)[0])
    before = on_server(serving)
    train(root.parent / "copy", 9, "other")
    outcome = sent(copy, lake_of(serving)[0])
    assert outcome.records == 0
    assert any("tracks/train/loss/data.jsonl" in each and "another history" in each for each in outcome.problems)
    assert on_server(serving) == before


def test_a_server_that_lost_its_last_hours_is_given_them_again(root: Path, serving: Serving) -> None:
    folder = train(root)
    sent(folder, lake_of(serving)[0])
    with opened() as restored:
        train(root, 20, "b")
        assert sent(folder, lake_of(restored)[0]).problems == []
        assert on_server(restored) == in_directory(folder)


def test_a_server_that_is_restored_in_the_middle_is_asked_anew(
    stages: list[Path], serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "BATCH_BYTES", 1500)
    with opened() as restored:
        lake, wire = lake_of(serving, lambda _request, _answer: swap() if len(wire.requests) == 4 else None)

        def swap() -> None:
            wire.caller = restored.alice

        assert sent(stages[-1], lake).problems == []
        assert on_server(restored) == in_directory(stages[-1])


def test_a_record_that_no_server_takes_is_set_aside_and_holds_up_nothing(root: Path, serving: Serving) -> None:
    """0.2.x left half lines glued to whole ones."""
    folder = root / "project" / "run"
    (folder / "tracks" / "loss").mkdir(parents=True)
    made = {"name": "run", "workspace": "project", "created_at": "2025-01-01T00:00:00.000000Z"}
    (folder / "session.json").write_text(json.dumps(made))
    rows = [b'{"index":%d,"data":{"value":%d},"createdAt":"2025-01-01T00:00:00.000000Z"}' % (n, n) for n in range(6)]
    rows[2] = b'{"index":2,"da' + rows[2]
    (folder / "tracks" / "loss" / "data.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    settled(folder)
    outcome = sent(folder, lake_of(serving)[0])
    [problem] = outcome.problems
    assert problem.startswith("record 2 of tracks/loss/data.jsonl was set aside")
    assert on_server(serving)["tracks/loss/data.jsonl"] == [*rows[:2], b"", *rows[3:]]
    assert sent(folder, lake_of(serving)[0]) == Outcome()


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_files(root: Path, remote: str | None = None, **files: bytes) -> Path:
    with Session("run", "project", local_path=str(root), remote=remote) as session:
        for name, data in files.items():
            path = root.parent / name
            path.write_bytes(data)
            session.files().upload(str(path), path="/models")
    return settled(root / "project" / "run")


def test_files_arrive_in_parts_over_a_bad_network(
    root: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreamlake_server.limits.PART_BYTES", 10_000)
    folder = with_files(root, model=WEIGHTS, empty=b"")
    monkeypatch.setattr(blobs, "AT_ONCE", 1)  # one event loop is behind all of them
    for seed in range(5):
        try:
            sent(folder, lake_of(serving, lossy(Random(seed)))[0])
        except Unreachable:
            continue
    outcome = sent(folder, lake_of(serving)[0])
    assert outcome.problems == []
    for data in (WEIGHTS, b""):
        assert serving.alice.get(f"/v1/blobs/{hashlib.sha256(data).hexdigest()}").content == data
    lake, wire = lake_of(serving)
    assert sent(folder, lake) == Outcome()
    assert not [each for each in wire.requests if "PUT" in each]


def test_a_file_that_was_damaged_since_is_reported_and_never_half_sent(root: Path, serving: Serving) -> None:
    folder = with_files(root, model=WEIGHTS, other=b"other")
    (folder / "files" / "models" / "model").write_bytes(WEIGHTS[:-1] + b"!")
    lake, wire = lake_of(serving)
    [problem] = sent(folder, lake).problems
    assert problem.startswith("files/models/model is not what was uploaded any more")
    assert len([each for each in wire.requests if "PUT" in each]) == 1
    assert serving.alice.get(f"/v1/blobs/{hashlib.sha256(b'other').hexdigest()}").content == b"other"


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_file_that_is_replaced_between_its_hash_and_its_bytes_is_sent_from_where_it_is_kept(
    root: Path, serving: Serving, is_kept: bool
) -> None:
    """And when it is kept nowhere, that is no problem: a version that was replaced need not be there."""
    old, new, replaced = b"old" * 1000, b"new" * 1000, []

    def replace(request: httpx.Request, _answer: httpx.Response | None) -> None:
        if request.method == "PUT" and not replaced:
            replaced.append(with_files(root, remote, model=new))

    remote = HERE if is_kept else None
    folder = with_files(root, remote, model=old)
    assert sent(folder, lake_of(serving, replace)[0]).problems == []
    status = serving.alice.get(f"/v1/blobs/{hashlib.sha256(old).hexdigest()}").status_code
    assert status == (200 if is_kept else 404)
    assert sent(folder, lake_of(serving)[0]).problems == []
    assert serving.alice.get(f"/v1/blobs/{hashlib.sha256(new).hexdigest()}").content == new


def test_parts_that_an_upload_left_which_read_another_file_are_put_again(root: Path, serving: Serving) -> None:
    """It read what had replaced the file by then, and died before it could complete."""
    data = b"old" * 1000
    blob = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    said(serving.alice.post("/v1/blobs", json={"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}))
    put = serving.alice.request("PUT", f"{blob}/parts/1?size={len(data)}", content=b"new" * 1000)
    assert put.status_code < 300
    assert sent(with_files(root, model=data), lake_of(serving)[0]).problems == []
    assert serving.alice.get(blob).content == data


# ── what a server says no to ────────────────────────────────────────────────────────────────────────────────────────


def answering(status: int, **said: Any) -> Any:
    return lambda _request, answer: httpx.Response(status, json=said) if answer is None else None


def test_a_token_that_is_not_taken_stops_at_once(root: Path, serving: Serving) -> None:
    lake, wire = lake_of(serving, answering(401, message="this token is not known here"))
    with pytest.raises(NotLetIn, match="not known here"):
        sent(train(root), lake)
    assert len(wire.requests) == 1


def test_a_session_that_was_deleted_there_is_not_made_again(root: Path, serving: Serving) -> None:
    folder = train(root)
    sent(folder, lake_of(serving)[0])
    session = said(serving.alice.get("/sessions"))["sessions"][0]
    said(serving.alice.delete(f"/sessions/{session['id']}"))
    with pytest.raises(Refused, match="was deleted"):
        sent(folder, lake_of(serving)[0])


def test_who_is_away_is_asked_again_and_a_retry_after_is_honoured() -> None:
    waits: list[float] = []

    def away(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "9"}, json={"message": "too many"})

    lake = Lake(HERE, "dlk_secret", sleep=waits.append, transport=httpx.MockTransport(away))
    with lake, pytest.raises(Unreachable, match="too many") as raised:
        lake.ask("/v1/status", {})
    assert len(waits) == 7
    assert all(9 <= seconds <= 20 for seconds in waits)
    assert "dlk_secret" not in str(raised.value)


def test_the_token_goes_to_the_server_and_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str | None] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        seen[request.url.host] = request.headers.get("authorization")
        return httpx.Response(200, json={})

    lake = Lake("https://lake.example.org", "dlk_secret", transport=httpx.MockTransport(answer))
    lake._elsewhere = httpx.Client(transport=httpx.MockTransport(answer))
    with lake:
        lake.ask("/v1/status", {})
        lake.put("https://bucket.example.org/part?signature=x", 1, lambda: iter([b"x"]))
    assert seen == {"lake.example.org": "Bearer dlk_secret", "bucket.example.org": None}
