"""Records: how operations, commits and checkpoints are framed, in files and in messages.

A record is a msgpack array of three, so a stream of records is a stream that any msgpack library reads::

    0x93  0xce <length: u32>  0xce <checksum: u32>  <payload: msgpack, `length` bytes>
    └ array of 3              └ both big-endian, as msgpack has them

A stream has a running checksum, the CRC-32 of all its bytes so far; it starts from :func:`seed`. A record's
``checksum`` is the CRC-32 of its payload *continued from the running checksum before it*, so a record proves not only
its own bytes but that everything before it is what its author wrote, and a record of another stream, or of another
place in this one, is no record. The running checksum of a whole batch is one call of C. A stream of zeros holds no
record (the first byte is wrong): the zero blocks that a network file system shows at the tail of a growing file read
as "not there yet".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgpack

_FRAME = struct.Struct(">BBIBI")
FRAME_BYTES = _FRAME.size

# One operation, packed. Larger batches are split by the client; the agent's memory is counted in these.
OP_BYTES_MAX = 8 << 20
# A checkpoint lists every track of a session: 10,000 tracks are about 1 MiB.
CHECKPOINT_BYTES_MAX = 256 << 20

_frame = _FRAME.pack
_crc32 = zlib.crc32
_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


class Damaged(ValueError):
    """Bytes that are complete but are not what a record must be. The position says where the good part ends."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} at byte {position}")
        self.reason = reason
        self.position = position


def pack(value: Any) -> bytes:
    """One msgpack value. Not thread-safe: a packer keeps a buffer, so each thread that packs has a lock around it."""
    return _pack(value)  # type: ignore[no-any-return]


def packer() -> msgpack.Packer:
    """A packer of one's own, for a thread that packs beside others."""
    return msgpack.Packer(use_bin_type=True, autoreset=True, buf_size=4096)


def unpack(data: bytes) -> Any:
    """One msgpack value from untrusted bytes; :class:`Damaged` for anything else."""
    try:
        return msgpack.unpackb(data, raw=False, use_list=False, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Damaged(f"not msgpack ({type(error).__name__})", 0) from None


def seed(identity: bytes) -> int:
    """The running checksum of an empty stream: another one for every client, so that streams do not mix."""
    return zlib.crc32(identity)


def run_on(data: bytes, running: int) -> int:
    """The running checksum after ``data``, which are whole records."""
    return zlib.crc32(data, running)


def frame(payload: bytes, running: int) -> tuple[bytes, int]:
    """A record around ``payload``, and the running checksum after it."""
    record = _frame(0x93, 0xCE, len(payload), 0xCE, _crc32(payload, running)) + payload
    return record, _crc32(record, running)


def records(data: bytes, running: int, limit: int = OP_BYTES_MAX) -> Iterator[tuple[int, int, bytes]]:
    """The whole, valid records at the start of ``data`` as (offset after it, running checksum after it, payload).

    Stops without a word at an incomplete record (more may come) and raises :class:`Damaged` at a record that is
    complete but wrong, after every good one before it was given.
    """
    offset = 0
    size = len(data)
    while offset + FRAME_BYTES <= size:
        three, mark, length, mark_again, checksum = _FRAME.unpack_from(data, offset)
        if three != 0x93 or mark != 0xCE or mark_again != 0xCE:
            raise Damaged("not a record", offset)
        if not 0 < length <= limit:
            raise Damaged(f"record of {length} bytes", offset)
        end = offset + FRAME_BYTES + length
        if end > size:
            return
        payload = data[offset + FRAME_BYTES : end]
        if zlib.crc32(payload, running) != checksum:
            raise Damaged("checksum differs", offset)
        running = zlib.crc32(data[offset:end], running)
        yield end, running, payload
        offset = end


def whole_records(data: bytes, running: int) -> tuple[int, int, bool]:
    """How far ``data`` is made of valid records: (bytes, running checksum after them, whether damage follows)."""
    found = (0, running)
    try:
        for end, after, _payload in records(data, running):
            found = (end, after)
    except Damaged:
        return *found, True
    return *found, False


def operations(data: bytes) -> list[Any]:
    """The operations in a run of records; None stands for a payload that is no msgpack, so that one bad operation is
    refused by itself and never holds up the rest."""
    try:
        return payloads(data)
    except Damaged:
        found: list[Any] = []
        offset = 0
        while offset + FRAME_BYTES <= len(data):
            length = _FRAME.unpack_from(data, offset)[2]
            payload = data[offset + FRAME_BYTES : offset + FRAME_BYTES + length]
            try:
                found.append(unpack(payload))
            except Damaged:
                found.append(None)
            offset += FRAME_BYTES + length
        return found


def payloads(data: bytes) -> list[Any]:
    """Decode a run of records whose bytes are already known to be good (checked as one), in one pass of C.

    Gives the operations. :class:`Damaged` when a payload is no msgpack or a frame is out of step, which a checksum
    cannot tell from an author who meant it.
    """
    unpacker = msgpack.Unpacker(raw=False, use_list=False, strict_map_key=False, max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    try:
        found = []
        told = 0
        for length, _checksum, payload in unpacker:
            told += length + FRAME_BYTES
            found.append(payload)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Damaged(f"not msgpack ({type(error).__name__})", unpacker.tell()) from None
    # A payload that is less than one value would go on in the records after it, and take them with it.
    if told != len(data) or unpacker.tell() != len(data):
        raise Damaged("records out of step", unpacker.tell())
    return found
