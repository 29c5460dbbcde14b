"""Settings: what one server is started with. Light: the command line reads it before anything else is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamlake_server import limits


class CannotStart(Exception):
    """A server, or a command about its tokens, cannot do its work here; the message says why and what to try."""


@dataclass(frozen=True)
class Settings:
    data: Path = Path("dreamlake-server")
    host: str = "127.0.0.1"
    port: int = 3000  # 0: a free one
    mongo: str | None = None  # URI; without: SQLite in ``data``
    s3: str | None = None  # s3://bucket/prefix; without: a folder in ``data``
    s3_endpoint: str | None = None
    auth: Literal["token", "none"] = "token"
    allow_hosts: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    purge_days: int = limits.PURGE_DAYS
