"""A crowd: four senders of three directories, and one who uploads blobs, all at once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.server_live.account import assert_all_there_once, assert_blobs_are_right
from tests.server_live.carrier import Carrier
from tests.server_live.lake import client_of
from tests.server_live.origins import Origin
from tests.server_live.sender import Sender
from tests.server_live.told import Told


class Crowd:
    def __init__(self, urls: Sequence[str], token: str) -> None:
        self.told, self._token = Told(), token
        self._enough, self._enough_blobs = threading.Event(), threading.Event()
        # Two senders of one directory; two directories of one session; a session with one directory.
        self._shared, self._beside, self._alone = Origin("run", 1), Origin("run", 2), Origin("other", 3)
        origins = (self._shared, self._shared, self._beside, self._alone)
        self._senders = [
            Sender(origin, urls, token, self.told, self._enough, seed) for seed, origin in enumerate(origins)
        ]
        self._senders[-1].repeats = True
        self.carrier = Carrier(self._alone, urls, token, self.told, self._enough_blobs, seed=4)

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Meanwhile they send. Afterwards they finish what they began, which takes a server that answers."""
        with ThreadPoolExecutor(len(self._senders) + 1) as threads:
            senders = [threads.submit(each.run) for each in self._senders]
            carrier = threads.submit(self.carrier.run)
            try:
                yield
            except BaseException as error:
                self.told.fault(f"the test failed: {error!r}")  # ends them
                raise
            finally:
                self._enough_blobs.set()
                carrier.exception()
                self._enough.set()
            for each in (carrier, *senders):
                each.result()
        assert self.told.faults == []

    def assert_all_there_once(self, url: str) -> str:
        """What there is, in words."""
        began = time.monotonic()
        with client_of(url, self._token) as client:
            records = assert_all_there_once(client, [self._shared, self._beside])
            records += assert_all_there_once(client, [self._alone])
            size = assert_blobs_are_right(client, self.carrier, self._alone)
        return (
            f"{records} records, {len(self.carrier.stored)} blobs of {size >> 20} MiB, {self.carrier.resumed} uploads "
            f"gone on with, {self.carrier.directly} parts past the server; answers: {dict(self.told.counts)}; "
            f"read in {time.monotonic() - began:.0f} s"
        )
