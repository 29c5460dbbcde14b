"""The switchboard: a line is there for whoever talks on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from dreamlake import config
from dreamlake.conversation import Conversation
from dreamlake.journal import Journal
from dreamlake.link import Switchboard
from dreamlake.reader.segments import JOURNALS
from dreamlake.world.disk import REAL_DISK

CLIENT = b"a" * 16


@pytest.fixture
def conversation(tmp_path: Path) -> Iterator[Conversation]:
    (tmp_path / JOURNALS).mkdir(parents=True)
    at = REAL_DISK.root(str(tmp_path))
    journal = Journal(REAL_DISK, at, CLIENT, 1, {})
    yield Conversation(journal, {"path": str(tmp_path), "dev": 1, "ino": 1})
    journal.close()
    REAL_DISK.close(at)


def test_a_line_on_which_nobody_talks_any_more_is_closed_and_made_again(conversation: Conversation) -> None:
    lines: list[mock.Mock] = []

    def connect(_endpoint: str) -> mock.Mock:
        lines.append(mock.Mock())
        lines[-1].receive.return_value = None
        return lines[-1]

    board = Switchboard(connect, lambda: "ipc://agent", lambda: "", lambda gone: None)
    board.conversations[CLIENT] = conversation
    board.turn(0.0)
    del board.conversations[CLIENT]
    conversation.leave()
    conversation.detach()
    board.turn(1.0)
    board.turn(1.0 + config.SILENCE_SECONDS / 2)
    assert not lines[0].close.called  # the goodbye is still on its way
    board.turn(1.0 + config.SILENCE_SECONDS)
    assert lines[0].close.called
    board.conversations[CLIENT] = conversation
    board.turn(10.0)
    assert len(lines) == 2
    assert not lines[1].close.called
