"""The window: what is sent, what is taken, where one starts over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import window
from dreamlake.wire.window import Sender, judge

POSITIONS = st.integers(0, 30)


@pytest.mark.parametrize(
    ("have", "start", "end", "verdict"),
    [
        (0, 0, 10, window.CONTINUES),
        (10, 10, 20, window.CONTINUES),
        (10, 0, 10, window.DUPLICATE),
        (10, 0, 9, window.DUPLICATE),
        (10, 10, 10, window.DUPLICATE),  # nothing
        (10, 5, 15, window.OVERLAP),
        (10, 11, 20, window.GAP),
        (0, 1, 2, window.GAP),
    ],
)
def test_a_batch_is_judged_by_where_it_begins_and_ends(have: int, start: int, end: int, verdict: str) -> None:
    assert judge(have, start, end) == verdict


@settings(deadline=None, derandomize=True)
@given(POSITIONS, POSITIONS, POSITIONS)
def test_only_what_continues_and_brings_something_new_is_taken(have: int, start: int, size: int) -> None:
    taken = judge(have, start, start + size) == window.CONTINUES
    assert taken == (start == have and size > 0)


def test_a_sender_has_room_for_what_its_credit_leaves() -> None:
    sender = Sender(100)
    assert sender.room() == 100
    sender.on_sent(70)
    assert sender.room() == 30
    sender.on_sent(130)  # one record may be larger than the credit
    assert sender.room() == 0
    assert sender.on_ack(70, 130)
    assert sender.room() == 40


@pytest.mark.parametrize("position", [0, 20, 50, 131])
def test_an_ack_that_is_old_or_beyond_what_was_written_moves_nothing(position: int) -> None:
    sender = Sender(100, acked=50, sent=90)
    assert not sender.on_ack(position, 130)
    assert (sender.acked, sender.sent) == (50, 90)


def test_an_ack_beyond_what_was_sent_came_from_the_file() -> None:
    sender = Sender(100, acked=50, sent=90)
    assert sender.on_ack(120, 130)
    assert (sender.acked, sender.sent) == (120, 120)


def test_rewinding_goes_to_where_the_listener_is_in_either_direction() -> None:
    sender = Sender(100, acked=50, sent=90)
    sender.rewind(20)
    assert (sender.acked, sender.sent, sender.room()) == (20, 20, 100)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["send", "drop", "again", "ack", "rewind"]), max_size=60), st.integers(1, 12))
def test_whatever_is_lost_or_comes_twice_the_listener_has_a_prefix(steps: list[str], credit: int) -> None:
    """A sender with 40 bytes, a listener, and between them a line that loses and repeats."""
    written, heard = list(range(40)), []
    sender, line = Sender(credit), list[tuple[int, int]]()
    for step in steps:
        if step in ("send", "drop") and sender.room() and sender.sent < len(written):
            batch = (sender.sent, min(len(written), sender.sent + min(3, sender.room())))
            sender.on_sent(batch[1])
            line += [batch] if step == "send" else []
        elif step == "again" and line:
            line.append(line[0])
        elif step == "rewind":
            sender.rewind(len(heard))
        elif step == "ack":
            while line:
                start, end = line.pop(0)
                if judge(len(heard), start, end) == window.CONTINUES:
                    heard += written[start:end]
            sender.on_ack(len(heard), len(written))
        assert heard == written[: len(heard)]
        assert sender.acked <= len(heard)
        assert sender.sent - sender.acked <= credit
