"""A run of ranks: which processes belong to it, which of them stand for another, and whom its end names."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dreamlake.wire import ops
from dreamlake.wire.state import State, fold_read
from tests.wire.test_apply import AGENT, ALICE, BOB, ORIGIN, SESSION, T, applied, opening, rows

CAROL = b"c" * 16
ASKED = {"type": "SIGTERM", "message": "the process was asked to end"}
BROKEN = {"type": "RuntimeError", "message": "connection closed by peer"}


def rank(number: int, pid: int, size: int = 2, **more: Any) -> ops.Op:
    return opening(rank=number, world_size=size, pid=pid, host="node1", **more)


def close(state: str, error: dict[str, str] | None = None) -> ops.Op:
    return (ops.CLOSE, T, state, error)


def session(*calls: tuple[bytes, ops.Op]) -> dict[str, Any]:
    """What session.json says after these, as the agent and as a reader of the history has it."""
    state, read = State(ORIGIN), State(ORIGIN)
    for client, op in calls:
        out = applied(state, client, op)
        assert out.refused == {}
        for row in rows(out).get(SESSION, []):
            assert fold_read(read, SESSION, row)
    assert state.session is not None
    assert read.session == state.session
    return state.session


def summary(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["state"], found.get("killed_ranks"), found.get("error")


BOTH = [(ALICE, rank(0, 1)), (BOB, rank(1, 2))]
BOB_DIES = (AGENT, (ops.KILLED, T, BOB))


def test_a_rank_whose_death_is_seen_after_it_is_there_again_counts_by_how_it_ends() -> None:
    ends = [(CAROL, close("finished")), (ALICE, close("finished"))]
    for place in range(3):  # before, between and after the others' ends
        late = [*ends[:place], BOB_DIES, *ends[place:]]
        assert summary(session(*BOTH, (CAROL, rank(1, 3)), *late)) == ("finished", None, None)


@pytest.mark.parametrize(
    "other",
    [
        rank(0, 3),  # another rank's process
        rank(1, 2),  # the same process has the session open twice
        rank(1, 3, forked=True),
        rank(1, 3, parent=2),  # a loader's worker, which opened it later than its training
    ],
)
def test_a_rank_that_died_is_not_mended_by_a_process_that_does_not_stand_for_it(other: ops.Op) -> None:
    ends = [BOB_DIES, (CAROL, close("finished")), (ALICE, close("finished"))]
    assert summary(session(*BOTH, (CAROL, other), *ends)) == ("killed", [1], None)


def test_a_failure_is_not_mended_by_a_second_process_that_was_there_all_along() -> None:
    calls = [*BOTH, (CAROL, rank(1, 3)), (BOB, close("failed", BROKEN)), (CAROL, close("finished"))]
    assert summary(session(*calls, (ALICE, close("finished")))) == ("failed", None, {**BROKEN, "rank": 1})


@pytest.mark.parametrize(
    ("parent", "state"),
    [(2, "finished"), (1, "killed"), (7, "killed"), (None, "killed")],
    ids=["its rank's process", "another rank's", "nobody's", "no parent"],
)
def test_what_a_rank_has_started_is_no_rank(parent: int | None, state: str) -> None:
    """Forked or not: its silent end is no death of a rank."""
    calls = [*BOTH, (CAROL, rank(1, 3, **({} if parent is None else {"parent": parent})))]
    calls += [(AGENT, (ops.KILLED, T, CAROL)), (BOB, close("finished")), (ALICE, close("finished"))]
    assert session(*calls)["state"] == state


def test_of_a_single_process_the_same_is_true() -> None:
    calls = [(ALICE, opening(pid=1, host="node1")), (BOB, opening(pid=2, host="node1", parent=1))]
    assert session(*calls, BOB_DIES, (ALICE, close("finished")))["state"] == "finished"
    on_another_host = (BOB, opening(pid=2, host="node2", parent=1))
    assert session(calls[0], on_another_host, BOB_DIES, (ALICE, close("finished")))["state"] == "killed"


def test_ranks_that_come_one_after_the_other_are_one_run() -> None:
    """A launcher's tasks may start seconds apart, and one that failed at once is not forgotten."""
    for late in (ALICE, BOB):
        first, second = BOTH if late == BOB else reversed(BOTH)
        calls = [first, (first[0], close("failed", BROKEN)), second, (late, close("finished"))]
        assert session(*calls)["state"] == "failed"


@pytest.mark.parametrize("again", [rank(0, 3), rank(1, 3, size=4), opening(pid=3)], ids=["rank", "size", "alone"])
def test_the_same_rank_again_or_another_training_begins_another_run(again: ops.Op) -> None:
    calls = [BOTH[0], (ALICE, close("failed", BROKEN)), (CAROL, again), (CAROL, close("finished"))]
    assert summary(session(*calls)) == ("finished", None, None)


def test_the_rank_that_vanished_is_named_and_not_those_which_were_asked_to_end_over_it() -> None:
    asked = [(ALICE, close("killed", ASKED)), BOB_DIES]
    for ends in itertools.permutations(asked):
        assert summary(session(*BOTH, *ends)) == ("killed", [1], None)


def test_all_that_were_asked_to_end_are_named_when_nobody_vanished() -> None:
    calls = [(ALICE, close("killed", ASKED)), (BOB, close("killed", ASKED))]
    assert summary(session(*BOTH, *calls)) == ("killed", [0, 1], {**ASKED, "rank": 0})


def test_who_failed_is_named_and_not_those_which_were_asked_to_end_over_it() -> None:
    calls = [(ALICE, close("killed", ASKED)), (BOB, close("failed", BROKEN))]
    assert summary(session(*BOTH, *calls)) == ("failed", None, {**BROKEN, "rank": 1})
    calls = [(ALICE, close("failed", BROKEN)), BOB_DIES]
    assert summary(session(*BOTH, *calls)) == ("failed", [1], {**BROKEN, "rank": 0})
