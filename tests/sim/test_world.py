"""Many worlds, one seed each: whatever happens in them, what was promised is kept.

``DREAMLAKE_SIM_SEEDS=5000 pytest tests/sim/test_world.py`` looks further; ``DREAMLAKE_SIM_SEED=123 pytest
tests/sim/test_world.py -k one_seed`` looks at one world again.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.profiles import PROFILES, UPLOADS
from tests.sim.world import World, run

SEEDS = int(os.environ.get("DREAMLAKE_SIM_SEEDS", "360"))
CHUNK = 10  # seeds a test: xdist spreads the tests

# Every seed that ever failed, with what it found. A change of the simulator gives a seed another world, so a list of
# these is no proof that the fault is gone: that is what the many are for.
KEPT_SEEDS = {
    12: "a journal dropped although its writer, in close(), had written on",
    51: "a segment that could not be read was taken for one that is not there, and its journal dropped",
    39: "an error while the journals were looked at after the opening ended the agent",
    45: "the index of a commit that failed was told with the next ack",
    64: "a view older than the first durable checkpoint was taken for a damaged session of a person's",
    106: "flush(durable=True) without the names of the folders above the journal",
    10: "zeros in a log that the checkpoint did not know were never cut",
    71: "a client's end that could not be written was never written again",
    123: "an agent's own journal, broken off, kept its directory open for ever",
    137: "a client of whom power loss left no journal was running for ever",
    154: "a view of what power loss had taken stayed",
    155: "a track's view that power loss tore was not written again",
    0: "a client still in close() was told that its directory was removed",
    191: "rows older than the first durable checkpoint were taken for a baseline, and applied again",
    251: "an fsync failed for one process, and another was told that all is well",
    465: "a flush of a client that had gone kept its directory open for ever",
    1421: "an fsync failed for one agent, and the next agent believed the page cache",
    4191: "a second commit behind one that failed had nothing to write, and was taken for it: acked, and not committed",
    4305: "the same",
    6303: "the same",
    47: "each recovery that failed left the descriptors of logs open",
    37: "a client in a directory that somebody had moved was never answered",
    135: "two uploads to one place came in another order after power loss, and one had the bytes of the other",
    87: "flush(durable=True) synced the file that had replaced the one it was asked for",
    50287: "a file was durable, and the new folder that it was put into was not",
    49: "a file was hashed before its bytes were back in their place",
    20743: "a checksum for which the disk could not be read was never computed again",
    10319: "rows could leave the machine before the folder of their session was durable",
    446: "a client's fsync of its journal failed, and its owner was told by the next that all is well",
    60008: "the mark of an fsync stayed after power loss had taken the journal",
    298: "a journal that was away was forgotten by the core, and applied from its beginning when it came home",
    60065: "a first checkpoint was taken for durable although its folder could not be synced",
}


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept_in_every_world(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        run(seed)


@pytest.mark.parametrize("seed", [seed for seed in KEPT_SEEDS if seed >= SEEDS])
def test_a_seed_that_ever_failed_does_not_fail_again(seed: int) -> None:
    run(seed)


@pytest.mark.skipif("DREAMLAKE_SIM_SEED" not in os.environ, reason="DREAMLAKE_SIM_SEED names the one to look at")
def test_one_seed() -> None:
    world = World(int(os.environ["DREAMLAKE_SIM_SEED"]))
    try:
        world.run()
    finally:
        print("\n".join(world.events))


_TRACE = """
from tests.sim import uploads, world
print(*(world.run(seed).trace for seed in range({first}, {last})))
print(*(uploads.run(seed).trace for seed in range({uploads})))
"""


def test_the_same_seed_is_the_same_world_in_every_process() -> None:
    def trace(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", _TRACE.format(first=1000, last=1000 + len(PROFILES), uploads=len(UPLOADS))],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert trace("1") == trace("2")


def test_different_seeds_are_different_worlds() -> None:
    assert run(0).trace != run(len(PROFILES)).trace
