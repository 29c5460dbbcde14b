"""A certificate authority of the tests' own, as a team has one for its servers."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Its certificates are files below ``folder``; ``pem`` is what has to be trusted (``SSL_CERT_FILE``)."""

    def __init__(self, folder: Path) -> None:
        self._ca, self._folder = trustme.CA(), folder
        self.pem = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(self.pem))

    def certificate(self, *names: str) -> tuple[Path, Path]:
        """A certificate for these hosts, or (a mail address) for a client; and its key."""
        made = self._ca.issue_cert(*names)
        cert, key = self._folder / f"{names[0]}.pem", self._folder / f"{names[0]}.key"
        for count, blob in enumerate(made.cert_chain_pems):
            blob.write_to_path(str(cert), append=count > 0)
        made.private_key_pem.write_to_path(str(key))
        return cert, key

    def context(self, *names: str, demand: bool = False) -> ssl.SSLContext:
        """Of a server of these names; with ``demand`` it lets nobody in who has no certificate of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self.certificate(*names))
        if demand:
            context.load_verify_locations(self.pem)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
