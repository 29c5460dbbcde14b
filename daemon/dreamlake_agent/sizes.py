"""Sizes: bytes as people read them."""

from __future__ import annotations


def in_words(count: float) -> str:
    """
    >>> in_words(512), in_words(5_000_000)
    ('512 B', '4.8 MiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
