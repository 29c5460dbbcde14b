"""Of two that make one name at the same moment, one makes it: by ``mkdir``, by ``O_EXCL``, and by the rename of a
folder that has something in it, which replaces none that has."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable

from dreamlake_agent.selftest.finding import Finding, Raw, holds_if
from dreamlake_agent.selftest.meeting import Side

NAME = "exclusive"
ROUNDS = 100
_SLOT_SECONDS = 0.01
_START_SECONDS = 0.3


def _create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def measure(side: Side) -> Raw:
    os.makedirs(side.both("mkdir"), exist_ok=True)
    os.makedirs(side.both("excl"), exist_ok=True)
    os.makedirs(side.both("claim"), exist_ok=True)
    claims = [side.mine(f"claim{number}") for number in range(ROUNDS)]
    for claim in claims:
        os.mkdir(claim)
        _create(f"{claim}/beat")
    return {
        "claim": _race(side, "claim", lambda path: os.rename(claims.pop(), path)),
        "mkdir": _race(side, "mkdir", os.mkdir),
        "excl": _race(side, "excl", _create),
    }


def _race(side: Side, folder: str, make: Callable[[str], None]) -> str:
    """One name a slot of time, both at once; the rounds that were won, as bits."""
    begin = time.monotonic() + _START_SECONDS
    theirs = side.swap(f"race {folder}", {"begin": begin})["begin"]
    ahead, unsure = side.post.clock()
    begin = max(begin, theirs - ahead)
    won = 0
    for number in range(ROUNDS):
        at = begin + number * _SLOT_SECONDS + random.random() * min(unsure, _SLOT_SECONDS / 2)
        while time.monotonic() < at:
            pass
        try:
            make(side.both(f"{folder}/{number}"))
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            continue
        won |= 1 << number
    return f"{won:x}"


def judge(first: Raw, second: Raw) -> list[Finding]:
    follows = "who made a directory's next epoch owns it, and nobody else"
    otherwise = "two agents may own one directory: keep sessions of several nodes off this file system"
    return [
        _judged("a full folder renamed to one name", first["claim"], second["claim"], follows, otherwise, True),
        _judged("mkdir of one name", first["mkdir"], second["mkdir"], "", "Dreamlake does without", False),
        _judged("O_EXCL of one name", first["excl"], second["excl"], "", "Dreamlake does without", False),
    ]


def _judged(name: str, first: str, second: str, follows: str, otherwise: str, needed: bool) -> Finding:
    one, other, every = int(first, 16), int(second, 16), (1 << ROUNDS) - 1
    twice, never = (one & other).bit_count(), (every & ~(one | other)).bit_count()
    text = f"{ROUNDS} races, won {one.bit_count()} : {other.bit_count()}"
    if 0 in (one, other):
        text += " (the two never met: try again)"
    if twice or never:
        text += f"; {twice} by both, {never} by nobody"
    return holds_if(
        not twice and not never,
        name,
        text,
        follows=follows,
        otherwise=otherwise,
        needed=needed,
        figures={"first": one.bit_count(), "second": other.bit_count(), "both": twice, "nobody": never},
    )
