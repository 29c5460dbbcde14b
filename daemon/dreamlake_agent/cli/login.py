"""``dreamlake login``, ``logout``, ``whoami``: as whom this user comes to which server."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any
from urllib.parse import quote, urlsplit

import click

from dreamlake.errors import DreamlakeError
from dreamlake.remote.credentials import (
    TOKEN_BYTES,
    Credentials,
    CredentialsUnusable,
    Login,
    is_sendable,
    public_part,
    token_for,
)
from dreamlake.remote.rate import bytes_per_second
from dreamlake.remote.reach import Reach, check_proxy, without_password
from dreamlake.wire import jsons
from dreamlake.wire.remotes import Remote, address

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0


@click.command()
@click.argument("url")
@click.option("--user", metavar="NAME", help="For sessions with this user_name only, and only if the token is NAME's.")
@click.option("--proxy", metavar="URL", help="The proxy on the way; of http://NAME@… the password is asked for, too.")
@click.option("--ca", metavar="FILE", help="An authority (PEM) to be trusted besides the usual ones.")
@click.option("--cert", metavar="FILE", help="The certificate (PEM) by which the server knows this machine.")
@click.option("--key", metavar="FILE", help="Its key, when it is not in the same file.")
@click.option("--limit-rate", metavar="RATE", help="Bytes a second that may leave for this server: 500K, 10M.")
@click.option("--no-check", is_flag=True, help="Store it without asking the server.")
def login(
    url: str,
    user: str | None,
    proxy: str | None,
    ca: str | None,
    cert: str | None,
    key: str | None,
    limit_rate: str | None,
    no_check: bool,
) -> None:
    """Keep the token for the server at URL, and how it is reached, for this user on every machine that shares the home.

    The token is asked for, or is the first line of standard input: never an argument, which every process here could
    read. It is stored when the server knows it. HTTPS_PROXY, SSL_CERT_FILE and their kin go before what is stored.

    Exits with 0 when it is stored, 1 when it is not, 2 for wrong use.

    \b
    Examples:
      dreamlake login https://lake.example.org
      dreamlake login https://lake.example.org < token
      dreamlake login https://lake.example.org --proxy http://proxy.example.org:3128 --ca /etc/ssl/our-ca.pem
    """
    remote = Remote(_address(url), user)
    if key and not cert:
        raise click.UsageError("--key belongs to a certificate: give --cert, too")
    reach = Reach(_proxy(proxy), _file(ca, "--ca"), _file(cert, "--cert"), _file(key, "--key"), _rate(limit_rate))
    if remote.url.startswith("http://") and urlsplit(remote.url).hostname not in ("127.0.0.1", "::1", "localhost"):
        click.echo(f"warning: {remote.url} is without TLS: the token and all data can be read on the way", err=True)
    token = _secret(f"Token for {remote.url}")
    if not is_sendable(token):
        raise click.UsageError("that is no token: one is a single word, such as `dreamlake server token create` prints")
    if reach.proxy and urlsplit(reach.proxy).username and not urlsplit(reach.proxy).password:
        reach = _with_password(reach)
    kept = Login(token, reach)
    there = None if no_check else _checked(remote, kept)
    credentials = Credentials()
    try:
        credentials.store(remote.url, user, kept)
    except CredentialsUnusable as error:
        raise click.ClickException(str(error)) from None
    who = f" as {there['user']}{', to read only' if there['readOnly'] else ''}" if there else ""
    click.echo(f"logged in at {remote.url}{who}; kept in {credentials.path}")
    if os.environ.get("DREAMLAKE_API_KEY"):
        click.echo("warning: DREAMLAKE_API_KEY is set here, and goes before it", err=True)


@click.command()
@click.argument("url")
@click.option("--user", metavar="NAME", help="The login that was stored with --user NAME.")
def logout(url: str, user: str | None) -> None:
    """Forget the login at URL. The token itself stays good: whoever runs the server can revoke it.

    Exits with 0 when it is forgotten, 1 when there is none.

    \b
    Examples:
      dreamlake logout https://lake.example.org
      dreamlake logout https://lake.example.org --user alice
    """
    place = _address(url)
    credentials = Credentials()
    try:
        there = {remote.user: login for remote, login in credentials.all() if remote.url == place}
        if user is None and None not in there and len(there) == 1:
            [user] = there
        is_gone = credentials.remove(place, user)
    except CredentialsUnusable as error:
        raise click.ClickException(str(error)) from None
    if not is_gone:
        others = ", ".join(f"--user {name}" for name in sorted(filter(None, there)))
        raise click.ClickException(
            f"no login at {Remote(place, user)} is stored{f'; there is {others}' * bool(others)}"
        )
    public = there[user].public
    hint = f"; `dreamlake server token revoke {public.removeprefix('dlk_')}` ends the token itself" if public else ""
    click.echo(f"logged out of {Remote(place, user)}{hint}")


@click.command()
@click.argument("url", required=False)
@click.option("--user", metavar="NAME", help="With URL: as a session with this user_name would come there.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, an object for each login.")
def whoami(url: str | None, user: str | None, as_json: bool) -> None:
    """Say which logins are stored, and who the servers say we are; with URL, who we are there.

    With URL, DREAMLAKE_API_KEY goes before what is stored, as it does for sessions. Of a token its public part is
    shown at most. Exits with 0 when every server knows us, else with 1.

    \b
    Examples:
      dreamlake whoami
      dreamlake whoami https://lake.example.org --json
    """
    if user and url is None:
        raise click.UsageError("--user asks about one server: give its URL, too")
    credentials = Credentials()
    try:
        those = _stored(credentials) if url is None else [_used(credentials, url, user)]
    except CredentialsUnusable as error:
        raise click.ClickException(str(error)) from None
    found = [_told(*each) for each in those]
    if as_json:
        click.echo(jsons.pretty(found), nl=False)
    else:
        for each in found:
            click.echo(_line(each), err=bool(each["error"]))
        if not found:
            click.echo(f"no login is stored in {credentials.path}; see `dreamlake login --help`", err=True)
        elif url is None and os.environ.get("DREAMLAKE_API_KEY"):
            click.echo("DREAMLAKE_API_KEY is set here, and goes before all of them", err=True)
    raise SystemExit(0 if found and not any(each["error"] for each in found) else 1)


# ── what the server says ────────────────────────────────────────────────────────────────────────────────────────────


def _ask(remote: Remote, token: str | None, reach: Reach) -> dict[str, Any]:
    """Raises :class:`~dreamlake.remote.lake.Trouble`, and :class:`ValueError` for a variable that cannot be used."""
    from dreamlake.remote.lake import Lake  # not with every command: httpx takes its time

    with Lake(
        remote.url,
        token,
        reach=reach.here(),
        tries=1,
        connect_seconds=CONNECT_SECONDS,
        answer_seconds=ANSWER_SECONDS,
    ) as lake:
        return lake.whoami()


def _checked(remote: Remote, kept: Login) -> dict[str, Any]:
    from dreamlake.remote.lake import NotLetIn, Refused, Unreachable

    try:
        there = _ask(remote, kept.token, kept.reach)
    except NotLetIn as error:
        raise click.ClickException(f"{error}; nothing is stored") from None
    except Refused as error:
        raise click.ClickException(
            f"{error}; is it an older server? --no-check stores the token all the same"
        ) from None
    except (Unreachable, ValueError) as error:
        raise click.ClickException(f"{error}; nothing is stored: --no-check stores it all the same") from None
    if remote.user is not None and there["user"] != remote.user:
        whose = f"this token is {there['user']}'s at {remote.url}, and not {remote.user}'s"
        raise click.ClickException(f"{whose}; nothing is stored: leave out --user, or take the other token")
    return there


_Known = tuple[Remote, "str | None", Reach, "str | None"]  # where, with what token, by what way, and where that is from


def _stored(credentials: Credentials) -> list[_Known]:
    return [(remote, login.token, login.reach, "login") for remote, login in credentials.all()]


def _used(credentials: Credentials, url: str, user: str | None) -> _Known:
    """What a session with this remote would come with."""
    remote = Remote(_address(url), user)
    kept = credentials.find(remote.url, user)
    source = "DREAMLAKE_API_KEY" if os.environ.get("DREAMLAKE_API_KEY", "").strip() else "login" if kept else None
    return remote, token_for(remote.url, user, credentials=credentials), kept.reach if kept else Reach(), source


def _told(remote: Remote, token: str | None, reach: Reach, source: str | None) -> dict[str, Any]:
    """What may be shown."""
    told: dict[str, Any] = {
        "url": remote.url,
        "user": remote.user,
        "from": source,
        "token": public_part(token) if token else None,
        **dataclasses.asdict(reach),
        "proxy": without_password(reach.proxy) if reach.proxy else None,
        "server": None,
        "error": None,
    }
    try:
        return {**told, "server": _ask(remote, token, reach)}
    except (DreamlakeError, ValueError) as error:
        return {**told, "error": str(error)}


def _line(told: dict[str, Any]) -> str:
    there, remote = told["server"], Remote(told["url"], told["user"])
    if there is None:
        return f"{remote}: {told['error']}"
    rights = "may only read" if there["readOnly"] else "may read and write"
    token = f"token {told['token']}" if told["token"] else "without a token of the server's"
    note = f" ({there['token']['note']})" if there["token"] and there["token"]["note"] else ""
    ways = [f"{name} {told[name]}" for name in ("proxy", "ca", "cert") if told[name]]
    return "; ".join(
        [f"{remote}: {there['user']}, {rights}, {token}{note}", f"from {told['from'] or 'nothing'}", *ways]
    )


# ── what was typed ──────────────────────────────────────────────────────────────────────────────────────────────────


def _address(url: str) -> str:
    try:
        return address(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None


def _secret(prompt: str) -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        return str(click.prompt(prompt, hide_input=True, err=True)).strip()
    return "" if sys.stdin is None else sys.stdin.readline(TOKEN_BYTES).strip()


def _proxy(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        found = check_proxy(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--proxy") from None
    if urlsplit(found).password:
        raise click.BadParameter(
            "every process here can read an argument: leave out the password, and it is asked for", param_hint="--proxy"
        )
    return found


def _with_password(reach: Reach) -> Reach:
    shown = without_password(reach.proxy or "")
    password = _secret(f"Password for the proxy {shown}")
    scheme, _, place = shown.partition("://")
    name = urlsplit(reach.proxy or "").username or ""
    return dataclasses.replace(reach, proxy=f"{scheme}://{name}:{quote(password, safe='')}@{place}")


def _file(path: str | None, option: str) -> str | None:
    """Absolute, since an agent has another working directory."""
    if path is None:
        return None
    try:
        with open(path, "rb"):
            return os.path.abspath(path)
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint=option) from None


def _rate(text: str | None) -> int | None:
    try:
        return None if text is None else bytes_per_second(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit-rate") from None
