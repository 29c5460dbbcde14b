"""One conversation on the pretend disk: what a client makes of what it is told."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from dreamlake import journal as journal_module
from dreamlake.conversation import Conversation
from dreamlake.journal import Journal
from dreamlake.reader.segments import JOURNALS
from dreamlake.wire import codec, messages
from dreamlake.world.disk import REAL_DISK

ALICE = b"a" * 16


@pytest.mark.parametrize("applied", [0, 1 << 40])
def test_a_segment_that_was_not_applied_is_kept_whatever_is_said_to_be_covered(applied: int, tmp_path: Path) -> None:
    (tmp_path / JOURNALS).mkdir(parents=True)
    at = REAL_DISK.root(str(tmp_path))
    with mock.patch.object(journal_module, "SEGMENT_BYTES", 100):
        journal = Journal(REAL_DISK, at, ALICE, 1, {})
        for _ in range(5):
            journal.append((3, 1, "info", "x" * 60, None, None))
    conversation = Conversation(journal, {"path": str(tmp_path)})
    segments = sorted((tmp_path / JOURNALS).iterdir())
    assert len(segments) == 5
    conversation.hear((messages.ACK, ALICE, applied, 1 << 40, 1000, {}, []), 1.0)
    assert sorted((tmp_path / JOURNALS).iterdir()) == segments
    assert journal.read(0, journal.end)
    journal.close()
    REAL_DISK.close(at)


def test_a_lost_batch_is_sent_again_while_somebody_waits_for_the_servers(tmp_path: Path) -> None:
    """The agent answers each question about the servers, so it is never silent; its answers say what it lacks."""
    (tmp_path / JOURNALS).mkdir(parents=True)
    at = REAL_DISK.root(str(tmp_path))
    journal = Journal(REAL_DISK, at, ALICE, 1, {})
    journal.append((3, 1, "info", "x", None, None))
    conversation, line = Conversation(journal, {"path": str(tmp_path), "dev": 1, "ino": 1}), mock.Mock()
    conversation.attach(line, "ipc://agent", 0.0)
    conversation.hear((messages.WELCOME, ALICE, 0, codec.seed(ALICE), 0, 1000, "0" * 32, b"1" * 8), 0.0)
    conversation.turn(0.1)  # and what it sends is lost
    conversation.request_flush(remote=True)
    said: list[str] = []
    line.send = lambda frames: said.append(messages.decode_from_client(frames)[0][0]) or True
    for quarter in range(3, 40):
        if messages.SYNC in said:
            conversation.hear((messages.ACK, ALICE, 0, 0, 1000, {}, []), quarter / 4)
        if messages.HELLO in said:
            break
        said.clear()
        conversation.turn(quarter / 4)
    assert messages.HELLO in said
    journal.close()
    REAL_DISK.close(at)
