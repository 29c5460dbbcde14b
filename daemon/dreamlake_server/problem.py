"""Problem: what cannot be done, as the caller is told of it: ``{"error": code, "message": text, …}`` and a status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Problem(Exception):
    """``code`` is a short word for programs; ``text`` says to people what cannot be done, why, and what to try."""

    def __init__(
        self,
        status: int,
        code: str,
        text: str,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """
        >>> not_found("there is no session 'x': list them with GET /sessions").body()["error"]
        'not-found'
        """
        return {**self.extra, "error": self.code, "message": self.text}


def bad(text: str, code: str = "bad-request", **extra: Any) -> Problem:
    """400: what was sent is not what can be taken."""
    return Problem(400, code, text, extra)


def not_found(text: str, **extra: Any) -> Problem:
    """404: it is not there, or it is another user's."""
    return Problem(404, "not-found", text, extra)


def conflict(text: str, code: str = "conflict", **extra: Any) -> Problem:
    """409: it contradicts what is kept."""
    return Problem(409, code, text, extra)


def too_large(limit: str, most: int, what: str) -> Problem:
    """413: over one of limits.py, by its name.

    >>> too_large("RECORD_BYTES", 8, "a record").text
    'a record is over RECORD_BYTES (8): send less at once'
    """
    text = f"{what} is over {limit} ({most}): send less at once"
    return Problem(413, "too-large", text, {"limit": limit, "max": most})
