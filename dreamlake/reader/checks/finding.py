"""Findings: what is wrong with a session directory, a sentence each, and the one report they are gathered in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dreamlake.wire import codec
from dreamlake.world.disk import Disk


@dataclass(frozen=True)
class Finding:
    """One thing that was found. A note (no ``problem``) is no damage: it is what a person may want to know.

    ``repairable``: the next owner (an agent, or ``--repair``) mends it. ``lost``: something that was recorded is gone.
    """

    kind: str
    path: str
    sentence: str
    problem: bool = True
    repairable: bool = False
    lost: bool = False


@dataclass
class Report:
    """What was found in one session directory, and how much was looked at."""

    path: str
    # the live agent that owns the directory, as its record says
    owner: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)
    logs: int = 0
    rows: int = 0
    views: int = 0
    files: int = 0
    journals: int = 0
    waiting: int = 0  # operations that are in journals only

    @property
    def problems(self) -> list[Finding]:
        return [each for each in self.findings if each.problem]

    @property
    def notes(self) -> list[Finding]:
        return [each for each in self.findings if not each.problem]

    def counts(self) -> dict[str, int]:
        return {key: getattr(self, key) for key in ("logs", "rows", "views", "files", "journals", "waiting")}


@dataclass
class Look:
    """One reading of one directory: where it is, whether an agent writes in it meanwhile, and what was found."""

    disk: Disk
    at: int
    report: Report
    live: bool
    advance: Callable[[int], None]

    def problem(self, kind: str, path: str, sentence: str, *, repairable: bool = False, lost: bool = False) -> None:
        self.report.findings.append(Finding(kind, path, sentence, True, repairable, lost))

    def note(self, kind: str, path: str, sentence: str) -> None:
        self.report.findings.append(Finding(kind, path, sentence, False))

    @contextlib.contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """What the disk says against reading ``path`` is a finding, and the rest goes on."""
        try:
            yield
        except FileNotFoundError:
            pass  # absent, or gone since it was listed: whoever expects it says so
        except (OSError, codec.Damaged) as error:
            if self.is_behind_a_link(path):
                return
            reason = getattr(error, "strerror", None) or error
            self.problem(
                "unreadable",
                path,
                f"{path} cannot be read ({reason}), so it was not checked; see to its permissions and its disk, and "
                "verify again",
            )

    def is_behind_a_link(self, path: str) -> bool:
        """Whether it was said already that ``path`` cannot be followed."""
        return any(each.kind == "link" and f"{path}/".startswith(f"{each.path}/") for each in self.report.findings)


def times(count: int, what: str) -> str:
    """
    >>> times(1, "row"), times(2, "row")
    ('1 row', '2 rows')
    """
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
