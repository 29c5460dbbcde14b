"""Whether a server has what a directory has: record by record, and files by checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from dreamlake.errors import DreamlakeError
from dreamlake.remote.follow import Follow
from dreamlake.remote.lake import Lake
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote.source import Source


def lines_of(path: Path) -> dict[str, list[bytes]]:
    """Every record of a session directory that may leave the machine, by log."""
    source = Source(REAL_DISK, str(path))
    try:
        return {log: list(source.lines(log)) for log in source.ends}
    finally:
        source.close()


def origin_of(path: Path) -> str:
    return (path / ".dreamlake" / "origin").read_text("ascii").strip()


def stored(url: str, token: str | None, workspace: str, name: str, origin: str) -> dict[str, list[bytes]]:
    """Every record that the server has of one origin of a session, by log."""
    with Lake(url, token) as lake:
        follow = Follow(lake, workspace, name)
        logs = follow.origins().get(origin, {})
        return {
            log: [line for piece in follow.pieces(origin, log, head.base, None, head.count) for line in piece.lines]
            for log, head in logs.items()
            if head.count
        }


def assert_same(url: str, token: str | None, path: Path, workspace: str = "project") -> None:
    """The server has all that the directory has, in its order, each once; and nothing else of its origin."""
    here, there = lines_of(path), stored(url, token, workspace, path.name, origin_of(path))
    assert there.keys() == here.keys()
    for log, lines in here.items():
        assert there[log] == lines, log


def is_same(url: str, token: str | None, path: Path, workspace: str = "project") -> bool:
    """For waiting: :func:`assert_same`, where it is no failure that a server is away, or a directory just begun."""
    try:
        assert_same(url, token, path, workspace)
    except (AssertionError, DreamlakeError, OSError):
        return False
    return True


def blob(url: str, token: str | None, sha256: str) -> bytes | None:
    """The bytes that a server has under a checksum."""
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = httpx.get(f"{url}/v1/blobs/{sha256}", headers=headers, trust_env=False)
    return answer.content if answer.status_code == 200 else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def uploads_of(status: dict[str, Any], path: Path) -> dict[str, Any]:
    """What `dreamlake agent status --json` says of a directory's one upload."""
    for entry in (*status["sessions"], *status["uploads"]):
        if entry["path"] == str(path.resolve()):
            (found,) = entry["uploads"]
            return dict(found)
    raise KeyError(path)
