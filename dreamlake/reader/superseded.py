"""Superseded bytes: what stood in a file's place when a newer upload came, until a checkpoint covers the newer one.

``.dreamlake/superseded/<number>-<file id>-<place>``: the bytes that upload ``<file id>`` found in its place, which is
told by the first 16 hex digits of the SHA-256 of its path. Numbers rise. ``.none`` at the end: it found nothing there,
and the file is empty.

So the bytes of a version are what the next newcomer at that place found, or, when there was none, what stands there;
those of a version that is no newcomer are what the first newcomer found. That holds in whatever order the uploads are
applied again after power loss, and when some of them are gone with their journals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dreamlake.wire.digest import sha256_hex
from dreamlake.world.disk import Disk

INCOMING = ".dreamlake/incoming"
SUPERSEDED = ".dreamlake/superseded"
_NAME = re.compile(r"(\d{1,18})-([0-9A-Za-z_-]{1,64})-([0-9a-f]{16})(\.none)?\Z")


@dataclass(frozen=True)
class Superseded:
    """One file in ``superseded/``."""

    number: int
    newcomer: str
    place: str
    empty: bool = False

    @property
    def path(self) -> str:
        end = ".none" if self.empty else ""
        return f"{SUPERSEDED}/{self.number}-{self.newcomer}-{self.place}{end}"


def place_digest(place: str) -> str:
    """How a place (a path below ``files/``) is called in a name there."""
    return sha256_hex(place.encode("utf-8", "surrogateescape"))[:16]


def superseded(disk: Disk, at: int) -> list[Superseded]:
    """Everything that is kept, oldest first."""
    names = (_NAME.match(name) for name in disk.listdir(SUPERSEDED, at))
    found = [Superseded(int(name[1]), name[2], name[3], name[4] is not None) for name in names if name is not None]
    return sorted(found, key=lambda each: each.number)


def bytes_of(version: str, place: str, kept: list[Superseded]) -> str | None:
    """Where the bytes of an upload are kept that belongs to ``place``; None when they are in the place itself.

    >>> kept = [Superseded(1, "b", place_digest("m.pth")), Superseded(2, "c", place_digest("m.pth"))]
    >>> [bytes_of(each, "m.pth", kept) for each in "abc"]
    ['.dreamlake/superseded/1-b-46e380f7b97c5b9f', '.dreamlake/superseded/2-c-46e380f7b97c5b9f', None]
    """
    here = place_digest(place)
    mine = [each for each in kept if each.place == here]
    after = max((index + 1 for index, each in enumerate(mine) if each.newcomer == version), default=0)
    return mine[after].path if after < len(mine) and not mine[after].empty else None


def places_of(record: dict[str, Any], incoming: dict[str, str], kept: list[Superseded]) -> Iterator[str]:
    """Where the bytes of a file may stand, likeliest first. ``incoming`` are the captures that an owner has still to
    place (:attr:`dreamlake.wire.state.State.incoming`), and ``kept`` is what :func:`superseded` found."""
    folder, name = str(record.get("path", "")).strip("/"), str(record.get("filename", ""))
    inner = f"{folder}/" if folder else ""
    file_id = str(record.get("id"))
    if file_id in incoming:
        yield f"{INCOMING}/{incoming[file_id]}"
        elsewhere = bytes_of(file_id, f"files/{inner}{name}", kept)
        if elsewhere is not None:
            yield elsewhere
    yield f"files/{inner}{file_id}/{name}"  # 0.2.x
    yield f"files/{inner}{name}"
