"""For a while everything happens to three nodes that write one session; nothing that had returned is lost.

DREAMLAKE_NODES_SECONDS (60 find more than 8) and DREAMLAKE_NODES_SEED ask for more, and for another order.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.live.nodes import STALE, Cluster, NewCluster, Node, finish, start, write
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(
    "DREAMLAKE_NODES_SECONDS" not in os.environ, reason="DREAMLAKE_NODES_SECONDS=60 runs it, for so long"
)

SECONDS = float(os.environ.get("DREAMLAKE_NODES_SECONDS", "8"))
SEED = int(os.environ.get("DREAMLAKE_NODES_SEED", "2"))


class Blows:
    """What befalls a node: its agent is killed, or sleeps; its network is away; what it knew of the disk is forgotten,
    or its locks."""

    def __init__(self, made: Cluster) -> None:
        self.made, self.chance = made, random.Random(SEED)
        self.sleeping: set[Node] = set()
        self.away: set[Node] = set()
        self.told: list[str] = []

    def victim(self) -> Node:
        """The owner as often as all others together."""
        if self.chance.random() < 0.5:
            for node in self.made.nodes:
                if node.name == self.made.owner():
                    return node
        return self.chance.choice(self.made.nodes)

    def strike(self) -> float:
        """One blow, or the end of one; how long that should last."""
        node = self.victim()
        agent = node.agent
        assert agent is not None
        if node in self.sleeping or node in self.away:
            self.relieve(node)
            return self.chance.uniform(0.3, 2)
        blow = self.chance.choice(("kill", "sleep", "hang", "drop", "unlock"))
        self.told.append(f"{node.name} {blow}")
        if blow == "kill":
            agent.kill()
            wait_for(lambda: agent.status() is not None)
            node.agent = node.start("agent")
        elif blow == "sleep":
            agent.kill(signal.SIGSTOP)
            self.sleeping.add(node)
        else:
            node.disk(blow)
            self.away.update([node] if blow == "hang" else [])
        return self.chance.uniform(0.3, 7) if blow in ("sleep", "hang") else self.chance.uniform(0.3, 2)

    def relieve(self, node: Node) -> None:
        self.told.append(f"{node.name} well")
        if node in self.sleeping and node.agent is not None:
            node.agent.kill(signal.SIGCONT)
        if node in self.away:
            node.disk("heal")
        self.sleeping.discard(node)
        self.away.discard(node)


@pytest.mark.timeout(SECONDS + 150)
def test_nothing_is_lost_doubled_or_moved_whatever_befalls_three_nodes(new_cluster: NewCluster) -> None:
    made = new_cluster(3, STALE, world=6, pace=0.1)
    tasks = start(made, 2)
    blows = Blows(made)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        until = time.monotonic() + blows.strike()
        wait_for(lambda at=until: time.monotonic() >= at)
    for node in made.nodes:
        blows.relieve(node)
    print(blows.told)
    write(made)
    finish(made, tasks)
