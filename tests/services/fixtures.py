"""The servers as fixtures: at most one of each for a worker, started when a test first asks for it.

A test file that needs one says ``pytest_plugins = ["tests.services.fixtures"]`` (what it imports would be a server of
its own), marks itself with ``services``, and takes a database or a bucket of its own. A test that kills a server starts
one of its own: a MongoDB in which many databases were made needs half a minute to recover.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services import mongod as mongodb
from tests.services import seaweed


@pytest.fixture(scope="session")
def mongod(nobody_left_behind: None) -> Iterator[mongodb.Mongod]:
    with mongodb.mongod() as server:
        yield server


@pytest.fixture(scope="session")
def s3(nobody_left_behind: None) -> Iterator[seaweed.S3]:
    with seaweed.s3() as server:
        yield server
