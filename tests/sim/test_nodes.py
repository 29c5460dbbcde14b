"""Many nodes, one disk: whatever happens in these worlds, what was promised is kept; and what would break it is found.

``DREAMLAKE_SIM_NODES_SEEDS=1000 pytest tests/sim/test_nodes.py`` looks further; ``DREAMLAKE_SIM_SEED=123 pytest
tests/sim/test_nodes.py -k one_seed`` looks at one world again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from dreamlake_agent.core import journals
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.memory import Memory
from dreamlake_agent.core.session import Client
from dreamlake_agent.store import owner, takeover
from dreamlake_agent.store.owner import Owner
from tests.sim import nodes
from tests.sim.nodes import NodesWorld, run
from tests.sim.profiles import UNSYNCED
from tests.sim.test_planted import Plant, find

SEEDS = int(os.environ.get("DREAMLAKE_SIM_NODES_SEEDS", "42"))
CHUNK = 7  # seeds a test: xdist spreads the tests
SCENES = 20

# Every seed that ever failed, with what it found (see tests/sim/test_world.py).
KEPT_SEEDS = {
    1: "what a client that closed its journal from afar had captured stayed",
    12: "without locks, the journal of a client that was still in close() was dropped",
    10: "a client whose new segment was not seen yet, and whose old one was gone, was taken for one that had closed",
    15: "a call after close() was taken for covered, because the journal of a paused client was dropped",
    44: "a close that failed on a node that was cut off ended the agent",
    100: "without locks, an agent's own journal kept its directory open for ever",
    242: "a reader that did not see the checkpoint found rows in the logs, and again in the journals",
    143: "with neither locks nor pids to be seen, clients that lived were taken for dead",
}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept_on_every_node(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        run(seed)


@pytest.mark.parametrize("seed", [seed for seed in KEPT_SEEDS if seed >= SEEDS])
def test_a_seed_that_ever_failed_does_not_fail_again(seed: int) -> None:
    run(seed)


@pytest.mark.skipif("DREAMLAKE_SIM_SEED" not in os.environ, reason="DREAMLAKE_SIM_SEED names the one to look at")
def test_one_seed() -> None:
    world = NodesWorld(int(os.environ["DREAMLAKE_SIM_SEED"]))
    try:
        world.run()
    finally:
        print("\n".join(world.events))


def test_the_same_seed_is_the_same_world_in_every_process() -> None:
    def trace(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", "from tests.sim import nodes; print(nodes.run(1).trace, nodes.run(2).trace)"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert trace("1") == trace("2")


# Planted bugs: each must be found (see tests/sim/test_planted.py).


def lock_alone_trusted(patch: pytest.MonkeyPatch) -> None:
    """Whose lock is free is gone, on whatever node."""
    patch.setattr(owner, "is_free", lambda record, who, verdict, *, is_locked: is_locked is not False)


def epochs_not_ended(patch: pytest.MonkeyPatch) -> None:
    """Who takes over leaves the folders of those before it standing."""
    for place in (owner, takeover):
        patch.setattr(place, "fence", lambda owner: None)


def logs_not_copied(patch: pytest.MonkeyPatch) -> None:
    """Who takes over goes on in the files that the one before it has open."""
    patch.setattr(takeover, "renew", lambda *_args, **_named: None)


def nothing_proved(patch: pytest.MonkeyPatch) -> None:
    """A log that was opened by its name is written, whoever's it is by then."""
    patch.setattr(Owner, "prove", lambda self: None)


def foreign_journals_dropped(patch: pytest.MonkeyPatch) -> None:
    """The lock of a journal of another node is free: its writer is gone."""

    def judges(memory: Memory, client: Any, journal: Any) -> None:
        client.lives = client.locked = journal.locked

    patch.setattr(journals, "judge_from_afar", judges)


def zeros_given_up(patch: pytest.MonkeyPatch) -> None:
    """Where bytes of another node's journal were not there yet, nobody looks again."""
    given_up = set[bytes]()
    exhausted, drained = journals.exhausted, Client.drained.fget
    assert drained is not None

    def gives_up(memory: Memory, session: Any, event: Any) -> Any:
        client = session.client(event.client)
        if client.foreign and client.applied < client.seen_end:
            given_up.add(event.client)
        yield from exhausted(memory, session, event)

    patch.setitem(Agent._SESSION_EVENTS, _event("Exhausted"), gives_up)
    patch.setattr(Client, "drained", property(lambda self: self.id in given_up or drained(self)))


def _event(name: str) -> type:
    from dreamlake_agent.core import events

    return getattr(events, name)  # type: ignore[no-any-return]


def renamed_past_the_desk(patch: pytest.MonkeyPatch) -> None:
    """What an owner puts in its place is made beside it, not in its epoch's folder."""
    patch.setattr(Owner, "path", lambda self, name: f".dreamlake/incoming/{name.replace('/', '__')[-200:]}")


# Where each is looked for.
PLANTED: list[tuple[Plant, tuple[str, ...]]] = [
    (lock_alone_trusted, ("paused", "many nodes")),
    (epochs_not_ended, ("paused", "taken over by hand")),
    (logs_not_copied, ("paused", "taken over by hand")),
    (nothing_proved, ("paused", "taken over by hand")),
    (foreign_journals_dropped, ("paused", "many nodes", "cut off")),
    (zeros_given_up, ("many nodes", "cut off")),
    (renamed_past_the_desk, ("paused", "taken over by hand")),
]


# Where looking begins: what few worlds find, one of these finds today.
BEGIN_AT = {logs_not_copied: 120, zeros_given_up: 114, nothing_proved: 95, renamed_past_the_desk: 46}


@pytest.mark.parametrize(("plant", "where"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_found(plant: Plant, where: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    find(plant, where, monkeypatch, nodes, BEGIN_AT.get(plant, 0))


def test_power_loss_takes_nothing_that_was_durable_on_any_node() -> None:
    for seed in range(SCENES):
        run(seed, UNSYNCED)
