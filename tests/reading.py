"""Looking at a session directory as any other tool would: plain JSON, strictly."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, NoReturn

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant}")


def strict(text: str | bytes) -> Any:
    """Parse JSON; a bare NaN or Infinity is an error."""
    return json.loads(text, parse_constant=_refuse)


def view(path: Path) -> dict[str, Any]:
    parsed = strict(path.read_bytes())
    assert isinstance(parsed, dict)
    return parsed


def lines(path: Path) -> list[dict[str, Any]]:
    """Every record of a log; no file: no records. A file which does not end in a newline is an error."""
    if not path.exists():
        return []
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        raise ValueError(f"{path} ends in half a line: {content[-60:]!r}")
    return [strict(line) for line in content.splitlines()]


def points(folder: Path, track: str = "loss") -> list[dict[str, Any]]:
    return lines(folder / "tracks" / track / "data.jsonl")


def values(folder: Path, track: str = "loss") -> list[Any]:
    return [point["data"]["value"] for point in points(folder, track)]


def messages(folder: Path) -> list[str]:
    return [line["message"] for line in lines(folder / "logs" / "logs.jsonl")]


def assert_consecutive(records: list[dict[str, Any]], key: str = "index", start: int = 0) -> None:
    assert [record[key] for record in records] == list(range(start, start + len(records)))


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below `folder` with its bytes (None for a folder); {} if there is no such folder."""
    seen: dict[str, bytes | None] = {}
    for base, folders, files in os.walk(folder):
        for name in folders:
            seen[str((Path(base) / name).relative_to(folder))] = None
        for name in files:
            path = Path(base) / name
            if path.is_file():
                seen[str(path.relative_to(folder))] = path.read_bytes()
    return seen


def recorded(folder: Path) -> dict[str, bytes | None]:
    """As `snapshot`, without what the agent keeps for itself and may be about to write: checkpoints, commits, its
    record as owner. The histories are there."""
    return {
        path: content
        for path, content in snapshot(folder).items()
        if not path.startswith(".dreamlake") or path.endswith(".jsonl")
    }


def kept_somewhere(folder: Path, content: bytes) -> bool:
    """Whether some file below `folder` holds these bytes."""
    return any(stored is not None and content in stored for stored in snapshot(folder).values())


def leaves(value: Any) -> list[Any]:
    """Everything in a parsed JSON value that is neither object nor array."""
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [value]
