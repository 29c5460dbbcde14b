"""Zstandard, named only here. Segments lie compressed, and bodies travel so; these are unpacked no further than is
allowed: a few KiB may stand for as many GiB."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What RFC 9659 lets the content coding "zstd" ask of a receiver: 8 MiB. A frame may ask for 2 GiB otherwise.
_WINDOW_LOG = 23
_FRAMES = 100  # what is left after each is copied: a body of nothing but empty frames would take hours


# On rows of JSON, 1 comes within a tenth of the size of 3 in half the time.
_LEVEL = 1


class Unreadable(ValueError):
    """Not whole Zstandard frames."""


class TooLarge(ValueError):
    """More than was allowed would come out."""


def pack(data: bytes) -> bytes:
    return zstd.compress(data, _LEVEL)


def unpack(data: bytes, most: int) -> bytes:
    """Every frame of ``data``, at most ``most`` bytes.

    >>> unpack(zstd.compress(b"ab") + zstd.compress(b"c"), 3)
    b'abc'
    """
    unpacked = bytearray()
    frames = 0
    while data:
        frames += 1
        if frames > _FRAMES:
            raise Unreadable(f"it has more than {_FRAMES} frames")
        frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
        try:
            # One byte more than there is room for tells a body that is too large from one that just fits.
            unpacked += frame.decompress(data, most - len(unpacked) + 1)
        except zstd.ZstdError as why:
            raise Unreadable(str(why)) from None
        if len(unpacked) > most:
            raise TooLarge
        if not frame.eof:
            raise Unreadable("it ends in the middle of a frame")
        data = frame.unused_data
    return bytes(unpacked)
