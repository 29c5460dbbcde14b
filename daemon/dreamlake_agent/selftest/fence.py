"""The fence: in a folder that was removed nothing can be made, nor anything renamed out of it, by who has it open."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from dreamlake_agent.selftest.finding import Finding, Raw, could_not, holds_if
from dreamlake_agent.selftest.meeting import Side

NAME = "fence"
ROUNDS = 5
_SEEN_SECONDS = 90.0


def measure(side: Side) -> Raw:
    """Each side owns a folder, warm in its caches, that the other removes."""
    passed: list[str] = []
    refused: dict[str, int] = {}
    for number in range(ROUNDS):
        folder = side.mine(f"epoch{number}")
        os.mkdir(folder, 0o700)
        for name in ("beat", "view"):
            _make(os.path.join(folder, name))
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.rename(f"{folder}/view", f"{folder}/view2")
            os.listdir(folder)
            side.swap(f"fence {number}")
            _take_away(side.theirs(f"epoch{number}"))
            side.swap(f"fence {number} is down")
            for what, act in _late(side, folder, fd, number).items():
                try:
                    act()
                    passed.append(what)
                except OSError as error:
                    name = errno.errorcode.get(error.errno or 0, "?")
                    refused[name] = refused.get(name, 0) + 1
        finally:
            os.close(fd)
        side.swap(f"fence {number} was tried")
    return {"passed": sorted(set(passed)), "refused": refused, "there": _left(side)}


def _late(side: Side, folder: str, fd: int, number: int) -> dict[str, Callable[[], None]]:
    """What an owner does in its folder, by the path and by a descriptor of it."""
    target = side.mine(f"named{number}")
    return {
        "a rename in it": lambda: os.rename(f"{folder}/view2", f"{folder}/view"),
        "a rename out of it": lambda: os.rename(f"{folder}/view2", target),
        "a rename out of it, by its descriptor": lambda: os.rename("view2", target, src_dir_fd=fd),
        "a new file": lambda: _make(f"{folder}/new"),
        "a new file, by its descriptor": lambda: _make("new2", fd),
        "a new folder, by its descriptor": lambda: os.mkdir("inner", dir_fd=fd),
    }


def _make(path: str, at: int | None = None) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=at)
    try:
        os.write(fd, b"x")
    finally:
        os.close(fd)


def _take_away(folder: str) -> None:
    """As a takeover does: what is in it, then the folder; again while the names are not seen here yet."""
    end = time.monotonic() + _SEEN_SECONDS
    while True:
        try:
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)
            return
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if time.monotonic() >= end:
            raise TimeoutError(errno.ETIMEDOUT, "a folder of the other side could not be removed", folder)
        time.sleep(0.02)


def _left(side: Side) -> list[str]:
    return [name for name in os.listdir(side.mine("")) if name.startswith("named")]


def judge(first: Raw, second: Raw) -> list[Finding]:
    passed = sorted({*first["passed"], *second["passed"], *first["there"], *second["there"]})
    refused: dict[str, int] = {}
    for name, count in [*first["refused"].items(), *second["refused"].items()]:
        refused[name] = refused.get(name, 0) + count
    if not passed and not refused:
        return [could_not("a removed folder refuses", ["nothing was tried"])]
    told = ", ".join(f"{name} {count}" for name, count in sorted(refused.items()))
    return [
        holds_if(
            not passed,
            "a removed folder refuses whoever has it open",
            f"{sum(refused.values())} tries refused ({told})" + "".join(f"; {each} was taken" for each in passed),
            follows="whoever takes a directory over stops the owner before it, paused or not",
            otherwise="a late owner is not stopped: never take over from one that may live",
            needed=True,
            figures={"refused": refused, "passed": passed},
        )
    ]
