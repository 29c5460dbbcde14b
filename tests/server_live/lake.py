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
STOP_SECONDS = 30  # the server gives requests under way ten, and connections to its stores some


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

    def stop(self) -> int:
        """As its operator stops it; returns its exit code."""
        assert self._process is not None, "the server does not run"
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        finally:
            self.kill()

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
def lake(folder: Path, *args: object, env: Mapping[str, str] | None = None) -> Iterator[Lake]:
    """A server that writes its log into ``folder``. On a port that nobody takes while it is down: one that the system
    chose (``--port 0``) may be that of somebody's outgoing connection by then."""
    with ports.block() as free:
        server = Lake(free[0], folder, args, env)
        try:
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
