"""Marks: where a log stands before some record; the second hop's positions (docs/push.md). PURE.

A mark is the size of a log up to a record and the running CRC-32 of those bytes. Two logs with the same count and the
same mark have the same history, so one comparison guards a continuation, finds a fork, and knows a repetition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from zlib import crc32

_TEXT = re.compile(r"(0|[1-9][0-9]{0,15})-([0-9a-f]{8})\Z")


@dataclass(frozen=True)
class Mark:
    """
    >>> Mark.of("0-00000000").after(b'{"a":1}\\n').text
    '8-74e8a346'
    """

    size: int = 0
    checksum: int = 0

    @classmethod
    def of(cls, text: str) -> Mark:
        """Raises :class:`ValueError` for what is none."""
        found = _TEXT.match(text)
        if found is None:
            raise ValueError(f"{text[:40]!r} is no mark: it is <bytes>-<8 hex digits of their CRC-32>")
        return cls(int(found[1]), int(found[2], 16))

    @property
    def text(self) -> str:
        return f"{self.size}-{self.checksum:08x}"

    def after(self, data: bytes) -> Mark:
        return Mark(self.size + len(data), crc32(data, self.checksum))
