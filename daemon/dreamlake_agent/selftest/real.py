"""The real thing: agents and trainings of both nodes in one session, followed, paused, taken over and resumed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable

from dreamlake.reader.session import SessionReader
from dreamlake.reader.verify import verify
from dreamlake.wire.state import data_log
from dreamlake_agent import byhand
from dreamlake_agent.selftest.finding import Finding, Raw, could_not, holds_if
from dreamlake_agent.selftest.meeting import Side
from dreamlake_agent.selftest.parties import AgentProcess, Failed, TrainingProcess
from dreamlake_agent.selftest.training import NAME as SESSION
from dreamlake_agent.selftest.training import TRACK, WORKSPACE
from dreamlake_agent.store.takeover import NotYet

NAME = "real"
CALLS = (50, 2000, 500, 100, 100)  # opened, followed, paused, taken over, resumed
PATIENCE_SECONDS = 90.0  # for anything that waits for the other node: longer than caches are old
_LATE_SECONDS = 2.0  # so long a late owner may do what it likes
_LOOK_SECONDS = 0.1


def measure(side: Side) -> Raw:
    """Both nodes go through the same steps; at each, one of them does more."""
    with contextlib.ExitStack() as stack:
        home = tempfile.mkdtemp(prefix="dl")
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        rank = 0 if side.is_first else 1
        agent = AgentProcess(home, rank)
        stack.callback(agent.close)
        try:
            return _scenes(side, stack, home, rank, agent)
        except Failed as why:
            return {"why": str(why)}


def _scenes(side: Side, stack: contextlib.ExitStack, home: str, rank: int, agent: AgentProcess) -> Raw:
    limit = PATIENCE_SECONDS
    root = side.both("root")
    path = os.path.realpath(os.path.join(root, WORKSPACE, SESSION))
    raw: Raw = {}
    agent.wait_until_it_answers()
    side.swap("agents are there")
    script = TrainingProcess(home, rank, root, "first" if side.is_first else "second")
    stack.callback(script.close)
    script.hear(limit)
    script.do(f"write {CALLS[0]}", limit)
    raw["opened"] = script.do(f"flush {limit}", 2 * limit)
    side.swap("opened", seconds=3 * limit)

    mine = agent.phase(path) == "live"
    theirs = bool(side.swap("who has it", {"mine": mine})["mine"])
    raw["owner"] = mine
    if mine == theirs:
        return raw  # the rest asks for one owner

    if not mine:
        script.do(f"write {CALLS[1]}", limit)
        raw["followed"] = script.do(f"flush {limit}", 2 * limit)
    side.swap("followed", seconds=3 * limit)
    raw["read"] = _count(path)

    if mine:
        agent.pause()
    side.swap("paused")
    script.do(f"write {CALLS[2]}", limit)
    side.swap("written while it was paused", seconds=3 * limit)
    if not mine:
        begin = time.monotonic()
        raw["epoch"] = _taken(path, limit)
        script.do(f"write {CALLS[3]}", limit)
        raw["taken"] = script.do(f"flush {limit}", 2 * limit)
        raw["taken"]["whole"] = round(time.monotonic() - begin, 3)
    side.swap("taken over", seconds=4 * limit)
    if mine:
        agent.go_on()
        time.sleep(_LATE_SECONDS)
        script.do(f"write {CALLS[4]}", limit)
        raw["resumed"] = script.do(f"flush {limit}", 2 * limit)
    side.swap("resumed", seconds=3 * limit)
    raw["written"] = script.do("close", limit)["written"]
    agent.stop()
    theirs_written = side.swap("over", {"written": raw["written"]}, seconds=3 * limit)["written"]
    ours, other = ("first", "second") if side.is_first else ("second", "first")
    raw.update(_found(path, {ours: raw["written"], other: theirs_written}, limit))
    return raw


def _taken(path: str, seconds: float) -> int:
    end = time.monotonic() + seconds
    while True:
        try:
            return byhand.take(path)[0]
        except NotYet:
            if time.monotonic() >= end:
                raise Failed("the logs are not what the checkpoint says, as this node sees them") from None
            time.sleep(_LOOK_SECONDS)


def _count(path: str) -> int:
    with SessionReader(path) as reader:
        return sum(1 for _ in reader.lines(data_log(TRACK)).rows())


def rows_of(path: str) -> dict[str, list[int]]:
    """Of each script what it wrote, as it stands in the log."""
    found: dict[str, list[int]] = {}
    with open(os.path.join(path, data_log(TRACK)), encoding="utf-8") as file:
        for line in file:
            data = json.loads(line)["data"]
            found.setdefault(data["who"], []).append(data["value"])
    return found


def wrong_in(rows: dict[str, list[int]], written: dict[str, int]) -> list[str]:
    """What is not there once and in its order."""
    found = []
    for who, count in written.items():
        got = rows.get(who, [])
        if got != list(range(count)):
            lost, twice = len(set(range(count)) - set(got)), len(got) - len(set(got))
            turned = sum(after < before for before, after in itertools.pairwise(got))
            found.append(f"of the {who} node's {count} calls {lost} are lost, {twice} doubled, {turned} out of order")
    return found


def _found(path: str, written: dict[str, int], seconds: float) -> Raw:
    """What stands in the directory, once this node sees all of it."""
    _until(lambda: not wrong_in(rows_of(path), written), seconds)
    report = verify(path)
    return {"wrong": wrong_in(rows_of(path), written), "problems": [each.sentence for each in report.problems][:3]}


def _until(seen: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if seen():
                return
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(_LOOK_SECONDS)


def judge(first: Raw, second: Raw) -> list[Finding]:
    why = [f"{each}: {raw['why']}" for each, raw in (("first node", first), ("second node", second)) if "why" in raw]
    if why:
        return [could_not("owner, follow and takeover", why)]
    found = [_owned(first, second)]
    if first["owner"] != second["owner"]:
        owner, other = (first, second) if first["owner"] else (second, first)
        found += [_followed(other, [first["read"], second["read"]]), _taken_over(owner, other)]
    return found


def _owned(first: Raw, second: Raw) -> Finding:
    owners = first["owner"] + second["owner"]
    errors = [raw["opened"]["error"] for raw in (first, second) if "error" in raw["opened"]]
    text = f"of two agents that wanted one new session {('none', 'one', 'both')[owners]} got it"
    return holds_if(
        owners == 1 and not errors,
        "owner",
        "; ".join([text, *errors]) if errors else f"{text}; flush() {_seconds(first['opened'], second['opened'])}",
        follows="the scripts of all nodes write into one session",
        otherwise="keep sessions of several nodes off this file system",
        needed=True,
        figures={"owners": owners},
    )


def _followed(other: Raw, counts: list[int]) -> Finding:
    told = other["followed"]
    wanted = 2 * CALLS[0] + CALLS[1]
    right = "error" not in told and min(counts) >= wanted
    text = f"{CALLS[1]:,} calls of the other node, flush() {_seconds(told)}; both nodes read {min(counts):,} rows"
    return holds_if(
        right,
        "follow",
        text if right else f"flush(): {told.get('error', 'returned')}; {min(counts):,} of {wanted:,} rows can be read",
        follows="so long do flush() and close() take on a node whose agent is not the owner",
        otherwise="scripts of other nodes wait in vain",
        needed=True,
        figures={"seconds": told.get("seconds"), "rows": counts},
    )


def _taken_over(owner: Raw, other: Raw) -> Finding:
    errors = [raw[step]["error"] for raw, step in ((other, "taken"), (owner, "resumed")) if "error" in raw[step]]
    wrong = [*owner["wrong"], *other["wrong"], *owner["problems"], *other["problems"], *errors]
    text = (
        f"a paused owner was replaced, {other['taken']['whole']:.1f} s until the next flush() was through; what it did "
        f"late changed nothing: {owner['written'] + other['written']:,} calls, each once and in its order"
    )
    return holds_if(
        not wrong,
        "takeover",
        "; ".join(dict.fromkeys(wrong)) or text,
        follows="an owner that is gone, paused or cut off costs no call",
        otherwise="never take over from an owner that may live",
        needed=True,
        figures={"seconds": other["taken"]["whole"]},
    )


def _seconds(*told: Raw) -> str:
    """How long it took; one that came to nothing has an error instead."""
    return f"after {max(each.get('seconds', 0.0) for each in told):.1f} s"
