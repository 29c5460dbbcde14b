"""Clients that flood, fall silent or talk nonsense, and the others who share an agent with them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from dreamlake import Session, config
from dreamlake.wire import codec, messages, ops
from dreamlake.world.endpoints import find_agent
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent
from tests import reading
from tests.conftest import Cli

pytestmark = pytest.mark.home("shared")

HEAR_SECONDS = 5


class Stranger:
    """A socket on the agent's endpoint that says whatever it likes."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        endpoint = find_agent()
        assert endpoint is not None
        self.id = os.urandom(16)
        self.socket = context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.connect(endpoint)

    def say(self, *message: Any, body: bytes | None = None) -> None:
        self.socket.send_multipart(messages.encode(message, body))

    def hello(self, folder: Path | str, **changes: Any) -> None:
        found = os.stat(folder)
        who = {"path": os.path.abspath(folder), "dev": found.st_dev, "ino": found.st_ino, "by": {}}
        self.say(messages.HELLO, self.id, {**who, **changes})

    def hears(self) -> messages.Message:
        assert self.socket.poll(HEAR_SECONDS * 1000), "the agent says nothing"
        return messages.decode(self.socket.recv_multipart())[0]

    def hears_nothing_more(self) -> None:
        while self.socket.poll(0):
            self.socket.recv_multipart()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


@pytest.fixture
def session(home: Path, root: Path) -> Iterator[Session]:
    """The neighbour: an honest session, of which nothing may be lost."""
    opened = Session("run", "project", local_path=str(root)).open()
    yield opened
    opened.close()


@pytest.fixture
def stranger(session: Session, context: zmq.Context[Any]) -> Stranger:
    return Stranger(context)


@pytest.mark.parametrize("inside", [[], [".dreamlake"], ["logs", "tracks"]], ids=["empty", "half", "old"])
def test_a_hello_makes_no_session_out_of_a_folder(inside: list[str], stranger: Stranger, tmp_path: Path) -> None:
    """Or whoever can send a message could have the agent write wherever the user may."""
    place = tmp_path / "mine"
    for name in ["", *inside]:
        (place / name).mkdir()
    (place / "thesis.tex").write_text("precious")
    before = reading.snapshot(place)
    stranger.hello(place)
    kind, _client, endpoint, reason = stranger.hears()
    assert (kind, endpoint) == (messages.ELSEWHERE, None)
    assert "no session directory" in reason
    assert reading.snapshot(place) == before


@pytest.mark.parametrize("false", [{"dev": 1}, {"ino": 1}, {"ino": 2**64 - 1}, {"dev": -(2**63)}, {"path": "."}])
def test_a_hello_with_a_false_identity_is_sent_away(false: dict[str, Any], stranger: Stranger, folder: Path) -> None:
    stranger.hello(folder, **false)
    if false == {"path": "."}:  # the directory is open already, and these are its numbers
        assert stranger.hears()[:2] == (messages.ELSEWHERE, stranger.id)
    else:
        kind, _client, endpoint, _reason = stranger.hears()
        assert (kind, endpoint) == (messages.ELSEWHERE, None)


@pytest.mark.home("own")
def test_what_is_in_no_journal_is_not_applied(
    stranger: Stranger, session: Session, folder: Path, dreamlake: Cli
) -> None:
    """A commit that no journal can replay would take the neighbours' indexes back that their callers were told."""
    receipt = session.track("loss").append(value=0)
    before = int(receipt["index"])
    stranger.hello(folder)
    kind, _client, endpoint, reason = stranger.hears()
    assert (kind, endpoint) == (messages.ELSEWHERE, None)
    assert "no journal" in reason
    opening = codec.pack((ops.OPEN, time.time_ns(), {"name": "run", "workspace": "project"}, b"{}"))
    record, after = codec.frame(opening, codec.seed(stranger.id))
    stranger.say(messages.DATA, stranger.id, 0, codec.seed(stranger.id), after, body=record)
    assert stranger.hears() == (messages.WHO, stranger.id)
    assert int(session.track("loss").append(value=1)["index"]) == before + 1
    session.flush(durable=True)
    status = reading.strict(dreamlake("agent", "status", "--json").stdout)
    assert status["last_error"] is None
    assert status["sessions"][0]["clients"] == 1


def test_flushes_that_can_never_be_answered_do_not_pile_up() -> None:
    """Each was looked at again for each that came after it: 20,000 of them kept the agent busy for 20 s."""
    core = Agent(b"8 bytes.")
    client, key = os.urandom(16), (1, 2)
    core.handle(on.Heard(b"peer", (messages.HELLO, client, {"path": "/run", "dev": 1, "ino": 2})), 0, 0)
    core.handle(on.Opened(key, "origin", {}, {}, [on.JournalSeen(client, 0, True)], {}, []), 0, 0)
    core.handle(on.Scanned(key, [on.JournalSeen(client, 0, True)]), 0, 0)
    for number in range(config.FLUSHES_MAX + 100):
        core.handle(on.Heard(b"peer", (messages.FLUSH, client, number, 2**62, 0, 0)), 0, 0)
    waiting = [flush.number for flush in core.sessions[key].flushes]
    assert waiting == list(range(100, config.FLUSHES_MAX + 100))
