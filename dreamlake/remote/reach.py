"""Reach: what stands between here and a server: a proxy, a private authority, a client certificate, a limit.

``dreamlake login`` stores it, because an agent may have another environment than the shell; what the environment says
goes before what is stored.

=========================  =========================================================================================
``HTTPS_PROXY`` …          ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, also in lower case: as everywhere
``SSL_CERT_FILE``          the authorities to be trusted, in place of the usual ones; or a folder, ``SSL_CERT_DIR``
``DREAMLAKE_CA``           an authority to be trusted besides them
``DREAMLAKE_CLIENT_CERT``  the certificate by which this machine is known, with its key in ``DREAMLAKE_CLIENT_KEY``
``DREAMLAKE_LIMIT_RATE``   bytes a second that may leave: ``10M``, ``500K``
=========================  =========================================================================================
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dreamlake.remote.rate import bytes_per_second

_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class Reach:
    """Paths are absolute, ``limit_rate`` is in bytes a second."""

    proxy: str | None = field(default=None, repr=False)  # may hold a password
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    limit_rate: int | None = None

    def here(self, limit_rate: int | None = None) -> Reach:
        """With what the environment says, but for proxies: those depend on the URL. ``limit_rate`` goes before it.
        Raises :class:`ValueError`."""
        said = {name: os.environ.get(f"DREAMLAKE_{name}") or None for name in ("CA", "CLIENT_CERT", "CLIENT_KEY")}
        cert, key = (said["CLIENT_CERT"], said["CLIENT_KEY"]) if said["CLIENT_CERT"] else (self.cert, self.key)
        rate = os.environ.get("DREAMLAKE_LIMIT_RATE")
        try:
            limit = limit_rate or (bytes_per_second(rate) if rate else self.limit_rate)
        except ValueError as error:
            raise ValueError(f"DREAMLAKE_LIMIT_RATE cannot be used: {error}") from None
        return Reach(self.proxy, said["CA"] or self.ca, cert, key, limit)

    def proxy_for(self, url: str) -> str | None:
        """The proxy on the way to a URL, by the environment, else the stored one; None where there is none."""
        import urllib.request  # not with every command: it brings http.client

        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or {"https": 443}.get(parts.scheme, 80)
        if urllib.request.proxy_bypass(host) or urllib.request.proxy_bypass(f"{host}:{port}"):
            return None
        known = urllib.request.getproxies()
        found = known.get(parts.scheme) or known.get("all") or self.proxy
        return found if not found or "://" in found else f"http://{found}"


def check_proxy(text: str) -> str:
    """``text`` when it can be a proxy's address; else :class:`ValueError`, without a password in it."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise ValueError("a proxy's address is such as http://proxy.example.org:3128")
    return text


def without_password(proxy: str) -> str:
    """A proxy's address as it may be shown.

    >>> without_password("http://alice:secret@proxy.example.org:3128")
    'http://proxy.example.org:3128'
    """
    scheme, _, rest = proxy.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
