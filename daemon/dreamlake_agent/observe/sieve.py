"""The sieve: warnings that come again and again are written a few times and counted."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from dreamlake import config

_NUMBERS = re.compile(r"\d+|\b[0-9a-f]{8,}\b")


@dataclass
class _Known:
    until: float
    passed: int = 0
    left_out: int = 0
    last: dict[str, Any] | None = None


class Sieve:
    """Of the same text one passes in ``LOG_REPEAT_SECONDS``; of texts that differ only in numbers, ``LOG_ALIKE_MAX``.
    What was left out is told by the last of them, with how many they were as ``left_out``."""

    def __init__(self) -> None:
        self._same: OrderedDict[str, _Known] = OrderedDict()
        self._alike: OrderedDict[str, _Known] = OrderedDict()

    def take(self, entry: dict[str, Any], now: float) -> list[dict[str, Any]]:
        """What is to be written now: the entry, or nothing of it; and what was left out, when that time is over."""
        due = self.over(now)
        text = f"{entry['level']} {entry['text']}"
        same, alike = _known(self._same, text, now), _known(self._alike, _NUMBERS.sub("#", text), now)
        if same.passed:
            same.left_out, same.last = same.left_out + 1, entry
        elif alike.passed >= config.LOG_ALIKE_MAX:
            alike.left_out, alike.last = alike.left_out + 1, entry
        else:
            same.passed, alike.passed = 1, alike.passed + 1
            due.append(entry)
        return due + self._crowded()

    def over(self, now: float) -> list[dict[str, Any]]:
        """What was left out, of which the time is over."""
        found: list[dict[str, Any]] = []
        for known in (self._same, self._alike):
            while known and (next(iter(known.values())).until <= now):
                found += _told(known.popitem(last=False)[1])
        return found

    def _crowded(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for known in (self._same, self._alike):
            while len(known) > config.LOG_KNOWN_MAX:
                found += _told(known.popitem(last=False)[1])
        return found


def _known(known: OrderedDict[str, _Known], text: str, now: float) -> _Known:
    found = known.get(text)
    if found is None or found.until > now + config.LOG_REPEAT_SECONDS:  # the clock was set back
        found = known[text] = _Known(now + config.LOG_REPEAT_SECONDS)
    return found


def _told(known: _Known) -> list[dict[str, Any]]:
    return [{**known.last, "left_out": known.left_out}] if known.last is not None else []
