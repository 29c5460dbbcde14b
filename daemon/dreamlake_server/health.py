"""Health: whether the stores behind this server take what it would give them, now."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

import dreamlake
from dreamlake_server.stores import StoreUnavailable
from dreamlake_server.stores.blobs import Blobs
from dreamlake_server.stores.meta import Meta
from dreamlake_server.stores.tokens import Tokens

_PING_SECONDS = 6  # a store says within 5 s itself
_ERROR_CHARACTERS = 400
_NO_TOKEN = "0" * 12  # an id to look up; whether there is such a token does not matter

# Whatever a driver puts into its messages: user and password of a URL, the values of its query, long secrets.
_USER = re.compile(r"://[^/\s@]*@")
_QUERY = re.compile(r"([?&][\w.%-]+=)[^&\s]+")

_log = logging.getLogger("dreamlake.server")


class StoreHealth(msgspec.Struct, omit_defaults=True):
    """Of one store. ``error`` says why it is unavailable."""

    kind: str
    state: Literal["ok", "unavailable"]
    error: str | None = None


class StoresHealth(msgspec.Struct):
    meta: StoreHealth
    blobs: StoreHealth
    tokens: StoreHealth


class Health(msgspec.Struct):
    """Degraded (with status 503) when any of the stores is unavailable."""

    status: Literal["ok", "degraded"]
    version: str
    stores: StoresHealth


class Doctor:
    """Asks the stores; those who ask while it does so share one answer, so that many who ask make no load."""

    def __init__(self, meta: Meta, blobs: Blobs, tokens: Tokens) -> None:
        self._meta, self._blobs, self._tokens = meta, blobs, tokens
        self._asking: asyncio.Task[Health] | None = None

    async def health(self) -> Health:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)  # one who goes away takes it from nobody else

    async def _ask(self) -> Health:
        meta, blobs, tokens = await asyncio.gather(
            _look("meta", self._meta.kind, self._meta.ping),
            _look("blobs", self._blobs.kind, self._blobs.ping),
            # They lie where the documents lie, and are only read.
            _look("tokens", self._meta.kind, lambda: self._tokens.find(_NO_TOKEN)),
        )
        well = all(store.state == "ok" for store in (meta, blobs, tokens))
        return Health("ok" if well else "degraded", dreamlake.__version__, StoresHealth(meta, blobs, tokens))


async def _look(name: str, kind: str, ping: Callable[[], Awaitable[object]]) -> StoreHealth:
    try:
        await asyncio.wait_for(ping(), _PING_SECONDS)
    except StoreUnavailable as why:
        return StoreHealth(kind, "unavailable", without_secrets(str(why)))
    except (asyncio.TimeoutError, TimeoutError):
        return StoreHealth(kind, "unavailable", f"no answer within {_PING_SECONDS} s")
    except Exception:
        _log.exception("the store of %s (%s) cannot be asked how it is", name, kind)
        return StoreHealth(kind, "unavailable", "it failed; the server's log says how")
    return StoreHealth(kind, "ok")


def without_secrets(text: str) -> str:
    """What a store says of itself, fit to be read by anybody.

    >>> without_secrets("cannot reach mongodb://ann:hunter2@db:27017/lake?authToken=abc")
    'cannot reach mongodb://…@db:27017/lake?authToken=…'
    """
    return _QUERY.sub(r"\1…", _USER.sub("://…@", text))[:_ERROR_CHARACTERS]
