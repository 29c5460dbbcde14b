"""The ``dreamlake`` command: one file per noun. The agent adds its own through the entry point ``dreamlake.commands``.

Exit codes: 0 done · 1 could not be done · 2 wrong use · 3 no agent is running.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

import dreamlake
from dreamlake.cli.sessions import list_sessions, show
from dreamlake.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dreamlake.__version__, prog_name="dreamlake")
def cli() -> None:
    """Dreamlake records machine-learning experiments.

    \b
    Examples:
      dreamlake show ./experiments/project/my-experiment
      dreamlake list ./experiments
      dreamlake verify ./experiments
      dreamlake agent status
    """


cli.add_command(show)
cli.add_command(list_sessions)
cli.add_command(verify)
for _entry in entry_points(group="dreamlake.commands"):
    cli.add_command(_entry.load())


def main() -> None:
    """Run the command line; a user's mistake is a sentence on standard error, never a traceback."""
    try:
        cli.main(prog_name="dreamlake")
    except BrokenPipeError:  # `dreamlake list | head`
        sys.stderr.close()
        sys.exit(0)


__all__ = ["cli", "main"]
