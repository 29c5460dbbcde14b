"""The agent's log: one JSON object a line, in a file that is rotated.

::

    {"time": "2026-03-01T08:15:00.123Z", "level": "warning", "pid": 4242, "text": "…", "path": "/data/project/run"}

``path``, ``client`` and ``remote`` stand where the line is about one, ``traceback`` with a failure of ours,
``left_out`` where so many lines like this one were not written. A log that cannot be written stops nobody: what it
lacks is counted, and said in it once it can be.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from datetime import datetime, timezone
from typing import Any

from dreamlake import config
from dreamlake_agent.observe.sieve import Sieve

# Whatever a library puts into its messages: user and password of a URL, what stands after a token's public part, the
# value of a header.
_SECRETS = (
    (re.compile(r"://[^/\s@]*@"), "://…@"),
    (re.compile(r"\b(dlk_[0-9a-f]{12})_[\w-]+"), r"\1_…"),
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{8,}"), r"\1 …"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.?[\w-]*"), "…"),
)
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def begin(path: str) -> logging.Logger:
    """The agent's logger, from now on at ``path``; what the library has to say goes there as well."""
    logger = logging.getLogger("dreamlake.agent")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = JsonLines(RotatedFile(path))
    logger.addHandler(handler)
    logging.getLogger("dreamlake").addHandler(handler)

    def say(died: threading.ExceptHookArgs) -> None:
        if died.exc_value is not None and not isinstance(died.exc_value, SystemExit):
            name = died.thread.name if died.thread else "a thread"
            logger.error("%s died", name, exc_info=died.exc_value)

    threading.excepthook = say
    return logger


class RotatedFile:
    """Whole lines at ``path``; past ``size`` bytes it becomes ``path.1``, and of those ``files - 1`` are kept. Of its
    user alone."""

    def __init__(self, path: str, size: int = config.LOG_BYTES, files: int = config.LOG_FILES) -> None:
        self.path = path
        self._size, self._files = size, files
        self._fd: int | None = None

    def write(self, line: bytes) -> None:
        """:class:`OSError` when it cannot be written now; then nothing of it is there."""
        fd = self._opened()
        before = os.fstat(fd).st_size
        if before and before + len(line) > self._size:
            self._rotate()
            fd, before = self._opened(), 0
        written = os.write(fd, line)
        if written != len(line):
            if os.fstat(fd).st_size == before + written:
                os.ftruncate(fd, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _opened(self) -> int:
        """The file that stands at the path now: somebody may have moved or removed the one that we had."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                ours, named = os.fstat(self._fd), os.stat(self.path, follow_symlinks=False)
                if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino):
                    return self._fd
            self.close()
        fd = self._fd = os.open(self.path, _FLAGS, 0o600)
        os.fchmod(fd, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")  # who died in the middle of a line has one of his own
        return fd

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = f"{self.path}.{number - 1}" if number > 1 else self.path
            with contextlib.suppress(FileNotFoundError):
                os.rename(older, f"{self.path}.{number}")
        self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class JsonLines(logging.Handler):
    """Records as lines of a :class:`RotatedFile`; what a record is about is in ``extra={"about": {…}}``."""

    def __init__(self, file: RotatedFile) -> None:
        super().__init__()
        self._file = file
        self._sieve = Sieve()
        self._unwritten = 0
        self._why = ""

    def emit(self, record: logging.LogRecord) -> None:
        entry = entry_of(record)
        if record.levelno < logging.WARNING:
            self._put(entry)
            return
        for each in self._sieve.take(entry, record.created):
            self._put(each)

    def _put(self, entry: dict[str, Any]) -> None:
        if self._unwritten:
            text = f"{self._unwritten} lines could not be written here: {self._why}"
            with contextlib.suppress(OSError):
                self._file.write(line_of({**entry_head(entry), "level": "warning", "text": text}))
                self._unwritten = 0
        try:
            self._file.write(line_of(entry))
        except OSError as error:
            if self._why != str(error.strerror):  # who looks at a terminal, or at a journal of the system's
                with contextlib.suppress(OSError, ValueError):
                    print(f"dreamlake agent: no log at {self._file.path}: {error.strerror}", file=sys.stderr)
            self._unwritten, self._why = self._unwritten + 1, str(error.strerror)

    def flush(self) -> None:
        """Tell what was left out, of which the time is over; called now and then."""
        self.acquire()
        try:
            for each in self._sieve.over(time.time()):
                self._put(each)
        finally:
            self.release()

    def close(self) -> None:
        self.acquire()
        try:
            for each in self._sieve.over(float("inf")):
                self._put(each)
            self._file.close()
        finally:
            self.release()
        super().close()


def entry_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says."""
    at = datetime.fromtimestamp(record.created, timezone.utc)
    entry: dict[str, Any] = {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "pid": record.process,
        "text": _said(record.getMessage()),
    }
    for name, value in getattr(record, "about", {}).items():
        entry.setdefault(name, _said(str(value)))
    if record.exc_info and record.exc_info[1] is not None:
        entry["traceback"] = _said("".join(traceback.format_exception(record.exc_info[1])))
    return entry


def entry_head(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("time", "level", "pid")}


def line_of(entry: dict[str, Any]) -> bytes:
    # A path may hold bytes that are no text: as escapes, which JSON has as well.
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _said(text: str) -> str:
    half = config.LOG_LINE_BYTES // 8  # characters: of several bytes each, and of two texts in a line
    if len(text) > 2 * half:
        text = f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text
