"""``dreamlake sync`` as it is typed, to a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from tests import scripts
from tests.conftest import Cli, StartScript
from tests.server_live.lake import Lake, client_of, lake, new_token
from tests.waiting import wait_for

TRAIN = """
    import sys
    from dreamlake import Session
    with Session("run", "project", local_path=sys.argv[1]) as session:
        session.log("started")
        for value in range(int(sys.argv[2])):
            session.track("loss").append(value=value)
        with open("model.pth", "wb") as file:
            file.write(bytes(range(256)) * 100)
        session.files().upload("model.pth")
"""
# Writes until it is told to stop, and says how many points those were.
WRITE = """
    import sys, threading
    from dreamlake import Session
    enough = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
    count = 0
    with Session("run", "project", local_path=sys.argv[1]) as session:
        print("ready", flush=True)
        while not enough.wait(0.001):
            session.track("loss").append(value=count)
            count += 1
    print(count, flush=True)
"""


@pytest.fixture
def server(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """With a token of alice's in the environment."""
    folder = tmp_path / "server"
    folder.mkdir()
    with lake(folder, "--data", folder / "data") as found:
        monkeypatch.setenv("DREAMLAKE_API_KEY", new_token("alice", "--data", folder / "data"))
        yield found
        found.assert_no_complaints()


@pytest.fixture
def client(server: Lake) -> Iterator[httpx.Client]:
    with client_of(server.url, os.environ["DREAMLAKE_API_KEY"]) as found:
        yield found


def values(client: httpx.Client) -> list[int]:
    [session] = client.get("/sessions").json()["sessions"]
    found: list[int] = []
    while True:
        page = client.get(
            f"/sessions/{session['id']}/tracks/loss/data", params={"startIndex": len(found), "limit": 10_000}
        ).json()
        found += [row["data"]["value"] for row in page["data"]]
        if not page["hasMore"]:
            return found


def test_offline_then_sync(
    server: Lake, client: httpx.Client, dreamlake: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compute node without network or agent; then a login node that sees the same disk."""
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    scripts.run(TRAIN, root, 1000, cwd=tmp_path, flags=())
    would = dreamlake("sync", root, "--remote", server.url, "--dry-run")
    assert (would.returncode, client.get("/sessions").json()["sessions"]) in ((0, []), (1, []))
    done = dreamlake("sync", root, "--remote", server.url)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.startswith("project/run: sent 1,00")
    assert values(client) == list(range(1000))
    [session] = client.get("/sessions").json()["sessions"]
    [file] = client.get(f"/sessions/{session['id']}/files").json()["files"]
    assert client.get(f"/sessions/{session['id']}/files/{file['id']}/download").content == bytes(range(256)) * 100
    again = dreamlake("sync", root / "project" / "run", "--remote", server.url, "--json")
    [told] = json.loads(again.stdout)
    assert (again.returncode, told["session"], told["records"], told["files"]) == (0, "project/run", 0, 0)


def test_syncs_that_are_killed_while_a_training_writes(
    server: Lake, client: httpx.Client, dreamlake: Cli, root: Path, start_script: StartScript
) -> None:
    writer = start_script(WRITE, root)
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "ready\n"
    random = Random(1)
    command = [sys.executable, "-m", "dreamlake.cli", "sync", str(root), "--remote", server.url]
    for _ in range(8):
        sync = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with_it = random.choice((None, 0.3, 0.6))
        try:
            sync.wait(with_it)
        except subprocess.TimeoutExpired:
            sync.kill()
            sync.wait()
    writer.stdin.write("enough\n")
    writer.stdin.flush()
    count = int(writer.stdout.readline())
    assert writer.wait(60) == 0

    def all_there() -> bool:  # what is not in a checkpoint yet follows
        done = dreamlake("sync", root, "--remote", server.url)
        assert (done.returncode, done.stderr) == (0, ""), done
        return len(values(client)) == count

    wait_for(all_there)
    assert values(client) == list(range(count))


def test_wrong_use_and_a_token_that_is_none(
    server: Lake, dreamlake: Cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = dreamlake("sync", tmp_path / "server", "--remote", server.url)
    assert (nothing.returncode, "no session directory" in nothing.stderr) == (2, True), nothing
    odd = dreamlake("sync", tmp_path, "--remote", "lake.example.org")
    assert (odd.returncode, "https://" in odd.stderr) == (2, True), odd
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    scripts.run(TRAIN, root, 3, cwd=tmp_path, flags=())
    secret = "dlk_0123456789ab_" + "x" * 43
    monkeypatch.setenv("DREAMLAKE_API_KEY", secret)
    refused = dreamlake("sync", root, "--remote", server.url)
    assert refused.returncode == 1
    assert "not known here" in refused.stderr
    assert "DREAMLAKE_API_KEY" in refused.stderr
    assert secret not in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr
