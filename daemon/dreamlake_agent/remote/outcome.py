"""Outcome: what an upload did, and what it could not do."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """``problems`` are sentences for people, each about a log or a path; without any, all is on the server."""

    records: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    refused: int = 0  # records that the server will never take: a tombstone stands in the place of each
    forks: list[str] = field(default_factory=list)  # logs that have another history on the server
    problems: list[str] = field(default_factory=list)
