"""One conversation on the pretend disk: what a client makes of what it is told."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from dreamlake import journal as journal_module
from dreamlake.conversation import Conversation
from dreamlake.journal import Journal
from dreamlake.reader.segments import JOURNALS
from dreamlake.wire import messages
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
