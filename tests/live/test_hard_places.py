"""Places where the socket, the directory or the machine is not as it should be. Each scene is in programs/apart.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

APART = Path(__file__).parent / "programs" / "apart.py"
SCENE_SECONDS = 100

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may have mounts and processes apart (unshare)")


@pytest.mark.parametrize(
    "scene",
    [
        "private_tmp",
        "private_tmp_of_the_owner",
        "logout",
        "login_and_batch",
        "no_socket",
        "no_socket_and_nobody_outside",
        "another_directory",
        "bad_tmp",
    ],
)
def test_in_a_hard_place_nothing_is_lost_and_nobody_fails(scene: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", sys.executable, APART, scene, tmp_path],
        env={name: value for name, value in os.environ.items() if not name.startswith("DREAMLAKE_HOME")},
        capture_output=True,
        text=True,
        timeout=SCENE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
