"""The run: all checks in their order, on both nodes at once, and what they found."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

from dreamlake_agent.selftest import clocks, exclusive, fence, listing, locks, meeting, real, replacing, sight, tail
from dreamlake_agent.selftest.finding import Finding, Raw, could_not
from dreamlake_agent.selftest.meeting import Side
from dreamlake_agent.selftest.post import Parted, TheirFailure

CHECKS: tuple[ModuleType, ...] = (clocks, replacing, exclusive, fence, listing, locks, tail, sight, real)
_END_SECONDS = 10.0
_SECOND = "import sys; from dreamlake_agent.selftest.run import be_second; sys.exit(be_second(*sys.argv[1:]))"

Told = Callable[[str], None]
Found = Callable[[Finding], None]


def run(side: Side, settle: float, told: Told, found: Found) -> list[Finding]:
    """Both sides come to the same findings. Raises :class:`~dreamlake_agent.selftest.post.Parted`."""
    os.makedirs(side.mine(""), exist_ok=True)
    os.makedirs(side.both(""), exist_ok=True)
    side.settle = max(settle, side.swap("begin", {"settle": settle})["settle"])
    findings: list[Finding] = []
    for check in CHECKS:
        told(check.NAME)
        for finding in _checked(check, side):
            findings.append(finding)
            found(finding)
    with contextlib.suppress(Parted, OSError):  # who hears it first clears away
        side.swap("all is done")
    return findings


def _checked(check: ModuleType, side: Side) -> list[Finding]:
    try:
        raw: Raw = check.measure(side)
    except TheirFailure as why:
        raw = {"failed there": str(why)}
    except OSError as why:
        where = f": {os.path.relpath(why.filename, side.folder)}" if isinstance(why.filename, str) else ""
        raw = {"failed": f"{type(why).__name__}: {why.strerror or why}{where}"}
    theirs: Raw = side.post.end(check.NAME, raw)
    first, second = (raw, theirs) if side.is_first else (theirs, raw)
    errors = [
        f"{node} node: {each['failed']}" for node, each in (("first", first), ("second", second)) if "failed" in each
    ]
    told = [str(each["failed there"]) for each in (first, second) if "failed there" in each]
    if errors or told:
        return [could_not(check.NAME, errors or told)]
    judged: list[Finding] = check.judge(first, second)
    return judged


# ── two processes of this node ──────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def alone(place: str, settle: float, made: list[str]) -> Iterator[Side]:
    """A second process here takes the other node's part."""
    folder = meeting.folder_for(place, meeting.new_id())
    made.append(folder)
    os.mkdir(folder, 0o700)
    words = [sys.executable, "-c", _SECOND, folder, str(settle), str(os.getpid())]
    # Of a group of its own: Ctrl-C is for us, and we end it.
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True) as second:
        try:
            yield meeting.first_of_two(folder, lambda: second.poll() is None)
            second.wait(_END_SECONDS)
        finally:
            second.terminate()
            try:
                second.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                second.kill()


def be_second(folder: str, settle: str, parent: str) -> int:
    ends_as_asked()
    side = meeting.second_of_two(folder, lambda: os.getppid() == int(parent))
    try:
        run(side, float(settle), lambda _name: None, lambda _finding: None)
    except (KeyboardInterrupt, Parted, OSError):
        meeting.remove(folder)
        return 1
    return 0


def ends_as_asked() -> None:
    """SIGTERM and a closed terminal end as Ctrl-C does: what was made is removed, and who was started is ended."""
    import signal

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
