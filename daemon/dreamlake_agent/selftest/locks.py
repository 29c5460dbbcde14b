"""``flock``: whether the other node sees it, and sees the end of its holder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import time

from dreamlake_agent.selftest.finding import ABSENT, FAILS, HOLDS, Finding, Raw
from dreamlake_agent.selftest.meeting import Side

NAME = "locks"
FREE_SECONDS = 30.0
_HOLDER = """
import fcntl, os, sys, time
try:
    fd = os.open(sys.argv[1], os.O_RDWR)
except FileNotFoundError:  # the other side is gone, and took the folder along: the next swap says so
    sys.exit()
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def measure(side: Side) -> Raw:
    path = side.mine("lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mine = _try(fd)
        again = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        raw: Raw = {"mine": mine, "here": _try(again)}
        os.close(again)
        side.swap("locked")
        raw["theirs"] = _at(side.theirs("lock"))
        side.swap("locks are tried")
    finally:
        os.close(fd)
    return {**raw, **_of_a_dead_one(side, held=mine == "got")}


def _of_a_dead_one(side: Side, *, held: bool) -> Raw:
    """A child holds a lock and is killed; when do we have the one of the other side's child?"""
    path = side.mine("held")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.ExitStack() as stack:
        child = None
        if held:
            words = [sys.executable, "-c", _HOLDER, path]
            child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(_end, child)
            assert child.stdout is not None
            child.stdout.readline()
        side.swap("held")
        before = _at(side.theirs("held"))
        side.swap("held ones are tried")
        killed = time.monotonic()
        if child is not None:
            child.kill()
            child.wait()
        theirs = side.swap("holders are dead", {"killed": killed})["killed"]
        seen = _free(side.theirs("held"))
    ahead, unsure = side.post.clock()
    after = None if seen is None else max(seen + ahead - theirs, 0.0)
    return {"dead before": before, "free": after, "unsure": unsure}


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    child.wait()


def _try(fd: int) -> str:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "busy"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return "got"


def _at(path: str) -> str:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _try(fd)
    finally:
        os.close(fd)


def _free(path: str) -> float | None:
    end = time.monotonic() + FREE_SECONDS
    while time.monotonic() < end:
        if _at(path) == "got":
            return time.monotonic()
        time.sleep(0.02)
    return None


def judge(first: Raw, second: Raw) -> list[Finding]:
    name = "a lock (flock) is seen by the other node"
    alone = "that an owner on another node is gone, its beats alone say: when none came for DREAMLAKE_GONE (90 s)"
    mine, theirs = {first["mine"], second["mine"]}, {first["theirs"], second["theirs"]}
    if mine != {"got"}:
        return [Finding(name, ABSENT, f"no locks here ({', '.join(sorted(mine - {'got'}))})", alone)]
    if theirs == {"got"}:
        return [Finding(name, FAILS, "each node has locks of its own", alone)]
    if theirs != {"busy"}:
        return [Finding(name, FAILS, f"one way only: {first['theirs']}, {second['theirs']}", alone)]
    text = "seen" + (
        "" if {first["here"], second["here"]} == {"busy"} else ", though not by another file of its own node"
    )
    found = [Finding(name, HOLDS, text, "an owner that lives is never taken for gone")]
    late = [each["free"] for each in (first, second)]
    name = "a lock is free after its holder's death"
    if None in late:
        text, follows = (
            f"not within {FREE_SECONDS:.0f} s",
            "where it stays, take over by hand: dreamlake agent takeover",
        )
        return [*found, Finding(name, FAILS, text, follows)]
    text = f"after {max(late):.1f} s (± {max(first['unsure'], second['unsure']):.1f})"
    return [*found, Finding(name, HOLDS, text, figures={"seconds": max(late)})]
