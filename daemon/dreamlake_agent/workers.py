"""Workers: two threads for what may take long (fsync, hashing), so that the loop never waits for a disk.

Both give their time away in C with the interpreter's lock released. A job gives back an event; a job that raises is a
fault of ours, and the loop dies of it loudly rather than forget it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

Job = Callable[[], Any]
_THREADS = 2


class ThreadWorkers:
    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True) for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def done(self) -> list[Any]:
        found: list[Any] = []
        while not self._results.empty():
            result = self._results.get()
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        return found

    def finish(self) -> None:
        """Wait for the job in hand, take no more."""
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout=10.0)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._results.put(job())
            except BaseException as error:
                self._results.put(error)
            self._wake()
