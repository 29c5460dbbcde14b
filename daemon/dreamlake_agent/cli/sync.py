"""``dreamlake sync``: send session directories to servers, now, in the foreground."""

from __future__ import annotations

import os
import sys

import click

from dreamlake.remote.credentials import CredentialsUnusable
from dreamlake.remote.rate import bytes_per_second
from dreamlake.wire.remotes import Remote, address
from dreamlake_agent.cli.progress import Show
from dreamlake_agent.sync.syncing import Asked, Syncing


@click.command("sync")
@click.argument("paths", metavar="[DIR]...", nargs=-1)
@click.option("--remote", metavar="URL", help="The server; else those that the sessions were opened for.")
@click.option("--user", metavar="NAME", help="Who to be there, of several logins.")
@click.option("--watch", is_flag=True, help="Go on, and send what is new as it comes, until Ctrl-C.")
@click.option("--fork", is_flag=True, help="Send a copy that went on by itself beside the other one.")
@click.option("--limit-rate", metavar="RATE", help="Bytes a second that may leave to a server: 500K, 10M.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object for each session.")
def sync(
    paths: tuple[str, ...],
    remote: str | None,
    user: str | None,
    watch: bool,
    fork: bool,
    limit_rate: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send session directories to a server.

    DIR is a session directory, or a folder whose sessions are all sent; without it, all that is known here and may not
    be on its server. The server is asked what it has, and only what it lacks is sent: again and again, from any machine
    that sees the directory, also while a training writes into it, everything arrives once. What an agent has not yet
    made durable is sent the next time.

    Without --remote each session goes where it was opened to go, else to the server of your only `dreamlake login`. The
    token is DREAMLAKE_API_KEY, else that login's. Exits with 0 when all of it is on the server, 1 when something is
    not, 2 when it is not known what to send, or where.

    \b
    Examples:
      dreamlake sync
      dreamlake sync ./experiments --remote https://lake.example.org
      dreamlake sync ./experiments --watch --limit-rate 10M
      dreamlake sync ./experiments/project/my-experiment --dry-run
    """
    if watch and dry_run:
        raise click.UsageError("--dry-run says what would be sent now, and does not go on: leave --watch out")
    try:
        to = Remote(address(remote), user) if remote is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--remote") from None
    try:
        rate = bytes_per_second(limit_rate) if limit_rate is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit-rate") from None
    asked = Asked(paths, to, user, rate=rate, fork=fork, dry_run=dry_run, watch=watch, as_json=as_json)
    syncing = Syncing(asked, Show(quiet=as_json))
    try:
        code = syncing.run()
    except CredentialsUnusable as error:
        raise click.ClickException(str(error)) from None
    if syncing.is_stuck:  # in a request that was under way when it was interrupted; whatever it sent is of use
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
