"""Meeting: two nodes that were told the same folder find each other in it.

Everybody waits in a ``.dreamlake-selftest-<id>`` of his own there, and joins in those of all whose ids are lower. Who
waits greets one of those that joined; that one answers that it is here, or has gone to somebody else. Nobody removes
his folder before he has met somebody, so that what others see may be late, and is not wrong for good.
"""

from __future__ import annotations

import contextlib
import os
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


def meet(place: str, seconds: float, say: Say, made: list[str]) -> Side:
    """Find the other node, or wait for it. What is made is put into ``made`` first, so that it can be removed."""
    deadline = time.monotonic() + seconds
    me = new_id()
    own = folder_for(place, me)
    made.append(own)
    host, guest = _Host(own, me), _Guest(place, me, say)
    side: Side | None = None
    try:
        while True:
            side = guest.met() or host.met(deadline)
            if side is not None:
                break
            if time.monotonic() >= deadline:
                raise NobodyCame(f"no other node came to {place} within {seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)
    finally:
        guest.leave(all_but=side.folder if side is not None else "")
    if side.folder != own:
        made.append(side.folder)
        if remove(own):
            made.remove(own)
    side.alone = processes.is_here(side.other)
    return side


class _Host:
    """Who waits in his own folder, and greets one that joined him there, and the next if that one has gone."""

    def __init__(self, folder: str, me: str) -> None:
        self._folder, self._me = folder, me
        self._gone: set[str] = set()
        os.mkdir(folder, 0o700)
        Post(folder, me).send("waits", _who())

    def met(self, deadline: float) -> Side | None:
        for them in sorted(post.ids(self._folder) - {self._me} - self._gone):
            joins = post.word(self._folder, them, 0)
            if joins is not None and post.word(self._folder, them, 1) is None:
                letters = Post(self._folder, self._me, them, sent=1 + 2 * len(self._gone), read=1)
                letters.send("hello", {**_who(), "to": them})
                try:
                    letters.wait(min(_GREET_SECONDS, max(deadline - time.monotonic(), 1.0)))
                    return Side(self._folder, letters, True, joins[1])
                except Parted as reason:
                    letters.send(post.BYE, {"why": str(reason)})
                    self._gone.add(them)
        return None


class _Guest:
    """Who joins all that wait and came before, and goes with the first that greets him."""

    def __init__(self, place: str, me: str, say: Say) -> None:
        self._place, self._me, self._say = place, me, say
        self._joined: dict[str, float] = {}  # id → when it is told that nobody answers
        self._is_told = False

    def met(self) -> Side | None:
        for there in open_ones(self._place):
            if there < self._me and there not in self._joined:
                # One that is going already, or is not quite to be seen yet: joined another time, or not at all.
                with contextlib.suppress(FileNotFoundError):
                    self._letters(there).send("joins", _who())
                    self._joined[there] = time.monotonic() + _GREET_SECONDS
                    self._say(f"found one that waits: {folder_for(self._place, there)}")
        if not self._joined and not self._is_told:
            self._is_told = True
            self._say(f"waiting for the other node; run there: dreamlake agent selftest {self._place}")
        for there in sorted(self._joined):
            side = self._greeted(there)
            if side is not None:
                return side
        return None

    def _greeted(self, there: str) -> Side | None:
        folder, number = folder_for(self._place, there), 1
        while (said := post.word(folder, there, number)) is not None:
            number += 1
            # What follows a greeting before it is answered is that it is taken back.
            if said[1].get("to") == self._me and post.word(folder, there, number) is None:
                letters = self._letters(there, sent=1, read=number)
                letters.send("here", {})
                return Side(folder, letters, False, said[1])
        if time.monotonic() >= self._joined[there]:
            self._joined[there] = float("inf")
            self._say(f"nobody answers in {folder}; if no selftest runs there, remove it")
        return None

    def _letters(self, there: str, *, sent: int = 0, read: int = 0) -> Post:
        return Post(folder_for(self._place, there), self._me, there, sent=sent, read=read)

    def leave(self, *, all_but: str) -> None:
        """Tell all whom we joined that we are not to be waited for."""
        for there in self._joined:
            if folder_for(self._place, there) != all_but:
                with contextlib.suppress(OSError):
                    self._letters(there, sent=1).send(post.BYE, {"why": "it has met somebody else"})


def open_ones(place: str) -> list[str]:
    """Ids of folders in which somebody waits, or has met somebody. One whose maker is seen to be dead is removed."""
    found = []
    for name in sorted(os.listdir(place)):
        there = name.removeprefix(PREFIX)
        folder = os.path.join(place, name)
        if not name.startswith(PREFIX) or not _is_ours(folder):
            continue
        said = post.word(folder, there, 0)
        if said is None or said[0] != "waits":
            continue
        if processes.verdict(said[1]) == processes.GONE:
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
