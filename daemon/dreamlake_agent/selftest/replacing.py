"""A rename over a file: whoever reads sees the old bytes or the new ones, and who has the old one open keeps to it."""

from __future__ import annotations

import errno
import os
import time
import zlib

from dreamlake_agent.selftest.finding import ABSENT, Finding, Raw, holds_if
from dreamlake_agent.selftest.meeting import Side

NAME = "replacing"
SECONDS = 1.5
_BODY = 20_000
_LATE_SECONDS = 1.0


def measure(side: Side) -> Raw:
    for name in ("synced", "unsynced"):
        _replace(side.mine(name), 0, sync=True)
    _replace(side.mine("held"), 0, sync=True)
    side.swap("files are there")
    _seen(side.theirs("synced"))
    side.swap("files are seen")
    raw = _at_work(side)
    raw.update(_late(side))
    return raw


def _at_work(side: Side) -> Raw:
    raw: Raw = {"made": 0, "reads": 0, "torn": 0, "none": 0, "stale": 0, "half": 0}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        raw["made"] += 1
        _replace(side.mine("synced"), raw["made"], sync=True)
        _replace(side.mine("unsynced"), raw["made"], sync=False)
        for _ in range(5):
            raw["reads"] += 1
            told = _told(side.theirs("synced"))
            if told is not None:
                raw[told] += 1
            raw["half"] += _told(side.theirs("unsynced")) not in (None, "stale")
    side.swap("replaced")
    return raw


def _replace(path: str, number: int, *, sync: bool) -> None:
    body = number.to_bytes(4, "big") * (_BODY // 4)
    fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, zlib.crc32(body).to_bytes(4, "big") + body)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".tmp", path)


def is_whole(data: bytes) -> bool:
    return len(data) == _BODY + 4 and zlib.crc32(data[4:]) == int.from_bytes(data[:4], "big")


def _told(path: str) -> str | None:
    """What a reader has to complain of."""
    try:
        with open(path, "rb", buffering=0) as file:
            return None if is_whole(file.read(2 * _BODY)) else "torn"
    except FileNotFoundError:
        return "none"
    except OSError as error:
        if error.errno == errno.ESTALE:
            return "stale"
        raise


def _seen(path: str, seconds: float = 90.0) -> None:
    """Until a file that was made is here."""
    end = time.monotonic() + seconds
    while _told(path) is not None and time.monotonic() < end:
        time.sleep(0.02)


def _late(side: Side) -> Raw:
    """Write through a descriptor of a file that the other side has meanwhile replaced."""
    _seen(side.theirs("held"))
    fd = os.open(side.theirs("held"), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    answers = []
    try:
        os.pread(fd, 10, 0)
        side.swap("held")
        _replace(side.mine("held"), 1, sync=True)
        side.swap("the held one is replaced")
        answers.append(_answer(lambda: os.pread(fd, 10, 0)))
        answers.append(_answer(lambda: os.write(fd, b"late" * 100)))
        answers.append(_answer(lambda: os.fsync(fd)))
    finally:
        answers.append(_answer(lambda: os.close(fd)))
    side.swap("written late")
    time.sleep(_LATE_SECONDS)
    return {"late": answers, "kept": _told(side.mine("held")) is None}


def _answer(act: object) -> str:
    assert callable(act)
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "ok"


def judge(first: Raw, second: Raw) -> list[Finding]:
    total = {key: first[key] + second[key] for key in ("made", "reads", "torn", "none", "stale", "half")}
    bad = total["torn"] + total["none"]
    text = f"{total['reads']:,} reads of {total['made']:,} versions"
    if bad:
        text += f"; {total['none']} saw no file, {total['torn']} saw something else than a version"
    if total["stale"]:
        text += f"; {total['stale']} were told ESTALE, and read again"
    late = [*first["late"], *second["late"]]
    kept = first["kept"] and second["kept"]
    found = [
        holds_if(
            not bad,
            "rename over a file is atomic",
            text,
            follows="views and checkpoints are whole whenever they are read",
            otherwise="what is read may be none, or half: keep sessions off this file system",
            needed=True,
            figures=total,
        ),
        holds_if(
            kept,
            "who has a replaced file open cannot write into the new one",
            f"it is told {_words(late)}",
            follows="an owner that comes back late writes into files that have no name any more",
            otherwise="a late owner's rows end up in the logs: keep sessions of several nodes off this file system",
            needed=True,
            figures={"answers": late},
        ),
    ]
    if total["half"]:
        text = f"{total['half']} reads saw none or half of a file that was renamed without fsync"
        found.append(
            Finding("bytes come before the name, without fsync", ABSENT, text, "Dreamlake reads such a view again")
        )
    return found


def _words(late: list[str]) -> str:
    return "nothing" if set(late) == {"ok"} else ", ".join(sorted(set(late) - {"ok"}))
