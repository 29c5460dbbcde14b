"""Post between two nodes: a message is the name of a new, empty file.

A name is seen whole or not at all, sooner or later, on whatever file system: no bytes that could come late, no
replacing, no lock. Each message says when it was sent, by the sender's clock that does not jump; whoever has some of
both directions knows how the two clocks stand to each other, to within the quickest way there and back.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

LIMIT_SECONDS = 300.0  # one that says nothing for so long is gone
_LOOK_SECONDS = 0.01
_POKE_SECONDS = 0.2
_PIECE = 160  # characters of a message in one name

END = "end of "
BYE = "bye"


class Parted(Exception):
    """The other node is gone; the message says what it said, or that it said nothing."""


class TheirFailure(Exception):
    """The other node could not do its part of a check."""


class Post:
    """One node's side of it. ``mine`` and ``theirs`` are the ids of the two in this folder."""

    def __init__(
        self,
        folder: str,
        mine: str,
        theirs: str = "",
        alive: Callable[[], bool] = lambda: True,
        *,
        sent: int = 0,
        read: int = 0,
    ) -> None:
        self.folder, self.mine, self.theirs = folder, mine, theirs
        self._alive = alive
        self._sent, self._read = sent, read
        self._least_in = self._least_out = float("inf")

    def send(self, kind: str, values: dict[str, Any]) -> None:
        told = [kind, time.monotonic(), None if self._least_in == float("inf") else self._least_in, values]
        text = base64.b32encode(json.dumps(told).encode()).decode().rstrip("=").lower()
        pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
        for at, piece in enumerate(pieces):
            name = f"{self.mine}.{self._sent}.{at}.{len(pieces)}.{piece}"
            os.close(os.open(os.path.join(self.folder, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._sent += 1

    def wait(self, seconds: float = LIMIT_SECONDS) -> tuple[str, dict[str, Any]]:
        """The next message of the other's, in the order sent. :class:`Parted`."""
        deadline = time.monotonic() + seconds
        poked = time.monotonic()
        while True:
            found = self.look()
            if found is not None:
                if found[0] == BYE:
                    raise Parted(f"the other side ends: {found[1].get('why')}")
                return found
            now = time.monotonic()
            if now >= deadline or not self._alive() or not os.path.isdir(self.folder):
                raise Parted("the other side is gone" if now < deadline else f"no word of it for {seconds:.0f} s")
            if now - poked >= _POKE_SECONDS:
                poked = now
                self._poke()
            time.sleep(_LOOK_SECONDS)

    def look(self) -> tuple[str, dict[str, Any]] | None:
        """The next message, if it is here."""
        names = _names(self.folder)
        told = _whole(names, self.theirs, self._read)
        if told is None:
            return None
        self._read += 1
        kind, sent, theirs, values = told
        self._least_in = min(self._least_in, time.monotonic() - sent)
        if theirs is not None:
            self._least_out = min(self._least_out, theirs)
        return kind, values

    def swap(self, kind: str, values: dict[str, Any] | None = None, seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """Tell the other side, and hear what it says at the same place: neither goes on before the other is here."""
        self.send(kind, values or {})
        got, theirs = self.wait(seconds)
        if got.startswith(END):
            self._read -= 1  # it is for :meth:`end`
            raise TheirFailure(str(theirs.get("failed")))
        if got != kind:
            raise Parted(f"the two are not at the same check: {kind!r} here, {got!r} there")
        return theirs

    def end(self, name: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Both are through with a check, whatever became of it; returns what the other has of it."""
        self.send(END + name, raw)
        while True:
            got, theirs = self.wait()
            if got == END + name:
                return theirs

    def clock(self) -> tuple[float, float]:
        """What to add to a time of ours to have it in the other's clock, and how wrong that may be; seconds."""
        return (self._least_out - self._least_in) / 2, max((self._least_out + self._least_in) / 2, 0.0)

    def _poke(self) -> None:
        """Make and remove a name: whoever has changed a folder sees it anew, where listings are cached."""
        path = os.path.join(self.folder, f"poke.{self.mine}")
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.unlink(path)


def ids(folder: str) -> set[str]:
    """Who has posted something here."""
    return {name.split(".")[0] for name in _names(folder) if name.count(".") == 4}


def word(folder: str, of: str, number: int) -> tuple[str, dict[str, Any]] | None:
    """Somebody's message of that number, for whoever does not talk to him yet."""
    told = _whole(_names(folder), of, number)
    return None if told is None else (told[0], told[3])


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _whole(names: list[str], of: str, number: int) -> list[Any] | None:
    prefix = f"{of}.{number}."
    pieces = {}
    total = -1
    for name in names:
        if name.startswith(prefix):
            _, _, at, count, piece = name.split(".", 4)
            pieces[int(at)], total = piece, int(count)
    if len(pieces) != total:
        return None
    text = "".join(pieces[at] for at in range(total)).upper()
    found = json.loads(base64.b32decode(text + "=" * (-len(text) % 8)))
    assert isinstance(found, list)
    return found
