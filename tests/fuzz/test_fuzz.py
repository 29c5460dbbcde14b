"""Anything in place of what we write: no exception but the documented ones, no hang, no memory beyond a bound, nothing
written outside of the session directory, and no row lost.

The same examples at every run; more of them with DREAMLAKE_FUZZ_EXAMPLES. ``make fuzz`` looks for others, and what ever
failed is kept in ``corpus/`` and tried first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.fuzz import limits
from tests.fuzz.choices import Choices
from tests.fuzz.limits import limited
from tests.fuzz.seeds import seeds, varied
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
FOUND = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))
# Each takes about 3 seconds; the quick ones see more.
EXAMPLES = {
    "message_to_agent": 1500,
    "messages_to_client": 500,
    "records": 1000,
    "operations": 700,
    "some_names": 1500,
    "some_json": 1000,
    "segments": 500,
    "checkpoint": 700,
    "commits": 700,
    "lines": 200,
    "owner": 500,
    "baseline": 350,
    "reading": 250,
    "store": 250,
    "recovery": 200,
    "agent": 800,
    "outside": 400,
}

# Bytes that shrink well, and bytes in which every choice is as likely.
TAPES = st.one_of(
    st.binary(min_size=1, max_size=200), st.integers(0, 2**32 - 1).map(lambda seed: Random(seed).randbytes(200))
)


@pytest.fixture(autouse=True)
def hushed() -> Iterator[None]:
    """A client that is told nonsense says so, a thousand times."""
    logger = logging.getLogger("dreamlake")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def test_every_target_has_seeds_and_a_number_of_examples() -> None:
    assert set(TARGETS) == set(EXAMPLES)
    assert {name.partition("/")[0] for name in FOUND} <= set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_sound_passes(name: str) -> None:
    for data in seeds(name):
        with limited():
            TARGETS[name](data)


@pytest.mark.parametrize("name", FOUND)
def test_what_ever_failed_passes(name: str) -> None:
    with limited():
        TARGETS[name.partition("/")[0]]((CORPUS / name).read_bytes())


@pytest.mark.timeout(3600 if "DREAMLAKE_FUZZ_EXAMPLES" in os.environ else 120)
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes_are_only_what_is_documented_happens(name: str) -> None:
    @settings(
        max_examples=int(os.environ.get("DREAMLAKE_FUZZ_EXAMPLES", EXAMPLES[name])),
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(TAPES)
    def check(tape: bytes) -> None:
        data = tape if tape[0] % 8 == 7 else varied(name, Choices(tape[1:]))
        note(f"keep it: bytes.fromhex('{data.hex()}') in tests/fuzz/corpus/{name}/")
        with limited():
            TARGETS[name](data)

    check()


# ── the limits themselves ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_example_that_takes_the_memory_that_four_bytes_can_name_fails() -> None:
    with pytest.raises(MemoryError), limited():
        bytes(4 << 30)
    bytes(limits.MEMORY_BYTES)  # and the next may have it again


def test_an_example_that_does_not_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever() -> None:
        while True:
            pass

    monkeypatch.setattr(limits, "CPU_SECONDS", 0.05)
    with pytest.raises(AssertionError, match="more than"), limited():
        forever()
