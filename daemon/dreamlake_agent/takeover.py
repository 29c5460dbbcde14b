"""Takeover: the agent that runs ends, and the next one has its place at once.

The next one is started first and waits for the lock of the runtime folder: one that cannot even start takes no agent
away, and no time passes between the two but what the old one needs to apply what is in the journals. Whatever is
written meanwhile stays in the journals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import dreamlake
from dreamlake import config
from dreamlake.wire import capabilities, messages
from dreamlake.world import processes
from dreamlake.world.sockets import answers
from dreamlake_agent.control import NoAnswer, ask
from dreamlake_agent.lifecycle import LOCK
from dreamlake_agent.main import WAITING

SERVICE = "dreamlake-agent.service"  # the user unit of docs/systemd.md
_ASK_SECONDS = 10.0
_GONE_SECONDS = 10.0
_LOOK_SECONDS = 0.02
_HELD_MAX = 3  # sessions that are named when an agent does not end
_PROGRAM = "import sys; from dreamlake_agent.main import main; sys.exit(main(sys.argv[1:]))"
_STATES = {
    "D": "it waits for a disk or a network file system that does not answer",
    "T": "it is stopped: `kill -CONT {pid}` lets it go on",
}


class CannotTakeOver(Exception):
    """The agent that runs does not end, or the next one does not start; the message says why and what to try."""


def start() -> None:
    """Start an agent, which says itself when one was faster. :class:`CannotTakeOver`."""
    done = subprocess.run(_command("--detach"), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        raise CannotTakeOver(done.stderr.decode(errors="replace").strip() or "the agent did not start")


def restart(endpoint: str, told: Callable[[str], None]) -> None:
    """End the agent at ``endpoint`` and have another one in its place. :class:`CannotTakeOver`."""
    pid, found = _who(endpoint, told)
    if _is_systemds(pid):
        _restart_by_systemd()
        return
    with subprocess.Popen(
        _command("--detach", "--after", str(pid)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as successor:
        assert successor.stdout is not None
        # It says so when it has all of its code and waits. What cannot even start takes no agent away.
        if successor.stdout.readline() == WAITING:
            try:
                _end(endpoint, pid, found, told)
            except BaseException:
                successor.kill()  # and what waits behind it gives up
                raise
        _, complaint = successor.communicate()
    if successor.returncode != 0:
        raise CannotTakeOver(complaint.decode(errors="replace").strip() or "the next agent did not start")


def end(endpoint: str, told: Callable[[str], None]) -> None:
    """Have the agent apply what is in the journals, and end; returns when it has. :class:`CannotTakeOver`."""
    _end(endpoint, *_who(endpoint, told), told)


def _who(endpoint: str, told: Callable[[str], None]) -> tuple[int, dict[str, Any]]:
    """The agent's pid, and what it says of itself: nothing when it does not answer this command."""
    try:
        found = ask(endpoint, messages.STATUS, _ASK_SECONDS)
        return int(found["pid"]), found
    except NoAnswer as why:
        pid = holder(endpoint)
        if pid is None:
            raise CannotTakeOver(
                f"the agent at {endpoint} does not answer: {why}, and which process it is cannot be told"
            ) from None
        told(f"the agent (pid {pid}) does not answer: {why}")
        return pid, {}


def _end(endpoint: str, pid: int, found: dict[str, Any], told: Callable[[str], None]) -> None:
    lives = _life_of(endpoint, pid)
    deadline = time.monotonic() + config.STOP_SECONDS + _GONE_SECONDS
    told("waiting until the agent has applied what is in the journals …")
    if not lives():
        return  # killed: what it leaves is in the journals, and the next agent applies it
    if holder(endpoint) == pid:
        # It drains as after the message, which would go to whoever listens there by then.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    else:
        with contextlib.suppress(NoAnswer):
            ask(endpoint, messages.STOP, config.STOP_SECONDS + _GONE_SECONDS, lives)
    while lives():
        if time.monotonic() >= deadline:
            raise CannotTakeOver(_why_not(endpoint, pid, found))
        time.sleep(_LOOK_SECONDS)


def difference(found: dict[str, Any]) -> str | None:
    """How the agent that describes itself so differs from this installation; None when it does not."""
    can = found.get("can")
    lacks = capabilities.lacking(capabilities.mine(), can)
    more = capabilities.lacking(can or (), capabilities.mine())
    if not lacks and not more and found["version"] == dreamlake.__version__:
        return None
    said = f"this command is of version {dreamlake.__version__}"
    if lacks:
        said += ", and with this agent " + "; ".join(capabilities.CAPABILITIES[name] for name in lacks)
    if more:
        said += f", and cannot what this agent can ({', '.join(more)})"
    return said + ". `dreamlake agent restart` lets an agent of this version take over"


def holder(endpoint: str) -> int | None:
    """The process that is the agent at an endpoint, without asking it; None when that cannot be told from here."""
    path = _lock_of(endpoint)
    pid = _named_in(path)
    with contextlib.suppress(OSError):
        lock = os.stat(path, follow_symlinks=False)
        # A number in a file is no proof, and may be of another container's: who is meant has this very file open.
        for each in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(each.path), lock):
                    return pid
    return None


def _lock_of(endpoint: str) -> str:
    folders = [each for each in config.runtime_folders() if endpoint == f"ipc://{config.socket_path(each)}"]
    return os.path.join(folders[0], LOCK) if folders else ""


def _named_in(path: str) -> int | None:
    """The pid in a lock's file. Whether it is held is not tried: who starts in that moment would find it taken."""
    try:
        with open(path, "rb") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _life_of(endpoint: str, pid: int) -> Callable[[], bool]:
    """What tells whether that agent still lives."""
    if processes.start_time(pid) is not None:
        return lambda: processes.start_time(pid) is not None
    # Killed, or of another container: then its socket answers, and the lock names it until there is another.
    path = _lock_of(endpoint)
    return lambda: _named_in(path) == pid and answers(endpoint.removeprefix("ipc://"))


def _why_not(endpoint: str, pid: int, found: dict[str, Any]) -> str:
    """What holds an agent that was told to end and has not."""
    with contextlib.suppress(NoAnswer):
        found = ask(endpoint, messages.STATUS, 1.0)
    held = [
        each["path"] + (f" ({each['trouble']})" if each.get("trouble") else "")
        for each in found.get("sessions", [])
        if each.get("queue_bytes") or each.get("uncovered_commits") or each.get("trouble")
    ]
    state = _STATES.get(processes.state(pid) or "")
    reasons = [state.format(pid=pid)] if state else []
    if held:
        reasons.append(f"it still has {', '.join(held[:_HELD_MAX])}{' and others' if len(held) > _HELD_MAX else ''}")
    return (
        f"the agent (pid {pid}) was told to end and has not after {config.STOP_SECONDS + _GONE_SECONDS:.0f} s: "
        f"{'; '.join(reasons) or 'it does not say why, its log may'}. `kill -9 {pid}` loses nothing: what it has not "
        "applied is in the journals, and the next agent applies it: `dreamlake agent start`"
    )


def _command(*arguments: str) -> list[str]:
    safely = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *safely, "-c", _PROGRAM, *arguments]


# ── under systemd ───────────────────────────────────────────────────────────────────────────────────────────────────


def _is_systemds(pid: int | None) -> bool:
    """Whether systemd has started this very process, and so decides who comes after it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"SYSTEMD_EXEC_PID=%d" % (pid or 0) in file.read().split(b"\0")
    except OSError:
        return False


def _restart_by_systemd() -> None:
    try:
        done = subprocess.run(["systemctl", "--user", "restart", SERVICE], capture_output=True, check=False)
    except OSError as error:
        raise CannotTakeOver(f"systemd has started the agent, and systemctl cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise CannotTakeOver(
            f"systemd has started the agent, and `systemctl --user restart {SERVICE}` says: "
            + done.stderr.decode(errors="replace").strip()
        )
