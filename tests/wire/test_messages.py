"""Messages: what is read, and what is dropped for being none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import codec, messages
from dreamlake.wire.messages import OtherVersion, Unreadable

ALICE = b"a" * 16
HELLO = {"path": "/x", "dev": 1, "ino": 2}


def head(*values: object) -> list[bytes]:
    return [codec.packer().pack(list(values))]


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([], "a head"),
        ([b"\x90", b"", b""], "a head"),
        ([bytes(messages.HEAD_BYTES_MAX + 1)], "1 MiB"),
        ([b""], "not msgpack"),
        ([b"\x91"], "not msgpack"),
        (head(), "version, kind"),
        (head(1), "version, kind"),
        ([b"\x01"], "version, kind"),
        (head(1, 5), "version, kind"),
        (head(1, "nonsense"), "'nonsense' with 0 values"),
        (head(1, "welcome", ALICE), "'welcome' with 1 values"),  # the agent's to say
        (head(1, "have", ALICE), "'have' with 1 values"),
        (head(1, "leave", ALICE, 1), "'leave' with 2 values"),
        (head(1, "leave", "a" * 16), "16 bytes"),
        (head(1, "leave", b"a"), "16 bytes"),
        (head(1, "data", ALICE, -1, 0, 0), "numbers"),
        (head(1, "data", ALICE, "1", 0, 0), "numbers"),
        (head(1, "data", ALICE, 1.0, 0, 0), "numbers"),
        (head(1, "flush", ALICE, 1, 2, None, 0), "numbers"),
        (head(1, "status", [1]), "a number"),
        (head(1, "stop", None), "a number"),
        (head(1, "hello", ALICE, None), "path, dev and ino"),
        (head(1, "hello", ALICE, {**HELLO, "path": b"/x"}), "path, dev and ino"),
        (head(1, "hello", ALICE, {"path": "/x", "dev": 1}), "path, dev and ino"),
    ],
)
def test_what_is_no_message_of_a_client_is_unreadable(frames: list[bytes], why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        messages.decode_from_client(frames)


@pytest.mark.parametrize("version", [0, 2, "1", None, [1]])
def test_another_version_is_told_apart_from_nonsense(version: object) -> None:
    with pytest.raises(OtherVersion):
        messages.decode_from_client(head(version, "whatever", 1, 2, 3))


def test_a_version_of_another_kind_does_not_need_to_be_understood() -> None:
    assert messages.decode(messages.encode((messages.OTHER_VERSION, [1, 2]))) == (("version", (1, 2)), b"")


def test_a_version_nested_as_deep_as_msgpack_goes_is_another_version() -> None:
    with pytest.raises(OtherVersion):
        messages.decode([b"\x92" + b"\x91" * 1020 + b"\x01" + b"\xa4stop"])


def test_a_number_that_cannot_be_said_back_is_no_number() -> None:
    """The reply to ``status`` holds it, and msgpack reads deeper than it writes."""
    with pytest.raises(Unreadable):
        messages.decode_from_client([b"\x93\x01\xa6status" + b"\x91" * 600 + b"\x01"])


@pytest.mark.parametrize(
    "message",
    [
        ("welcome", ALICE, 0, 0, 0, None, "o", b"i"),
        ("welcome", ALICE, -1, 0, -1, 1, "o", b"i"),
        ("ack", ALICE, 5, 0, 1, [], []),
        ("ack", ALICE, 5, 0, 1, {"loss": None}, []),
        ("ack", ALICE, 5, 0, 1, {"loss": [[0, 0]]}, []),
        ("ack", ALICE, 5, 0, 1, {"loss": [[0, 0, "1"]]}, []),
        ("ack", ALICE, 5, 0, 1, {}, [1]),
        ("ack", ALICE, 5, -6, 1, {}, []),
        ("flushed", ALICE, 1, 5),
        ("elsewhere", ALICE, {}, "why"),
        ("damaged", ALICE),
        ("hello", ALICE, HELLO),  # a client's to say
    ],
)
def test_what_no_agent_says_is_unreadable(message: tuple[object, ...]) -> None:
    with pytest.raises(Unreadable):
        messages.decode_from_agent(head(1, *message))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=40), max_size=3))
def test_untrusted_frames_are_a_message_or_unreadable_and_nothing_else(frames: list[bytes]) -> None:
    try:
        messages.decode_from_client(frames)
    except Unreadable:
        pass


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from([*messages.CLIENT_KINDS, "welcome", "zzz"]),
    st.lists(
        st.one_of(st.just(ALICE), st.just(HELLO), st.integers(), st.text(max_size=3), st.none()).filter(
            lambda value: not isinstance(value, int) or -(2**63) <= value < 2**64
        ),
        max_size=6,
    ),
)
def test_heads_of_any_shape_are_a_message_or_unreadable_and_nothing_else(kind: str, values: list[object]) -> None:
    try:
        message, _body = messages.decode_from_client(head(1, kind, *values))
    except Unreadable:
        return
    assert len(message) == 1 + messages.CLIENT_KINDS[kind]
