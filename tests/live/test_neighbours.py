"""Clients that flood, fall silent or talk nonsense, and the others who share an agent with them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from dreamlake import Session, config
from dreamlake.wire import codec, messages, ops
from dreamlake.world.endpoints import find_agent
from dreamlake.world.sockets import MESSAGE_BYTES_MAX
from dreamlake_agent.core import events as on
from dreamlake_agent.core.agent import Agent
from tests import reading
from tests.conftest import Cli, StartScript, agent_pid
from tests.waiting import wait_for

pytestmark = pytest.mark.home("shared")

HEAR_SECONDS = 5

# DREAMLAKE_TEST_TORTURE=1: floods last half a minute, and the neighbours' times are asserted too.
LONG = os.environ.get("DREAMLAKE_TEST_TORTURE", "0") != "0"
FLOOD_SECONDS = 30.0 if LONG else 2.0
FLOOD_BYTES_PER_SECOND = 64 << 20 if LONG else 16 << 20
VANISHING = 300
GARBAGE = 20_000
SLOWER_AT_MOST = 2.0

# What the agent may hold beside what it is: what clients have on their way, one turn of it taken apart, and what one
# stranger who keeps to nothing may have in ZeroMQ.
AGENT_BYTES_MAX = (64 << 20) + config.CREDIT_BUDGET_BYTES + 4 * config.TURN_BYTES + 8 * MESSAGE_BYTES_MAX


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

    def say_if_it_may(self, *message: Any, body: bytes | None = None) -> None:
        with contextlib.suppress(zmq.Again):
            self.socket.send_multipart(messages.encode(message, body), zmq.NOBLOCK, copy=False)

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


class Neighbour:
    """An honest session, and how its calls go while others do what they do."""

    def __init__(self, session: Session) -> None:
        self.session, self.count, self.peak = session, 0, 0
        self.agent = psutil.Process(agent_pid())
        self.appends: list[float] = []
        self.flushes: list[float] = []

    def writes(self, rounds: int = 1) -> None:
        for _ in range(rounds):
            for _ in range(20):
                began = time.perf_counter()
                self.session.track("loss").append(value=self.count)
                self.appends.append(time.perf_counter() - began)
                self.count += 1
            began = time.perf_counter()
            self.session.flush()
            self.flushes.append(time.perf_counter() - began)
            self.peak = max(self.peak, self.agent.memory_info().rss)

    def assert_nothing_is_lost(self) -> None:
        self.session.flush()
        assert agent_pid() == self.agent.pid, "the agent did not live through it"
        print(f"the agent held {self.peak >> 20} MiB at most")
        assert self.peak < AGENT_BYTES_MAX
        folder = Path(self.session.path)
        assert reading.values(folder) == list(range(self.count))
        reading.assert_consecutive(reading.points(folder))

    def p99(self) -> tuple[float, float]:
        """Of an append, and of a flush, since the last time this was asked; in seconds."""
        appends, flushes = sorted(self.appends), sorted(self.flushes)
        self.appends, self.flushes = [], []
        return appends[len(appends) * 99 // 100], flushes[len(flushes) * 99 // 100]


@pytest.fixture
def neighbour(session: Session) -> Neighbour:
    return Neighbour(session)


FLOOD = """
import sys, time
from dreamlake import Session
root, seconds, rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
piece = "x" * (64 << 10)
with Session("flood", "project", local_path=root) as session:
    print("flooding", flush=True)
    began, sent = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        if sent <= now * rate:
            session.track("bulk").append(piece=piece)
            sent += len(piece)
        else:
            time.sleep(0.001)
    print(sent // len(piece), flush=True)
    session.flush(timeout=120)
"""


def test_a_client_that_floods_harms_nobody(neighbour: Neighbour, root: Path, start_script: StartScript) -> None:
    end = time.monotonic() + FLOOD_SECONDS / 2
    while time.monotonic() < end:
        neighbour.writes()
    undisturbed = neighbour.p99()
    flood = start_script(FLOOD, root, FLOOD_SECONDS, FLOOD_BYTES_PER_SECOND)
    assert flood.stdout
    assert flood.stdout.readline() == "flooding\n"
    end = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < end:
        neighbour.writes()
    disturbed = neighbour.p99()
    sent = int(flood.stdout.readline())
    assert flood.wait(timeout=120) == 0
    neighbour.assert_nothing_is_lost()
    bulk = root / "project" / "flood" / "tracks" / "bulk" / "data.jsonl"
    with bulk.open("rb") as lines:
        assert sum(1 for _ in lines) == sent
    bulk.unlink()
    print(f"append, flush: {undisturbed} undisturbed, {disturbed} beside {sent} pieces of 64 KiB")
    if LONG:
        assert disturbed[0] <= SLOWER_AT_MOST * undisturbed[0]
        assert disturbed[1] <= SLOWER_AT_MOST * undisturbed[1]


@pytest.mark.home("own")  # an allocator gives back late
def test_whoever_keeps_to_no_credit_takes_no_more_than_its_share(
    neighbour: Neighbour, stranger: Stranger, folder: Path
) -> None:
    """The largest messages there may be, as fast as they go, and never an answer read."""
    body = bytes(MESSAGE_BYTES_MAX - 1000)
    end = time.monotonic() + FLOOD_SECONDS
    stranger.hello(folder)
    while time.monotonic() < end:
        for _ in range(8):
            stranger.say_if_it_may(messages.DATA, stranger.id, 1 << 40, 0, 0, body=body)
            stranger.say_if_it_may(messages.STATUS, 1)
        neighbour.writes()
    neighbour.assert_nothing_is_lost()


def test_a_client_that_stops_reading_and_one_that_stops_altogether_harm_nobody(
    neighbour: Neighbour, root: Path, start_script: StartScript
) -> None:
    flood = start_script(FLOOD, root, FLOOD_SECONDS, FLOOD_BYTES_PER_SECOND)
    assert flood.stdout
    assert flood.stdout.readline() == "flooding\n"
    flood.send_signal(signal.SIGSTOP)
    end = time.monotonic() + FLOOD_SECONDS
    while time.monotonic() < end:
        neighbour.writes()
    flood.send_signal(signal.SIGCONT)
    sent = int(flood.stdout.readline())
    assert flood.wait(timeout=120) == 0
    neighbour.assert_nothing_is_lost()
    assert len(reading.points(root / "project" / "flood", "bulk")) == sent


def test_hundreds_that_say_hello_and_vanish_are_forgotten(
    neighbour: Neighbour, context: zmq.Context[Any], folder: Path, dreamlake: Cli
) -> None:
    files = neighbour.agent.num_fds()
    for number in range(VANISHING):
        passer_by = Stranger(context)
        passer_by.hello(folder, **({} if number % 3 else {"ino": number}))
        passer_by.socket.close(linger=1000)
        if number % 20 == 0:
            neighbour.writes()
    wait_for(lambda: neighbour.agent.num_fds() <= files + 5)
    neighbour.assert_nothing_is_lost()
    status = reading.strict(dreamlake("agent", "status", "--json").stdout)
    mine = [session for session in status["sessions"] if session["path"] == str(folder)]
    assert [session["clients"] for session in mine] == [1]
    assert not [session for session in status["sessions"] if not os.path.isdir(session["path"])]


class Babbler:
    """Messages out of one seed: of no shape, of a false shape, and of the right shape with any values."""

    def __init__(self, seed: int, names: list[bytes], places: list[Path]) -> None:
        self.chance, self.names, self.places = random.Random(seed), names, places

    def value(self, depth: int = 0) -> Any:
        chance = self.chance
        plain = [None, True, 0, -1, 2**31, 2**63, 2**64 - 1, -(2**63), 0.5, float("nan"), b"", "", "x" * 70_000]
        kind = chance.randrange(6 if depth < 3 else 4)
        if kind < 3:
            return chance.choice(plain)
        if kind == 3:
            return chance.choice(self.names)
        if kind == 4:
            return [self.value(depth + 1) for _ in range(chance.randrange(3))]
        keys = ["path", "dev", "ino", "by", 1, b"x", None]
        return {chance.choice(keys): self.value(depth + 1) for _ in range(chance.randrange(4))}

    def hello(self) -> tuple[Any, ...]:
        chance = self.chance
        odd = ["", ".", "..", "~", "/dev/null", "/proc/self/fd/0", "x" * 5000, "/" * 5000, "/\n", "\u202e"]
        path = str(chance.choice([*self.places, *odd]))
        path += chance.choice(["", "/", "/.", "/../" + os.path.basename(path)])
        try:
            found = os.stat(path)
            numbers = (found.st_dev, found.st_ino)
        except OSError:
            numbers = (1, 2)
        dev, ino = chance.choice([numbers, numbers, (True, False), (2**64 - 1, -(2**63))])
        return messages.HELLO, chance.choice(self.names), {"path": path, "dev": dev, "ino": ino, "by": self.value()}

    def frames(self) -> list[bytes]:
        chance = self.chance
        kind = chance.choice([*messages.CLIENT_KINDS, "ack", "welcome", "?"])
        if kind == messages.STOP:  # whoever may connect may say that
            kind = messages.HELLO
        body = chance.choice([None, b"", chance.randbytes(100)])
        shape = chance.randrange(10)
        if shape == 0:
            return [chance.randbytes(chance.randrange(300)) for _ in range(chance.randrange(1, 5))]
        if shape < 4:
            return messages.encode(self.hello())
        if shape < 7:
            numbers = [chance.choice([0, 1, 1 << 40, 2**64 - 1]) for _ in range(messages.CLIENT_KINDS.get(kind, 3) - 1)]
            return messages.encode((kind, chance.choice(self.names), *numbers), body)
        found = messages.encode((kind, *[self.value() for _ in range(chance.randrange(6))]), body)
        if shape == 9:
            head = bytearray(found[0])
            head[chance.randrange(len(head))] = chance.randrange(256)
            found[0] = bytes(head)
        return found


@pytest.mark.parametrize("seed", range(2))
def test_no_message_ends_the_agent_or_has_it_write_elsewhere(
    seed: int, neighbour: Neighbour, stranger: Stranger, folder: Path, tmp_path: Path
) -> None:
    """Also under the neighbour's own name: it then greets again."""
    decoy = tmp_path / "decoy"
    (decoy / ".dreamlake").mkdir(parents=True)
    (decoy / "thesis.tex").write_text("precious")
    (tmp_path / "link").symlink_to(decoy)
    before = reading.snapshot(decoy)
    writer = neighbour.session._writer
    assert writer is not None
    names = [stranger.id, os.urandom(16), writer.journal.client, b"short"]
    babbler = Babbler(seed, names, [decoy, decoy / ".dreamlake", tmp_path / "link", folder, folder / ".dreamlake"])
    for number in range(GARBAGE):
        stranger.socket.send_multipart(babbler.frames())
        if number % 100 == 0:
            stranger.hears_nothing_more()
        if number % 1000 == 0:
            neighbour.writes()
    neighbour.assert_nothing_is_lost()
    assert reading.snapshot(decoy) == before
