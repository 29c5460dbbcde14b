"""Logs: lines of text with a level, a time and fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dreamlake.wire import jsons, ops

if TYPE_CHECKING:
    from dreamlake.session import Session


def write_log(
    session: Session, message: str, level: str | None, metadata: dict[str, Any] | None, extra: dict[str, Any]
) -> None:
    """Check a line and put it into the journal."""
    if not isinstance(message, str):
        raise TypeError(f"message must be a string, not {type(message).__name__}")
    name = _level(level)
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    fields = {**(metadata or {}), **extra}
    data, nonfinite = jsons.encode_fields(fields, "log field") if fields else (None, None)
    try:
        message.encode()
    except UnicodeEncodeError:
        raise TypeError("message is not valid Unicode (a lone surrogate) and cannot be stored") from None
    if session._disabled:
        return
    session._ready_for_rows().put(ops.LOG, name, message, data, nonfinite)


def _level(level: str | None) -> str:
    if level is None:
        return "info"
    name = level.lower() if isinstance(level, str) else level
    if name not in ops.LEVELS:
        raise ValueError(f"level {level!r} is not one of {', '.join(ops.LEVELS)}")
    return name


class LogBuilder:
    """``session.log().warn("slow", step=3)``: a method for each level."""

    def __init__(self, session: Session, metadata: dict[str, Any] | None = None) -> None:
        self._session = session
        self._metadata = metadata

    def debug(self, message: str, **extra: Any) -> None:
        write_log(self._session, message, "debug", self._metadata, extra)

    def info(self, message: str, **extra: Any) -> None:
        write_log(self._session, message, "info", self._metadata, extra)

    def warn(self, message: str, **extra: Any) -> None:
        write_log(self._session, message, "warn", self._metadata, extra)

    def error(self, message: str, **extra: Any) -> None:
        write_log(self._session, message, "error", self._metadata, extra)

    def fatal(self, message: str, **extra: Any) -> None:
        write_log(self._session, message, "fatal", self._metadata, extra)
