"""A session whose agent is on another node, used from this one, with and without an agent here.

The other node is a pretend one (:mod:`tests.live.nodes`); what this one sees of the disk is what is there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dreamlake import Session
from dreamlake.errors import AgentUnavailable, NotSynced
from dreamlake.wire import ops
from tests import reading, scripts
from tests.conftest import Cli
from tests.live.nodes import Cluster, Node, Task, cluster
from tests.live.volume import CannotMount
from tests.waiting import wait_for

GONE_SECONDS = 4.0


@pytest.fixture
def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """One other node, whose agent has the session because a rank there writes it."""
    monkeypatch.setenv("DREAMLAKE_GONE", str(GONE_SECONDS))
    try:
        with cluster(world=1, gone_seconds=GONE_SECONDS) as made:
            node = made.node(plain=True)
            node.ready()
            node.start_agent()
            yield made
    except CannotMount as reason:
        pytest.skip(f"no pretend node: {reason}")


@pytest.fixture
def scribe(made: Cluster) -> Task:
    scribe = made.nodes[0].scribe(0)
    wait_for(lambda: made.owner() == made.nodes[0].name)
    return scribe


@pytest.fixture
def node(made: Cluster, scribe: Task) -> Node:
    return made.nodes[0]


@pytest.fixture(params=["no agent", "an agent"])
def agent_here(request: pytest.FixtureRequest, home: Path, dreamlake: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this node has of agents."""
    if request.param == "no agent":
        monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    else:
        started = dreamlake("agent", "start")
        assert started.returncode == 0, started


def session(made: Cluster, **more: object) -> Session:
    return Session("run", "project", local_path=made.backing, **more)  # type: ignore[arg-type]


def values(made: Cluster, track: str = "here") -> list[int]:
    return [row["data"]["value"] for row in reading.lines(made.session / "tracks" / track / "data.jsonl")]


@pytest.mark.usefixtures("agent_here")
def test_everything_works_as_on_the_agents_own_node(
    made: Cluster, node: Node, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with session(made) as here:
        for value in range(20):
            receipt = here.track("here").append(value=value)
            page = here.track("here").read()
            assert [each["data"]["value"] for each in page["data"]] == list(range(value + 1))
        with pytest.raises(AgentUnavailable, match=f"on {node.name},"):
            receipt["index"]
        here.flush()
        assert values(made) == list(range(20))
        assert here.id == (made.session / ".dreamlake/origin").read_text().strip()
        here.track("here").append(value=20)
        here.flush(durable=True)
        here.parameters().set(lr=0.5)
        assert here.parameters().get()["lr"] == 0.5
        mine = [each for each in made.journals() if not each.endswith(".sync")]
        assert len(mine) >= 2
    assert values(made) == list(range(21))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    made.enough.touch()
    wait_for(lambda: not made.journals())
    assert values(made) == list(range(21))


TRAINS = """
import os, sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    print("open", flush=True)
    for value in range(1000):
        session.track("here").append(value=value)
    session.files().upload(sys.argv[2], path="/models")
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), 9)
print("closed", flush=True)
"""


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_script_of_this_node_loses_nothing_and_says_nothing(
    end: str, made: Cluster, node: Node, home: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.pth"
    model.write_bytes(os.urandom(1 << 20))
    status = 0 if end == "closed" else -signal.SIGKILL
    done = scripts.run(TRAINS, made.backing, model, end, env={"DREAMLAKE_AGENT": "never"}, expect=status)
    assert done.stdout == ("open\nclosed\n" if end == "closed" else "open\n")
    assert done.stderr == ""
    wait_for(lambda: values(made) == list(range(1000)))
    wait_for(lambda: (made.session / "files/models/model.pth").read_bytes() == model.read_bytes())
    history = made.session / ".dreamlake/session.jsonl"
    ended = [ops.FINISHED if end == "closed" else ops.KILLED_STATE]
    wait_for(lambda: [row["state"] for row in reading.lines(history) if row["op"] == "end"] == ended)
    assert values(made) == list(range(1000))


def test_a_flush_that_waits_in_vain_says_for_whom_and_what_can_be_done(
    made: Cluster, node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    here = session(made).open()
    here.track("here").append(value=0)
    here.flush()
    assert node.agent is not None
    node.agent.kill(signal.SIGSTOP)
    here.track("here").append(value=1)
    with pytest.raises(AgentUnavailable, match=rf"on {node.name},.*agent takeover {here.path}"):
        here.flush(timeout=GONE_SECONDS)
    assert [each["data"]["value"] for each in here.track("here").read()["data"]] == [0, 1]
    here.close()
    assert f"the agent on {node.name}" in capfd.readouterr().err
    node.agent.kill(signal.SIGCONT)
    wait_for(lambda: values(made) == [0, 1])


def test_what_is_on_a_server_is_the_other_nodes_to_know(
    made: Cluster, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMLAKE_AGENT", "never")
    with session(made, remote="http://127.0.0.1:9") as here:
        here.track("here").append(value=0)
        with pytest.raises(NotSynced, match=f"on {node.name},"):
            here.sync(timeout=60)
