"""Messages: what a client and the agent say to each other. The page is docs/wire.md.

A message is one or two ZeroMQ frames: a head, ``[version, kind, …]`` in msgpack, and for ``data`` the journal's bytes.
"""

from __future__ import annotations

from typing import Any

from dreamlake.wire import codec

VERSION = 1
# A head carries names, numbers and the indexes of one batch.
HEAD_BYTES_MAX = 1 << 20

# client → agent
HELLO = "hello"  # client, {path, dev, ino, by}
DATA = "data"  # client, start, running before, running after · bytes
HAVE = "have"  # client, end, calls lost so far
FLUSH = "flush"  # client, number, end, durable, hashed
LEAVE = "leave"  # client
STATUS = "status"  # number
STOP = "stop"  # number

# agent → client
WELCOME = "welcome"  # client, applied, running, covered, credit, origin, incarnation
ACK = "ack"  # client, applied, covered, credit, placed, refused
FLUSHED = "flushed"  # client, number, problem or nil
ELSEWHERE = "elsewhere"  # client, endpoint or nil, why
DAMAGED = "damaged"  # client, why
GONE = "gone"  # client
WHO = "who"  # client: say hello again
STOPPING = "stopping"  # client
TROUBLE = "trouble"  # client, why
REPORT = "report"  # number, JSON
OTHER_VERSION = "version"  # the versions spoken

CLIENT_KINDS = {HELLO: 2, DATA: 4, HAVE: 3, FLUSH: 5, LEAVE: 1, STATUS: 1, STOP: 1}

Message = tuple[Any, ...]


class Unreadable(ValueError):
    """Not a message of ours."""


class OtherVersion(Unreadable):
    """A message of a version that we do not speak."""


def encode(message: Message, body: bytes | None = None) -> list[bytes]:
    """The frames of a message, ``(kind, …)``."""
    head = codec.packer().pack([VERSION, *message])
    return [head] if body is None else [head, body]


def decode(frames: list[bytes]) -> tuple[Message, bytes]:
    """(message, body) from untrusted frames. :class:`Unreadable` for anything that is not one."""
    if not 1 <= len(frames) <= 2 or len(frames[0]) > HEAD_BYTES_MAX:
        raise Unreadable("a message has a head of at most 1 MiB and at most one body")
    try:
        found = codec.unpack(frames[0])
    except codec.Damaged as damage:
        raise Unreadable(str(damage)) from None
    if not isinstance(found, tuple) or len(found) < 2 or not isinstance(found[1], str):
        raise Unreadable("a head is [version, kind, …]")
    if found[0] != VERSION:
        raise OtherVersion(f"version {found[0]!r}")
    return found[1:], frames[1] if len(frames) == 2 else b""


def decode_from_client(frames: list[bytes]) -> tuple[Message, bytes]:
    """As :func:`decode`, and of a kind and shape that a client may send."""
    message, body = decode(frames)
    kind, *rest = message
    if CLIENT_KINDS.get(kind) != len(rest):
        raise Unreadable(f"{kind!r} with {len(rest)} values")
    if kind in (STATUS, STOP):
        return message, body
    client, *values = rest
    if not isinstance(client, bytes) or len(client) != 16:
        raise Unreadable("a client is 16 bytes")
    if kind == HELLO:
        (who,) = values
        if not (
            isinstance(who, dict)
            and isinstance(who.get("path"), str)
            and "\0" not in who["path"]
            and isinstance(who.get("dev"), int)
            and isinstance(who.get("ino"), int)
        ):
            raise Unreadable("hello says path, dev and ino")
    elif not all(isinstance(value, int) and value >= 0 for value in values):
        raise Unreadable(f"{kind} carries numbers")
    return message, body
