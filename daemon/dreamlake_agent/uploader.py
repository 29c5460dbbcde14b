"""The uploader, as the agent has it: a process of its own, started when there is something to send.

So hashing, TLS and HTTP can neither slow nor crash what applies operations. What is said is in
:mod:`dreamlake_agent.remote.main`; when to send what is the core's decision.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from dreamlake.remote.credentials import Credentials
from dreamlake.wire import jsons
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.remote.protocol import OTHER, PROTOCOL

_PROGRAM = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; "
    "from dreamlake_agent.remote.main import main; sys.exit(main())"
)
_END_SECONDS = 5.0


def event_of(said: dict[str, Any]) -> on.UploadMeasured | on.Uploaded:
    """What the uploader has said of a job, as :mod:`dreamlake_agent.remote.main` has it."""
    if "ended" not in said:
        count, size = said["behind"]
        return on.UploadMeasured(said["job"], (count, size))
    return on.Uploaded(
        said["job"],
        said["ended"],
        said.get("text", ""),
        tuple(said.get("problems", ())),
        float(said.get("retry_after", 0.0)),
        said.get("token"),
        bool(said.get("answered")),
        said["chance"],
        bool(said.get("restored")),
    )


class Uploader:
    """``wake`` is called when there is something in :meth:`done`, ``log`` with what the process says of itself."""

    def __init__(self, wake: Callable[[], None], log: Callable[[str, str], None]) -> None:
        self._wake, self._log = wake, log
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._jobs: set[int] = set()  # of this process, not ended
        self._said: queue.SimpleQueue[tuple[subprocess.Popen[bytes], bytes | None]] = queue.SimpleQueue()
        self._failed: list[on.Event] = []
        self._credentials = Credentials()

    @property
    def pid(self) -> int | None:
        """The process's; None while there is none."""
        return self._process.pid if self._process is not None else None

    # ── jobs ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self, effect: do.Upload) -> None:
        job = {
            "job": effect.number,
            "path": effect.path,
            "url": effect.url,
            "user": effect.user,
            "lane": effect.lane,
            "unless": effect.unless,
        }
        self._jobs.add(effect.number)
        try:
            process = self._process or self._begin()
            assert process.stdin is not None
            line = jsons.encode(job) + b"\n"
            if process.stdin.write(line) != len(line):
                process.kill()  # it does not listen: what waits in the pipe is asked for again
                raise OSError("it does not listen")
        except OSError as error:  # it died, or cannot be started now
            self._log("warning", f"the uploader cannot be told what to send: {error}")
            self._jobs.discard(effect.number)
            self._failed.append(on.Uploaded(effect.number, "died", f"the uploader's process: {error}"))
            self._wake()

    def _begin(self) -> subprocess.Popen[bytes]:
        # A key in the environment of whoever started the agent is not for every server: clients give theirs.
        environment = {name: value for name, value in os.environ.items() if name != "DREAMLAKE_API_KEY"}
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(PROTOCOL)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd="/",
        )
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)  # nobody here waits for it
        self._process = process
        self._threads = [
            threading.Thread(target=self._hear, args=(process,), name="uploader-answers", daemon=True),
            threading.Thread(target=self._hear_errors, args=(process,), name="uploader-errors", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return process

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in process.stdout:
                self._said.put((process, line))
                self._wake()
        self._said.put((process, None))
        self._wake()

    def _hear_errors(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for line in process.stderr:
                self._log("warning", "uploader: " + line.decode(errors="replace").rstrip())

    def done(self) -> list[on.Event]:
        """What the process has said since this was last asked."""
        found, self._failed = self._failed, []
        while not self._said.empty():
            process, line = self._said.get()
            if process is not self._process:
                continue  # one that was ended
            found += self._end_of_process() if line is None else self._heard(process, line)
        return found

    def _end_of_process(self) -> list[on.Event]:
        process, self._process = self._process, None
        assert process is not None
        self._close(process)
        if self._jobs:
            self._log("warning", f"the uploader ended with {process.returncode}; what it was at is sent again")
        events: list[on.Event] = [on.Uploaded(job, "died", "the uploader's process ended") for job in self._jobs]
        self._jobs.clear()
        return events

    def _heard(self, process: subprocess.Popen[bytes], line: bytes) -> list[on.Event]:
        try:
            event = event_of(jsons.loads(line))
        except (LookupError, TypeError, ValueError):  # of a release that broke the protocol: the agent goes on
            self._log("error", f"the uploader says what this agent does not know: {OTHER}")
            process.kill()  # and its jobs have ended when it has
            return []
        if isinstance(event, on.Uploaded):
            self._jobs.discard(event.number)
        return [event]

    def rest(self) -> None:
        """End the process; a job that comes later starts another one."""
        process, self._process = self._process, None
        if process is not None:
            self._close(process)

    def _close(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            thread.join(_END_SECONDS)
        process.stdout.close()
        process.stderr.close()

    # ── keys ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def keep_key(self, effect: do.KeepKey) -> None:
        self._credentials.keep_key(effect.path, effect.url, effect.user, effect.token)

    def forget(self, effect: do.Forget) -> None:
        for url, user in effect.remotes:
            with contextlib.suppress(OSError):
                self._credentials.forget_key(effect.path, url, user)
