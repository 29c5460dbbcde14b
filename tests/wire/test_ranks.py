"""Ranks in rows: which process of a training wrote them, and what all of them say alike."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dreamlake.wire import jsons, ops
from dreamlake.wire.state import State, fold_read
from tests.wire.test_apply import (
    AGENT,
    ALICE,
    BOB,
    FILES,
    LOGS,
    LOSS,
    ORIGIN,
    PARAMETERS,
    SESSION,
    TRACKS,
    T,
    applied,
    opening,
    rows,
    upload,
)

CAROL = b"c" * 16


@pytest.fixture
def ranks() -> State:
    """Alice is rank 0 of 2, Bob rank 1."""
    state = State(ORIGIN)
    for client, rank in ((ALICE, 0), (BOB, 1)):
        assert not applied(state, client, opening(rank=rank, world_size=2)).refused
    return state


def everything(client: bytes) -> list[ops.Op]:
    return [
        (ops.LOG, T, "info", "x", b'{"rank":7}', None),
        (ops.PARAMETERS, T, jsons.encode({f"by.{client.hex()}": 1}), None),
        (ops.TRACK, T, "loss", jsons.encode({"tags": [client.hex()]})),
        (ops.POINT, T, "loss", 0, b'{"rank":7}'),
        (ops.POINT, T, "loss", 1, b"{}"),
        (ops.POINT, T, "loss", 2, b'{"v":"NaN"}', ["v"]),
        (ops.POINTS, T, "loss", 3, (b"{}", b"{}")),
        upload(f"f-{client[:1].decode()}", f"{client[:1].decode()}.bin", client=client),
        (ops.FILE_CHANGE, T, f"f-{client[:1].decode()}", b'{"description":"d"}'),
        (ops.FILE_DELETE, T, f"f-{client[:1].decode()}"),
    ]


@pytest.mark.parametrize(("client", "rank"), [(ALICE, 0), (BOB, 1)])
def test_every_row_says_which_rank_wrote_it(client: bytes, rank: int, ranks: State) -> None:
    out = applied(ranks, client, *everything(client))
    assert out.refused == {}
    found = rows(out)
    assert {log: [row["rank"] for row in found[log]] for log in found} == {
        LOGS: [rank],
        PARAMETERS: [rank],
        TRACKS: [rank],
        LOSS: [rank] * 5,
        FILES: [rank] * 3,
    }
    assert found[FILES][0]["record"]["rank"] == rank
    assert all(line.endswith(b',"rank":%d}' % rank) for log in (LOGS, LOSS) for line in out.lines(log))


def test_where_there_are_no_ranks_no_row_says_one() -> None:
    state = State(ORIGIN)
    out = applied(state, ALICE, opening(), *everything(ALICE))
    assert out.refused == {}
    assert not any("rank" in row for log, lines in rows(out).items() for row in lines)
    assert "rank" not in state.files["f-a"]


def test_what_every_rank_sets_alike_is_written_once(ranks: State) -> None:
    values = b'{"lr":0.1,"layers":[64,64],"clip":"NaN"}'
    same = (ops.PARAMETERS, T, values, ["clip"])
    first, again = applied(ranks, ALICE, same), applied(ranks, BOB, same)
    assert [row["rank"] for row in rows(first)[PARAMETERS]] == [0]
    assert (again.rows, again.refused, again.stale) == ({}, {}, set())
    assert ranks.parameters_version == 1


@pytest.mark.parametrize(
    ("second", "nonfinite"),
    [
        (b'{"lr":1.0}', None),  # not the integer that is there
        (b'{"lr":true}', None),
        (b'{"lr":1,"other":2}', None),
        (b'{"clip":"NaN"}', None),  # the text, where the float is
        (b'{"lr":2}', None),
    ],
)
def test_what_differs_is_written(second: bytes, nonfinite: Any, ranks: State) -> None:
    applied(ranks, ALICE, (ops.PARAMETERS, T, b'{"lr":1,"clip":"NaN"}', ["clip"]))
    out = applied(ranks, BOB, (ops.PARAMETERS, T, second, nonfinite))
    assert [row["rank"] for row in rows(out)[PARAMETERS]] == [1]
    assert ranks.parameters_version == 2


def test_a_single_process_that_sets_the_same_again_is_taken_at_its_word() -> None:
    state = State(ORIGIN)
    same = (ops.PARAMETERS, T, b'{"lr":1}', None)
    out = applied(state, ALICE, opening(), same, same)
    assert len(rows(out)[PARAMETERS]) == 2
    assert state.parameters_version == 2


def test_a_track_that_every_rank_describes_alike_is_described_once(ranks: State) -> None:
    said = (ops.TRACK, T, "loss", b'{"description":"d","tags":["a"]}')
    assert len(rows(applied(ranks, ALICE, said))[TRACKS]) == 1
    assert applied(ranks, BOB, said).rows == {}
    assert len(rows(applied(ranks, BOB, (ops.TRACK, T, "loss", b'{"tags":["b"]}')))[TRACKS]) == 1
    assert ranks.tracks["loss"].tags == ["b"]


def test_a_single_point_and_points_in_a_row_make_the_same_lines(ranks: State) -> None:
    together, apart = copy.deepcopy(ranks), copy.deepcopy(ranks)
    points = [(ops.POINT, T + at, "loss", at, b"{}") for at in range(5)]
    joined = b"".join(applied(together, BOB, *points).rows[LOSS])
    assert joined == b"".join(line for point in points for line in applied(apart, BOB, point).rows[LOSS])


# ── how a run of ranks ends ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_session_has_finished_when_all_ranks_have(ranks: State) -> None:
    applied(ranks, BOB, (ops.CLOSE, T, "finished", None))
    assert ranks.run_state == "running"
    applied(ranks, ALICE, (ops.CLOSE, T, "finished", None))
    assert ranks.run_state == "finished"


def test_killed_and_failed_name_the_rank(ranks: State) -> None:
    applied(ranks, AGENT, (ops.KILLED, T, BOB))
    applied(ranks, ALICE, (ops.CLOSE, T, "failed", {"type": "ValueError", "message": "x"}))
    assert ranks.session is not None
    assert ranks.session["state"] == "failed"
    assert ranks.session["error"] == {"type": "ValueError", "message": "x", "rank": 0}
    assert ranks.session["killed_ranks"] == [1]


@pytest.mark.parametrize(
    "end", [(AGENT, (ops.KILLED, T, BOB)), (BOB, (ops.CLOSE, T, "failed", {"type": "E", "message": ""}))]
)
def test_a_rank_that_is_there_again_while_others_run_counts_by_how_it_ends(end: Any, ranks: State) -> None:
    applied(ranks, *end)
    applied(ranks, CAROL, opening(rank=1, world_size=2))
    for client in (CAROL, ALICE):
        applied(ranks, client, (ops.CLOSE, T, "finished", None))
    assert ranks.session is not None
    assert ranks.session["state"] == "finished"
    assert "killed_ranks" not in ranks.session
    assert "error" not in ranks.session


def test_another_rank_s_death_is_not_mended_by_this_one_s_return(ranks: State) -> None:
    applied(ranks, AGENT, (ops.KILLED, T, BOB))
    applied(ranks, CAROL, opening(rank=0, world_size=2))
    for client in (CAROL, ALICE):
        applied(ranks, client, (ops.CLOSE, T, "finished", None))
    assert ranks.session is not None
    assert (ranks.session["state"], ranks.session["killed_ranks"]) == ("killed", [1])


def test_a_reader_of_the_history_comes_to_the_same_end() -> None:
    state, read = State(ORIGIN), State(ORIGIN)
    for client, op in [
        (ALICE, opening(rank=0)),
        (BOB, opening(rank=1)),
        (AGENT, (ops.KILLED, T, BOB)),
        (CAROL, opening(rank=1)),
        (CAROL, (ops.CLOSE, T, "finished", None)),
        (ALICE, (ops.CLOSE, T, "finished", None)),
    ]:
        for row in rows(applied(state, client, op))[SESSION]:
            assert fold_read(read, SESSION, row)
    assert read.session == state.session
    assert read.run_state == "finished"
