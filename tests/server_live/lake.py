"""One ``dreamlake server start``: killed and started again on the same port and data."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from tests.server.conftest import said
from tests.services import ports
from tests.services.server import Server

REQUEST_SECONDS = 60
HEALTH_SECONDS = 10


class Lake(Server):
    """It is ready when it says that all its stores are."""

    def __init__(self, port: int, folder: Path, args: tuple[object, ...], env: Mapping[str, str] | None = None) -> None:
        self.port, self.url = port, f"http://{ports.LOOPBACK}:{port}"
        self.log = folder / f"server-{port}.log"
        self.is_hurried = False  # start() does not wait: whoever kills may come before it listens
        self._env = dict(env or {})
        command = [sys.executable, "-W", "error", "-m", "dreamlake.cli", "server", "start", "--port", str(port)]
        super().__init__([*command, *map(str, args)], self.log, lambda: self.is_hurried or self.health()[0] == 200)

    def start(self) -> None:
        with mock.patch.dict(os.environ, self._env):
            super().start()

    def health(self) -> tuple[int, dict[str, Any]]:
        """What it says of its stores, with the status that it says it with; 0 while nobody answers."""
        try:
            # Not with httpx, which would read every certificate of the machine each time.
            with contextlib.closing(HTTPConnection(ports.LOOPBACK, self.port, timeout=HEALTH_SECONDS)) as connection:
                connection.request("GET", "/health")
                answer = connection.getresponse()
                return answer.status, json.loads(answer.read())
        except (OSError, HTTPException):
            return 0, {}

    def states(self) -> dict[str, str]:
        return {name: store["state"] for name, store in self.health()[1].get("stores", {}).items()}

    def complaints(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def assert_no_complaints(self) -> None:
        """A fault of its own is a traceback in its log, whatever it answered."""
        text = self.complaints()
        assert "Traceback" not in text, text[max(0, text.index("Traceback") - 1000) :][:6000]


@contextlib.contextmanager
def lake(
    folder: Path, *args: object, data: Path | None = None, env: Mapping[str, str] | None = None, is_started: bool = True
) -> Iterator[Lake]:
    """A server with ``--data`` in (or at) a folder, on a port that nobody else takes while it is down."""
    with ports.block() as free:
        server = Lake(free[0], folder, ("--data", data or folder / "data", *args), env)
        try:
            if is_started:
                server.start()
            yield server
        finally:
            server.kill()


def client_of(url: str, token: str, seconds: float = REQUEST_SECONDS) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, timeout=seconds, trust_env=False)


def new_token(user: str, *args: object, env: dict[str, str] | None = None) -> str:
    """Made as the operator makes it. ``args`` say where: ``--data``, ``--mongo``."""
    done = said("token", "create", user, *args, env=env)
    assert done.returncode == 0, done
    return done.stdout.strip()
