"""Points in a row go through a loop of their own; it must come to what one operation at a time comes to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamlake.wire import jsons, ops
from dreamlake.wire import points as in_a_row
from dreamlake.wire.applied import Applied
from dreamlake.wire.apply import apply_run
from dreamlake.wire.state import State

CLIENT = bytes(range(16))
OPEN = (ops.OPEN, 0, {"name": "run", "workspace": "project"}, b"{}")

times = st.one_of(st.integers(0, 3_000_000_000), st.sampled_from([True, -(10**30), 10**30, 1.5]))
names = st.sampled_from(["loss", "acc", "a/b", "", "../x", "data.jsonl", b"loss"])
data = st.sampled_from(
    [
        b'{"v":1}',
        b'{"v":2,"w":[1]}',
        b"{}",
        b"[1]",
        b'{"v":',
        b'{"a":1},{"b":2}',
        b'{"v":\n1}',
        b' {"v":1}',
        b'{"v":1} ',
        "{}",
    ]
)
ordinals = st.one_of(st.integers(0, 5), st.just(2.0))
points = st.tuples(st.sampled_from([ops.POINT, 6.0, True]), times, names, ordinals, data)
marked = st.tuples(st.just(ops.POINT), st.just(7), st.just("loss"), st.just(1), st.just(b'{"v":"NaN"}'), st.just(["v"]))
others = st.sampled_from(
    [
        (ops.LOG, 5, "info", "hello", None, None),
        (ops.TRACK, 6, "acc", b'{"tags":["x"]}'),
        (ops.POINTS, 8, "loss", 3, [b'{"v":1}', b'{"v":2}']),
        (ops.CLOSE, 9, "finished", None),
        None,
    ]
)
plain = st.tuples(
    st.just(ops.POINT),
    st.integers(0, 3_000_000_000),
    st.sampled_from(["loss", "acc"]),
    st.integers(0, 9),
    st.just(b'{"v":1}'),
)
runs = st.lists(st.one_of(plain, plain, plain, points, marked, others), max_size=40)


def rows(out: Applied) -> dict[str, list[bytes]]:
    return {log: out.lines(log) for log in out.rows}


def applied(pieces: list[list[Any]]) -> tuple[State, Applied, int]:
    state, out, refused = State("0" * 32), Applied(), 0
    apply_run(state, CLIENT, [OPEN], out)
    for piece in pieces:
        apply_run(state, CLIENT, piece, out)
        refused += len(out.refused)
        out.refused.clear()
    return state, out, refused


@settings(max_examples=800, deadline=None, derandomize=True)
@given(runs, st.sampled_from([(1, 4), (2, 8), (16, 256)]))
def test_a_run_at_once_is_its_operations_one_at_a_time(run: list[Any], few_and_many: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_a_row, "_FEW", few_and_many[0])
        patch.setattr(in_a_row, "_MANY", few_and_many[1])
        patch.setattr(jsons, "_MANY", few_and_many[0])
        state, out, refused = applied([run])
    one_state, one_out, one_refused = applied([[op] for op in run])
    assert (rows(out), out.placed, refused) == (rows(one_out), one_out.placed, one_refused)
    assert out.stale == one_out.stale
    assert state == one_state


def test_most_points_of_a_long_run_go_at_once() -> None:
    run = [(ops.POINT, 10**9 + at, ("loss", "acc")[at % 2], at // 2, b'{"v":%d}' % at) for at in range(2000)]
    taken: list[int] = []
    at_once = in_a_row._at_once

    def counted(state: State, author: str, block: list[Any], out: Applied) -> bool:
        done = at_once(state, author, block, out)
        taken.append(len(block) * done)
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_a_row, "_at_once", counted)
        state, out, refused = applied([run])
    one_state, one_out, _ = applied([[op] for op in run])
    assert sum(taken) > 1900
    assert (rows(out), out.placed, refused) == (rows(one_out), one_out.placed, 0)
    assert state == one_state


@settings(max_examples=200, deadline=None, derandomize=True)
@given(runs, st.sets(st.integers(0, 39)))
def test_what_was_refused_when_it_was_committed_is_refused_again(run: list[Any], skip: set[int]) -> None:
    state, out = State("0" * 32), Applied()
    apply_run(state, CLIENT, [OPEN], out)
    apply_run(state, CLIENT, run, out, skip)
    kept_state, kept_out, _ = applied([[op for position, op in enumerate(run) if position not in skip]])
    assert (rows(out), state) == (rows(kept_out), kept_state)
