"""What the commands print of a session directory: names and messages in it may be anybody's."""

from __future__ import annotations

import click

from dreamlake.world.terminal import shown


def say(text: str, *, err: bool = False) -> None:
    """Print a line for people; what would move their cursor is shown as an escape."""
    click.echo(shown(text), err=err)
