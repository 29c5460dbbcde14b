"""One server process: started, killed with SIGKILL, started again on the same ports and data, gone at the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.services import leash
from tests.waiting import wait_for

START_SECONDS = 40
LOG_BYTES = 8 << 10  # of the end of a log, shown when a start fails


class Server:
    """`is_ready` is asked again and again after each start, until it says that the server can be written."""

    def __init__(self, command: list[str], log: Path, is_ready: Callable[[], bool]) -> None:
        self._command, self._log, self._is_ready = command, log, is_ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Returns when the server takes writes. Raises with the end of its log when it does not come to that.

        Call it in the main thread: the kernel kills the server when the thread that started it ends.
        """
        assert self._process is None, "the server runs already"
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", leash.__file__, str(os.getpid()), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._log.parent,
            )
        try:
            wait_for(lambda: self._process.poll() is not None or self._is_ready(), START_SECONDS)
            assert self._process.poll() is None, f"it ended with status {self._process.returncode}"
        except AssertionError as error:
            self.kill()
            said = self._log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
            raise RuntimeError(f"{self._command[0]} did not start: {error}; the end of its log:\n{said}") from None
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL, as a crash; returns when the process is gone. Also how its life ends: its data go as well, and
        SeaweedFS takes seconds to end in any other way, or does not."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
