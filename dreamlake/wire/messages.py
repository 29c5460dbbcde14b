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
HELLO = "hello"  # client, {path, dev, ino, by [, key] [, can, version]}
DATA = "data"  # client, start, running before, running after · bytes
HAVE = "have"  # client, end, calls lost so far
FLUSH = "flush"  # client, number, end, durable, hashed
SYNC = "sync"  # client, number, end
LEAVE = "leave"  # client
STATUS = "status"  # number
STOP = "stop"  # number

# agent → client
CAN = "can"  # client, what the agent can, its version; only to who said `can`, before the welcome
WELCOME = "welcome"  # client, applied, running, covered, credit, origin, incarnation
ACK = "ack"  # client, applied, covered, credit, placed, refused
FLUSHED = "flushed"  # client, number, problem or nil; the answer to flush and to sync
BEHIND = "behind"  # client, why what it syncs is not on the server yet
NOTICE = "notice"  # client, what its user should know
ELSEWHERE = "elsewhere"  # client, endpoint or nil, why
DAMAGED = "damaged"  # client, why
GONE = "gone"  # client
WHO = "who"  # client: say hello again
STOPPING = "stopping"  # client
TROUBLE = "trouble"  # client, why
REPORT = "report"  # number, JSON
OTHER_VERSION = "version"  # the versions spoken

CLIENT_KINDS = {HELLO: 2, DATA: 4, HAVE: 3, FLUSH: 5, SYNC: 3, LEAVE: 1, STATUS: 1, STOP: 1}

_TEXT_OR_NIL = (str, type(None))
_AGENT_SHAPES: dict[str, tuple[Any, ...]] = {
    CAN: (bytes, tuple, str),
    WELCOME: (bytes, int, int, int, int, str, bytes),
    ACK: (bytes, int, int, int, dict, tuple),
    FLUSHED: (bytes, int, _TEXT_OR_NIL),
    BEHIND: (bytes, str),
    NOTICE: (bytes, str),
    ELSEWHERE: (bytes, _TEXT_OR_NIL, str),
    DAMAGED: (bytes, str),
    GONE: (bytes,),
    WHO: (bytes,),
    STOPPING: (bytes,),
    TROUBLE: (bytes, str),
    OTHER_VERSION: (tuple,),
}

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
        # Not its repr: whoever speaks another version may have put anything there, nested as deep as msgpack goes.
        raise OtherVersion("another version")
    return found[1:], frames[1] if len(frames) == 2 else b""


def decode_from_client(frames: list[bytes]) -> tuple[Message, bytes]:
    """As :func:`decode`, and of a kind and shape that a client may send."""
    message, body = decode(frames)
    kind, *rest = message
    if CLIENT_KINDS.get(kind) != len(rest):
        raise Unreadable(f"{kind!r} with {len(rest)} values")
    if kind in (STATUS, STOP):
        if not _are_numbers(rest):  # it is said back in the report
            raise Unreadable(f"{kind} carries a number")
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
    elif not _are_numbers(values):
        raise Unreadable(f"{kind} carries numbers")
    return message, body


def decode_from_agent(frames: list[bytes]) -> tuple[Message, bytes]:
    """As :func:`decode`, and of a kind and shape that an agent may send to a client with a session."""
    message, body = decode(frames)
    kind, *rest = message
    shape = _AGENT_SHAPES.get(kind)
    if shape is None or len(shape) != len(rest) or not all(map(isinstance, rest, shape)):
        raise Unreadable(f"{kind!r} with {len(rest)} values of some types")
    if kind == WELCOME:
        _client, applied, running, covered, credit, *_texts = rest
        if not _are_numbers((applied, running, covered, credit)):
            raise Unreadable("a welcome says up to where")
    elif kind == CAN:
        if not all(isinstance(name, str) for name in rest[1]):
            raise Unreadable("can says names")
    elif kind == ACK:
        _client, applied, covered, credit, placed, refused = rest
        if not _are_numbers((applied, covered, credit)):
            raise Unreadable("an ack says up to where")
        if not all(isinstance(track, str) and _are_spans(spans) for track, spans in placed.items()):
            raise Unreadable("an ack says which ordinals have which indexes")
        if not all(isinstance(each, tuple) and len(each) == 2 and isinstance(each[1], str) for each in refused):
            raise Unreadable("an ack says what was refused and why")
    return message, body


def _are_numbers(values: Any) -> bool:
    return all(isinstance(value, int) and value >= 0 for value in values)


def _are_spans(spans: Any) -> bool:
    return isinstance(spans, tuple) and all(
        isinstance(span, tuple) and len(span) == 3 and all(isinstance(number, int) for number in span) for span in spans
    )
