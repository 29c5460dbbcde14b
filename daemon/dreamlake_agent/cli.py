"""``dreamlake agent …``: start, stop and look at this user's agent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from typing import Any

import click

from dreamlake import config
from dreamlake.wire import jsons, messages
from dreamlake.world import processes
from dreamlake.world.endpoints import find_agent
from dreamlake_agent.control import NoAnswer, ask
from dreamlake_agent.sizes import in_words

NO_AGENT = 3
_ASK_SECONDS = 10.0
_GONE_SECONDS = 10.0
_LOOK_SECONDS = 0.05
_PROGRAM = "import sys; from dreamlake_agent.main import main; sys.exit(main(sys.argv[1:]))"


@click.group()
def agent() -> None:
    """The agent: the process that keeps all sessions of this user on this machine.

    \b
    Examples:
      dreamlake agent start
      dreamlake agent status --json
    """


def _start() -> None:
    if find_agent() is not None:
        return
    done = subprocess.run(
        [sys.executable, "-P", "-c", _PROGRAM, "--detach"]
        if sys.version_info >= (3, 11)
        else [sys.executable, "-c", _PROGRAM, "--detach"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise click.ClickException(done.stderr.decode(errors="replace").strip() or "the agent did not start")


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


@agent.command()
def start() -> None:
    """Start the agent; returns when it is ready. One that runs already is left alone.

    \b
    Example:
      dreamlake agent start
    """
    _start()
    found = _status()
    if found is None:
        raise click.ClickException("the agent started and went away; see `dreamlake agent logs`")
    click.echo(f"agent is running, pid {found['pid']}, version {found['version']}")


def _lives(pid: int) -> bool:
    return processes.start_time(pid) is not None


def _stop() -> bool:
    """Drain and end the agent; False when none runs."""
    endpoint = find_agent()
    if endpoint is None:
        return False
    try:
        pid = int(ask(endpoint, messages.STATUS, _ASK_SECONDS)["pid"])
        if sys.stderr.isatty():
            click.echo("waiting until the agent has applied what is in the journals …", err=True)
    except NoAnswer as why:
        raise click.ClickException(f"the agent at {endpoint} does not answer: {why}") from None
    lives = partial(_lives, pid)
    try:
        ask(endpoint, messages.STOP, config.STOP_SECONDS + _ASK_SECONDS, lives)
    except NoAnswer as why:
        if lives():
            raise click.ClickException(f"the agent at {endpoint} does not answer: {why}") from None
        # Killed while it drained: what it left is in the journals, and the next agent applies it.
    deadline = time.monotonic() + _GONE_SECONDS
    while lives():
        if time.monotonic() >= deadline:
            raise click.ClickException(f"the agent (pid {pid}) has drained and does not end")
        time.sleep(_LOOK_SECONDS)
    return True


@agent.command()
def stop() -> None:
    """Stop the agent once everything in the journals is applied (20 s at most).

    Scripts that run go on: their calls stay in their journals until the next agent.

    \b
    Example:
      dreamlake agent stop
    """
    click.echo("agent stopped" if _stop() else "no agent is running")


@agent.command()
def restart() -> None:
    """Stop the agent when one runs, and start one. Nothing is lost in between.

    \b
    Example:
      dreamlake agent restart
    """
    _stop()
    _start()
    found = _status()
    if found is None:
        raise click.ClickException("the agent started and went away; see `dreamlake agent logs`")
    click.echo(f"agent is running, pid {found['pid']}, version {found['version']}")


@agent.command()
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
@click.option("-n", "lines", default=50, show_default=True, help="How many lines.")
@click.option("-f", "follow", is_flag=True, help="Go on printing what comes.")
def logs(lines: int, follow: bool) -> None:
    """Print the last lines of the agent's log.

    \b
    Examples:
      dreamlake agent logs
      dreamlake agent logs -n 200 -f
    """
    path = os.path.join(config.state_folder(), config.AGENT_LOG)
    try:
        position = _print_log(path, lines)
        while follow:
            time.sleep(_LOOK_SECONDS * 5)
            position = _print_log(path, None, position)
    except OSError as error:
        raise click.ClickException(f"no log at {path}: {error.strerror}. Has an agent run here?") from None


def _print_log(path: str, last: int | None, position: int = 0) -> int:
    """Print a log from ``position`` (its start when it was rotated since), or its ``last`` lines; returns the end."""
    with open(path, encoding="utf-8", errors="replace") as file:
        if os.fstat(file.fileno()).st_size >= position:
            file.seek(position)
        found = file.readlines()
        for line in found if last is None else found[-last:] if last > 0 else []:
            click.echo(line, nl=False)
        return file.tell()


def _seconds(seconds: float) -> str:
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    return f"{days}d {hours}h" if days else f"{hours}h {minutes}m" if hours else f"{minutes}m {whole % 60}s"


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
    click.echo(f"agent {found['version']}, pid {found['pid']} on {found['host']}, up {_seconds(found['uptime'])}")
    click.echo(f"  memory   {in_words(found['memory'])}")
    click.echo(f"  queue    {in_words(found['queue'])} in journals, not yet applied")
    click.echo(f"  points   {found['points']} ({found['points_per_second']} per second)")
    click.echo(f"  socket   {found['endpoint']}")
    click.echo(f"  log      {found['log']}")
    if found["last_error"]:
        click.echo(f"  last error  {found['last_error']}")
    for session in found["sessions"]:
        name = f"{session['workspace']}/{session['name']}" if session["name"] else session["path"]
        ranks = f", ranks {','.join(map(str, session['ranks']))}" if session["ranks"] else ""
        click.echo(f"{name}  {session['state'] or session['phase']}, {session['clients']} open{ranks}")
        click.echo(f"  {session['path']}")
        click.echo(f"  {session['points']} points, {in_words(session['queue_bytes'])} queued")
        if session["refused"]:
            click.echo(f"  {session['refused']} operations refused")
        if session["lost"]:
            click.echo(f"  {session['lost']} calls lost: a journal could not take them")
        if session["trouble"]:
            click.echo(f"  trouble: {session['trouble']}")
        _print_uploads(session["uploads"])
    for left in found["uploads"]:
        click.echo(f"{left['path']}  not open, to be sent")
        _print_uploads(left["uploads"])


def _print_uploads(uploads: list[dict[str, Any]]) -> None:
    for each in uploads:
        remote = each["url"] if each["user"] is None else f"{each['url']} as {each['user']}"
        said = [f"  to {remote}: {each['state']}"]
        if each["state"] != "sent":
            files = f", {each['pending_files']} files" if each["pending_files"] else ""
            said.append(f"{each['pending_operations']} operations{files}, {in_words(each['pending_bytes'])} to go")
            said.append(f"{_seconds(each['lag'])} behind")
        if each["next_attempt"] is not None:
            said.append(f"next attempt in {_seconds(each['next_attempt'])}")
        click.echo(", ".join(said))
        for problem in [*([each["last_error"]] if each["last_error"] else []), *each["problems"]]:
            click.echo(f"    {problem}")
