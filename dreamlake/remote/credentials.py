"""Credentials: this user's logins at servers, and the keys that scripts gave for single sessions.

::

    BASE/                     DREAMLAKE_HOME, else ~/.local/state/dreamlake; for this user alone (0700)
    ├── credentials.json      0600; the logins, of every host that shares the home
    ├── credentials.lock      held (flock) while they are changed
    └── keys/                 0700; a file (0600) for each session directory and server, until the session is done

Whatever another user could have read or written is refused, and never mended in silence: the tokens in it may be known.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import hmac
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake import config
from dreamlake.errors import DreamlakeError
from dreamlake.remote.reach import Reach
from dreamlake.wire import jsons
from dreamlake.wire.remotes import Remote, address

FILE = "credentials.json"
LOCK = "credentials.lock"
KEYS = "keys"
_NEW = ".new"
FILE_BYTES = 4 << 20
TOKEN_BYTES = 8 << 10  # what a server reads of such a header
_VERSION = 1
_SENDABLE = re.compile(rf"[\x21-\x7e]{{1,{TOKEN_BYTES}}}")
_PUBLIC = re.compile(r"(dlk_[0-9a-f]{12})_.+")
# File systems without locks: logins that come at once are not worth a refusal there.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}

# Known to everybody: it proves nothing, and only a server that proves nothing (--auth none) looks at what it signs.
_PUBLIC_SECRET = b"dreamlake: whoever signs this may be anybody"
_WORD_SECONDS = 30 * 86400


class CredentialsUnusable(DreamlakeError, OSError):
    """The file of logins, or of a key, cannot be read or written, or should not be. The message says what to do."""


@dataclass(frozen=True)
class Login:
    """A token, and how its server is reached."""

    token: str = field(repr=False)
    reach: Reach = field(default_factory=Reach)

    @property
    def public(self) -> str | None:
        """The part of the token by which people name it: ``dlk_`` and 12 hex digits; None for another kind of token."""
        return public_part(self.token)


class Credentials:
    """The store in ``folder``, else in this user's base folder. Every method may raise :class:`CredentialsUnusable`.
    Any number of processes may use it at once, on any number of hosts.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = config.base_folder() if folder is None else folder
        self.path = os.path.join(self.folder, FILE)

    # ── logins ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def store(self, url: str, user: str | None, login: Login) -> None:
        """Keep a login, in place of the one for the same URL and user. On stable storage when it returns."""
        if not is_sendable(login.token):
            raise ValueError("a token is text without spaces and accents: is it complete?")
        with self._locked():
            found = self._read_all()
            found[Remote(address(url), user)] = login
            self._write_all(found)

    def remove(self, url: str, user: str | None) -> bool:
        """Forget the login of exactly this URL and user; False when there is none."""
        with self._locked():
            found = self._read_all()
            if found.pop(Remote(address(url), user), None) is None:
                return False
            self._write_all(found)
            return True

    def all(self) -> list[tuple[Remote, Login]]:
        """Every login, by URL and user."""
        return sorted(self._read_all().items(), key=lambda each: (each[0].url, each[0].user or ""))

    def find(self, url: str, user: str | None) -> Login | None:
        """The login of that user at that URL; else the one that names no user; for nobody in particular the only
        one that there is."""
        there = {remote.user: login for remote, login in self._read_all().items() if remote.url == address(url)}
        if user in there:
            return there[user]
        if None in there:
            return there[None]
        # Never another user's: what alice means for herself would stand under bob's name.
        return next(iter(there.values())) if user is None and len(there) == 1 else None

    def _read_all(self) -> dict[Remote, Login]:
        data = self._read(self.path)
        if data is None:
            return {}
        try:
            said = jsons.loads(data)
            if said["v"] != _VERSION:
                raise CredentialsUnusable(
                    f"{self.path} is of another version of Dreamlake: use that one, or log in anew"
                )
            return dict(_login(each) for each in said["logins"])
        except (KeyError, TypeError, ValueError):
            # Without the error itself, which may quote what stands there.
            text = f"{self.path} holds no logins that can be read: remove it, and run `dreamlake login` again"
            raise CredentialsUnusable(text) from None

    def _write_all(self, logins: dict[Remote, Login]) -> None:
        rows = [
            {"url": remote.url, "user": remote.user, "token": login.token, **dataclasses.asdict(login.reach)}
            for remote, login in sorted(logins.items(), key=lambda each: (each[0].url, each[0].user or ""))
        ]
        self._write(self.path, jsons.pretty({"v": _VERSION, "logins": rows}))

    # ── keys of sessions ────────────────────────────────────────────────────────────────────────────────────────────

    def keep_key(self, path: str, url: str, user: str | None, token: str) -> None:
        """Keep the key that a script gave (``api_key=``) for the session directory ``path``."""
        if not is_sendable(token):
            raise ValueError("a key is text without spaces and accents: is it complete?")
        with self._locked():
            config.own_folder(os.path.join(self.folder, KEYS))
            self._write(self._key_file(path, url, user), token.encode())

    def key_of(self, path: str, url: str, user: str | None) -> str | None:
        data = self._read(self._key_file(path, url, user))
        return None if data is None else data.decode(errors="replace")

    def forget_key(self, path: str, url: str, user: str | None) -> bool:
        """The session is done; False when there was no key."""
        file, is_gone = self._key_file(path, url, user), False
        with self._locked():
            for each in (file, f"{file}{_NEW}"):
                try:
                    os.unlink(each)
                    is_gone = True
                except FileNotFoundError:
                    pass
                except OSError as error:
                    raise CredentialsUnusable(f"cannot remove a key of {path}: {error.strerror}") from None
        return is_gone

    def _key_file(self, path: str, url: str, user: str | None) -> str:
        named = b"\0".join((os.fsencode(path), address(url).encode(), b"" if user is None else b"=" + user.encode()))
        return os.path.join(self.folder, KEYS, hashlib.sha256(named).hexdigest()[:32])

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            config.own_folder(self.folder)
            fd = os.open(os.path.join(self.folder, LOCK), _PLAIN | os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CredentialsUnusable(f"cannot use the folder {self.folder}: {error.strerror or error}") from None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise CredentialsUnusable(f"cannot lock {self.folder}: {error.strerror}") from None
            yield
        finally:
            os.close(fd)

    def _read(self, path: str) -> bytes | None:
        """A file that only we may read; None when there is none."""
        try:
            fd = os.open(path, os.O_RDONLY | _PLAIN)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialsUnusable(f"cannot read {path}: {error.strerror}") from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
                raise CredentialsUnusable(f"{path} is not a file of yours: remove it")
            if found.st_mode & 0o077:
                raise CredentialsUnusable(
                    f"{path} can be read by others: if nobody has, `chmod 600` it; else have its tokens revoked"
                )
            if found.st_size > FILE_BYTES:
                raise CredentialsUnusable(f"{path} is larger than {FILE_BYTES} bytes: remove it")
            return os.read(fd, FILE_BYTES)
        except CredentialsUnusable:
            raise
        except OSError as error:
            raise CredentialsUnusable(f"cannot read {path}: {error.strerror}") from None
        finally:
            os.close(fd)

    def _write(self, path: str, data: bytes) -> None:
        """Replace a file in one step, under the lock: who reads it meanwhile sees the old one or the new one."""
        temp = f"{path}{_NEW}"
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp)  # of one that was killed
            fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600)
            try:
                os.fchmod(fd, 0o600)  # whatever the umask
                while data:
                    data = data[os.write(fd, data) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temp, path)
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise CredentialsUnusable(f"cannot write {path}: {error.strerror}") from None


_PLAIN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _login(said: dict[str, Any]) -> tuple[Remote, Login]:
    user, limit = said["user"], said.get("limit_rate")
    texts = {name: said.get(name) for name in ("proxy", "ca", "cert", "key")}
    if not all(each is None or isinstance(each, str) for each in (user, *texts.values())):
        raise TypeError
    if not is_sendable(said["token"]) or not (limit is None or (isinstance(limit, int) and limit > 0)):
        raise ValueError
    return Remote(address(said["url"]), user), Login(said["token"], Reach(limit_rate=limit, **texts))


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_sendable(token: object) -> bool:
    """Whether an HTTP header can carry it: of another one the HTTP library would say in an error what it is."""
    return isinstance(token, str) and _SENDABLE.fullmatch(token) is not None


def public_part(token: str) -> str | None:
    """
    >>> public_part("dlk_0123456789ab_" + "x" * 43)
    'dlk_0123456789ab'
    """
    found = _PUBLIC.fullmatch(token)
    return found[1] if found else None


def token_for(
    url: str, user: str | None, api_key: str | None = None, credentials: Credentials | None = None
) -> str | None:
    """The token with which ``user`` comes to a server: ``api_key``; else ``DREAMLAKE_API_KEY``; else that of a stored
    login; else a word that only a server without tokens believes; else none. Raises :class:`CredentialsUnusable`."""
    said = (api_key or "").strip() or os.environ.get("DREAMLAKE_API_KEY", "").strip()
    if said:
        return said
    login = (Credentials() if credentials is None else credentials).find(url, user)
    if login is not None:
        return login.token
    return None if user is None else word_token(user)


def word_token(user: str) -> str:
    """A JSON Web Token (RFC 7519, HS256) that says who somebody is and proves nothing, as a server with ``--auth none``
    takes it."""
    now = int(time.time())
    claims = {"userId": user, "userName": user, "iat": now, "exp": now + _WORD_SECONDS}
    said = b".".join(_base64(jsons.encode(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return b".".join((said, _base64(hmac.digest(_PUBLIC_SECRET, said, "sha256")))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
