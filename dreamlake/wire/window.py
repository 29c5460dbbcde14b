"""Window: one conversation for both hops, as two small machines of numbers.

*Say what you have · send from N · cumulative ack up to M · when in doubt, rewind to the last ack and send again.*
Positions are bytes of a journal on the first hop. The listener drops what it already has and refuses what does not
continue it; the sender forgets nothing until it is acked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Sender:
    """The side that has the log. ``credit`` is how much may be on its way at once."""

    credit: int
    acked: int = 0
    sent: int = 0

    def room(self) -> int:
        return max(0, self.credit - (self.sent - self.acked))

    def on_sent(self, end: int) -> None:
        self.sent = end

    def on_ack(self, position: int, available: int) -> bool:
        """Take an ack; True when it moved on. An ack beyond what was written is somebody else's: ignored."""
        if not self.acked < position <= available:
            return False
        self.acked = position
        self.sent = max(self.sent, position)
        return True

    def rewind(self, position: int) -> None:
        """Start over from what the listener says it has."""
        self.acked = self.sent = position


DUPLICATE = "duplicate"
GAP = "gap"
OVERLAP = "overlap"
CONTINUES = "continues"


def judge(have: int, start: int, end: int) -> str:
    """What ``[start, end)`` is to a listener that has ``have``.

    An overlap is not taken apart: the listener answers with what it has and the sender rewinds. Batches end where
    records end, so a sender that heard no ack may well cut them elsewhere the second time.

    >>> [judge(100, a, b) for a, b in ((0, 100), (100, 150), (50, 150), (120, 150))]
    ['duplicate', 'continues', 'overlap', 'gap']
    """
    if end <= have:
        return DUPLICATE
    if start == have:
        return CONTINUES
    return OVERLAP if start < have else GAP
