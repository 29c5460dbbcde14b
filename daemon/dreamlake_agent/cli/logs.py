"""``dreamlake agent logs``: what the agent has said, and says."""

from __future__ import annotations

import contextlib
import os
import select
import sys

import click

from dreamlake import config
from dreamlake_agent.observe.logbook import LEVELS, Logbook, told

_LOOK_SECONDS = 0.2
_COLOURS = {"warning": "yellow", "error": "red"}


@click.command()
@click.option("-n", "lines", type=click.IntRange(min=0), default=50, show_default=True, help="How many lines.")
@click.option("-f", "follow", is_flag=True, help="Go on printing what comes, until Ctrl-C.")
@click.option("--level", type=click.Choice(LEVELS), default=LEVELS[0], help="Only what is at least that.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are in the file, an object each.")
def logs(lines: int, follow: bool, level: str, as_json: bool) -> None:
    """Print the last lines of the agent's log, with local times.

    \b
    Examples:
      dreamlake agent logs
      dreamlake agent logs -n 200 -f
      dreamlake agent logs --level warning --json
    """
    path = os.path.join(config.state_folder(), config.AGENT_LOG)
    book = Logbook(path)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                _print(book.last(lines, level), as_json=as_json)
            except FileNotFoundError:
                if not follow:
                    raise
                click.echo(f"no log at {path} yet; waiting for an agent", err=True)
            while follow and not _is_closed():
                _print(book.more(level), as_json=as_json)
    except BrokenPipeError:  # `dreamlake agent logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise click.ClickException(f"no log at {path}: {error.strerror}. Has an agent run here?") from None
    finally:
        book.close()


def _is_closed() -> bool:
    """Wait a moment; whether nobody reads what we print any more, which a write would tell only with the next line."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    return bool(reader.poll(_LOOK_SECONDS * 1000))


def _print(lines: list[bytes], *, as_json: bool) -> None:
    for line in lines:
        if as_json:
            click.echo(line)
            continue
        for level, text in told(line):
            click.secho(text, fg=_COLOURS.get(level or ""))
