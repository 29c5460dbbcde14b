"""Sight: how long what one node does to names, sizes, times and bytes stays unseen by the other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from dreamlake import config
from dreamlake_agent.selftest.finding import FAILS, HOLDS, Finding, Raw, holds_if
from dreamlake_agent.selftest.meeting import Side
from dreamlake_agent.selftest.mounts import mount_of

NAME = "sight"
SETTLE_SECONDS = 8.0  # what is left alone so long is cached longer
LIMIT_SECONDS = 100.0  # longer than any cache that we know of
_LATER_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_OLD, _NEW = b"old", b"new bytes"

Look = Callable[[], Any]


def measure(side: Side) -> Raw:
    fds = _prepare(side)
    try:
        side.swap("sights are there")
        looks = _looks(side)
        _poll(looks, side.settle)
        before = {name: _seen(look) for name, look in looks.items()}
        side.swap("settled")
        made = _change(side, fds)
        seen = _watch(looks, before, made, fds)
    finally:
        for fd in fds.values():
            os.close(fd)
    side.swap("seen")
    ahead, unsure = side.post.clock()
    told: Raw = {"made": made, "seen": seen, "ahead": ahead, "unsure": unsure, "gone": config.gone_seconds()}
    return {**told, "mount": mount_of(side.folder), "beat": config.beat_seconds()}


# Each in a folder of its own: a look at one is no look at another.
_FILES = ("opened", "sized", "touched", "unsynced", "closed", "replaced")


def _prepare(side: Side) -> dict[str, int]:
    os.mkdir(side.mine("sight"))
    for name in ("named", "listed", *_FILES):
        os.mkdir(side.mine(f"sight/{name}"))
    fds = {}
    for name in _FILES:
        fd = os.open(side.mine(f"sight/{name}/it"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(fd, _OLD)
        os.fsync(fd)
        fds[name] = fd
    return fds


def _looks(side: Side) -> dict[str, Look]:
    """How each is looked at; what it gives is another thing when the change is seen."""
    at = {name: side.theirs(f"sight/{name}") for name in ("named", "listed", *_FILES)}

    def text(name: str) -> Look:
        def look() -> bool:
            with open(f"{at[name]}/it", "rb", buffering=0) as file:
                return file.read(100).endswith(_NEW)

        return look

    return {
        "named": lambda: os.path.lexists(f"{at['named']}/it"),
        "listed": lambda: os.listdir(at["listed"]),
        "opened": text("opened"),
        "sized": lambda: os.stat(f"{at['sized']}/it").st_size,
        "touched": lambda: os.stat(f"{at['touched']}/it").st_mtime_ns,
        "unsynced": text("unsynced"),
        "closed": text("closed"),
        "replaced": text("replaced"),
    }


def _seen(look: Look) -> Any:
    try:
        return look()
    except OSError:
        return None


def _poll(looks: dict[str, Look], seconds: float) -> None:
    """One after the other begins to be looked at, so that their caches do not all grow old at one instant."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        for number, look in enumerate(looks.values()):
            if passed >= seconds / 2 * number / len(looks):
                _seen(look)
        time.sleep(_LOOK_SECONDS)


def _change(side: Side, fds: dict[str, int]) -> dict[str, float]:
    """One change of each kind; when it was made, by our clock."""
    made = {}

    here = side.mine("sight")
    for name in ("named", "listed"):
        os.close(os.open(f"{here}/{name}/it", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        made[name] = time.monotonic()
    for name in ("opened", "sized", "unsynced", "closed"):
        os.write(fds[name], _NEW)
        if name in ("opened", "sized"):
            os.fsync(fds[name])
        made[name] = time.monotonic()
    os.utime(fds["touched"])
    made["touched"] = time.monotonic()
    temp = f"{here}/replaced/temp"
    with open(temp, "wb") as file:
        file.write(_NEW)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temp, f"{here}/replaced/it")
    made["replaced"] = time.monotonic()
    return made


def _watch(
    looks: dict[str, Look], before: dict[str, Any], made: dict[str, float], fds: dict[str, int]
) -> dict[str, float]:
    """When each change of the other side's was seen, by our clock; ours go on meanwhile."""
    seen = {}
    begin = time.monotonic()
    while (now := time.monotonic()) - begin < LIMIT_SECONDS:
        for name, look in looks.items():
            if name not in seen and _seen(look) not in (before[name], None):
                seen[name] = time.monotonic()
        if "synced" not in made and now - begin >= _LATER_SECONDS:
            os.fsync(fds["unsynced"])
            made["synced"] = time.monotonic()
            os.close(fds.pop("closed"))
            made["let go"] = time.monotonic()
        if len(seen) == len(looks) and "synced" in made:
            break
        time.sleep(_LOOK_SECONDS)
    return seen


def delays(first: Raw, second: Raw, what: str, since: str | None = None) -> list[float] | None:
    """How long after it was made by one the other saw it, both ways; None when one never did."""
    found = []
    for here, there in ((first, second), (second, first)):
        if what not in here["seen"]:
            return None
        found.append(here["seen"][what] + here["ahead"] - there["made"][since or what])
    return found


def judge(first: Raw, second: Raw) -> list[Finding]:
    unsure = max(first["unsure"], second["unsure"])
    worst = {name: _worst(delays(first, second, name)) for name in _HOW}
    found = []
    for name, words, follows in _SIGHTS:
        text = ", ".join(_after(worst[each], _HOW[each]) for each in name)
        figures: dict[str, Any] = {each: worst[each] for each in name}
        right = any(worst[each] is not None for each in name)
        needed = words != "a sign of life is seen"
        found.append(
            holds_if(right, words, f"{text} (± {unsure:.2f})", follows=follows, needed=needed, figures=figures)
        )
    return [*found, *_bytes(first, second), _caching(first, second, worst)]


_SIGHTS = (
    (("named", "listed"), "a new name is seen", "so late is the journal of a script on another node found"),
    (("opened", "sized"), "growth is seen", "so late, besides a second, are calls of another node applied"),
    (("replaced",), "a file that was renamed over is seen", "so late does a script hear that its calls are kept"),
    (("touched",), "a sign of life is seen", ""),
)
_HOW = {
    "named": "by its name",
    "listed": "in a listing",
    "opened": "by opening the file",
    "sized": "by stat",
    "replaced": "by opening it",
    "touched": "by stat",
}


def _worst(found: list[float] | None) -> float | None:
    return None if found is None else max(*found, 0.0)


def _after(seconds: float | None, how: str) -> str:
    return f"not within {LIMIT_SECONDS:.0f} s {how}" if seconds is None else f"after {seconds:.2f} s {how}"


def _bytes(first: Raw, second: Raw) -> list[Finding]:
    """Whether bytes are seen before their writer fsyncs or closes the file, else how long after."""
    found = []
    for name, since, words, needed in (
        ("unsynced", "synced", "bytes are seen after fsync", True),
        ("closed", "let go", "bytes are seen after close", False),
    ):
        written, later = delays(first, second, name), delays(first, second, name, since)
        if written is None or later is None:
            found.append(Finding(words, FAILS, f"not within {LIMIT_SECONDS:.0f} s", needed=needed))
        elif max(later) < 0:
            text = f"and before: {max(*written, 0.0):.2f} s after they were written"
            found.append(Finding(words, HOLDS, text, figures={"written": max(written)}, needed=needed))
        else:
            text = f"{max(later):.2f} s after it, and not before"
            follows = "scripts that no agent of their node hears fsync their journal once a second" if needed else ""
            found.append(Finding(words, HOLDS, text, follows, figures={"later": max(later)}, needed=needed))
    return found


def _caching(first: Raw, second: Raw, worst: dict[str, float | None]) -> Finding:
    """Caches must be shorter than the silence after which somebody is gone."""
    name = "caches are shorter than DREAMLAKE_GONE"
    gone, beat = min(first["gone"], second["gone"]), max(first["beat"], second["beat"])
    said = [each["mount"]["caches"] for each in (first, second) if each["mount"]["caches"] is not None]
    measured = [LIMIT_SECONDS if each is None else each for each in worst.values()]
    longest = max([*measured, *said])
    kinds = " and ".join(sorted({_mount(each["mount"]) for each in (first, second)}))
    text = f"{max(measured):.2f} s measured"
    text += f", {max(said):.0f} s by the options of the mount" if said else ""
    text += f"; DREAMLAKE_GONE is {gone:g} s; {kinds}"
    if longest + beat < gone:
        return Finding(name, HOLDS, text, figures={"longest": longest, "gone": gone})
    wanted = int(longest + 3 * beat) + 1
    follows = f"on all nodes: export DREAMLAKE_GONE={wanted}, or an owner may be taken for gone that is not"
    return Finding(name, FAILS, text, follows, figures={"longest": longest, "gone": gone})


def _mount(mount: dict[str, Any]) -> str:
    return f"{mount['kind']} ({mount['options']})" if mount["options"] else str(mount["kind"])
