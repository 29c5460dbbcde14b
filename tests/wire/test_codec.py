"""Records: what is whole is given, what is torn is waited for, what is wrong ends the stream."""

from __future__ import annotations

import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import codec
from dreamlake.wire.codec import FRAME_BYTES, Damaged

PURE = settings(deadline=None, derandomize=True)
ALICE, BOB = b"a" * 16, b"b" * 16

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text(max_size=8), st.binary(max_size=8)),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
PAYLOADS = st.lists(PLAIN, min_size=1, max_size=6)


def stream(values: list[object], running: int) -> bytes:
    data = b""
    for value in values:
        record, running = codec.frame(codec.pack(value), running)
        data += record
    return data


def values(data: bytes, running: int) -> list[object]:
    return [codec.unpack(payload) for _end, _running, payload in codec.records(data, running)]


def test_a_record_is_eleven_bytes_and_its_payload() -> None:
    record, running = codec.frame(codec.pack("x"), codec.seed(ALICE))
    payload = b"\xa1x"
    checksum = zlib.crc32(payload, zlib.crc32(ALICE))
    assert record == b"\x93\xce\0\0\0\x02\xce" + checksum.to_bytes(4, "big") + payload
    assert running == zlib.crc32(ALICE + record)
    assert len(record) == FRAME_BYTES + 2


@PURE
@given(PAYLOADS)
def test_a_stream_gives_what_was_put_into_it(given_values: list[object]) -> None:
    seed = codec.seed(ALICE)
    data = stream(given_values, seed)
    assert values(data, seed) == given_values
    assert codec.operations(data) == given_values
    assert codec.payloads(data) == given_values
    assert codec.whole_records(data, seed) == (len(data), codec.run_on(data, seed), False)


@PURE
@given(PAYLOADS)
def test_any_msgpack_library_reads_a_stream(given_values: list[object]) -> None:
    data = stream(given_values, 0)
    unpacker = msgpack.Unpacker(use_list=False)
    unpacker.feed(data)
    assert [payload for _length, _checksum, payload in unpacker] == given_values


@PURE
@given(PAYLOADS, st.data())
def test_half_a_record_is_waited_for_and_those_before_it_are_given(
    given_values: list[object], draw: st.DataObject
) -> None:
    seed = codec.seed(ALICE)
    whole, last = stream(given_values[:-1], seed), stream(given_values, seed)
    cut = draw.draw(st.integers(len(whole), len(last) - 1))
    assert codec.whole_records(last[:cut], seed) == (len(whole), codec.run_on(whole, seed), False)


@PURE
@given(PAYLOADS, st.data())
def test_a_byte_that_changed_ends_the_stream_before_its_record(given_values: list[object], draw: st.DataObject) -> None:
    seed = codec.seed(ALICE)
    data = bytearray(stream(given_values, seed))
    ends = [0, *(end for end, _running, _payload in codec.records(bytes(data), seed))]
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    end, running, _damaged = codec.whole_records(bytes(data), seed)
    assert end == max(each for each in ends if each <= at)
    assert running == codec.run_on(bytes(data[:end]), seed)


@PURE
@given(PAYLOADS, st.binary(max_size=40))
def test_garbage_behind_a_stream_is_never_taken_for_a_record(given_values: list[object], garbage: bytes) -> None:
    seed = codec.seed(ALICE)
    data = stream(given_values, seed)
    end, running, _damaged = codec.whole_records(data + garbage, seed)
    assert (end, running) == (len(data), codec.run_on(data, seed))


@pytest.mark.parametrize("zeros", [1, FRAME_BYTES - 1, FRAME_BYTES, 4096])
def test_zeros_hold_no_record(zeros: int) -> None:
    seed = codec.seed(ALICE)
    data = stream([1, 2], seed)
    assert codec.whole_records(data + bytes(zeros), seed)[0] == len(data)
    assert codec.whole_records(bytes(zeros), seed)[0] == 0


def test_a_record_of_another_stream_is_none() -> None:
    data = stream(["x"], codec.seed(BOB))
    with pytest.raises(Damaged, match="checksum differs at byte 0"):
        values(data, codec.seed(ALICE))


def test_a_record_of_another_place_is_none() -> None:
    seed = codec.seed(ALICE)
    first, second = stream(["x"], seed), stream(["x", "y"], seed)
    tail = second[len(first) :]
    assert codec.whole_records(tail, seed) == (0, seed, True)  # the one before it is missing
    assert codec.whole_records(second + tail, seed)[::2] == (len(second), True)  # a copy of it


@pytest.mark.parametrize("length", [0, codec.OP_BYTES_MAX + 1, 2**32 - 1])
def test_a_length_beyond_the_limit_is_damage_and_not_waited_for(length: int) -> None:
    data = b"\x93\xce" + length.to_bytes(4, "big") + b"\xce" + bytes(4)
    with pytest.raises(Damaged, match=f"record of {length} bytes at byte 0"):
        values(data, 0)


def test_an_operation_of_exactly_the_limit_is_a_record() -> None:
    payload = bytes(codec.OP_BYTES_MAX)
    record, running = codec.frame(payload, 0)
    assert codec.whole_records(record, 0) == (len(record), running, False)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ValueError"),
        (b"\xc1", "FormatError"),
        (b"\x01\x02", "ExtraData"),
        (b"\xa2x", "ValueError"),
        (b"\xa1\xff", "UnicodeDecodeError"),
        (b"\x81\x90", "ValueError"),
        (b"\x81\x81\x01\x01\x01", "TypeError"),  # a map as a key
        (b"\x91" * 2000 + b"\x01", "StackError"),
    ],
)
def test_what_is_not_one_msgpack_value_is_damage(data: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=why):
        codec.unpack(data)


@PURE
@given(st.binary(max_size=60))
def test_untrusted_bytes_are_a_value_or_damage_and_nothing_else(data: bytes) -> None:
    for read in (codec.unpack, codec.payloads):
        try:
            read(data)
        except Damaged:
            pass
    codec.whole_records(data, 0)


def test_one_payload_that_is_no_msgpack_is_refused_by_itself() -> None:
    running, data = 0, b""
    for payload in (codec.pack("before"), b"\xc1", b"\x01\x02", codec.pack("after")):
        record, running = codec.frame(payload, running)
        data += record
    assert codec.whole_records(data, 0) == (len(data), running, False)
    assert codec.operations(data) == ["before", None, None, "after"]


def test_a_payload_that_is_half_a_value_takes_none_of_the_records_after_it() -> None:
    """A list of four that has none yet: each of the next four records would be taken for one of its values."""
    data, running = b"", 0
    for payload in (codec.pack("before"), b"\x94", *(codec.pack(number) for number in range(5))):
        record, running = codec.frame(payload, running)
        data += record
    assert codec.operations(data) == ["before", None, 0, 1, 2, 3, 4]
    assert codec.operations(codec.frame(b"\x94", 0)[0]) == [None]


def test_two_packers_do_not_share_a_buffer() -> None:
    one, other = codec.packer(), codec.packer()
    assert (one.pack(1), other.pack("x"), one.pack([])) == (b"\x01", b"\xa1x", b"\x90")
