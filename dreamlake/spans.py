"""Spans: which index each point of a track was given, for receipts. PURE."""

from __future__ import annotations

import bisect

from dreamlake import config


class Spans:
    """Which index each of a track's ordinals was given: ranges, joined where they continue, the oldest dropped."""

    def __init__(self) -> None:
        self.ordinals: list[int] = []
        self.spans: list[list[int]] = []

    def add(self, ordinal: int, index: int, count: int) -> None:
        if self.spans:
            last = self.spans[-1]
            if last[0] + last[2] == ordinal and last[1] + last[2] == index:
                last[2] += count
                return
            if ordinal < last[0] + last[2]:
                return  # heard twice
        self.ordinals.append(ordinal)
        self.spans.append([ordinal, index, count])
        if len(self.spans) > config.RECEIPT_SPANS_MAX:
            half = len(self.spans) // 2
            del self.ordinals[:half], self.spans[:half]

    def find(self, ordinal: int) -> int | None:
        at = bisect.bisect_right(self.ordinals, ordinal) - 1
        if at < 0:
            return None
        first, index, count = self.spans[at]
        return index + ordinal - first if ordinal < first + count else None
