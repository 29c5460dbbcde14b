"""What several origins say of a session as a whole: as if they had one directory."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire.state import SESSION_LOG, State, fold_read
from dreamlake.wire.summary import joined, summarised

Row = dict[str, Any]
NODES = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
RANKS = 2  # a node
WORLD = RANKS * len(NODES)

FINISHED, FAILED, VANISHED, ASKED, RUNNING = "finished", "failed", "vanished", "asked to end", "running"


def at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000000Z"


def opened(second: int, rank: int | None, size: int | None = WORLD, run: int = 0) -> Row:
    ranked = {} if rank is None else {"rank": rank, "world_size": size}
    client = f"{run:016x}{99 if rank is None else rank:016x}"
    return {"op": "open", "time": at(second), "client": client, "name": "run", "workspace": "w", "set": {}, **ranked}


def ended(second: int, rank: int | None, how: str, run: int = 0) -> Row:
    row = {**opened(second, rank, run=run), "op": "end", "state": how}
    if how in (VANISHED, ASKED):
        row["state"] = "killed"
    if how in (FAILED, ASKED):
        row["error"] = {"type": "Error" if how == FAILED else "SIGTERM", "message": f"of {rank}"}
    return row


def session(*origins: list[Row]) -> Row:
    return joined({NODES[number]: summarised(NODES[number], rows) for number, rows in enumerate(origins)})


def told(found: Row) -> tuple[Any, ...]:
    return found["state"], found.get("killed_ranks"), (found.get("error") or {}).get("rank")


ends = st.lists(st.sampled_from([FINISHED, FINISHED, FAILED, VANISHED, ASKED, RUNNING]), min_size=WORLD, max_size=WORLD)
without_running = st.lists(st.sampled_from([FINISHED, FAILED, VANISHED, ASKED]), min_size=WORLD, max_size=WORLD)


@settings(max_examples=300, deadline=None)
@given(st.one_of(ends, without_running), st.permutations(range(WORLD)), st.permutations(range(2 * WORLD)))
def test_a_training_ends_as_if_it_had_one_directory(how: list[str], order: list[int], turns: list[int]) -> None:
    """Whoever opens or ends first: ranks are started one after the other, and some have failed before others are up."""
    rows: list[Row] = []
    for second, turn in enumerate(turns):
        rank = order[turn % WORLD]
        if not any(row["op"] == "open" and row["rank"] == rank for row in rows):
            rows.append(opened(second, rank))
        elif how[rank] != RUNNING:
            rows.append(ended(second, rank, how[rank]))
    together = State(NODES[0])
    for row in rows:
        assert fold_read(together, SESSION_LOG, row)
    wanted = together.session
    assert wanted is not None
    nodes = {NODES[node]: [row for row in rows if row["rank"] // RANKS == node] for node in range(len(NODES))}
    found = joined({origin: summarised(origin, each) for origin, each in nodes.items()})
    assert (found["state"], found.get("killed_ranks")) == (wanted["state"], wanted.get("killed_ranks"))
    for key in ("created_at", "started_at", "updated_at", "ended_at"):
        assert found[key] == wanted.get(key)
    # Of several errors a directory shows that of who opened first; here it is that of the node that was over first.
    assert bool(found.get("error")) == bool(wanted.get("error"))
    if wanted.get("error"):
        assert how[found["error"]["rank"]] == (FAILED if wanted["state"] == "failed" else ASKED)
    backwards = {origin: summarised(origin, nodes[origin]) for origin in reversed(NODES)}
    assert joined(backwards) == found  # whoever was heard of first


def test_the_error_is_that_of_who_failed_first() -> None:
    one = [opened(0, 0), ended(9, 0, FAILED)]
    two = [opened(1, 4), ended(5, 4, FAILED)]
    assert told(session(one, two)) == told(session(two, one)) == ("failed", None, 4)


def test_a_job_that_began_again_on_other_nodes_counts_as_it_ends_there() -> None:
    lost = [opened(0, 0), opened(0, 1), ended(10, 0, VANISHED), ended(10, 1, VANISHED)]
    stayed = [opened(0, 2), ended(11, 2, FAILED), opened(30, 2, run=1), ended(60, 2, FINISHED, run=1)]
    again = [opened(31, 0, run=1), opened(32, 1, run=1), ended(60, 0, FINISHED, run=1)]
    assert told(session(lost, stayed)) == ("killed", [0, 1], None)
    assert told(session(lost, stayed, again)) == ("running", None, None)
    again += [ended(60, 1, FINISHED, run=1)]
    assert told(session(lost, stayed, again)) == ("finished", None, None)
    worse = [*again[:-1], ended(60, 1, FAILED, run=1)]
    assert told(session(lost, stayed, worse)) == ("failed", None, 1)


def test_whoever_vanished_may_be_noticed_long_after_it_began_again() -> None:
    """Its agent went with it, and another one sees the directory a day later."""
    again = [opened(30, 0, run=1), ended(60, 0, FINISHED, run=1)]
    lost = [opened(0, 0), opened(1, 1), ended(900, 0, VANISHED), ended(900, 1, VANISHED)]
    assert told(session(lost, again)) == ("finished", None, None)
    assert told(session([opened(40, 0), ended(900, 0, VANISHED)], again)) == ("killed", [0], None)
    other = [opened(30, 0, 4, run=1), ended(60, 0, FINISHED, run=1)]  # another training, while this one ran
    assert told(session(lost, other)) == ("killed", [0, 1], None)


def test_a_job_that_began_again_with_fewer_ranks_does_so_too() -> None:
    lost = [opened(0, 7), ended(10, 7, VANISHED)]
    again = [opened(30, 0, 4), ended(60, 0, FINISHED)]
    assert told(session(lost, again)) == ("finished", None, None)


@pytest.mark.parametrize(
    "other",
    [
        [opened(20, 5), ended(60, 5, FINISHED)],  # another rank of the same training, which was started late
        [opened(9, 0), ended(60, 0, FINISHED)],  # it began before the first one was over: another training
        [opened(20, None), ended(60, None, FINISHED)],  # somebody who looks at it on a laptop
        [opened(20, 0), opened(21, None), ended(60, 0, FINISHED), ended(60, None, FINISHED)],
    ],
)
def test_a_failure_is_not_forgotten_over_who_else_is_there(other: list[Row]) -> None:
    failed = [opened(0, 0), ended(10, 0, FAILED)]
    assert told(session(failed, other)) == told(session(other, failed)) == ("failed", None, 0)
    alone = [opened(0, None), ended(10, None, FAILED)]
    assert session(alone, other)["state"] == "failed"


@pytest.mark.parametrize("second", [0, 30, 45])
def test_a_clock_that_goes_back_leaves_no_session_without_a_state(second: int) -> None:
    """It was opened, so it says, after it had ended."""
    one = [opened(40, 0), ended(10, 0, FAILED)]
    two = [opened(50, 0), ended(second, 0, FAILED)]
    assert session(one)["state"] == session(one, two)["state"] == "failed"


def test_many_ranks_take_no_more_room_than_few() -> None:
    rows = [opened(0, rank, 100_000) for rank in range(500)]
    run = summarised(NODES[0], rows)["run"]
    assert run == {"ranks": [[0, 499]], "size": 100_000}


def test_a_summary_of_an_older_server_says_nothing_of_ranks() -> None:
    failed = summarised("a", [opened(0, 0), ended(10, 0, FAILED)])
    again = summarised("b", [opened(20, 0), ended(30, 0, FINISHED)])
    assert joined({"a": failed, "b": again})["state"] == "finished"
    for older in (failed, again):
        run = older.pop("run")
        assert joined({"a": failed, "b": again})["state"] == "failed"
        older["run"] = run


@pytest.mark.parametrize(("rank", "size"), [(None, 8), (0, None), (0, [8]), (True, 8), (0, True), (0, "8"), (0, {})])
def test_what_no_rank_can_be_is_taken_for_none(rank: Any, size: Any) -> None:
    """Anybody may have written the row."""
    rows = [{**opened(0, 0), "rank": rank, "world_size": size}, {**opened(1, 1), "rank": rank, "world_size": size}]
    assert summarised(NODES[0], rows)["run"] == {}
    assert session(rows, [opened(20, 0), ended(30, 0, FINISHED)])["state"] == "running"
