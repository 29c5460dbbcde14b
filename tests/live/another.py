"""Another user of the machine, as whom a test does things. Only root may become one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user, as these tests do")

OTHER = 65534

# Everything is imported first: the interpreter may lie where another user may not read.
AS_ANOTHER = f"""
import errno, fcntl, json, os, select, socket, stat, sys
def become(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
become({OTHER})
"""


def opened_to_all(folder: Path) -> Path:
    """As a group's folder is where the umask is 000."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    return folder


def removed(folder: Path) -> bool:
    """Remove a folder that an agent may still be writing to; True when it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
