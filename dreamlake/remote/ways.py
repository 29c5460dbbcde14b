"""Ways: how a request leaves this machine: by which proxy, trusting whom, known as whom. All of it raises httpx's own
exceptions, which ``lake.py`` puts into the project's.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
from collections.abc import Iterator

import httpx

from dreamlake.remote.reach import Reach, without_password


class Ways(httpx.BaseTransport):
    """The network, by the proxy that a URL asks for. Nothing is looked at before the first request."""

    def __init__(self, reach: Reach, *, as_client: bool) -> None:
        self._reach, self._as_client = reach, as_client
        self._lock = threading.Lock()
        self._by_proxy: dict[str | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._reach.proxy_for(str(request.url))
        transport = self._transport(proxy)
        try:
            return transport.handle_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            if proxy is None:
                raise
            which = f"the proxy {without_password(proxy)}"
            if isinstance(error, httpx.ProxyError):
                hint = "; a user and a password stand in its URL, http://USER:PASSWORD@…" if "407" in str(error) else ""
                raise httpx.ProxyError(f"{which} refused: {error}{hint}") from None
            raise type(error)(f"through {which}: {error or type(error).__name__}") from None

    def _transport(self, proxy: str | None) -> httpx.HTTPTransport:
        with self._lock:
            if proxy not in self._by_proxy:
                try:
                    self._by_proxy[proxy] = self._new(proxy)
                except (ImportError, ValueError, httpx.InvalidURL):
                    shown = without_password(proxy or "")
                    socks = "; a SOCKS proxy needs `pip install 'httpx[socks]'`" if shown.startswith("socks") else ""
                    raise httpx.ConnectError(f"the proxy {shown} cannot be used{socks}") from None
            return self._by_proxy[proxy]

    def _new(self, proxy: str | None) -> httpx.HTTPTransport:
        if proxy is None:
            return httpx.HTTPTransport(verify=self._context(as_client=self._as_client), trust_env=False)
        over_tls = self._context(as_client=False) if proxy.startswith("https:") else None
        via = httpx.Proxy(proxy, ssl_context=over_tls)
        return httpx.HTTPTransport(verify=self._context(as_client=self._as_client), trust_env=False, proxy=via)

    def _context(self, *, as_client: bool) -> ssl.SSLContext:
        reach = self._reach
        what = "the authorities in SSL_CERT_FILE or SSL_CERT_DIR"
        try:
            context = httpx.create_ssl_context()
            if reach.ca:
                what = f"the authority {reach.ca}"
                context.load_verify_locations(cafile=reach.ca)
            if reach.cert and as_client:
                what = f"the client certificate {reach.cert}{f' with the key {reach.key}' if reach.key else ''}"
                context.load_cert_chain(reach.cert, reach.key, password=lambda: "")  # never ask at a terminal
        except OSError as error:  # ssl.SSLError is one
            reason = "it is no PEM, or has a password" if isinstance(error, ssl.SSLError) else error.strerror
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                reason = "the key is another certificate's"
            raise httpx.ConnectError(f"{what} cannot be used: {reason}") from None
        return context

    def close(self) -> None:
        with self._lock:
            for transport in self._by_proxy.values():
                transport.close()


def why(error: Exception) -> str:
    """What happened, and what to try where the words of the libraries do not say so."""
    text = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in text:
        text += "; a private authority is named by SSL_CERT_FILE, or by `dreamlake login URL --ca FILE`"
    elif "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text:
        text += "; a client certificate is named by DREAMLAKE_CLIENT_CERT, or by `dreamlake login URL --cert FILE`"
    return text


_asking = threading.local()


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """httpx writes the URL of each request into its log; one that is signed is as good as a key. This thread's are left
    out meanwhile."""
    _asking.now = True
    try:
        yield
    finally:
        _asking.now = False


def _is_not_ours(_record: logging.LogRecord) -> bool:
    return not getattr(_asking, "now", False)


logging.getLogger("httpx").addFilter(_is_not_ours)
