"""The terminal: what stands in a session directory is shown in it, and never obeyed by it."""

from __future__ import annotations

import re

import click

# Control characters of both kinds, but for the line feed and the tab; one of them begins each escape sequence. Colours
# may stay: the command line itself has some.
_CONTROL = re.compile("(?!\x1b\\[(?:[01]|3[0-7])m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def say(text: str, *, err: bool = False) -> None:
    """Print a line for people. Names and messages in it may be anybody's."""
    click.echo(shown(text), err=err)


def shown(text: str) -> str:
    r"""
    >>> print(shown("50\x1b[2J%"))
    50\x1b[2J%
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
