"""What each side says that it can, told by hand: no version is compared, and who says nothing is from before."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from dreamlake.conversation import Conversation
from dreamlake.journal import Journal
from dreamlake.link import Switchboard
from dreamlake.reader.segments import JOURNALS
from dreamlake.wire import capabilities, codec, messages
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent import takeover
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent

ALICE = b"a" * 16
WHO = {"path": "/run", "dev": 1, "ino": 2}


def said_to(core: Agent, who: dict[str, Any]) -> list[str]:
    """What an agent says to a client that says this hello, in a directory that is open."""
    said = core.handle(on.Heard(b"peer", (messages.HELLO, ALICE, who)), 10, 0)
    said += core.handle(on.Opened((1, 2), "origin", {}, {}, [], {}, []), 10, 0)
    said += core.handle(on.Scanned((1, 2), [on.JournalSeen(ALICE, 0, True)]), 10, 0)
    return [effect.message[0] for effect in said if isinstance(effect, do.Send)]


def test_a_client_hears_what_the_agent_can_before_anything_else() -> None:
    core = Agent(b"8 bytes.", version="0.4.0")
    assert said_to(core, {**WHO, "can": ("ranks",), "version": "0.4.0"}) == [messages.CAN, messages.WELCOME]
    (session,) = core.sessions.values()
    assert session.versions() == [{"version": "0.4.0", "can": ["ranks"], "clients": 1}]
    core.stop(11, 0)
    last = core.handle(on.Heard(b"peer", (messages.HELLO, ALICE, {**WHO, "can": ()})), 12, 0)
    assert [effect.message[0] for effect in last if isinstance(effect, do.Send)] == [messages.CAN, messages.STOPPING]


@pytest.mark.parametrize("odd", [{}, {"can": None}, {"can": "ranks"}, {"can": (1, 2)}, {"can": {"ranks": 1}}])
def test_a_client_from_before_capabilities_is_told_of_none(odd: dict[str, Any]) -> None:
    core = Agent(b"8 bytes.")
    assert said_to(core, {**WHO, **odd}) == [messages.WELCOME]
    (session,) = core.sessions.values()
    assert session.versions() == [{"version": None, "can": None, "clients": 1}]


def test_what_a_client_says_of_itself_is_cut() -> None:
    said = capabilities.said_by({"can": [*map(str, range(1000)), "x" * 9999], "version": "9" * 9999})
    assert said.can is not None
    assert len(said.can) <= 64
    assert capabilities.said_by({"can": ["x" * 9999]}).can == ("x" * 64,)
    assert len(said.version or "") <= 64
    assert capabilities.said_by({"can": (), "version": "\x1b[2J"}) == ((), None)  # no terminal is told anything


class Party:
    """A process with two sessions, and an agent that says what it is told to say."""

    def __init__(self, tmp_path: Path) -> None:
        (tmp_path / JOURNALS).mkdir(parents=True)
        self.at = REAL_DISK.root(str(tmp_path))
        self.line = mock.Mock()
        self.heard: list[list[bytes]] = []
        self.line.receive = lambda: self.heard.pop(0) if self.heard else None
        self.board = Switchboard(lambda endpoint: self.line, lambda: "ipc://agent", lambda: "", lambda gone: None)
        self.clients = [ALICE, b"b" * 16]
        for client in self.clients:
            journal = Journal(REAL_DISK, self.at, client, 1, {})
            self.board.conversations[client] = Conversation(journal, {"path": str(tmp_path), "dev": 1, "ino": 1})
        self.board.turn(0.0)

    def hears(self, kind: str, *values: Any) -> None:
        for client in self.clients:
            self.heard.append(messages.encode((kind, client, *values)))
        self.board.turn(0.1)

    def hears_welcome(self) -> None:
        for client in self.clients:
            welcome = (messages.WELCOME, client, 0, codec.seed(client), 0, 1000, "0" * 32, b"1" * 8)
            self.heard.append(messages.encode(welcome))
        self.board.turn(0.1)

    def need(self, *names: str) -> None:
        for conversation in self.board.conversations.values():
            conversation.needs.update(names)

    def close(self) -> None:
        for conversation in self.board.conversations.values():
            conversation.journal.close()
        REAL_DISK.close(self.at)


@pytest.fixture
def party(tmp_path: Path) -> Any:
    found = Party(tmp_path)
    yield found
    found.close()


def test_an_agent_that_says_nothing_lacks_whatever_is_needed_and_that_is_said_once(
    party: Party, caplog: pytest.LogCaptureFixture
) -> None:
    party.need("ranks")
    party.hears_welcome()
    party.hears_welcome()
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "of an earlier version" in record.getMessage()
    assert "records do not say which rank they are of" in record.getMessage()
    assert "agent restart" in record.getMessage()


def test_an_agent_that_can_is_not_complained_of_and_one_that_can_something_else_is(
    party: Party, caplog: pytest.LogCaptureFixture
) -> None:
    party.need("ranks")
    party.hears(messages.CAN, ["ranks", "what nobody knows yet"], "9.0")
    party.hears_welcome()
    assert caplog.messages == []
    party.hears(messages.WHO)  # another agent is there now
    party.hears(messages.CAN, ["what nobody knows yet"], "10.0")
    party.hears_welcome()
    (said,) = caplog.messages
    assert "of dreamlake 10.0" in said


def test_an_agent_that_has_not_answered_yet_is_not_judged(party: Party, caplog: pytest.LogCaptureFixture) -> None:
    party.need("ranks", "spool")
    party.hears(messages.STOPPING)
    assert caplog.messages == []


def test_status_says_how_the_agent_differs_from_the_command() -> None:
    mine = {"version": takeover.dreamlake.__version__, "can": capabilities.mine()}
    assert takeover.difference(mine) is None
    older = takeover.difference({"version": "0.3.0"})
    assert older is not None
    assert "records do not say which rank" in older
    assert "agent restart" in older
    newer = takeover.difference({**mine, "version": "9.0", "can": [*mine["can"], "what nobody knows yet"]})
    assert newer is not None
    assert "cannot what this agent can (what nobody knows yet)" in newer
