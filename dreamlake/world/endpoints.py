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


def is_believed(endpoint: str) -> bool:
    """Whether a client may go to an endpoint that a session directory names: a socket in a folder that is ours. Whoever
    may write to a directory may name any other, and would hear the session's data and keys there."""
    path = endpoint.removeprefix("ipc://")
    if path == endpoint or not os.path.isabs(path) or not path.endswith(".sock") or "\0" in path:
        return False
    return len(os.fsencode(path)) <= config.SOCKET_PATH_BYTES_MAX and _is_ours(os.path.dirname(path))


def is_there(endpoint: str) -> bool:
    """Whether somebody listens at an endpoint, as seen from here: a job may have a ``/tmp`` of its own."""
    return answers(endpoint.removeprefix("ipc://"))


def _is_ours(folder: str) -> bool:
    try:
        found = os.stat(folder, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
