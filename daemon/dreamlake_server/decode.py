"""Decode: what a request says, as the types that its route names. What cannot be read is a 400 that names the place."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from dreamlake.wire import jsons, zstd
from dreamlake_server import limits
from dreamlake_server.problem import Problem, bad, too_large
from dreamlake_server.route import MSGPACK, Request

Kind = TypeVar("Kind", bound=msgspec.Struct)

_QUERY_NAMES = 1000


def query(text: bytes, kind: type[Kind]) -> Kind:
    """A query string. A name that comes more than once is a list, and one that should be a list is one if it comes
    once."""
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=_QUERY_NAMES, errors="strict")
    except ValueError as why:  # UnicodeDecodeError is one
        raise bad(f"the query cannot be read: {why}. Send names and values as percent-encoded UTF-8") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    lists = _lists(kind)
    plain = {name: values if name in lists or len(values) > 1 else values[0] for name, values in found.items()}
    try:
        return msgspec.convert(plain, kind, strict=False)
    except msgspec.ValidationError as why:
        raise bad(f"the query is not what {_names(kind)} may be: {why}", "bad-query") from None


def _names(kind: type[msgspec.Struct]) -> str:
    return ", ".join(field.encode_name for field in msgspec.structs.fields(kind)) or "no name"


@lru_cache(maxsize=256)
def _lists(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Which fields of ``kind`` are lists."""
    found = msgspec.inspect.type_info(kind)
    assert isinstance(found, msgspec.inspect.StructType)
    return frozenset(field.encode_name for field in found.fields if _is_list(field.type))


def _is_list(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_is_list(each) for each in kind.types)
    return isinstance(kind, msgspec.inspect.CollectionType)


async def body(request: Request, kind: type[Kind], limit: str = "BODY_BYTES") -> Kind:
    """The whole body, unpacked: msgpack where its Content-Type says so, else JSON. ``limit`` is the name of the one
    that holds for it, packed and unpacked."""
    data = await _whole(request, limit)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding == "zstd":
        data = await _unpacked(data, limit)
    elif coding not in ("identity", ""):
        text = f"a body in Content-Encoding {coding!r} cannot be read: send it as it is, or as zstd"
        raise Problem(415, "unknown-encoding", text)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if content_type in MSGPACK:
            return msgspec.msgpack.decode(data, type=kind)
        try:
            return msgspec.json.decode(data or b"{}", type=kind)
        except msgspec.DecodeError:
            if b"NaN" not in data and b"Infinity" not in data:
                raise
            return _with_bare_nan(data, kind)
    except msgspec.ValidationError as why:
        raise bad(f"the body is not what this route takes: {why}", "bad-body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        what = "msgpack" if content_type in MSGPACK else "JSON"
        text = "nested too deeply" if isinstance(why, RecursionError) else str(why)
        raise bad(f"the body is not {what}: {text}. Its Content-Type was {content_type!r}", "unreadable") from None


def _with_bare_nan(data: bytes, kind: type[Kind]) -> Kind:
    """What Python's json writes for floats that JSON has no word for, and clients of 0.2.x so send."""
    try:
        found = jsons.loads(data)
        msgspec.json.encode(found)  # half of a surrogate pair, which json.loads lets through, stops here
    except ValueError as why:
        raise msgspec.DecodeError(str(why)) from None
    return msgspec.convert(found, kind)


async def _whole(request: Request, limit: str) -> bytes:
    most: int = getattr(limits, limit)
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said[:20]) > most:
        raise too_large(limit, most, "the body")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise too_large(limit, most, "the body")
    return bytes(data)


async def _unpacked(data: bytes, limit: str) -> bytes:
    most: int = getattr(limits, limit)
    by_ratio = (1 << 20) + limits.UNPACKED_RATIO * len(data)
    try:
        # In a thread however small it is: 2 KiB may take 0.2 s until they are too large.
        return await asyncio.to_thread(zstd.unpack, data, min(most, by_ratio))
    except zstd.TooLarge:
        if by_ratio < most:
            raise too_large("UNPACKED_RATIO", limits.UNPACKED_RATIO, "what the body unpacks to") from None
        raise too_large(limit, most, "the unpacked body") from None
    except zstd.Unreadable as why:
        raise bad(f"the body is not zstd, as its Content-Encoding says: {why}", "unreadable") from None
