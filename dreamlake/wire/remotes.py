"""Remotes: where a session is meant to go. PURE.

A remote is a server's address and, perhaps, the user there. Neither is a secret: both stand in the session's history,
so that whoever uploads the directory knows.
"""

from __future__ import annotations

from dataclasses import dataclass

_TEXT_MAX = 2048


@dataclass(frozen=True, order=True)
class Remote:
    """A server, and who is meant there; ``user`` is None where the token alone says so."""

    url: str
    user: str | None = None

    def __str__(self) -> str:
        return self.url if self.user is None else f"{self.url} as {self.user}"


def address(url: str) -> str:
    """A server's URL in its one spelling. :class:`ValueError`, with a sentence, for what is none.

    >>> address("HTTPS://Your-Server.com/lake/")
    'https://your-server.com/lake'
    >>> address("https://alice:secret@your-server.com")
    Traceback (most recent call last):
    ...
    ValueError: a server's address holds no user or password: give api_key=, or run `dreamlake login`
    """
    from urllib.parse import urlsplit  # not with every session

    if not isinstance(url, str) or len(url) > _TEXT_MAX or not url.isprintable() or " " in url:
        raise ValueError("a server's address is text such as https://your-server.com")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"a server's address cannot be read: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("a server's address holds no user or password: give api_key=, or run `dreamlake login`")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"{url!r} is no address of a server: it begins with https:// or http://")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no address of a server: it has neither ? nor #")
    host = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}{'' if port in (None, default) else f':{port}'}{parts.path.rstrip('/')}"


def remote_of(said: object) -> Remote | None:
    """The remote that a message or a row names; None for anything else."""
    if not isinstance(said, dict):
        return None
    url, user = said.get("url"), said.get("user")
    if not isinstance(url, str) or not (user is None or (isinstance(user, str) and 0 < len(user) <= _TEXT_MAX)):
        return None
    try:
        return Remote(address(url), user)
    except ValueError:
        return None
