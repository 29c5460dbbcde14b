"""The remote example of the seed, verbatim: ``https://your-server.com``, behind a proxy and a private authority."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dreamlake.remote.credentials import word_token
from tests import scripts
from tests.api.test_seed import PRELUDE, python_blocks
from tests.remote import mirror
from tests.server_live.lake import lake, new_token
from tests.services.gateway import YOUR_SERVER, your_server
from tests.waiting import wait_for

URL = f"https://{YOUR_SERVER}"


def session_of(home: Path) -> Path:
    (found,) = home.glob("*/sessions/*/project/my-experiment")
    return found


def test_the_remote_example_runs_verbatim(home: Path, tmp_path: Path) -> None:
    """By the user's word, as the example stands: the server believes it."""
    folder = tmp_path / "server"
    folder.mkdir()
    args = ("--data", folder / "data", "--auth", "none", "--allow-host", YOUR_SERVER)
    with lake(folder, *args) as server, your_server(server.port, tmp_path) as env:
        done = scripts.run(PRELUDE + python_blocks()["remote"], cwd=tmp_path, env=env)
        assert (done.stdout, done.stderr) == ("", "")
        path = session_of(home)
        told = ("project", "my-experiment", mirror.origin_of(path))
        [line] = wait_for(lambda: mirror.stored(server.url, word_token("alice"), *told)["logs/logs.jsonl"])
        assert b'"message":"Using remote server"' in line
        wait_for(lambda: mirror.is_same(server.url, word_token("alice"), path))
        assert list(tmp_path.glob(".dreamlake")) == []  # nothing in the working directory
        server.assert_no_complaints()


def test_the_remote_example_runs_verbatim_after_a_login(home: Path, tmp_path: Path) -> None:
    """Where tokens are wanted. The login knows the way, so neither the script nor the agent has the environment."""
    folder = tmp_path / "server"
    folder.mkdir()
    with (
        lake(folder, "--data", folder / "data", "--allow-host", YOUR_SERVER) as server,
        your_server(server.port, tmp_path) as env,
    ):
        token = new_token("alice", "--data", folder / "data")
        way = ["--proxy", env["HTTPS_PROXY"], "--ca", env["SSL_CERT_FILE"]]
        login = subprocess.run(
            [sys.executable, "-m", "dreamlake.cli", "login", URL, "--user", "alice", *way],
            input=f"{token}\n",
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
        assert login.returncode == 0, login
        scripts.run(PRELUDE + python_blocks()["remote"], cwd=tmp_path)
        wait_for(lambda: mirror.is_same(server.url, token, session_of(home)))
