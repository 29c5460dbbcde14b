"""``dreamlake sync --watch`` and the bar, as they are typed: a server that comes and goes, Ctrl-C, a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import scripts
from tests.remote.test_command import TRAIN, values
from tests.server_live.lake import Lake, client_of, lake, new_token
from tests.waiting import wait_for

MORE = """
    import sys
    from dreamlake import Session
    with Session("run", "project", local_path=sys.argv[1]) as session:
        session.track("loss").append_batch([{"value": value} for value in range(int(sys.argv[2]), int(sys.argv[3]))])
"""
END_SECONDS = 20


@pytest.fixture
def server(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """With a token of alice's in the environment, and no agent: what waits in journals is applied by the sync."""
    folder = tmp_path / "server"
    folder.mkdir()
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    with lake(folder, "--data", folder / "data") as found:
        monkeypatch.setenv("DREAMLAKE_API_KEY", new_token("alice", "--data", folder / "data"))
        yield found
        found.assert_no_complaints()


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "dreamlake.cli", "sync", *map(str, args)]


def test_it_goes_on_until_ctrl_c_whatever_the_server_does(server: Lake, root: Path, tmp_path: Path) -> None:
    scripts.run(TRAIN, root, 10, cwd=tmp_path, flags=())
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        watch = subprocess.Popen(command(root, "--remote", server.url, "--watch"), stdout=stdout, stderr=stderr)
    client: httpx.Client
    try:
        with client_of(server.url, os.environ["DREAMLAKE_API_KEY"]) as client:
            wait_for(lambda: out.read_text().count("project/run: sent") == 1)
            assert values(client) == list(range(10))
            server.kill()
            scripts.run(MORE, root, 10, 20, cwd=tmp_path, flags=())
            wait_for(lambda: "cannot be reached" in err.read_text())
            server.start()
            wait_for(lambda: "answers again" in out.read_text())
            wait_for(lambda: out.read_text().count("project/run: sent") == 2)
            assert values(client) == list(range(20))
        watch.send_signal(signal.SIGINT)
        assert watch.wait(END_SECONDS) == 0
    finally:
        watch.kill()
        watch.wait()
    assert out.read_text().splitlines()[-1].startswith("stopped: 1 session, sent ")
    [line] = err.read_text().splitlines()
    assert line.endswith("it is tried again")


@pytest.mark.parametrize(("number", "watched", "code"), [(signal.SIGTERM, True, 0), (signal.SIGINT, False, 1)])
def test_a_server_that_says_nothing_does_not_hold_up_the_end(
    home: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, watched: bool, code: int
) -> None:
    """It listens, and never answers."""
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    scripts.run(TRAIN, root, 10, cwd=tmp_path, flags=())
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        args = command(root, "--remote", url, *(["--watch"] if watched else []))
        process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            deaf.settimeout(END_SECONDS)
            caller, _address = deaf.accept()
            process.send_signal(number)
            process.send_signal(number)  # somebody impatient
            out, err = process.communicate(timeout=END_SECONDS)
            caller.close()
        finally:
            process.kill()
            process.wait()
    assert process.returncode == code
    assert (out + err).splitlines() == [
        "stopped: 0 sessions, up to date" if watched else "interrupted: run it again, and it goes on from where it was"
    ]


def test_on_a_terminal_there_is_a_bar_and_lines_stay(server: Lake, root: Path, tmp_path: Path) -> None:
    for name in "ab":
        scripts.run(TRAIN, root / name, 10, cwd=tmp_path, flags=())
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command(root, "--remote", server.url), stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        shown = bytearray()
        with contextlib.suppress(OSError):  # the other side is closed
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        assert process.wait(END_SECONDS) == 0
    finally:
        os.close(ours)
    text = shown.decode()
    assert "━" in text
    assert "KiB" in text
    lines = [line.rpartition("\x1b[2K")[2] for line in text.splitlines()]
    assert len([line for line in lines if line.startswith("project/run: sent 1")]) == 2
    assert lines[-1].startswith("2 sessions: sent ")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")  # the cursor is there again
