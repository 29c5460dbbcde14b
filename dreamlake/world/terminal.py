"""The terminal: text that others have written is shown in it, and never obeyed by it."""

from __future__ import annotations

import re

# What moves a cursor, clears a screen, breaks a line or turns the direction of writing; and half of a character, which
# is none. Plain colours may stay: a command line has some itself.
_CONTROLS = re.compile(
    "(?!\x1b\\[(?:[01]|3[0-7])m)[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: str) -> str:
    r"""One line, in which nothing is a command to a terminal.

    >>> shown("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
