"""What the tests of this folder need of the machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.live.another import removed
from tests.live.nodes import GONE_SECONDS, Cluster, NewCluster, cluster
from tests.live.volume import CannotMount, Volume, new_volume
from tests.waiting import wait_for


@pytest.fixture
def volume() -> Iterator[Volume]:
    try:
        with new_volume(64) as volume:
            yield volume
    except CannotMount as reason:
        pytest.skip(f"no file system whose power could be cut: {reason}")


@pytest.fixture
def commons() -> Iterator[Path]:
    """A folder that everybody may enter, and write to, as a project's on a shared disk."""
    made = Path(tempfile.mkdtemp(prefix="dlc", dir="/tmp"))
    made.chmod(0o777)
    yield made
    wait_for(lambda: removed(made))


@pytest.fixture
def new_cluster() -> Iterator[NewCluster]:
    """A cluster of some nodes, each with an agent; where there can be none, a skip that says why."""
    with ExitStack() as stack:

        def new(
            nodes: int, disk: tuple[object, ...], *, world: int, agents: int | None = None, pace: float = 0.05
        ) -> Cluster:
            try:
                made = stack.enter_context(cluster(world=world, gone_seconds=GONE_SECONDS, pace=pace))
                for node in [made.node(*disk, plain=not disk) for _ in range(nodes)]:
                    node.ready()
            except CannotMount as reason:
                pytest.skip(f"no pretend cluster: {reason}")
            for node in made.nodes[:agents]:
                node.start_agent()
            return made

        yield new
