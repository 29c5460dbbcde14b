"""Counts: what one agent has done since it began, for metrics. They only grow. PURE."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counts:
    applied_bytes: int = 0  # of journals
    refused: int = 0  # operations
    lost: int = 0  # calls that a journal could not take
    commits: int = 0
    syncs: int = 0  # journals and commits made durable, without a checkpoint
    checkpoints: int = 0
    failed_syncs: int = 0  # an fsync or a checkpoint that the disk did not take
    failures: int = 0  # a directory that could not be opened or written, each time
    killed: int = 0  # clients that vanished without a word
    uploads: Counter[tuple[str, str]] = field(default_factory=Counter)  # jobs, by server and how they ended
