"""The logbook: the agent's log, read: its last lines over all its files, and what comes, over every rotation."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from dreamlake import config
from dreamlake.wire import jsons
from dreamlake.world.terminal import shown

LEVELS = ("info", "warning", "error")
_CHUNK_BYTES = 1 << 20
_PLAIN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) ")


class Logbook:
    """The log at ``path`` and the older files beside it."""

    def __init__(self, path: str, files: int = config.LOG_FILES) -> None:
        self._paths = [path, *(f"{path}.{number}" for number in range(1, files))]
        self._fd: int | None = None
        self._rest = b""

    def last(self, count: int, level: str = "info") -> list[bytes]:
        """The last lines of that level and above; what comes after them is :meth:`more`. :class:`OSError` when there is
        no log."""
        self._open(self._paths[0])
        lines = self._grown()
        found = _of_level(lines, level)
        for older in self._paths[1:]:
            if len(found) >= count:
                break
            try:
                with open(older, "rb") as file:
                    found = _of_level(file.read().splitlines(), level) + found
            except OSError:
                break
        return found[-count:] if count > 0 else []

    def more(self, level: str = "info") -> list[bytes]:
        """What was written since, also when the file was rotated, cut or removed meanwhile."""
        lines: list[bytes] = []
        if self._fd is not None:
            lines = self._grown()
        for path in self._newer():
            lines += self._finished()
            try:
                self._open(path)
            except OSError:
                break
            lines += self._grown()
        return _of_level(lines, level)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.close()
        self._fd, self._rest = fd, b""

    def _newer(self) -> list[str]:
        """The files that came after the one that is open, oldest first."""
        here = _identity(self._fd) if self._fd is not None else None
        for number, path in enumerate(self._paths):
            if here is not None and _identity(path) == here:
                return self._paths[:number][::-1]
        return self._paths[:1] if _identity(self._paths[0]) is not None else []

    def _grown(self) -> list[bytes]:
        """Whole lines, from where we are."""
        assert self._fd is not None
        if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._rest = b""
        data = [self._rest]
        while chunk := os.read(self._fd, _CHUNK_BYTES):
            data.append(chunk)
        *lines, self._rest = b"".join(data).split(b"\n")
        return lines

    def _finished(self) -> list[bytes]:
        """What stands without an end in a file to which nothing is added any more."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _identity(place: int | str) -> tuple[int, int] | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _of_level(lines: list[bytes], level: str) -> list[bytes]:
    """A line that says no level belongs to the one before it: a traceback of an agent before 0.4.0."""
    if level == LEVELS[0]:
        return [line for line in lines if line]
    least, keeps = LEVELS.index(level), False
    found = []
    for line in lines:
        said = _level(line)
        keeps = LEVELS.index(said) >= least if said is not None else keeps
        if keeps and line:
            found.append(line)
    return found


def _level(line: bytes) -> str | None:
    entry = _entry(line)
    if entry is not None:
        said = str(entry["level"])
        return said if said in LEVELS else LEVELS[-1]
    plain = _PLAIN.match(line[:100].decode(errors="replace"))
    return plain[1].lower() if plain else None


def _entry(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"{"):
        return None
    try:
        entry = jsons.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"time", "level", "text"} <= entry.keys() else None


def told(line: bytes) -> Iterator[tuple[str | None, str]]:
    """A line as people read it: its level, where it has one, and its text, which may be several lines. Times are this
    machine's local ones. What is no line of ours is given as it is; nothing in it reaches a terminal as a command."""
    entry = _entry(line)
    if entry is None:
        yield None, shown(line.decode(errors="backslashreplace"))
        return
    level = str(entry["level"])
    first, *others = str(entry["text"]).split("\n")
    left_out = f" (and {entry['left_out']} more like it)" if "left_out" in entry else ""
    yield level, shown(f"{_local(str(entry['time']))} {level.upper():<7} {first}{left_out if not others else ''}")
    for other in [*others, *([left_out.strip()] if others and left_out else [])]:
        yield level, shown(f"    {other}")
    for row in str(entry.get("traceback", "")).splitlines():
        yield level, shown(f"    {row}")


def _local(time: str) -> str:
    try:
        at = datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone()
    except (ValueError, OverflowError):
        return time
    return at.isoformat(" ", timespec="seconds")
