"""Main: one server's life, from its settings to its end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from dreamlake.systemd import Notifier
from dreamlake.wire.times import time_text
from dreamlake_server import data, limits
from dreamlake_server.api import ROUTES
from dreamlake_server.app import Server, make_app
from dreamlake_server.auth import ByToken, ByWord
from dreamlake_server.health import without_secrets
from dreamlake_server.listen import for_this_machine_only, listen, place
from dreamlake_server.opening import blobs_of, meta_of, tokens_of
from dreamlake_server.purge import purge
from dreamlake_server.settings import CannotStart, Settings
from dreamlake_server.stores import StoreUnavailable

# Longer than the pauses of a client that has something to send: it would otherwise now and then write into a
# connection that is being closed.
_KEEP_ALIVE_SECONDS = 75
_PURGE_SECONDS = 3600
_DAY_NS = 86_400 * 10**9

Found = TypeVar("Found")

_log = logging.getLogger("dreamlake.server")


def run(settings: Settings, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Be the server until SIGTERM or SIGINT. ``say`` is given the line that tells where it listens, once it does;
    ``warn`` what else people should know. Raises :class:`CannotStart`."""
    os.umask(0o077)
    _log_to_stderr()
    notifier = Notifier.taken()
    with contextlib.ExitStack() as held:
        folder = data.make(settings.data)
        if settings.mongo is None:
            held.enter_context(data.locked(folder))
        listening = held.enter_context(listen(settings.host, settings.port))
        loopback = for_this_machine_only(listening)
        if settings.auth == "none" and not loopback:
            raise CannotStart(
                f"--auth none lets everybody be anybody, and {settings.host} can be reached from other machines: "
                "use --host 127.0.0.1, or tokens"
            )
        server = _server(settings, folder, loopback)
        config = _config(settings, server)

        async def announce() -> None:
            scheme = "http" if settings.tls_cert is None else "https"
            host, port = place(listening)
            notifier.say("READY=1", f"STATUS=listens on {scheme}://{host}:{port}")
            say(f"dreamlake server listening on {scheme}://{host}:{port} ({server.meta.kind}, {server.blobs.kind})")
            if not loopback and settings.tls_cert is None:
                warn(
                    "warning: other machines reach this server without TLS, so tokens and data can be read on the way: "
                    "give --tls-cert and --tls-key, or put a proxy with TLS before it"
                )
            if settings.auth == "none" and settings.allow_hosts:
                warn(
                    "warning: --auth none lets everybody be anybody who reaches this server as "
                    f"{', '.join(settings.allow_hosts)}: see that nobody else's machine does"
                )
            if settings.auth == "token" and not await server.tokens.of(None):
                where = f"--data {folder}" if settings.mongo is None else "with the same DREAMLAKE_SERVER_MONGO"
                warn(f"there is no token yet; make the first one: dreamlake server token create USER {where}")

        async def live() -> None:
            async with server.opened():
                purging = asyncio.create_task(_purge_now_and_then(server, settings.purge_days))
                try:
                    await _Uvicorn(config, server, announce, notifier).serve(sockets=[listening])
                finally:
                    purging.cancel()

        _asyncio_run(live)


def purge_once(settings: Settings, days: int) -> int:
    """Forget for good what was deleted more than ``days`` days ago; how many sessions that were."""
    with contextlib.ExitStack() as held:
        folder = settings.data
        if settings.mongo is None:
            folder = data.existing(folder)
            # SQLite's file has one writing process; the server that runs purges by itself.
            held.enter_context(data.locked(folder))
        server = _server(settings, folder, loopback=True)

        async def once() -> int:
            async with server.opened():
                return await purge(server.meta, server.owned, _before(server, days))

        return _asyncio_run(once)


def _server(settings: Settings, folder: Path, loopback: bool) -> Server:
    tokens = tokens_of(settings, folder)
    return Server(
        meta_of(settings, folder),
        blobs_of(settings, folder),
        tokens,
        ByToken(tokens) if settings.auth == "token" else ByWord(),
        spool=str(folder / data.SPOOL),
        loopback=loopback,
        allow_hosts=tuple(name.lower() for name in settings.allow_hosts),
        purge_days=settings.purge_days,
    )


def _config(settings: Settings, server: Server) -> uvicorn.Config:
    config = uvicorn.Config(
        make_app(server, ROUTES),
        # The faster parser where somebody has installed it; no other one, whatever "auto" may come to mean.
        http="httptools" if importlib.util.find_spec("httptools") else "h11",
        ws="none",
        lifespan="off",  # the stores are opened before it listens, so that what is wrong with them is one sentence
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # whom a header names as the caller may be anybody
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=limits.STOP_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise CannotStart(
            f"--tls-cert {settings.tls_cert} and --tls-key {settings.tls_key} cannot be used: "
            f"{error.strerror or error}; they are a certificate (chain) and its key, in PEM"
        ) from None
    return config


class _Uvicorn(uvicorn.Server):
    """Tells when it listens and when it stops, and lets a signal end the process as if nothing had happened: 0."""

    def __init__(
        self, config: uvicorn.Config, server: Server, announce: Callable[[], Awaitable[None]], notifier: Notifier
    ) -> None:
        super().__init__(config)
        self._server = server
        self._announce = announce
        self._notifier = notifier

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.stopping = True
        self._notifier.say("STOPPING=1")
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _purge_now_and_then(server: Server, days: int) -> None:
    while True:
        try:
            if purged := await purge(server.meta, server.owned, _before(server, days)):
                _log.info("purged %d sessions that were deleted more than %d days ago", purged, days)
        except StoreUnavailable as error:
            _log.warning("deleted sessions are not purged now: %s", error)
        except Exception:
            _log.exception("deleted sessions are not purged now")
        await asyncio.sleep(_PURGE_SECONDS)


def _before(server: Server, days: int) -> str:
    return time_text(server.clock() - days * _DAY_NS)


def _asyncio_run(work: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
    try:
        return asyncio.run(work())
    except StoreUnavailable as error:
        raise CannotStart(without_secrets(str(error))) from None


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    _log.setLevel(logging.INFO)
    # Its warnings are of what strangers send, such as an upgrade to something that is not offered.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
