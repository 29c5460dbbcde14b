"""The tail of a growing file: zeros where bytes are still on their way, and whether they come."""

from __future__ import annotations

import errno
import os
import time

from dreamlake_agent.selftest.finding import ABSENT, HOLDS, Finding, Raw, holds_if
from dreamlake_agent.selftest.meeting import Side

NAME = "tail"
SECONDS = 2.0
_FILLED_SECONDS = 120.0
_WORD = b"dreamlake"


def written(offset: int, size: int) -> bytes:
    """What stands at an offset of the file: never a zero."""
    first, last = offset // len(_WORD), (offset + size) // len(_WORD) + 1
    return (_WORD * (last - first))[offset - first * len(_WORD) :][:size]


def weigh(offset: int, data: bytes) -> tuple[int, bool]:
    """How many bytes are zeros in place of what was written, and whether one is anything else."""
    right = written(offset, len(data))
    if data == right:
        return 0, False
    zeros = data.count(0)
    return zeros, any(got not in (0, wanted) for got, wanted in zip(data, right, strict=True))


def measure(side: Side) -> Raw:
    path = side.mine("tail")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        side.swap("tails are begun")
        raw = _at_work(side, fd)
        os.fsync(fd)
    finally:
        os.close(fd)
    size = side.swap("tails are written", {"size": raw.pop("size")})["size"]
    raw["filled"] = _filled(side.theirs("tail"), size)
    return raw


def _at_work(side: Side, fd: int) -> Raw:
    raw: Raw = {"reads": 0, "zeros": 0, "looks with zeros": 0, "wrong": 0, "stale": 0, "size": 0}
    looked, number = 0, 0
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        number += 1
        raw["size"] += os.write(fd, written(raw["size"], 50 + number * 997 % 40_000))
        if number % 20 == 0:
            os.fsync(fd)
        for data in _looks(side.theirs("tail"), looked, raw):
            raw["reads"] += 1
            zeros, wrong = weigh(looked, data)
            raw["zeros"] += zeros
            raw["looks with zeros"] += zeros > 0
            raw["wrong"] += wrong
            looked += 0 if zeros else len(data)
    return raw


def _looks(path: str, offset: int, raw: Raw) -> list[bytes]:
    try:
        with open(path, "rb", buffering=0) as file:
            return [os.pread(file.fileno(), 1 << 20, offset)]
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        raw["stale"] += 1
        return []


def _filled(path: str, size: int) -> float | None:
    """How long until the whole file can be read as it was written."""
    begin = time.monotonic()
    while (now := time.monotonic()) - begin < _FILLED_SECONDS:
        try:
            with open(path, "rb", buffering=0) as file:
                if os.fstat(file.fileno()).st_size == size and _is_right(file.fileno(), size):
                    return now - begin
        except FileNotFoundError:
            pass
        time.sleep(0.02)
    return None


def _is_right(fd: int, size: int) -> bool:
    offset = 0
    while offset < size:
        data = os.pread(fd, 1 << 20, offset)
        if not data or weigh(offset, data) != (0, False):
            return False
        offset += len(data)
    return True


def judge(first: Raw, second: Raw) -> list[Finding]:
    total = {key: first[key] + second[key] for key in ("reads", "zeros", "looks with zeros", "wrong", "stale")}
    filled = [first["filled"], second["filled"]]
    right = not total["wrong"] and None not in filled
    text = f"{total['reads']:,} reads at the tail of a growing file"
    if total["wrong"]:
        text += f"; {total['wrong']} saw bytes that nobody wrote"
    text += "; never whole" if None in filled else f"; whole {max(filled):.1f} s after fsync"
    zeros = total["looks with zeros"]
    return [
        holds_if(
            right,
            "a growing file shows what was written, sooner or later",
            text,
            follows="journals can be followed from another node",
            otherwise="calls of other nodes may be lost: keep sessions of several nodes off this file system",
            needed=True,
            figures=total,
        ),
        Finding(
            "the tail of a growing file has no zeros",
            ABSENT if zeros else HOLDS,
            f"{zeros} reads saw {total['zeros']:,} bytes of them" if zeros else "none seen",
            "a reader asks again until they are filled" if zeros else "",
        ),
    ]
