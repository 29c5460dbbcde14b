"""``dreamlake server …``: run a server, and say who may call it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from dreamlake import systemd
from dreamlake.wire import jsons
from dreamlake.wire.times import time_text
from dreamlake_server import limits
from dreamlake_server.settings import CannotStart, Settings

if TYPE_CHECKING:
    from dreamlake_server.stores.tokens import Token

# What `pip install dreamlake` alone leaves out.
_EXTRA = {
    "backports",
    "httpx",
    "msgspec",
    "multipart",
    "obstore",
    "prometheus_client",
    "pymongo",
    "starlette",
    "uvicorn",
}
_NOTE_BYTES = 1024
_HOST = re.compile(r"\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What cannot be done is a sentence and exit code 1."""
    try:
        yield
    except CannotStart as reason:
        raise click.ClickException(str(reason)) from None
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise click.ClickException(
            f"the server needs {missing.name}, which is not installed: pip install 'dreamlake[server]'"
        ) from None


def _data(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("dreamlake-server"),
        envvar="DREAMLAKE_SERVER_DATA",
        show_envvar=True,
        show_default=True,
        help="The folder of the server's own data.",
    )(command)


def _mongo(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--mongo",
        metavar="URI",
        envvar="DREAMLAKE_SERVER_MONGO",
        show_envvar=True,
        help="Keep documents and tokens in this MongoDB (a replica set) instead. An argument shows in the list of "
        "processes: where the URI holds a password, use the variable.",
    )(command)


def _s3(command: Callable[..., Any]) -> Callable[..., Any]:
    where = click.option(
        "--s3",
        metavar="s3://BUCKET/PREFIX",
        envvar="DREAMLAKE_SERVER_S3",
        show_envvar=True,
        help="Keep bytes in this bucket instead; its keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )
    endpoint = click.option(
        "--s3-endpoint",
        metavar="URL",
        envvar="DREAMLAKE_SERVER_S3_ENDPOINT",
        show_envvar=True,
        help="Where the bucket is, when it is not at AWS.",
    )
    return where(endpoint(command))


@click.group()
def server() -> None:
    """The server: sessions of many users and machines, over HTTP.

    \b
    Examples:
      dreamlake server start
      dreamlake server token create alice
    """


@server.command()
@_data
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=3000, show_default=True, help="The port; 0 takes a free one."
)
@_mongo
@_s3
@click.option(
    "--auth",
    type=click.Choice(["token", "none"]),
    default="token",
    show_default=True,
    help="Who may call: whoever has a token, or everybody as whom they say they are (on loopback only).",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A further name of this server, as a Host header has it; may be given several times. On loopback its own "
    "addresses are known; elsewhere every name is taken until one is given.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="A certificate (chain) in PEM: listen with TLS.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key in PEM.")
@click.option(
    "--purge-days",
    type=click.IntRange(1, 36500),
    default=limits.PURGE_DAYS,
    show_default=True,
    help="How long a deleted session can be restored.",
)
def start(
    data: Path,
    host: str,
    port: int,
    mongo: str | None,
    s3: str | None,
    s3_endpoint: str | None,
    auth: Literal["token", "none"],
    allow_hosts: tuple[str, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    purge_days: int,
) -> None:
    """Be the server, in the foreground, until SIGTERM or Ctrl-C.

    \b
    Examples:
      dreamlake server start
      dreamlake server start --data /srv/dreamlake --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
      DREAMLAKE_SERVER_MONGO=mongodb://… dreamlake server start --s3 s3://lake/prod
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key come together: give both")
    if wrong := [name for name in allow_hosts if not _HOST.fullmatch(name)]:
        raise click.UsageError(f"--allow-host {wrong[0]!r}: give the name alone, without scheme and port")
    if s3_endpoint and not s3:
        raise click.UsageError("--s3-endpoint says where a bucket is: give --s3, too")
    settings = Settings(data, host, port, mongo, s3, s3_endpoint, auth, allow_hosts, tls_cert, tls_key, purge_days)
    with _told():
        from dreamlake_server.main import run

        run(settings, click.echo, partial(click.echo, err=True))


@server.command()
@_data
@_mongo
@_s3
@click.option(
    "--days",
    type=click.IntRange(0, 36500),
    default=limits.PURGE_DAYS,
    show_default=True,
    help="Only what was deleted before so many days.",
)
def purge(data: Path, mongo: str | None, s3: str | None, s3_endpoint: str | None, days: int) -> None:
    """Remove deleted sessions for good. A server that runs does so by itself (--purge-days).

    \b
    Example:
      dreamlake server purge --days 7
    """
    with _told():
        from dreamlake_server.main import purge_once

        purged = purge_once(Settings(data, mongo=mongo, s3=s3, s3_endpoint=s3_endpoint), days)
    click.echo(f"{purged} sessions purged")


@server.command()
def unit() -> None:
    """Print a systemd unit that runs this installation as a service of the machine (docs/systemd.md).

    It is for a user of its own, so the installation must be where that user can read it: not in a home.

    \b
    Example:
      /opt/dreamlake/bin/dreamlake server unit > /etc/systemd/system/dreamlake-server.service
    """
    try:
        program = systemd.program()
        text = systemd.unit_for(systemd.SERVER_SERVICE, program)
    except (systemd.NotForSystemd, FileNotFoundError) as why:
        raise click.ClickException(str(why)) from None
    for path in (program, os.path.realpath(sys.executable)):
        if path.startswith(("/home/", "/root/", "/run/user/")):
            click.echo(f"warning: the unit hides homes from the server, and {path} is in one", err=True)
            break
    click.echo(text, nl=False)


@server.group()
def token() -> None:
    """Tokens: who may call. These commands work whether a server runs or not.

    \b
    Examples:
      dreamlake server token create alice
      dreamlake server token list
    """


@token.command()
@click.argument("user")
@click.option("--read-only", is_flag=True, help="It may read what is the user's, and change nothing.")
@click.option("--note", default="", help="What it is for; `token list` shows it.")
@_data
@_mongo
def create(user: str, read_only: bool, note: str, data: Path, mongo: str | None) -> None:
    """Make a token for USER and print it, this once: only its hash is kept.

    \b
    Examples:
      dreamlake server token create alice
      dreamlake server token create alice --read-only --note dashboard > token
    """
    if len(note.encode(errors="replace")) > _NOTE_BYTES:
        raise click.BadParameter(f"a note has at most {_NOTE_BYTES} bytes", param_hint="--note")
    with _told():
        from dreamlake_server.auth import new_token
        from dreamlake_server.opening import with_tokens

        try:
            text, kept = new_token(user, _now(), read_only=read_only, note=note)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        with_tokens(Settings(data, mongo=mongo), lambda tokens: tokens.add(kept), make=True)
    rights = "read" if read_only else "read and write"
    click.echo(f"token {kept.id} of {user} may {rights}; it is not shown again:", err=True)
    click.echo(text)


@token.command("list")
@click.argument("user", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print them as one JSON array.")
@_data
@_mongo
def list_tokens(user: str | None, as_json: bool, data: Path, mongo: str | None) -> None:
    """List the tokens of USER, or of everybody, oldest first.

    \b
    Examples:
      dreamlake server token list
      dreamlake server token list alice --json
    """
    with _told():
        from dreamlake_server.opening import with_tokens

        found = with_tokens(Settings(data, mongo=mongo), lambda tokens: tokens.of(user))
    if as_json:
        click.echo(jsons.pretty([_described(each) for each in found]), nl=False)
        return
    for each in found:
        rights = "read" if each.read_only else "read, write"
        words = [each.id, each.user, rights, each.created, f"revoked {each.revoked}" if each.revoked else "", each.note]
        click.echo("  ".join(word for word in words if word))


def _described(found: Token) -> dict[str, Any]:
    return {
        "id": found.id,
        "user": found.user,
        "readOnly": found.read_only,
        "created": found.created,
        "note": found.note,
        "revoked": found.revoked,
    }


@token.command()
@click.argument("id")
@_data
@_mongo
def revoke(id: str, data: Path, mongo: str | None) -> None:  # noqa: A002
    """Revoke the token with this ID: it opens nothing from now on, at every server.

    \b
    Example:
      dreamlake server token revoke 0123456789ab
    """
    public = id.removeprefix("dlk_").partition("_")[0]  # who has the whole token at hand may give that
    with _told():
        from dreamlake_server.opening import with_tokens

        known = with_tokens(Settings(data, mongo=mongo), lambda tokens: tokens.revoke(public, _now()))
    if not known:
        raise click.ClickException(f"there is no token {public[:40]!r}: see `dreamlake server token list`")
    click.echo(f"token {public} is revoked")


def _now() -> str:
    return time_text(time.time_ns())
