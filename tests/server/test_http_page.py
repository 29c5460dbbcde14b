"""docs/http.md and docs/server.md: the table of routes is the server's, and the commands run as printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreamlake_server.api import ROUTES
from dreamlake_server.openapi import statuses
from tests import scripts
from tests.server.conftest import Served

DOCS = Path(__file__).parents[2] / "docs"
SERVER = (DOCS / "server.md").read_text("utf-8")
HTTP = (DOCS / "http.md").read_text("utf-8")
PRINTED = "http://127.0.0.1:3000"
COMMANDS_SECONDS = 60


def test_the_table_of_routes_is_the_servers() -> None:
    printed = re.findall(r"^\| (?:GET|HEAD|POST|PUT|PATCH|DELETE) \|.*", HTTP, re.MULTILINE)
    rows = [f"| {route.method} | `{route.path.replace(':path', '')}` | {route.does} |" for route in ROUTES]
    assert printed == rows


def test_every_status_of_an_error_is_told() -> None:
    printed = [int(status) for status in re.findall(r"^\| (\d{3}) \|", HTTP, re.MULTILINE)]
    told_by_no_route = {405}  # the table of routes answers it before any of them is found
    assert printed == sorted(told_by_no_route.union(*map(statuses, ROUTES)))


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="the pages speak to bash and curl")
def test_the_commands_run_as_printed(served: Served, tmp_path: Path) -> None:
    """Those of both pages in their order, as one script; the second one goes on where the first one ends."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", SERVER + HTTP, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    assert PRINTED in blocks[0]
    here = tmp_path / "here"
    here.mkdir()
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(blocks).replace(PRINTED, served.url)],
        cwd=here,
        env=scripts.environment(
            {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "DREAMLAKE_SERVER_DATA": str(served.data),
                "NO_PROXY": "127.0.0.1",
                "no_proxy": "127.0.0.1",
            }
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMANDS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done
    for answer in (
        '"data":{"value":0.5,"epoch":1}',
        '"status":"ok"',
        "dreamlake_requests_total",
        '"learning_rate":0.001',
    ):
        assert answer in done.stdout
    assert done.stdout.endswith("weig")
    assert (here / "copy-of-model.pth").read_text() == "weights\n"
    assert (here / "dashboard.token").read_text().startswith("dlk_")
