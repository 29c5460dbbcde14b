"""Endpoints: where a live agent of this user is, in any place where one may be."""

from __future__ import annotations

import os
import stat

from dreamlake import config
from dreamlake.world.sockets import answers


def find_agent() -> str | None:
    """The endpoint of a live agent; None when there is none. A socket in a folder that somebody else could change is
    not believed."""
    for folder in config.runtime_folders():
        path = config.socket_path(folder)
        if _is_ours(os.path.dirname(path)) and answers(path):
            return f"ipc://{path}"
    return None


def _is_ours(folder: str) -> bool:
    try:
        found = os.stat(folder, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
