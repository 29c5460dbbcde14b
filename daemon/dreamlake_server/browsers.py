"""Browsers: what keeps a web page from using this server through the browser of somebody who has both open.

A page of another site is told apart by the headers that a browser adds and no script can change: Origin and
Sec-Fetch-Site. A page that has made its own name resolve to this machine (DNS rebinding) is told apart by Host. What
neither names nor is a browser passes: it is asked for a token afterwards.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Sequence

from dreamlake_server.problem import Problem

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::(?P<port>[0-9]{1,5}))?")
_PORTS = {"http": "80", "https": "443"}


def is_loopback(name: str) -> bool:
    """Whether a host, as a Host header or a bind address has it, is this machine and nobody else.

    >>> is_loopback("127.8.0.1"), is_loopback("[::1]"), is_loopback("localhost"), is_loopback("127.1.example")
    (True, True, True, False)
    """
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def check(
    scheme: str,
    hosts: Sequence[str],
    origins: Sequence[str],
    sites: Sequence[str],
    *,
    loopback: bool,
    allowed: Collection[str],
) -> None:
    """Raise :class:`Problem` for a request that a browser sends on behalf of another site.

    ``hosts``, ``origins`` and ``sites`` are the values of Host, Origin and Sec-Fetch-Site, each as often as it came.
    ``allowed`` are further host names that this server goes by, in lower case.
    """
    found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
    if found is None:
        raise Problem(421, "unknown-host", "a request names the one host that it is for: send one Host header")
    name = found["name"].lower().removesuffix(".")
    if (loopback or allowed) and not (name in allowed or (loopback and is_loopback(name))):
        text = (
            f"this server does not go by the name {name[:100]!r}: use the address that it listens on, or start it with "
            f"--allow-host {name[:100]}"
        )
        raise Problem(421, "unknown-host", text)
    if any(site.strip().lower() == "cross-site" for site in sites):
        raise _from_elsewhere("a page of another site")
    own = (scheme, name, found["port"] or _PORTS.get(scheme))
    for origin in origins:
        if _place(origin) != own:
            raise _from_elsewhere(f"a page of {origin[:100]!r}")


def _place(origin: str) -> tuple[str, str, str | None] | None:
    """Scheme, host and port of an Origin; None for "null" and for what is none."""
    scheme, found, rest = origin.partition("://")
    host = _HOST.fullmatch(rest)
    if not found or host is None:
        return None
    scheme = scheme.lower()
    return scheme, host["name"].lower().removesuffix("."), host["port"] or _PORTS.get(scheme)


def _from_elsewhere(who: str) -> Problem:
    text = f"{who} asks for this in a browser, which is never answered: call the server from a program"
    return Problem(403, "cross-origin", text)
