"""Ranks on several nodes write one session: nothing is lost, doubled or moved, whoever owns it, dies, sleeps or is cut
off.

The disk is one folder of this machine, or what a bad network file system makes of it (:mod:`tests.services.stale`);
locks reach one node, all, or do not exist.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.live.nodes import GONE_SECONDS, PLAIN, STALE, NewCluster, ends, finish, start, write
from tests.waiting import wait_for

PAUSE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("nodes", "each", "disk"),
    [(4, 4, PLAIN), (4, 4, STALE), (2, 2, (*STALE, "--locks", "none")), (2, 2, (*STALE, "--locks", "cluster"))],
    ids=["plain", "stale", "stale, no locks", "stale, locks for all"],
)
def test_four_nodes_with_four_ranks_each_are_one_session(
    new_cluster: NewCluster, nodes: int, each: int, disk: tuple[object, ...]
) -> None:
    made = new_cluster(nodes, disk, world=nodes * each)
    tasks = [node.scribe(at * each + rank) for at, node in enumerate(made.nodes) for rank in range(each)]
    write(made, 100)
    finish(made, tasks)
    assert ends(made) == {str(rank): "finished" for rank in range(made.world)}
    wait_for(lambda: not made.journals())


@pytest.mark.parametrize("disk", [PLAIN, STALE], ids=["plain", "stale"])
def test_the_owners_node_dies_and_another_takes_over(new_cluster: NewCluster, disk: tuple[object, ...]) -> None:
    made = new_cluster(3, disk, world=3)
    tasks = start(made, 1)
    made.nodes[0].die()
    wait_for(lambda: made.owner() in ("n1", "n2"), 40)
    # What the dead node had not written to the server is gone with it; on a disk of one kernel nothing is.
    finish(made, tasks[1:], but=() if disk is PLAIN else ("w0",))
    wait_for(lambda: ends(made) == {"0": "killed", "1": "finished", "2": "finished"}, 30)


def test_a_sleeping_owner_is_taken_over_and_wakes_to_find_it_is_none(new_cluster: NewCluster) -> None:
    made = new_cluster(2, STALE, world=4)
    tasks = start(made, 2)
    agent = made.nodes[0].agent
    assert agent is not None
    agent.kill(signal.SIGSTOP)
    wait_for(lambda: made.owner() == "n1", 40)
    agent.kill(signal.SIGCONT)
    write(made)
    finish(made, tasks)
    assert made.owner() in ("n1", None)


def test_an_owner_that_sleeps_for_half_a_minute_with_its_lock_is_taken_over_by_hand(new_cluster: NewCluster) -> None:
    made = new_cluster(2, PLAIN, world=4, pace=0.3)
    tasks = start(made, 2)
    agent = made.nodes[0].agent
    assert agent is not None
    agent.kill(signal.SIGSTOP)
    wakes = time.monotonic() + PAUSE_SECONDS
    before = len(made.ledger().calls["w3"])
    wait_for(lambda: len(made.ledger().calls["w3"]) > before + 50)  # they go on through their journals
    assert made.owner() == "n0"  # whoever holds the lock may wake
    taken = made.nodes[1].dreamlake("agent", "takeover", str(made.shared / "project" / "run"), "--yes")
    assert taken.returncode == 0, taken
    wait_for(lambda: made.owner() == "n1", 40)
    wait_for(lambda: time.monotonic() >= wakes, PAUSE_SECONDS + 1)
    assert made.owner() == "n1"
    agent.kill(signal.SIGCONT)
    write(made)
    finish(made, tasks)


def test_ranks_of_a_node_without_an_agent_flush_and_close(new_cluster: NewCluster) -> None:
    made = new_cluster(2, STALE, world=3, agents=1)
    tasks = [made.nodes[0].scribe(0)]
    wait_for(lambda: made.owner() == "n0")
    tasks += [made.nodes[1].scribe(rank, DREAMLAKE_AGENT="never") for rank in (1, 2)]
    write(made)
    finish(made, tasks)
    assert ends(made) == {"0": "finished", "1": "finished", "2": "finished"}


def test_every_node_reads_what_all_have_committed_and_its_own(new_cluster: NewCluster) -> None:
    made = new_cluster(3, STALE, world=1)
    tasks = [made.nodes[0].scribe(0)]
    wait_for(lambda: made.owner() == "n0")
    counted = list(range(6))
    for at, node in enumerate(made.nodes):
        found = node.told("own", f"of{at}", len(counted))
        assert found["read"] == [counted[: number + 1] for number in counted], node.name
        assert found["flushed"] == counted
        for other in made.nodes:
            points = other.told("look")["points"]
            assert [points.get(f"of{each}") for each in range(at + 1)] == [counted] * (at + 1), (other.name, at)
    finish(made, tasks)


def test_a_rank_that_is_killed_on_another_node_is_named(new_cluster: NewCluster) -> None:
    """Whether that node has an agent or not."""
    made = new_cluster(3, STALE, world=4, agents=2)
    tasks = [made.nodes[0].scribe(0)]
    wait_for(lambda: made.owner() == "n0")
    tasks += [made.nodes[1].scribe(1), made.nodes[1].scribe(2), made.nodes[2].scribe(3, DREAMLAKE_AGENT="never")]
    write(made)
    tasks[1].kill()
    tasks[3].kill()
    wait_for(lambda: ends(made) == {"1": "killed", "3": "killed"}, 40)
    finish(made, [tasks[0], tasks[2]])
    assert ends(made) == {"0": "finished", "1": "killed", "2": "finished", "3": "killed"}


def test_the_owners_node_is_cut_off_taken_over_and_comes_back(new_cluster: NewCluster) -> None:
    made = new_cluster(2, STALE, world=4)
    tasks = start(made, 2)
    made.nodes[0].disk("hang")
    wait_for(lambda: made.owner() == "n1", 40)
    made.nodes[0].disk("heal")
    write(made)
    finish(made, tasks)
    assert made.owner() in ("n1", None)


def test_a_node_that_was_cut_off_finds_its_journals_where_they_were(new_cluster: NewCluster) -> None:
    """Two owned the directory meanwhile, one after the other, and both had seen for long enough that its ranks were
    gone. They come back, with calls of which nobody knew."""
    made = new_cluster(3, STALE[:-1], world=6)  # what is late has no size either: the journals seem to be at their ends
    tasks = start(made, 2)
    made.nodes[0].disk("hang")
    others = {"n1": made.nodes[1], "n2": made.nodes[2]}
    wait_for(lambda: made.owner() in others, 40)
    wait_for(lambda: ends(made) == {"0": "killed", "1": "killed"}, 40)
    first = made.owner()
    assert first is not None
    agent = others.pop(first).agent
    assert agent is not None
    agent.kill(signal.SIGSTOP)
    wait_for(lambda: made.owner() in others, 40)
    agent.kill(signal.SIGCONT)
    enough = time.monotonic() + 1.5 * GONE_SECONDS
    wait_for(lambda: time.monotonic() >= enough)
    assert sum(name.endswith(".0") for name in made.journals()) >= made.world
    made.nodes[0].disk("heal")
    write(made)
    finish(made, tasks)
    assert ends(made) == {str(rank): "finished" for rank in range(made.world)}
