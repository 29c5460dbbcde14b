"""The base: what of a directory's logs is not its own origin's to send (docs/disk.md §5).

``.dreamlake/base`` stands in a directory that was pulled from a server, or that went on from a copy of another one
(``dreamlake sync --fork``): its logs begin with records that another origin has sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dreamlake.reader.commits import read_checkpoint
from dreamlake.wire import jsons
from dreamlake.wire.codec import Damaged
from dreamlake.wire.marks import Mark
from dreamlake.world.disk import Disk, read_file

BASE = ".dreamlake/base"
BASE_BYTES_MAX = 256 << 20
VERSION = 1


class BaseDamaged(ValueError):
    """There is a base that cannot be read; without it, nobody knows what may be sent."""


@dataclass(frozen=True)
class Base:
    """``logs``: log → how many of its records are not ours, and the mark behind them. ``origins``: what of each other
    origin those are: log → how many records from the beginning of its log, and the latest time in them. ``elsewhere``:
    ids of files whose bytes stayed on the server."""

    logs: Mapping[str, tuple[int, Mark]] = field(default_factory=dict)
    origins: Mapping[str, Mapping[str, tuple[int, str]]] = field(default_factory=dict)
    elsewhere: frozenset[str] = frozenset()

    def times(self) -> dict[str, str]:
        """The latest time in what is not ours of each log, where that is known."""
        found: dict[str, str] = {}
        for logs in self.origins.values():
            for log, (_count, time) in logs.items():
                found[log] = max(time, found.get(log, ""))
        return {log: time for log, time in found.items() if time}


def encode_base(base: Base, following: tuple[str, Base] | None = None) -> bytes:
    """The file. ``following``: an origin that the directory is about to have, and its base then. So one file is right
    before and after the checkpoint changes the origin."""
    fields: dict[str, Any] = {"v": VERSION, **_fields(base)}
    if following is not None:
        origin, then = following
        fields["next"] = {"origin": origin, **_fields(then)}
    return jsons.encode(fields) + b"\n"


def read_base(disk: Disk, at: int, origin: str | None = None) -> Base:
    """The base of the directory open as ``at``, an empty one where there is none. ``origin`` is what its checkpoint
    says, for whoever has read that. Raises :class:`BaseDamaged` and :class:`OSError`."""
    try:
        found = jsons.loads(read_file(disk, BASE, at, BASE_BYTES_MAX))
        if found["v"] != VERSION:
            raise BaseDamaged(f"{BASE} is of another version ({found['v']!r}): update Dreamlake")
        following = found.get("next")
        if following is not None and following["origin"] == (origin or _origin(disk, at)):
            found = following
        return _base(found)
    except FileNotFoundError:
        return Base()
    except (KeyError, TypeError, ValueError, AttributeError, Damaged) as error:
        if isinstance(error, BaseDamaged):
            raise
        raise BaseDamaged(f"{BASE} cannot be read: restore it from a backup, or pull the session again") from None


def _origin(disk: Disk, at: int) -> str | None:
    checkpoint = read_checkpoint(disk, at)
    return checkpoint.origin if checkpoint else None


def _fields(base: Base) -> dict[str, Any]:
    return {
        "logs": {log: [count, mark.text] for log, (count, mark) in base.logs.items()},
        "origins": {
            origin: {log: [count, time] for log, (count, time) in logs.items()} for origin, logs in base.origins.items()
        },
        **({"elsewhere": sorted(base.elsewhere)} if base.elsewhere else {}),
    }


def _base(found: Any) -> Base:
    return Base(
        {_text(log): (_count(count), Mark.of(mark)) for log, (count, mark) in found["logs"].items()},
        {
            _text(origin): {_text(log): (_count(count), _text(time)) for log, (count, time) in logs.items()}
            for origin, logs in (found.get("origins") or {}).items()
        },
        frozenset(_text(each) for each in found.get("elsewhere") or ()),
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count of records")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value
