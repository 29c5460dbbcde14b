"""Meeting: two nodes that were told the same folder find each other in it.

Whoever comes first makes ``.dreamlake-selftest-<id>`` in it and waits; the second finds it there and says so in it. Of
two that came at once, each with a folder of its own, the one with the later id goes over to the other.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dreamlake
from dreamlake.world import processes
from dreamlake_agent.selftest import post
from dreamlake_agent.selftest.post import LIMIT_SECONDS, Parted, Post

PREFIX = ".dreamlake-selftest-"
WAIT_SECONDS = 300.0
_GREET_SECONDS = 75.0  # longer than listings are cached
_CLEAR_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_AGAIN_SECONDS = 3.0

Say = Callable[[str], None]


class NobodyCame(Exception):
    """The other node has not come in time."""


@dataclass
class Side:
    """This node's part: where the two meet, and how to reach the other."""

    folder: str
    post: Post
    is_first: bool
    other: dict[str, Any]
    alone: bool = False
    settle: float = 0.0

    def swap(self, kind: str, values: dict[str, Any] | None = None, seconds: float = LIMIT_SECONDS) -> Any:
        return self.post.swap(kind, values, seconds)

    def mine(self, name: str) -> str:
        return os.path.join(self.folder, "first" if self.is_first else "second", name)

    def theirs(self, name: str) -> str:
        return os.path.join(self.folder, "second" if self.is_first else "first", name)

    def both(self, name: str) -> str:
        return os.path.join(self.folder, "both", name)


def _who() -> dict[str, Any]:
    return {**processes.myself(), "version": dreamlake.__version__}


def new_id() -> str:
    return f"{int(time.time()):010x}{os.urandom(4).hex()}"


def folder_for(place: str, name: str) -> str:
    return os.path.join(place, PREFIX + name)


def meet(place: str, seconds: float, say: Say, mine: list[str]) -> Side:
    """Find the other node, or wait for it. What is made is put into ``mine`` first, so that it can be removed."""
    deadline = time.monotonic() + seconds
    me = new_id()
    passed = set[str]()
    own: str | None = None
    while True:
        for there in _open_ones(place, passed):
            if there == me or (own is not None and there > me):
                continue
            if own is not None:
                remove(own)
                own = None
            say(f"found one that waits: {folder_for(place, there)}")
            mine.append(folder_for(place, there))
            side = _join(folder_for(place, there), there, f"{me}-2", deadline)
            if side is not None:
                return side
            mine.remove(folder_for(place, there))
            passed.add(there)
            say(f"nobody answers in {folder_for(place, there)}; if no selftest runs there, remove it")
            time.sleep(random.uniform(0, _AGAIN_SECONDS))  # of two that go over to each other, one has to be late
        if own is None:
            me = new_id()  # another one each time: who found nobody in the one before does not come again
            own = folder_for(place, me)
            mine.append(own)
            os.mkdir(own, 0o700)
            Post(own, me).send("waits", _who())
            say(f"waiting for the other node; run there: dreamlake agent selftest {place}")
        come = sorted(post.ids(own) - {me})
        if come and (word := post.first_word(own, come[0])) is not None:
            return _greeted(own, me, come[0], word[1])
        if time.monotonic() >= deadline:
            raise NobodyCame(f"no other node came to {place} within {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)


def _open_ones(place: str, passed: set[str]) -> list[str]:
    """Ids of folders in which somebody waits. One whose maker is seen to be dead is removed."""
    found = []
    for name in sorted(os.listdir(place)):
        there = name.removeprefix(PREFIX)
        folder = os.path.join(place, name)
        if not name.startswith(PREFIX) or there in passed or not _is_ours(folder):
            continue
        word = post.first_word(folder, there)
        if word is None or word[0] != "waits" or post.has_said(folder, there, 1):
            continue
        if processes.verdict(word[1]) == processes.GONE:
            remove(folder)
            continue
        found.append(there)
    return found


def _is_ours(folder: str) -> bool:
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _greeted(folder: str, me: str, them: str, who: dict[str, Any]) -> Side:
    letters = Post(folder, me, them, sent=1, read=1)  # "waits" was ours, "joins" theirs
    letters.send("hello", {**_who(), "to": them})
    return _sided(Side(folder, letters, True, who))


def _join(folder: str, there: str, me: str, deadline: float) -> Side | None:
    letters = Post(folder, me, there)
    try:
        letters.send("joins", _who())
        letters.wait(1.0)  # "waits", which is there
        kind, who = letters.wait(min(_GREET_SECONDS, max(deadline - time.monotonic(), 1.0)))
    except (Parted, OSError):
        return None
    if kind != "hello" or who.get("to") != me:
        return None  # somebody else was quicker
    return _sided(Side(folder, letters, False, who))


def _sided(side: Side) -> Side:
    side.alone = processes.is_here(side.other)
    return side


def first_of_two(folder: str, alive: Callable[[], bool]) -> Side:
    """The first of two processes of this node that were given a folder."""
    return _of_two(Side(folder, Post(folder, "1", "2", alive), True, {}, alone=True))


def second_of_two(folder: str, alive: Callable[[], bool]) -> Side:
    """And the second."""
    return _of_two(Side(folder, Post(folder, "2", "1", alive), False, {}, alone=True))


def _of_two(side: Side) -> Side:
    side.other = side.swap("hello", _who())
    return side


def remove(folder: str) -> bool:
    """Remove what was made, also while the other side still lets go of it; whether it is gone."""
    deadline = time.monotonic() + _CLEAR_SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_SECONDS)


def say_goodbye(side: Side, why: str) -> None:
    with contextlib.suppress(OSError):
        side.post.send(post.BYE, {"why": why})
