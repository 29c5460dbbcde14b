"""``dreamlake pull`` and ``dreamlake delete``: sessions of a server, brought here, or deleted there."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from typing import Any

import click

from dreamlake import config
from dreamlake.errors import DreamlakeError
from dreamlake.remote.follow import Follow
from dreamlake.remote.lake import Lake, NotLetIn
from dreamlake.wire import jsons
from dreamlake.wire.names import folder_of, name_of
from dreamlake.wire.remotes import address
from dreamlake.wire.times import time_text
from dreamlake_agent.cli.progress import Show
from dreamlake_agent.remote.pull import Pull, Pulled
from dreamlake_agent.sizes import in_words

NOT_ALL = 1


def _named(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, str]:
    """(workspace, name) of ``workspace/name``."""
    workspace, _, name = value.partition("/")
    found = name_of(workspace), name_of(name)
    try:
        folder_of("workspace", found[0])
        folder_of("name", found[1])
    except ValueError as error:
        raise click.BadParameter(
            f"{error}. A session is given as workspace/name; '/' in a workspace is written %2F"
        ) from None
    return found


def _address(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        return address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("pull")
@click.argument("url", callback=_address)
@click.argument("session", metavar="WORKSPACE/NAME", callback=_named)
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--no-files", is_flag=True, help="Leave the bytes of uploaded files on the server.")
@click.option("--user", metavar="NAME", help="Who to be there, of several logins.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def pull(
    url: str, session: tuple[str, str], folder: str | None, no_files: bool, user: str | None, as_json: bool
) -> None:
    """Bring a session from the server at URL into a directory.

    DIR is where a session of that name belongs below DREAMLAKE_LOCAL_PATH, else .dreamlake, when not given. What is
    there already is never overwritten. All that comes is verified; a pull that died is simply run again and goes on.
    Resume the session there, and `dreamlake sync` sends what is new.

    The token is DREAMLAKE_API_KEY, else that of `dreamlake login`. Exits with 0 when all is here, 1 when something is
    not, 2 for wrong use.

    \b
    Examples:
      dreamlake pull https://lake.example.org project/my-experiment
      dreamlake pull https://lake.example.org project/my-experiment ./copy --no-files
    """
    workspace, name = session
    place = folder or os.path.join(config.local_root(), folder_of("workspace", workspace), folder_of("name", name))
    show = Show(quiet=as_json)
    stop = threading.Event()
    try:
        with Lake.open(url, user, say=show.complain, sleep=stop.wait) as lake:
            pulling = Pull(
                lake, workspace, name, place, lambda: time_text(time.time_ns()), files=not no_files, stop=stop
            )
            pulling.expect, pulling.advance = show.expect, show.advance
            with show.bar(f"{workspace}/{name}"):
                pulled = pulling.run()
    except KeyboardInterrupt:
        raise click.ClickException("the pull was ended; run it again, and it goes on") from None
    except (DreamlakeError, OSError) as error:
        raise click.ClickException(f"cannot pull {workspace}/{name}: {_why(error)}") from None
    for problem in pulled.problems:
        show.complain(problem)
    if as_json:
        told = {"session": f"{workspace}/{name}", "path": os.path.abspath(place), **dataclasses.asdict(pulled)}
        show.data(jsons.pretty(told))
    show.say(f"{workspace}/{name}: pulled {_summary(pulled)} into {place}")
    raise SystemExit(NOT_ALL if pulled.problems else 0)


def _now() -> str:
    return time_text(time.time_ns())


def _why(error: Exception) -> str:
    hint = "; give a token with DREAMLAKE_API_KEY, or run `dreamlake login`" if isinstance(error, NotLetIn) else ""
    return f"{error}{hint}"


def _summary(pulled: Pulled) -> str:
    files = f", {pulled.files:,} file{'s'[: pulled.files != 1]} ({in_words(pulled.file_bytes)})" if pulled.files else ""
    return f"{pulled.records:,} record{'s'[: pulled.records != 1]} ({in_words(pulled.bytes)}){files}"


@click.command("delete")
@click.argument("url", callback=_address)
@click.argument("session", metavar="WORKSPACE/NAME", callback=_named)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--restore", is_flag=True, help="Take a deletion back.")
@click.option("--user", metavar="NAME", help="Who to be there, of several logins.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def delete(url: str, session: tuple[str, str], yes: bool, restore: bool, user: str | None, as_json: bool) -> None:
    """Delete a session on the server at URL, or take that back.

    Directories are not touched; remove them yourself. A deleted session is not shown any more and takes nothing; the
    server keeps it for a time, in which --restore brings it back as it was.

    Exits with 0 when it is done, 1 when it could not be, 2 for wrong use.

    \b
    Examples:
      dreamlake delete https://lake.example.org project/my-experiment
      dreamlake delete https://lake.example.org project/my-experiment --restore
    """
    named = "/".join(session)
    show = Show(quiet=as_json)
    if not yes and not restore and not sys.stdin.isatty():
        raise click.UsageError(f"nobody is here to be asked whether to delete {named}: give --yes")
    try:
        with Lake.open(url, user, say=show.complain) as lake:
            follow = Follow(lake, *session)
            follow.origins([])
            if follow.session is None:
                raise click.ClickException(f"{url} has no session {named}: nothing was {_verb(restore)}d")
            where = f"/sessions/{follow.session['id']}"
            if restore:
                lake.ask(f"{where}/restore", {})
                told: dict[str, Any] = {"session": named, "deletedAt": None}
                show.say(f"{named}: restored")
            else:
                if not yes and not click.confirm(f"Delete {named} on {url}?", err=True):
                    raise click.ClickException("nothing was deleted")
                said = lake.get(where, "DELETE")
                told = {"session": named, "deletedAt": said.get("deletedAt"), "keptDays": said.get("keptDays")}
                show.say(
                    f"{named}: deleted. For {said.get('keptDays')} days it can be restored: dreamlake delete --restore "
                    f"{url} {'/'.join(folder_of('name', each) for each in session)}"
                )
    except (DreamlakeError, OSError) as error:
        raise click.ClickException(f"cannot {_verb(restore)} {named}: {_why(error)}") from None
    if as_json:
        show.data(jsons.pretty(told))


def _verb(restore: bool) -> str:
    return "restore" if restore else "delete"
