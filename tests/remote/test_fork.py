"""``--fork``: a copy that went on by itself is sent beside the other one, and nothing is sent twice."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session
from dreamlake.reader.base import BASE, read_base
from dreamlake.reader.verify import verify
from dreamlake.remote.follow import Follow
from dreamlake.remote.lake import Lake
from dreamlake.wire.marks import Mark
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote.source import NotSendable, Source
from dreamlake_agent.remote.upload import Upload
from dreamlake_agent.repair import repair
from dreamlake_agent.sync import fork as module
from dreamlake_agent.sync.fork import CannotFork, fork
from tests.conftest import Cli
from tests.remote.lakes import lake_of
from tests.remote.test_upload import in_directory, sent, settled, train
from tests.server.serving import Serving, said

pytestmark = pytest.mark.no_agent

LOSS = "tracks/train/loss/data.jsonl"


def copy_of(folder: Path, to: str = "copy") -> Path:
    target = folder.parents[2] / to / "project" / "run"
    shutil.copytree(folder, target)
    return target


def two(root: Path, serving: Serving, shared: int = 50) -> tuple[Path, Path]:
    """A directory and a copy of it that both went on; the first one is on the server."""
    first = train(root, shared, "both")
    second = copy_of(first)
    train(root, 7, "one")
    train(second.parents[1], 9, "two")
    assert sent(first, lake_of(serving)[0]).problems == []
    assert LOSS in sent(second, lake_of(serving)[0]).forks
    return first, second


def by_origin(serving: Serving, folder: Path) -> dict[str, list[bytes]]:
    """What the server has of a directory's origin, from where it begins there."""
    follow = Follow(lake_of(serving)[0], "project", "run")
    origin = (folder / ".dreamlake" / "origin").read_text().strip()
    heads = follow.origins()[origin]
    return {
        log: [line for piece in follow.pieces(origin, log, head.base, None) for line in piece.lines]
        for log, head in heads.items()
    }


def values(serving: Serving) -> list[str]:
    session = said(serving.alice.get("/sessions"))["sessions"][0]
    page = said(serving.alice.get(f"/sessions/{session['id']}/tracks/train/loss/data", params={"limit": 10_000}))
    return [row["data"]["value"] for row in page["data"]]


def base_of(folder: Path) -> Any:
    at = REAL_DISK.root(str(folder))
    try:
        return read_base(REAL_DISK, at)
    finally:
        REAL_DISK.close(at)


def test_the_shared_part_is_there_once_and_both_tails(root: Path, serving: Serving) -> None:
    first, second = two(root, serving)
    before = (second / ".dreamlake" / "origin").read_text()
    base = fork(str(second), lake_of(serving)[0])
    assert (second / ".dreamlake" / "origin").read_text() != before
    assert base.logs[LOSS][0] == 50
    assert verify(str(second)).problems == []
    outcome = sent(second, lake_of(serving)[0])
    assert (outcome.problems, outcome.forks) == ([], [])
    ours = in_directory(second)
    for log, lines in by_origin(serving, second).items():
        assert lines == ours[log][base.logs.get(log, (0, Mark()))[0] :]
    assert by_origin(serving, first) == in_directory(first)
    assert sorted(values(serving)) == sorted(
        [f"both{n}" for n in range(50)] + [f"one{n}" for n in range(7)] + [f"two{n}" for n in range(9)]
    )
    assert sent(second, lake_of(serving)[0]).records == 0


def test_it_goes_on_and_may_fork_again(root: Path, serving: Serving) -> None:
    _first, second = two(root, serving)
    fork(str(second), lake_of(serving)[0])
    sent(second, lake_of(serving)[0])
    third = copy_of(second, "third")
    train(second.parents[1], 3, "more")
    train(third.parents[1], 4, "third")
    assert sent(second, lake_of(serving)[0]).problems == []
    assert sent(third, lake_of(serving)[0]).forks
    base = fork(str(third), lake_of(serving)[0])
    assert base.logs[LOSS][0] == 59
    assert {origin: logs[LOSS][0] for origin, logs in base.origins.items()} == {
        (_first / ".dreamlake" / "origin").read_text().strip(): 50,
        (second / ".dreamlake" / "origin").read_text().strip(): 59,
    }
    assert sent(third, lake_of(serving)[0]).problems == []
    assert len(values(serving)) == len(set(values(serving))) == 50 + 7 + 9 + 3 + 4


@pytest.mark.parametrize("common", [0, 500, 1234])
def test_the_last_common_record_is_found_within_segments(
    root: Path, serving: Serving, common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever pieces the server has it in."""
    monkeypatch.setattr("dreamlake_server.records.SEGMENT_ROWS", 500)
    monkeypatch.setattr("dreamlake.remote.follow.PIECES_BYTES", 10_000)
    first = train(root, 1, "both")
    with Session("run", "project", local_path=str(root)) as session:
        for n in range(common):
            session.track("long").append(value=n)
    settled(first)
    second = copy_of(first)
    for folder, what in ((first, "one"), (second, "two")):
        with Session("run", "project", local_path=str(folder.parents[1])) as session:
            session.track("long").append_batch([{"value": f"{what}{n}"} for n in range(2100)])
        settled(folder)
    assert sent(first, lake_of(serving)[0]).problems == []
    base = fork(str(second), lake_of(serving)[0])
    assert base.logs.get("tracks/long/data.jsonl", (0,))[0] == common
    assert sent(second, lake_of(serving)[0]).problems == []


def test_a_server_that_is_ahead_has_all_of_it(root: Path, serving: Serving) -> None:
    """A backup that did not go on has nothing of its own, and is no fork."""
    first = train(root, 5)
    backup = copy_of(first)
    train(root, 5, "more")
    sent(first, lake_of(serving)[0])
    behind = sent(backup, lake_of(serving)[0])
    assert (behind.records, behind.forks, behind.problems) == (0, [], [])
    fork(str(backup), lake_of(serving)[0])
    lake, wire = lake_of(serving)
    source = Source(REAL_DISK, str(backup))
    assert Upload(source, lake).status() == (0, 0)
    source.close()
    del wire.requests[:]
    outcome = sent(backup, lake)
    assert (outcome.records, outcome.problems) == (0, [])
    assert wire.requests == ["POST /v1/status", "POST /v1/origins"]


def test_records_that_were_set_aside_are_shared_too(root: Path, serving: Serving) -> None:
    """The server has a tombstone in the place of each, and knows no more of it than where it ends."""
    first = train(root, 10, "both")
    lines = (first / LOSS).read_bytes().splitlines(keepends=True)
    lines[3] = b'{"index":3,"da' + lines[3]  # as 0.2.x left some
    (first / LOSS).write_bytes(b"".join(lines))
    (first / ".dreamlake" / "checkpoint").unlink()
    settled(first)
    second = copy_of(first)
    train(root, 2, "one")
    train(second.parents[1], 3, "two")
    assert sent(first, lake_of(serving)[0]).refused == 1
    assert fork(str(second), lake_of(serving)[0]).logs[LOSS][0] == 10
    assert sent(second, lake_of(serving)[0]).problems == []
    assert len(values(serving)) == 9 + 2 + 3


class Dies:
    """A disk that is gone after so many changes."""

    def __init__(self, changes: int) -> None:
        self._left = changes

    def __getattr__(self, name: str) -> Callable[..., Any]:
        real = getattr(REAL_DISK, name)

        def call(*args: Any) -> Any:
            if name in ("rename", "unlink"):
                self._left -= 1
                if self._left < 0:
                    raise OSError(errno.EIO, "gone")
            return real(*args)

        return call


def test_a_death_at_any_step_leaves_the_old_identity_or_the_new_one(
    root: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    _first, second = two(root, serving)
    whole = copy_of(second, "whole")
    old = (second / ".dreamlake" / "origin").read_text().strip()
    seen: set[bool] = set()
    change = module._change
    for steps in range(100):
        shutil.rmtree(second)
        shutil.copytree(whole, second)
        dies = Dies(steps)
        monkeypatch.setattr(
            module, "_change", lambda owner, *args, dies=dies: change(dataclasses.replace(owner, disk=dies), *args)
        )
        try:
            fork(str(second), lake_of(serving)[0])
            break
        except OSError:
            pass
        repair(str(second), lambda _text: None)
        assert verify(str(second)).problems == []
        source = Source(REAL_DISK, str(second))
        source.close()
        assert (second / ".dreamlake" / "origin").read_text().strip() == source.origin
        is_new = source.origin != old
        assert (source.bases.get(LOSS, (0,))[0]) == (50 if is_new else 0)
        seen.add(is_new)
    else:
        pytest.fail("it never came through")
    assert seen == {False, True}
    assert sent(second, lake_of(serving)[0]).problems == []
    assert len(values(serving)) == len(set(values(serving))) == 66


def test_after_a_death_behind_the_change_it_is_sent_as_the_new_one(
    root: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    _first, second = two(root, serving)
    checkpoint = module.encode_checkpoint

    def encode(found: Any) -> bytes:
        monkeypatch.setattr(module, "ORIGIN", "nowhere/origin")  # what comes behind it fails
        return checkpoint(found)

    monkeypatch.setattr(module, "encode_checkpoint", encode)
    with pytest.raises(OSError, match="nowhere"):
        fork(str(second), lake_of(serving)[0])
    assert sent(second, lake_of(serving)[0]).problems == []  # nobody has owned it since
    assert len(values(serving)) == len(set(values(serving))) == 66


def test_what_cannot_fork_says_so_and_stays(
    root: Path, serving: Serving, dreamlake: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(root, 5)
    origin = (folder / ".dreamlake" / "origin").read_text()
    with pytest.raises(CannotFork, match="not on the server yet"):
        fork(str(folder), lake_of(serving)[0])
    monkeypatch.delenv("DREAMLAKE_AGENT")
    with Session("run", "project", local_path=str(root)) as session:
        session.log("an agent has it")
        session.flush()
        with pytest.raises(Exception, match="belongs to a live agent"):
            fork(str(folder), lake_of(serving)[0])
    assert (folder / ".dreamlake" / "origin").read_text() == origin


@pytest.mark.parametrize("garbage", [b"", b"{}", b"[]", b'{"v":1}', b'{"v":1,"logs":{"a":[1]}}', b'{"v":2,"logs":{}}'])
def test_a_base_that_cannot_be_read_stops_the_directory(root: Path, serving: Serving, garbage: bytes) -> None:
    folder = train(root, 1)
    (folder / BASE).write_bytes(garbage)
    lake: Lake = lake_of(serving)[0]
    with pytest.raises(NotSendable, match=r"\.dreamlake/base"):
        sent(folder, lake)
