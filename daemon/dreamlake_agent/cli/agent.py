"""``dreamlake agent …``: start, stop and look at this user's agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from dreamlake import config
from dreamlake.wire import jsons, messages
from dreamlake.world.endpoints import find_agent
from dreamlake.world.terminal import shown
from dreamlake_agent import takeover
from dreamlake_agent.cli.install import install, uninstall
from dreamlake_agent.cli.logs import logs
from dreamlake_agent.cli.selftest import selftest
from dreamlake_agent.cli.status import lines_of
from dreamlake_agent.cli.takeover import takeover as take_directory_over
from dreamlake_agent.control import NoAnswer, ask

NO_AGENT = 3
_ASK_SECONDS = 10.0


@click.group()
def agent() -> None:
    """The agent: the process that keeps all sessions of this user on this machine.

    \b
    Examples:
      dreamlake agent start
      dreamlake agent status --json
    """


agent.add_command(install)
agent.add_command(uninstall)
agent.add_command(logs)
agent.add_command(selftest)
agent.add_command(take_directory_over)


def _metrics(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """For the agent that this command starts, or is."""
    if value is None:
        return
    try:
        place = config.metrics_place(value if value.isdecimal() or ":" in value else os.path.abspath(value))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    os.environ["DREAMLAKE_METRICS"] = str(place)


_metrics_option = click.option(
    "--metrics",
    metavar="PATH_OR_PORT",
    callback=_metrics,
    expose_value=False,
    help="Show metrics and health at this Unix socket, or this port of 127.0.0.1 [env: DREAMLAKE_METRICS].",
)


def _take_over(act: Callable[..., None], *arguments: Any) -> None:
    try:
        act(*arguments)
    except takeover.CannotTakeOver as why:
        raise click.ClickException(str(why)) from None


def _status() -> dict[str, Any] | None:
    endpoint = find_agent()
    if endpoint is None:
        return None
    try:
        return ask(endpoint, messages.STATUS, _ASK_SECONDS)
    except NoAnswer as why:
        raise click.ClickException(
            f"the agent at {endpoint} does not answer: {why}. Try `dreamlake agent restart`"
        ) from None


def _say_that_it_runs() -> dict[str, Any]:
    """Start an agent where none runs; what it says of itself."""
    if find_agent() is None:
        _take_over(takeover.start)
    found = _status()
    if found is None:
        raise click.ClickException("the agent started and went away; see `dreamlake agent logs`")
    click.echo(f"agent is running, pid {found['pid']}, version {found['version']}")
    if found.get("metrics"):
        click.echo(f"metrics at {found['metrics']}")
    elif os.environ.get("DREAMLAKE_METRICS"):
        click.echo("it shows no metrics: see `dreamlake agent status`, or restart it with --metrics", err=True)
    return found


@agent.command()
@_metrics_option
def start() -> None:
    """Start the agent; returns when it is ready. One that runs already is left alone.

    \b
    Example:
      dreamlake agent start
    """
    _say_that_it_runs()


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        click.echo(what, err=True)


@agent.command()
def stop() -> None:
    """Stop the agent once everything in the journals is applied (20 s at most).

    Scripts that run go on: their calls stay in their journals until the next agent.

    \b
    Example:
      dreamlake agent stop
    """
    endpoint = find_agent()
    if endpoint is not None:
        _take_over(takeover.end, endpoint, _tell)
    click.echo("no agent is running" if endpoint is None else "agent stopped")
    if endpoint is not None and os.path.exists(endpoint.removeprefix("ipc://")):  # it takes away its own
        click.echo(
            "systemd listens in its place, and starts an agent at the next message of a script. To have none: "
            "systemctl --user stop dreamlake-agent.socket"
        )


@agent.command()
@_metrics_option
def restart() -> None:
    """Let an agent of this version take over from the one that runs, or start one. Nothing is lost in between.

    Sessions may stay open. The next agent waits, ready, until the one that runs has applied what is in the journals.

    \b
    Example:
      dreamlake agent restart
    """
    endpoint = find_agent()
    if endpoint is not None:
        _take_over(takeover.restart, endpoint, _tell)
    found = _say_that_it_runs()
    if takeover.difference(found) is not None:
        click.echo(
            "it is of another installation than this command: systemd's unit names that one (`dreamlake agent install` "
            "names this one), or a script of it was faster",
            err=True,
        )


@agent.command()
@_metrics_option
def run() -> None:
    """Be the agent, in the foreground, until SIGTERM or Ctrl-C.

    \b
    Example:
      dreamlake agent run
    """
    from dreamlake_agent.main import main

    code = main([])
    if code:
        raise SystemExit(code)


@agent.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def status(as_json: bool) -> None:
    """Show the agent and the sessions it keeps. Exits with 3 when no agent is running.

    \b
    Examples:
      dreamlake agent status
      dreamlake agent status --json
    """
    found = _status()
    if found is None:
        click.echo("null" if as_json else "no agent is running", err=not as_json)
        raise SystemExit(NO_AGENT)
    if as_json:
        click.echo(jsons.pretty(found), nl=False)
        return
    for line in lines_of(found, takeover.difference(found)):
        click.echo(shown(line))
