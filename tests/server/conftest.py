"""What the server's tests stand on: one in this process, over stores in memory and without a socket; and a real one."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from dreamlake_server import limits
from dreamlake_server.api import ROUTES
from dreamlake_server.app import Server, make_app
from dreamlake_server.auth import Auth, ByToken, new_token
from dreamlake_server.route import Route
from dreamlake_server.stores.memory import MemoryMeta, MemoryTokens
from dreamlake_server.stores.memory_blobs import MemoryBlobs
from tests import scripts
from tests.contract.conftest import Run, run
from tests.waiting import wait_for

Connect = Callable[..., httpx.AsyncClient]
Serve = Callable[..., "Served"]

HERE = "http://127.0.0.1:3000"
REQUEST_SECONDS = 20
END_SECONDS = 20

# `dreamlake`, with a stop that does not take a test ten seconds.
_START = """
import sys
from dreamlake.cli import main
from dreamlake_server import limits
limits.STOP_SECONDS = int(sys.argv.pop(1))
main()
"""

__all__ = ["run"]


@pytest.fixture
def server(run: Run) -> Iterator[Server]:
    tokens = MemoryTokens()
    server = Server(MemoryMeta(), MemoryBlobs(), tokens, ByToken(tokens))
    opened = server.opened()
    run(opened.__aenter__())
    yield server
    run(opened.__aexit__(None, None, None))


@pytest.fixture
def connect(server: Server, run: Run) -> Iterator[Connect]:
    """Make clients of the server in this process: of nobody, or of a user, with a token that is made for it."""
    clients: list[httpx.AsyncClient] = []

    def connect(
        user: str | None = None,
        *,
        read_only: bool = False,
        routes: Sequence[Route] = ROUTES,
        auth: Auth | None = None,
        base: str = HERE,
        address: str = "127.0.0.1",
    ) -> httpx.AsyncClient:
        if auth is not None:
            server.auth = auth
        headers = {}
        if user is not None:
            text, token = new_token(user, server.now(), read_only=read_only)
            run(server.tokens.add(token))
            headers["Authorization"] = f"Bearer {text}"
        transport = httpx.ASGITransport(make_app(server, routes), client=(address, 40000))
        clients.append(httpx.AsyncClient(transport=transport, base_url=base, headers=headers))
        return clients[-1]

    yield connect
    for client in clients:
        run(client.aclose())


@pytest.fixture
def client(connect: Connect) -> httpx.AsyncClient:
    """Of nobody."""
    return connect()


@pytest.fixture
def alice(connect: Connect) -> httpx.AsyncClient:
    return connect("alice")


@pytest.fixture
def bob(connect: Connect) -> httpx.AsyncClient:
    return connect("bob")


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    data: Path
    out: Path
    err: Path
    cafile: Path | None
    url: str = ""
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, user: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token_for(user, self.data)}"} if user else {}
        verify: Any = ssl.create_default_context(cafile=str(self.cafile)) if self.cafile else True
        self.clients.append(
            httpx.Client(base_url=self.url, headers=headers, timeout=REQUEST_SECONDS, trust_env=False, verify=verify)
        )
        return self.clients[-1]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and wait for its exit code."""
        for client in self.clients:
            client.close()
        self.process.send_signal(number)
        return self.process.wait(END_SECONDS)


def said(*args: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``dreamlake server …`` to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "dreamlake.cli", "server", *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=scripts.environment(env),
        cwd=cwd,
        timeout=60,
        check=False,
    )


def token_for(user: str, data: Path) -> str:
    done = said("token", "create", user, "--data", data)
    assert done.returncode == 0, done
    return done.stdout.strip()


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers, each on a free port, and wait until they listen; at the end none lives, and none complained."""
    for name in [name for name in os.environ if name.startswith("DREAMLAKE_") and "_TEST_" not in name]:
        monkeypatch.delenv(name)
    numbers = itertools.count()
    with contextlib.ExitStack() as started:

        def finish(served: Served) -> None:
            for client in served.clients:
                client.close()
            if served.process.poll() is None:
                served.process.kill()
                served.process.wait()
            complaints = served.err.read_text()
            sys.stderr.write(complaints)
            assert "Traceback" not in complaints

        def serve(
            *args: object,
            data: Path = tmp_path / "data",
            cafile: Path | None = None,
            stop_seconds: int = limits.STOP_SECONDS,
        ) -> Served:
            number = next(numbers)
            program = [sys.executable, "-W", "error", "-c", _START, str(stop_seconds)]
            out, err = tmp_path / f"out-{number}", tmp_path / f"err-{number}"
            with out.open("wb") as stdout, err.open("wb") as stderr:
                process = subprocess.Popen(
                    [*program, "server", "start", "--port", "0", "--data", str(data), *map(str, args)],
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                )
            served = Served(process, data, out, err, cafile)
            started.callback(finish, served)
            found = wait_for(
                lambda: re.search(r"listening on (\S+) \(.+\)\n", out.read_text()) or process.poll() is not None
            )
            assert isinstance(found, re.Match), err.read_text()
            served.url = found[1]
            return served

        yield serve


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()
