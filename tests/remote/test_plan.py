"""``dreamlake sync``: what is sent, and where, when the command line does not say it all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamlake import Session, config
from dreamlake.remote.credentials import Credentials, Login
from dreamlake.remote.lake import Lake
from dreamlake.wire.remotes import Remote
from dreamlake.world.registry import Registry
from dreamlake_agent.cli.progress import Show
from dreamlake_agent.remote import upload
from dreamlake_agent.sync import courier, errand, syncing
from dreamlake_agent.sync.syncing import NOT_ALL, WRONG_USE, Asked, Syncing
from tests.reading import strict
from tests.remote.lakes import lake_of
from tests.remote.test_upload import settled, train, with_files
from tests.server.serving import Serving, opened, said

pytestmark = pytest.mark.no_agent

URL = "https://lake.example.org"
OTHER = "https://other.example.org"
DEAD = "https://dead.example.org"
Run = Callable[..., int]


class Net:
    """Servers by URL, and who asked for them with which key; any other URL is one that nobody answers at."""

    def __init__(self, **servers: Serving) -> None:
        self.servers = {f"https://{name}.example.org": serving for name, serving in servers.items()}
        self.opened: list[tuple[str, str | None, str | None]] = []
        self.fault: Callable[[httpx.Request, httpx.Response | None], object] | None = None

    def open(self, url: str, user: str | None, key: str | None, *_more: Any, **_settings: Any) -> Lake:
        self.opened.append((url, user, key))
        if url in self.servers:
            return lake_of(self.servers[url], self.fault)[0]

        def nobody(_request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("nobody answers")

        return Lake(url, None, sleep=lambda _seconds: None, transport=httpx.MockTransport(nobody))


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    with contextlib.ExitStack() as end:
        found = Net(lake=end.enter_context(opened()), other=end.enter_context(opened()))
        monkeypatch.setattr(syncing, "Lake", found)
        yield found


def run(*paths: Path, remote: str | None = None, user: str | None = None, **more: Any) -> int:
    asked = Asked(tuple(map(str, paths)), Remote(remote, user) if remote else None, user, **more)
    return Syncing(asked, Show(quiet=bool(more.get("as_json")))).run()


def meant_for(root: Path, name: str, *urls: str, user: str | None = None) -> Path:
    for url in urls or (None,):
        with Session(
            name, "project", local_path=str(root), **({"remote": url, "user_name": user} if url else {})
        ) as one:
            one.log("hello")
    return root / "project" / name


def names(serving: Serving) -> list[str]:
    return sorted(each["name"] for each in said(serving.alice.get("/sessions"))["sessions"])


def test_each_goes_where_it_was_opened_to_go(root: Path, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    meant_for(root, "a", URL, user="alice")
    meant_for(root, "b", OTHER)
    meant_for(root, "c", URL, OTHER, user="alice")
    assert run(root) == 0
    assert (names(net.servers[URL]), names(net.servers[OTHER])) == (["a", "c"], ["b", "c"])
    assert set(net.opened) == {(URL, "alice", None), (OTHER, None, None), (OTHER, "alice", None)}
    out = capsys.readouterr().out.splitlines()
    assert sorted(line.partition(": ")[0] for line in out[:-1]) == [
        f"project/a to {URL} as alice",
        f"project/b to {OTHER}",
        f"project/c to {URL} as alice",
        f"project/c to {OTHER} as alice",
    ]
    assert out[-1].startswith("3 sessions: sent ")


def test_a_server_that_is_away_and_a_directory_that_is_bad_hold_up_no_other(
    root: Path, net: Net, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, url in (("a", DEAD), ("b", URL), ("c", DEAD), ("d", URL), ("e", URL)):
        meant_for(root, name, url)
    for name in "bde":
        settled(root / "project" / name)
    (root / "project" / "d" / ".dreamlake" / "checkpoint").write_bytes(b"garbage")
    assert run(root, as_json=True) == NOT_ALL
    found = {each["path"][-1]: each for each in strict(capsys.readouterr().out)}
    assert "nobody answers" in found["a"]["error"]
    assert "nobody answers" in found["c"]["error"]
    assert "checkpoint" in found["d"]["error"]
    assert [found[name]["records"] > 0 for name in "be"] == [True, True]
    assert names(net.servers[URL]) == ["b", "e"]


def test_without_a_remote_it_is_the_only_login(root: Path, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    path = meant_for(root, "a")
    assert run(path) == WRONG_USE
    assert "give --remote URL, or run `dreamlake login URL`" in capsys.readouterr().err
    Credentials().store(URL, "alice", Login("dlk_x"))
    assert run(path) == 0
    assert net.opened == [(URL, "alice", None)]
    Credentials().store(OTHER, None, Login("dlk_y"))
    assert run(path) == WRONG_USE
    assert run(path, remote=OTHER, user="bob") == 0
    assert net.opened[1:] == [(OTHER, "bob", None)]


def test_without_a_directory_it_is_what_this_user_knows(
    root: Path, net: Net, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every host that shares the home; another host's directories may be out of sight, and are not forgotten."""
    assert run() == 0
    assert "give DIR" in capsys.readouterr().err
    meant_for(root, "a", URL)
    with Session("only-remote", "project", remote=URL) as session:
        session.log("hello")
    other = home / "node2" / "directories"
    registry = Registry(str(other))
    far = meant_for(root, "far", URL)
    Registry().drop(str(far))
    registry.add(str(far))
    registry.add("/not/mounted/here")
    gone = meant_for(root, "gone", URL)
    shutil.rmtree(gone)
    assert run() == 0
    assert names(net.servers[URL]) == ["a", "far", "only-remote"]
    assert len(os.listdir(other)) == 2
    assert str(gone) not in Registry().paths()
    assert os.path.isdir(config.remote_root(URL, None))


def test_a_key_that_a_script_gave_is_used_for_its_session(root: Path, net: Net) -> None:
    path = meant_for(root, "a", URL)
    Credentials().keep_key(os.path.realpath(path), URL, None, "dlk_key")
    assert run(path) == 0
    assert net.opened == [(URL, None, "dlk_key")]


def test_a_dry_run_sends_and_changes_nothing(root: Path, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    folder = with_files(root, model=b"x" * 2048)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(folder, remote=URL, dry_run=True) == 0
    assert capsys.readouterr().out.endswith("of logs and 2.0 KiB of files would be sent\n")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert said(net.servers[URL].alice.get("/sessions"))["sessions"] == []
    assert run(folder, remote=URL) == 0
    capsys.readouterr()
    assert run(folder, remote=URL, dry_run=True) == 0
    assert capsys.readouterr().out == "project/run: up to date\n"


def test_logs_and_small_files_of_all_go_before_large_files(
    root: Path, net: Net, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (errand, upload):
        monkeypatch.setattr(module, "SMALL_BYTES", 1000)
    with_files(root / "1", model=b"large" * 1000, small=b"small")
    with_files(root / "2", model=b"other" * 1000, small=b"lasts")
    order: list[str] = []

    def note(request: httpx.Request, answer: httpx.Response | None) -> None:
        if answer is not None and (request.method == "PUT" or request.url.path == "/v1/push"):
            order.append(str(len(request.read())) if request.method == "PUT" else "push")

    net.fault = note
    assert run(root, remote=URL) == 0
    assert order == ["push", "5", "push", "5", "5000", "5000"]
    assert "2 sessions: sent" in capsys.readouterr().out


def test_a_fork_is_made_only_when_it_is_asked_for(root: Path, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(root, 5)
    copy = root.parent / "copy" / "project" / "run"
    shutil.copytree(first, copy)
    train(root, 2, "one")
    train(root.parent / "copy", 2, "two")
    assert run(first, remote=URL) == 0
    assert run(copy, remote=URL) == NOT_ALL
    assert "dreamlake sync --fork" in capsys.readouterr().err
    assert run(copy, remote=URL, fork=True) == 0
    assert "sent beside it" in capsys.readouterr().out
    assert run(copy, remote=URL, fork=True) == 0
    assert capsys.readouterr().out == "project/run: up to date\n"
    both = meant_for(root, "both", URL, OTHER)
    assert run(both, fork=True) == NOT_ALL
    assert "say with --remote" in capsys.readouterr().err


def test_a_token_is_never_said(root: Path, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    path = meant_for(root, "a", URL)
    Credentials().store(URL, None, Login("dlk_secret"))
    net.fault = lambda _request, answer: httpx.Response(401, json={"message": "no"}) if answer is None else None
    assert run(path) == NOT_ALL
    found = capsys.readouterr()
    assert "dreamlake login https://lake.example.org" in found.err
    assert "dlk_secret" not in found.out + found.err + repr(net.opened)


def test_a_watch_says_each_change_once(root: Path, net: Net, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is away is waited for; what goes on is sent; what is bad is told once."""
    folder = settled(meant_for(root, "run", URL))
    bad = settled(meant_for(root, "bad", URL))
    (bad / "logs" / "logs.jsonl").unlink()
    away = [True]

    def fault(_request: httpx.Request, answer: httpx.Response | None) -> httpx.Response | None:
        if away and answer is None:
            raise httpx.ConnectError("away")
        if len(rounds) == 7 and answer is None:
            return httpx.Response(401, json={"message": "not known here"})
        return None

    net.fault = fault
    watched = Syncing(Asked((str(root),), None, None, watch=True), Show())
    rounds: list[float] = []

    def next_round(pause: float | None = None) -> bool:
        if pause is None or watched._stop.is_set():
            return watched._stop.is_set()
        rounds.append(pause)
        if len(rounds) == 4:
            away.clear()
        if len(rounds) in (5, 7):
            with Session("run", "project", local_path=str(root)) as session:
                session.log("more")
        if len(rounds) == 9:
            watched._stop.set()
        return watched._stop.is_set()

    assert watched._plan()
    [carrier] = watched._couriers.values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watched._stop, "wait", next_round)
        carrier._watch_points()
    out, err = capsys.readouterr()
    assert [line.partition(" (")[0] for line in out.splitlines() if "project/run" in line] == [
        "project/run: sent 3 records",
        "project/run: sent 3 records",
        "project/run: sent 3 records",
    ]
    assert err.count("cannot be reached") == 1
    assert err.count("not known here") == 1
    assert out.count("answers again") == 2
    assert err.count("project/bad: logs/logs.jsonl could not be sent") == 1
    assert len(net.opened) == 2  # once more when it did not let in, for another token
    least, most = courier.AWAY_SECONDS
    assert [0 < pause <= min(most, least * 2**n) for n, pause in enumerate(rounds[:3])] == [True] * 3
    assert rounds[4:7] == [courier.WATCH_SECONDS] * 3
    assert len(list((folder / ".dreamlake" / "journals").iterdir())) == 0
