"""Auth: who calls. A token is ``dlk_<id>_<secret>``: the id is public and finds it, the secret is 256 random bits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dreamlake.wire import jsons
from dreamlake.wire.names import folder_of
from dreamlake_server.failures import Failures
from dreamlake_server.problem import Problem, bad
from dreamlake_server.stores.tokens import Token, Tokens

if TYPE_CHECKING:
    from dreamlake_server.route import Request

_TOKEN = re.compile(r"dlk_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HEADER_BYTES = 8 << 10
ANONYMOUS = "anonymous"


@dataclass(frozen=True)
class Caller:
    """Who calls: the owner of what is read and written."""

    user: str
    read_only: bool = False
    token: Token | None = None  # None where users are who they say


class Auth(Protocol):
    """Raises :class:`Problem` when nobody can be made out. ``address`` is where the call comes from, ``now`` is in
    seconds."""

    kind: Literal["token", "none"]

    async def caller(self, authorization: str | None, address: str, now: float) -> Caller: ...


async def who(auth: Auth, request: Request) -> Caller:
    """Who sends this request."""
    address = request.client.host if request.client else ""
    return await auth.caller(request.headers.get("authorization"), address, time.monotonic())


def check_user(name: str) -> str:
    """``name``, when it can be a user's; else :class:`ValueError` with the reason."""
    folder_of("user", name)
    # To some S3 servers a backslash is a slash: one user's bytes would lie among another's.
    if "\\" in name or _CONTROL.search(name):
        raise ValueError(f"user {name[:40]!r} holds a backslash or a control character: choose another name")
    return name


def new_token(user: str, created: str, *, read_only: bool = False, note: str = "") -> tuple[str, Token]:
    """The token, to be shown once, and what is kept of it. :class:`ValueError` for a user that cannot be."""
    known_as = secrets.token_hex(6)
    text = f"dlk_{known_as}_{secrets.token_urlsafe(32)}"
    return text, Token(known_as, check_user(user), _sha256(text), read_only, created, note)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _bearer(authorization: str | None) -> str | None:
    """What stands after "Bearer"; None when there is no such header."""
    if authorization is None:
        return None
    scheme, _, text = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not text.strip() or len(text) > _HEADER_BYTES:
        raise _unauthorized("the Authorization header is not `Bearer <token>`: send it so", "invalid_request")
    return text.strip()


def _unauthorized(text: str, error: str = "") -> Problem:
    challenge = f'Bearer error="{error}"' if error else "Bearer"
    return Problem(401, "unauthorized", text, headers={"WWW-Authenticate": challenge})


class ByToken:
    """Users are who their tokens say. A right token is never refused, however many wrong ones came before it."""

    kind: Literal["token", "none"] = "token"

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._failures = Failures()

    async def caller(self, authorization: str | None, address: str, now: float) -> Caller:
        text = _bearer(authorization)
        if text is None:
            raise _unauthorized(
                "this needs a token: send `Authorization: Bearer <token>`; whoever runs the server makes one with "
                "`dreamlake server token create`"
            )
        shape = _TOKEN.fullmatch(text)
        token = await self._tokens.find(shape["id"]) if shape else None
        if token is None or not hmac.compare_digest(token.sha256, _sha256(text)):
            raise self._wrong(address, now)
        if token.revoked is not None:
            raise _unauthorized(f"token {token.id} was revoked: ask for another one", "invalid_token")
        return Caller(token.user, token.read_only, token)

    def _wrong(self, address: str, now: float) -> Problem:
        if seconds := self._failures.count(address, now):
            text = f"too many wrong tokens from {address}: try again in {seconds} s, with the right one at once"
            return Problem(429, "too-many-failures", text, headers={"Retry-After": str(seconds)})
        return _unauthorized("this token is not known here: is it complete, and for this server?", "invalid_token")


class ByWord:
    """Users are who they say: for a server that nobody but its own machine can reach."""

    kind: Literal["token", "none"] = "none"

    async def caller(self, authorization: str | None, address: str, now: float) -> Caller:
        text = _bearer(authorization)
        if text is None:
            return Caller(ANONYMOUS)
        claims = _claims(text)
        name = claims.get("userName") or claims.get("userId")
        if not isinstance(name, str):
            raise _unauthorized(
                "the token names no user (userName or userId), and this server (--auth none) looks at nothing else: "
                "leave it out to be 'anonymous'",
                "invalid_token",
            )
        try:
            return Caller(check_user(name))
        except ValueError as why:
            raise bad(str(why), "bad-user") from None


def _claims(text: str) -> dict[str, Any]:
    """What a JSON Web Token (RFC 7519) says, whoever signed it; nothing when it is none."""
    parts = text.split(".")
    if len(parts) != 3:
        return {}
    try:
        found = jsons.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
