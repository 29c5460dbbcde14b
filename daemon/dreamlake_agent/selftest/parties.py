"""Parties: an agent and a training of this node's, as users have them, in a home of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from dreamlake import config
from dreamlake.wire import messages
from dreamlake.world.sockets import answers
from dreamlake_agent.control import NoAnswer, ask

START_SECONDS = 30.0
STOP_SECONDS = config.STOP_SECONDS + 10.0
# It ends with whoever started it, also when that one is killed.
_AGENT = """
import os, signal, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
from dreamlake_agent.main import main
sys.exit(main([]))
"""
_TRAINING = "import sys; from dreamlake_agent.selftest.training import main; sys.exit(main(*sys.argv[1:]))"
_LOOK_SECONDS = 0.05


class Failed(Exception):
    """What was asked of a party did not come to pass; the message says what."""


def environment(home: str, rank: int) -> dict[str, str]:
    """Nothing of the user's own settings but how long one may be silent."""
    kept = {name: value for name, value in os.environ.items() if not _is_ours(name)}
    return {**kept, "DREAMLAKE_HOME": home, "DREAMLAKE_AGENT": "never", "RANK": str(rank), "WORLD_SIZE": "2"}


def _is_ours(name: str) -> bool:
    return name.startswith("DREAMLAKE_") and name != "DREAMLAKE_GONE" and "_TEST_" not in name


class AgentProcess:
    """An agent, in the foreground, so that it can be stopped and ends with us."""

    def __init__(self, home: str, rank: int) -> None:
        env = environment(home, rank)
        with open(os.path.join(home, "agent.err"), "wb") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _AGENT], stdin=subprocess.PIPE, stdout=complaints, stderr=complaints, env=env
            )
        self._complaints = os.path.join(home, "agent.err")
        self._socket = config.socket_path(os.path.join(home, "run"))

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not answers(self._socket):
            if self._process.poll() is not None or time.monotonic() >= deadline:
                raise Failed(f"an agent of this node does not start: {_last_words(self._complaints)}")
            time.sleep(_LOOK_SECONDS)

    def phase(self, path: str) -> str | None:
        """At what it is with a session directory; None when it does not have it."""
        try:
            found = ask(f"ipc://{self._socket}", messages.STATUS, START_SECONDS)
        except NoAnswer as why:
            raise Failed(f"the agent of this node does not answer: {why}") from None
        for session in found.get("sessions", ()):
            if session["path"] == path:
                return str(session["phase"])
        return None

    def pause(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Let it end as it should. :class:`Failed`."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed("the agent of this node does not end") from None

    def close(self) -> None:
        self._process.kill()  # also one that is stopped
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class TrainingProcess:
    """A script that has the session open, and does what it is told."""

    def __init__(self, home: str, rank: int, root: str, who: str) -> None:
        self._complaints = os.path.join(home, "training.err")
        self._told = b""
        with open(self._complaints, "wb") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _TRAINING, root, who],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=environment(home, rank),
            )

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(f"a script of this node has died: {_last_words(self._complaints)}") from None

    def hear(self, seconds: float) -> dict[str, Any]:
        """Its next word. :class:`Failed`."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._told:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"a script of this node has said nothing for {seconds:.0f} s")
            if not select.select([self._process.stdout], [], [], left)[0]:
                continue
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise Failed(f"a script of this node has died: {_last_words(self._complaints)}")
            self._told += chunk
        line, _, self._told = self._told.partition(b"\n")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found

    def do(self, line: str, seconds: float) -> dict[str, Any]:
        self.tell(line)
        return self.hear(seconds)

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass
        self._process.wait()


def _last_words(complaints: str) -> str:
    with open(complaints, encoding="utf-8", errors="replace") as file:
        return (file.read().strip().splitlines() or ["it said nothing"])[-1][-500:]
