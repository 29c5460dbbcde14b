"""Limits: what a person should know of in time, said once, and over when it is clearly over. PURE.

============== ======================================= ============================================================
kind           raised                                  over
============== ======================================= ============================================================
``disk_space`` free bytes are below the limit          a quarter more than the limit is free
``inodes``     free inodes are below the limit         a quarter more than the limit is free
``backlog``    so many bytes wait to be sent           half of that, or less, waits
``lag``        so many seconds behind the journals     half of that, or less
============== ======================================= ============================================================

Between the two nothing is said, so that what hovers at a limit is one warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake import config
from dreamlake_agent.core.events import Disk

DISK_SPACE, INODES, BACKLOG, LAG = "disk_space", "inodes", "backlog", "lag"
KINDS = (DISK_SPACE, INODES, BACKLOG, LAG)

_MORE = 1.25  # times a limit of what is free: it is over
_LESS = 0.5  # times a limit of what waits


@dataclass(frozen=True)
class Thresholds:
    """Where each limit is. Of a small disk it is a share of it."""

    disk_free_bytes: int = config.DISK_FREE_BYTES
    disk_free_share: float = config.DISK_FREE_SHARE
    disk_free_inodes: int = config.DISK_FREE_INODES
    backlog_bytes: int = config.BACKLOG_BYTES
    lag_seconds: float = config.LAG_SECONDS


@dataclass(frozen=True)
class Measured:
    """What is the case at one moment."""

    disks: tuple[Disk, ...] = ()
    backlog_bytes: int = 0
    lag_seconds: float = 0.0


@dataclass
class Raised:
    """A limit that is passed, ``since`` then. ``device`` is the file system's; None for what is not about one."""

    kind: str
    device: int | None
    path: str | None
    text: str
    since: float
    told: set[bytes] = field(default_factory=set)  # the clients that know

    def describe(self, now: float) -> dict[str, Any]:
        """For status."""
        return {"kind": self.kind, "path": self.path, "text": self.text, "seconds": round(now - self.since, 1)}


@dataclass(frozen=True)
class Over:
    """It is not so any more."""

    raised: Raised


@dataclass(frozen=True)
class _Reading:
    kind: str
    device: int | None
    path: str | None
    is_passed: bool
    is_over: bool
    text: str


class Limits:
    """``judge`` what was measured: what to tell now. ``raised`` is what has been told and is not over."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        self._at = thresholds or Thresholds()
        self._raised: dict[tuple[str, int | None], Raised] = {}

    @property
    def raised(self) -> list[Raised]:
        return list(self._raised.values())

    def judge(self, measured: Measured, now: float) -> list[Raised | Over]:
        readings = {(each.kind, each.device): each for each in self._readings(measured)}
        told: list[Raised | Over] = []
        for place, raised in list(self._raised.items()):
            reading = readings.get(place)
            if reading is None or reading.is_over:  # None: nothing of ours is on that disk any more
                told.append(Over(self._raised.pop(place)))
            elif reading.is_passed:
                raised.path, raised.text = reading.path, reading.text
        for place, reading in readings.items():
            if reading.is_passed and place not in self._raised:
                raised = Raised(reading.kind, reading.device, reading.path, reading.text, now)
                self._raised[place] = raised
                told.append(raised)
        return told

    def _readings(self, measured: Measured) -> Iterator[_Reading]:
        for disk in measured.disks:
            least = min(self._at.disk_free_bytes, int(disk.bytes_total * self._at.disk_free_share))
            text = (
                f"the disk of {disk.path} has {disk.bytes_free >> 20} MiB left, below the limit of {least >> 20} MiB "
                "(DREAMLAKE_DISK_FREE): make space before it is full; calls that a journal cannot take are lost"
            )
            yield _free(DISK_SPACE, disk, disk.bytes_free, least, text)
            if disk.inodes_total:
                least = min(self._at.disk_free_inodes, int(disk.inodes_total * self._at.disk_free_share))
                text = (
                    f"on the disk of {disk.path} no more than {disk.inodes_free:,} files can be made, below the limit "
                    f"of {least:,} (DISK_FREE_INODES): remove some before there are none"
                )
                yield _free(INODES, disk, disk.inodes_free, least, text)
        waiting, most = measured.backlog_bytes, self._at.backlog_bytes
        text = (
            f"{waiting >> 20} MiB wait to be sent, over the limit of {most >> 20} MiB (DREAMLAKE_BACKLOG): look at "
            "`dreamlake agent status`, and at the space that is left"
        )
        yield _Reading(BACKLOG, None, None, waiting >= most, waiting <= most * _LESS, text)
        behind, longest = measured.lag_seconds, self._at.lag_seconds
        text = (
            f"the agent is {behind:.0f} s behind what is in the journals, over the limit of {longest:g} s "
            "(DREAMLAKE_LAG): nothing is lost; the machine is too busy, or a disk too slow"
        )
        yield _Reading(LAG, None, None, behind >= longest, behind <= longest * _LESS, text)


def _free(kind: str, disk: Disk, free: int, least: int, text: str) -> _Reading:
    return _Reading(kind, disk.device, disk.path, free < least, free >= least * _MORE, text)
