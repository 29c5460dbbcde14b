"""What a check found: one line for people, one object for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

HOLDS, FAILS, ABSENT = "holds", "does not hold", "not to be had"

Raw = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """``needed``: Dreamlake is not right without it. ``follows``: what that means for whoever uses it here."""

    name: str
    verdict: str
    text: str
    follows: str = ""
    needed: bool = False
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def is_bad(self) -> bool:
        return self.needed and self.verdict != HOLDS

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def holds_if(
    right: bool,
    name: str,
    text: str,
    *,
    follows: str = "",
    otherwise: str = "",
    needed: bool = False,
    figures: dict[str, Any] | None = None,
) -> Finding:
    """``otherwise`` is what follows when it does not hold."""
    return Finding(name, HOLDS if right else FAILS, text, follows if right else otherwise, needed, figures or {})


def could_not(name: str, errors: list[str]) -> Finding:
    """The check itself met what it could not go on after."""
    return Finding(name, FAILS, "; ".join(errors), "see to this first, then try again", True)


def lines_of(findings: list[Finding]) -> Iterator[str]:
    for each in findings:
        yield f"{each.verdict:<14} {each.name}: {each.text}"
        if each.follows:
            yield f"{'':<14} → {each.follows}"


def conclusion(findings: list[Finding]) -> str:
    bad = [each.name for each in findings if each.is_bad]
    if bad:
        return f"Dreamlake needs what does not hold here: {', '.join(bad)}"
    return "all that Dreamlake needs holds here"
