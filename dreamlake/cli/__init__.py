"""The ``dreamlake`` command: one file per noun. The agent adds its own through the entry point ``dreamlake.commands``.

Exit codes: 0 done · 1 could not be done · 2 wrong use · 3 no agent is running.
"""

from __future__ import annotations

import sys
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points

import click

import dreamlake
from dreamlake.cli.sessions import list_sessions, show
from dreamlake.cli.verify import verify


class Commands(click.Group):
    """Ours, and those of the agent and the server: each is loaded when it is called, and all for the list of them."""

    @cached_property
    def _others(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group="dreamlake.commands")}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._others})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and cmd_name in self._others:
            found = self._others[cmd_name].load()
        return found


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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


def main() -> None:
    """Run the command line; a user's mistake is a sentence on standard error, never a traceback."""
    try:
        cli.main(prog_name="dreamlake")
    except BrokenPipeError:  # `dreamlake list | head`
        sys.stderr.close()
        sys.exit(0)


__all__ = ["cli", "main"]
