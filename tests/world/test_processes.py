"""Processes: what a record says of one is believed as far as it can be."""

from __future__ import annotations

import math

import pytest

from dreamlake.world import processes


@pytest.mark.parametrize("pid", [math.inf, math.nan, None, "x", [], {}, "9" * 5000])
def test_a_process_whose_id_is_no_number_is_unknown(pid: object) -> None:
    assert processes.verdict({**processes.myself(), "pid": pid}) == processes.UNKNOWN
