"""Sound inputs of every target, for the fuzzers to start from."""

from __future__ import annotations

from functools import cache
from random import Random

from dreamlake.wire import codec, jsons, messages
from tests.fuzz.choices import Choices, change_leaf, spoil
from tests.fuzz.folders import json_line, packed, trees
from tests.golden import make, world

_V1 = make.HERE / "v1"


def _blob(data: bytes) -> bytes:
    return min(len(data), 65535).to_bytes(2, "big") + data[:65535]


def _payloads(data: bytes, running: int) -> list[bytes]:
    return [payload for _, _, payload in codec.records(data, running, codec.CHECKPOINT_BYTES_MAX)]


def _programs(count: int = 12, size: int = 60) -> list[bytes]:
    return [Random(seed).randbytes(size) for seed in range(count)]


@cache
def seeds(name: str) -> list[bytes]:
    return _SEEDS[name]()


def varied(name: str, choices: Choices, data: bytes | None = None) -> bytes:
    """``data``, or one of a target's seeds, with something wrong in it: in its bytes, or in a value that they say."""
    if data is None:
        data = choices.one_of(seeds(name))
        if name in PROGRAMS:
            return choices.rest()
    elif name in PROGRAMS:
        return spoil(data, choices)
    if choices.below(2):
        return spoil(data, choices)
    if name in ("operations", "outside"):
        return _odd_value(data, choices)
    if name == "some_json":
        try:
            value = jsons.loads(data)
        except ValueError:
            return _odd_value(data, choices)
        return json_line(change_leaf(value, choices, raw=False), choices)
    if name == "message_to_agent" and data[:1] == b"\1":
        return data[:1] + _odd_value(data[1:], choices)
    # The others are made of blobs, one after the other.
    head, tape = (data[:1], Choices(data[1:])) if data[:1] in (b"\1", b"\2") else (b"", Choices(data))
    blobs = []
    while tape.more:
        blobs.append(tape.blob())
    if not blobs:
        return spoil(data, choices)
    at = choices.below(len(blobs))
    blobs[at] = _odd_value(blobs[at], choices)
    return head + b"".join(map(_blob, blobs))


PROGRAMS = ("baseline", "reading", "store", "recovery", "agent")


def _odd_value(data: bytes, choices: Choices) -> bytes:
    try:
        value = codec.unpack(data)
        for _ in range(1 + choices.below(2)):
            value = change_leaf(value, choices, raw=True)
        return packed(value)
    except codec.Damaged:
        return spoil(data, choices)


def _to_agent() -> list[bytes]:
    frames = [messages.encode(*world.MESSAGES[name]) for name in world.MESSAGES]
    return [b"\1" + each[0] if len(each) == 1 else b"\2" + _blob(each[0]) + each[1] for each in frames]


def _to_client() -> list[bytes]:
    said = [
        messages.encode((message[0], world.ALICE, *message[2:]))[0]
        for message, _ in world.MESSAGES.values()
        if message[0] not in messages.CLIENT_KINDS and len(message) > 1 and isinstance(message[1], bytes)
    ]
    return [b"".join(map(_blob, said)), *(_blob(each) + _blob(said[0]) for each in said)]


def _records() -> list[bytes]:
    packs = [packed(op) for op in world.OPERATIONS.values()]
    return [world.segment(), b"\1" + b"".join(map(_blob, packs))]


def _operations() -> list[bytes]:
    every = list(world.OPERATIONS.values())
    return [packed(every), *(packed([op]) for op in every), packed(every + every)]


def _through_links() -> list[bytes]:
    """As ``targets.outside`` has them: ``out`` is a link, in ``tracks`` and in ``files``."""
    record = world._record("f0", "model.pth").replace(b'"/models"', b'"/out"')
    incoming = f"{world.ALICE.hex()}-f0"
    runs = [[(6, 1, "out/loss", 0, b"{}")], [(6, 1, "out", 0, b"{}")], [(8, 1, record, incoming)]]
    return [*map(packed, runs), *_operations()]


def _names() -> list[bytes]:
    pairs = [("a/b", "a%2Fb"), ("/models", "m.pth"), ("train/loss", "train"), ("a%252Fb", "x"), ("..", "."), ("é", "ü")]
    return [_blob(one.encode()) + two.encode() for one, two in pairs]


def _jsons() -> list[bytes]:
    rows = [
        b'{"a":{"b":[1,NaN]},"lr.0":"NaN"}',
        b'{"a":1234567890123456789012}',
        packed({"a": [1.5, None, {"b": "x"}]}),
    ]
    return rows + [row for tree in trees() for path, data in tree.items() if path.endswith(".json") for row in [data]]


def _segments() -> list[bytes]:
    header = next(codec.records(world.segment(), codec.seed(world.ALICE)))[2]
    body = b"\1" + b"".join(_blob(packed(op)) for op in world.OPERATIONS.values())
    fields = {"v": 1, "client": world.ALICE, "running": codec.seed(world.ALICE), "made": 1, "by": {}}
    first, second = packed({**fields, "n": 0, "base": 0}), packed({**fields, "n": 1, "base": 300})
    return [_blob(header) + _blob(b"") + body, _blob(first) + _blob(second) + body, _blob(first) + _blob(b"") + body]


def _checkpoint() -> list[bytes]:
    data = world.checkpoint()
    return [data, b"\1" + b"".join(map(_blob, _payloads(data, codec.seed(b"dreamlake checkpoint"))))]


def _commits() -> list[bytes]:
    data = world.commits()
    return [data, b"\1" + b"".join(map(_blob, _payloads(data, codec.seed(world.ORIGIN.encode()))))]


def _lines() -> list[bytes]:
    many = b"".join(b'{"sequenceNumber":%d,"message":"m"}\n' % number for number in range(20))
    return [many, *(data for tree in trees() for path, data in tree.items() if path.endswith(".jsonl"))]


def _owner() -> list[bytes]:
    origin = _blob(world.ORIGIN.encode() + b"\n")
    return [origin + b'{"host":"h","pid":1,"start":1.0,"epoch":3,"released":true}\n', _blob(b"") + b""]


_SEEDS = {
    "message_to_agent": _to_agent,
    "messages_to_client": _to_client,
    "records": _records,
    "operations": _operations,
    "outside": _through_links,
    "some_names": _names,
    "some_json": _jsons,
    "segments": _segments,
    "checkpoint": _checkpoint,
    "commits": _commits,
    "lines": _lines,
    "owner": _owner,
    "baseline": _programs,
    "reading": _programs,
    "store": _programs,
    "recovery": _programs,
    "agent": lambda: _programs(size=200),
}
