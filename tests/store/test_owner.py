"""The owner's record: a file that may say anything, and of which only the lock is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamlake.reader.session import SessionReader
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.store import owner
from tests.golden import world

ODD = {
    "nested": b"[" * 5000,
    "a nested map": b'{"a":' * 5000,
    "an epoch that is text": b'{"epoch":"x"}',
    "no epoch": b'{"epoch":null}',
    "an infinite epoch": b'{"epoch":Infinity}',
    "an endpoint that is a map": b'{"endpoint":{"a":1}}',
    "an endpoint that no message holds": b'{"endpoint":' + b"9" * 40 + b"}",
    "a lone surrogate": b'{"host":"\\ud800"}',
    "an infinite process": b'{"host":"x","pid":Infinity}',
    "UTF-16": "{}".encode("utf-16"),
}


@pytest.mark.parametrize("name", ODD)
def test_whatever_the_last_owner_left_the_next_one_owns_the_directory(name: str, tmp_path: Path) -> None:
    (tmp_path / ".dreamlake").mkdir()
    (tmp_path / owner.OWNER).write_bytes(ODD[name])
    with SessionReader(str(tmp_path)) as reader:
        reader.owner()
    at = REAL_DISK.root(str(tmp_path))
    try:
        if name == "an infinite process":  # of another node: it may live
            with pytest.raises(owner.OwnedElsewhere) as far:
                owner.acquire(REAL_DISK, at, world.OWNER, "0" * 8)
            assert far.value.may_be_gone
            return
        found = owner.acquire(REAL_DISK, at, world.OWNER, "0" * 8)
        assert found.epoch >= 1
        (tmp_path / owner.OWNER).write_bytes(ODD[name])
        with pytest.raises(owner.OwnedElsewhere) as elsewhere:
            owner.acquire(REAL_DISK, at, world.NEXT_OWNER, "1" * 8)
        assert elsewhere.value.record["pid"] == world.OWNER["pid"]  # the owner's epoch has the last word
        str(elsewhere.value).encode()
        owner.release(found, world.OWNER)
    finally:
        REAL_DISK.close(at)
