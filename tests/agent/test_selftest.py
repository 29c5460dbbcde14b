"""The selftest tells what a file system does wrong: each check, where all is right and with a planted fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dreamlake.world import processes
from dreamlake_agent.selftest import (
    clocks,
    exclusive,
    fence,
    listing,
    locks,
    meeting,
    mounts,
    post,
    real,
    replacing,
    run,
    sight,
    tail,
)
from dreamlake_agent.selftest.finding import ABSENT, FAILS, HOLDS, Finding, Raw, conclusion, lines_of
from dreamlake_agent.selftest.meeting import NobodyCame, Side, meet
from dreamlake_agent.selftest.post import Parted, Post
from tests.waiting import wait_for

Sides = tuple[Side, Side]
_SAY_WHO = "from dreamlake.world import processes; import json; print(json.dumps(processes.myself()))"


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    folder = str(tmp_path)
    for name in ("first", "second", "both"):
        (tmp_path / name).mkdir()
    return Side(folder, Post(folder, "1", "2"), True, {}), Side(folder, Post(folder, "2", "1"), False, {})


def together(sides: Sides, act: Any) -> list[Any]:
    """What both come to, each in a thread of its own."""
    with ThreadPoolExecutor(2) as pool:
        return [each.result(60) for each in [pool.submit(act, side) for side in sides]]


def found(check: ModuleType, sides: Sides) -> dict[str, Finding]:
    first, second = together(sides, lambda side: run._checked(check, side))
    assert first == second, "the two sides come to other findings"
    return {each.name: each for each in first}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replacing, "SECONDS", 0.3)
    monkeypatch.setattr(replacing, "_LATE_SECONDS", 0.0)
    monkeypatch.setattr(tail, "SECONDS", 0.3)
    monkeypatch.setattr(exclusive, "ROUNDS", 20)
    monkeypatch.setattr(sight, "_LATER_SECONDS", 0.2)


# ── what is right ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("check", [clocks, replacing, exclusive, fence, listing, locks, tail, sight])
def test_a_disk_of_this_machine_has_all_of_it(check: ModuleType, sides: Sides) -> None:
    findings = found(check, sides)
    assert findings
    assert {each.verdict for each in findings.values()} == {HOLDS}, list(lines_of([*findings.values()]))


def test_all_checks_are_run() -> None:
    sources = {path.stem: path.read_text() for path in Path(run.__file__).parent.glob("*.py")}
    with_name = {name for name, text in sources.items() if "\nNAME = " in text and "\ndef judge" in text}
    assert {check.__name__.rpartition(".")[2] for check in run.CHECKS} == with_name


# ── what is wrong, and has to be told ───────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_written_in_its_place_is_told(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(path: str, number: int, *, sync: bool) -> None:
        body = number.to_bytes(4, "big") * (replacing._BODY // 4)
        with open(path, "wb", buffering=0) as file:
            file.write(b"half")
            threading.Event().wait(0.001)
            file.write(body)

    monkeypatch.setattr(replacing, "_replace", in_place)
    monkeypatch.setattr(replacing, "_seen", lambda path: None)
    told = found(replacing, sides)
    assert told["rename over a file is atomic"].is_bad
    assert told["who has a replaced file open cannot write into the new one"].is_bad, "it is the same file"


def test_a_name_that_two_can_make_is_told(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "_create", lambda path: Path(path).touch())
    told = found(exclusive, sides)
    assert told["O_EXCL of one name"].verdict == FAILS
    assert not told["O_EXCL of one name"].is_bad, "Dreamlake does without"


def test_a_claim_that_two_can_make_is_told() -> None:
    every = (1 << exclusive.ROUNDS) - 1
    right = dict.fromkeys(("claim", "mkdir", "excl"), f"{every:x}")
    none = dict.fromkeys(right, "0")
    assert not any(each.is_bad for each in exclusive.judge(right, none))
    for first, second in ((right, right), (none, none), (right, {**none, "claim": "1"})):
        assert exclusive.judge(first, second)[0].is_bad
    assert "never met" in exclusive.judge(right, none)[0].text


def test_a_folder_that_still_takes_something_is_told(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was renamed away and not removed: who has it open goes on in it."""
    monkeypatch.setattr(fence, "_take_away", lambda folder: os.rename(folder, f"{folder}.gone"))
    [told] = found(fence, sides).values()
    assert told.is_bad
    assert "a new file, by its descriptor was taken" in told.text
    assert "a rename out of it, by its descriptor was taken" in told.text


def test_a_listing_that_stays_old_is_told(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    believed: dict[Any, list[str]] = {}
    real_list = os.listdir

    def cached(path: Any) -> list[str]:
        if not str(path).endswith("listing"):
            return real_list(path)
        return believed.setdefault((threading.get_ident(), path), real_list(path))

    monkeypatch.setattr(listing.os, "listdir", cached)
    [told] = found(listing, sides).values()
    assert told.is_bad


def test_zeros_at_the_tail_are_told_and_forgiven(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = tail._looks
    monkeypatch.setattr(tail, "_looks", lambda *words: [each[: len(each) // 2] + bytes(9) for each in looks(*words)])
    told = found(tail, sides)
    assert told["the tail of a growing file has no zeros"].verdict == ABSENT
    assert not any(each.is_bad for each in told.values())


@pytest.mark.parametrize("fault", [lambda data: b"\xff" + data[1:], lambda data: data[1:] + b"d"])
def test_bytes_that_nobody_wrote_are_told(sides: Sides, monkeypatch: pytest.MonkeyPatch, fault: Any) -> None:
    looks = tail._looks
    monkeypatch.setattr(tail, "_looks", lambda *words: [fault(each) for each in looks(*words) if len(each) > 20])
    told = found(tail, sides)
    assert told["a growing file shows what was written, sooner or later"].is_bad


def test_a_tail_that_is_never_filled_is_told(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_FILLED_SECONDS", 0.1)
    monkeypatch.setattr(tail, "_is_right", lambda fd, size: False)
    assert any(each.is_bad for each in found(tail, sides).values())


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ({"mine": "got", "theirs": "got"}, {"mine": "got", "theirs": "got"}, FAILS),
        ({"mine": "got", "theirs": "busy"}, {"mine": "got", "theirs": "got"}, FAILS),
        ({"mine": "ENOLCK", "theirs": "ENOLCK"}, {"mine": "ENOLCK", "theirs": "ENOLCK"}, ABSENT),
    ],
)
def test_locks_that_do_not_reach_the_other_node_are_told(first: Raw, second: Raw, verdict: str) -> None:
    more = {"here": "busy", "free": 0.1, "unsure": 0.0}
    [told] = locks.judge({**more, **first}, {**more, **second})
    assert told.verdict == verdict
    assert not told.is_bad
    assert "DREAMLAKE_GONE" in told.follows


def test_a_lock_that_outlives_its_holder_is_told() -> None:
    raw: Raw = {"mine": "got", "theirs": "busy", "here": "busy", "free": None, "unsure": 0.0}
    assert locks.judge(raw, raw)[1].verdict == FAILS


_LOOKS = ("named", "listed", "opened", "sized", "touched", "unsynced", "closed", "replaced")


def sighted(after: float, **more: Any) -> Raw:
    """A node that sees everything so many seconds after it was made at 100."""
    made = dict.fromkeys(_LOOKS, 100.0) | {"synced": 103.0, "let go": 103.0}
    mount = {"kind": "nfs4", "options": "", "caches": more.pop("caches", None)}
    raw: Raw = {"made": made, "seen": dict.fromkeys(_LOOKS, 100.0 + after), "ahead": 0.0, "unsure": 0.01}
    return {**raw, "gone": 90.0, "beat": 10.0, "mount": mount, **more}


def caching(first: Raw, second: Raw) -> Finding:
    return sight.judge(first, second)[-1]


def test_caches_are_held_against_the_silence_of_who_is_gone() -> None:
    assert caching(sighted(3.0), sighted(2.0)).verdict == HOLDS
    assert caching(sighted(79.0), sighted(2.0)).verdict == HOLDS
    slow = caching(sighted(2.0), sighted(81.0))
    assert slow.verdict == FAILS
    assert "DREAMLAKE_GONE=112" in slow.follows
    assert caching(sighted(0.0, caches=60.0), sighted(0.0, caches=60.0)).verdict == HOLDS
    assert caching(sighted(0.0, caches=600.0), sighted(0.0)).verdict == FAILS, "the mount says so"
    assert caching(sighted(3.0, gone=12.0), sighted(3.0)).verdict == FAILS


def test_what_is_never_seen_is_told() -> None:
    for name in ("opened", "sized"):
        blind = sighted(0.1)
        del blind["seen"][name]
        told = {each.name: each for each in sight.judge(blind, sighted(0.1))}
        assert told["growth is seen"].verdict == HOLDS, "the other way shows it"
    del blind["seen"]["opened"]
    told = {each.name: each for each in sight.judge(blind, sighted(0.1))}
    assert told["growth is seen"].is_bad
    del blind["seen"]["unsynced"]
    assert any(each.is_bad and each.name == "bytes are seen after fsync" for each in sight.judge(blind, sighted(0.1)))


def test_the_clocks_of_two_nodes_do_not_matter() -> None:
    first, second = sighted(2.0), sighted(2.0)
    for name in second["made"]:
        second["made"][name] += 5000
    for name in second["seen"]:
        second["seen"][name] += 5000
    first["ahead"], second["ahead"] = 5000.0, -5000.0
    assert sight.delays(first, second, "named") == [2.0, 2.0]


def test_a_call_that_is_not_there_once_and_in_order_is_told() -> None:
    written = {"first": 3, "second": 2}
    assert real.wrong_in({"first": [0, 1, 2], "second": [0, 1]}, written) == []
    assert real.wrong_in({"first": [0, 2], "second": [0, 1]}, written) == [
        "of the first node's 3 calls 1 are lost, 0 doubled, 0 out of order"
    ]
    assert "1 doubled" in real.wrong_in({"first": [0, 1, 2, 2], "second": [0, 1]}, written)[0]
    assert "1 out of order" in real.wrong_in({"first": [0, 1, 2], "second": [1, 0]}, written)[0]
    assert len(real.wrong_in({}, written)) == 2


def raw_of_real(owner: bool) -> Raw:
    done = {"seconds": 0.1, "whole": 0.2, "written": 10}
    raw: Raw = {"opened": done, "owner": owner, "read": 2100, "written": 10, "wrong": [], "problems": []}
    return {**raw, **({"resumed": done} if owner else {"followed": done, "taken": done})}


def test_two_owners_a_lost_call_and_a_flush_in_vain_are_told() -> None:
    one, other = raw_of_real(True), raw_of_real(False)
    assert not any(each.is_bad for each in real.judge(one, other))
    assert not any(each.is_bad for each in real.judge(other, one))
    assert [each.name for each in real.judge(one, raw_of_real(True)) if each.is_bad] == ["owner"]
    assert [each.name for each in real.judge(other, other) if each.is_bad] == ["owner"]
    vain = {"error": "the agent on node1 is silent", "written": 10}
    for first, second, name in (
        (one, {**other, "followed": vain}, "follow"),
        ({**one, "read": 2099}, other, "follow"),
        ({**one, "wrong": ["1 lost"]}, other, "takeover"),
        ({**one, "resumed": vain}, other, "takeover"),
        (one, {**other, "problems": ["a row twice"]}, "takeover"),
    ):
        assert [each.name for each in real.judge(first, second) if each.is_bad] == [name]
    assert real.judge({"why": "it died"}, other)[0].is_bad


def test_a_side_that_cannot_go_on_is_told_by_both_and_the_next_check_goes_on(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_mkdir = os.mkdir

    def full(path: Any, *words: Any) -> None:
        if str(path).endswith("second/listing"):
            raise OSError(28, "No space left on device", path)
        real_mkdir(path, *words)

    monkeypatch.setattr(listing.os, "mkdir", full)
    [told] = found(listing, sides).values()
    assert told.is_bad
    assert "second node: OSError: No space left on device: second/listing" in told.text
    assert {each.verdict for each in found(clocks, sides).values()} == {HOLDS}


# ── the talk ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_of_any_length_is_names(tmp_path: Path) -> None:
    one, other = Post(str(tmp_path), "1", "2"), Post(str(tmp_path), "2", "1")
    for text in ("", "ä" * 3, "x" * 3000):
        one.send("text", {"text": text})
    assert [other.wait(5)[1]["text"] for _ in range(3)] == ["", "ä" * 3, "x" * 3000]
    assert all(len(name) <= 255 and (tmp_path / name).stat().st_size == 0 for name in os.listdir(tmp_path))
    assert other.look() is None


def test_half_a_message_is_none_yet(tmp_path: Path) -> None:
    one, other = Post(str(tmp_path), "1", "2"), Post(str(tmp_path), "2", "1")
    one.send("text", {"text": "x" * 1000})
    name = next(iter(os.listdir(tmp_path)))
    (tmp_path / name).rename(tmp_path.parent / name)
    assert other.look() is None
    (tmp_path.parent / name).rename(tmp_path / name)
    assert other.look() == ("text", {"text": "x" * 1000})


def test_one_that_says_goodbye_or_nothing_or_is_dead_is_parted_from(tmp_path: Path) -> None:
    one, other = Post(str(tmp_path), "1", "2"), Post(str(tmp_path), "2", "1", lambda: False)
    with pytest.raises(Parted, match="no word"):
        one.wait(0.05)
    with pytest.raises(Parted, match="gone"):
        other.wait(5)
    other.send(post.BYE, {"why": "Ctrl-C"})
    with pytest.raises(Parted, match="Ctrl-C"):
        one.swap("anything")
    with pytest.raises(Parted, match="gone"):
        Post(str(tmp_path / "removed"), "1", "2").wait(5)


def test_two_at_other_places_part(tmp_path: Path) -> None:
    one, other = Post(str(tmp_path), "1", "2"), Post(str(tmp_path), "2", "1")
    other.send("there", {})
    with pytest.raises(Parted, match="not at the same check"):
        one.swap("here")


def test_clocks_are_known_as_well_as_the_post_is_quick(sides: Sides) -> None:
    for number in range(3):
        together(sides, lambda side, number=number: side.swap(f"clock {number}"))
    for side in sides:
        ahead, unsure = side.post.clock()
        assert abs(ahead) <= unsure + 1e-6, "one clock: it is ahead of itself by nothing"


# ── meeting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def met(place: Path, count: int) -> list[Side]:
    made: list[list[str]] = [[] for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(meet, str(place), 30.0, lambda _: None, made[each]) for each in range(count)]
        return [each.result(60) for each in futures]


def test_two_that_come_at_once_meet_in_one_folder(tmp_path: Path) -> None:
    for _ in range(5):
        one, other = met(tmp_path, 2)
        assert one.folder == other.folder
        assert {one.is_first, other.is_first} == {True, False}
        assert together((one, other), lambda side: side.swap("here", {"pid": os.getpid()})["pid"]) == [os.getpid()] * 2
        assert meeting.remove(one.folder)
    assert os.listdir(tmp_path) == []


def test_four_that_come_at_once_are_two_pairs(tmp_path: Path) -> None:
    for number in range(8):
        place = tmp_path / str(number)
        place.mkdir()
        folders = [side.folder for side in met(place, 4)]
        assert [folders.count(each) for each in folders] == [2, 2, 2, 2]


def test_nobody_comes(tmp_path: Path) -> None:
    made: list[str] = []
    with pytest.raises(NobodyCame):
        meet(str(tmp_path), 0.2, lambda _: None, made)
    assert [Path(each).name for each in made] == os.listdir(tmp_path)


def test_what_a_dead_one_left_is_removed_and_what_is_no_ones_business_is_not(tmp_path: Path) -> None:
    gone = tmp_path / f"{meeting.PREFIX}0000"
    gone.mkdir()
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            _SAY_WHO,
        ],
        capture_output=True,
        check=True,
    )
    Post(str(gone), "0000").send("waits", json.loads(dead.stdout))
    (tmp_path / f"{meeting.PREFIX}file").write_text("not a folder")
    (tmp_path / f"{meeting.PREFIX}other").mkdir()
    with pytest.raises(NobodyCame):
        meet(str(tmp_path), 0.3, lambda _: None, [])
    assert not gone.exists()
    assert (tmp_path / f"{meeting.PREFIX}file").exists()
    assert (tmp_path / f"{meeting.PREFIX}other").exists()


def test_two_of_one_node_know_that_they_are(tmp_path: Path) -> None:
    assert all(side.alone for side in met(tmp_path, 2))


def test_who_waits_on_another_node_is_not_taken_for_dead(tmp_path: Path) -> None:
    there = tmp_path / f"{meeting.PREFIX}0000"
    there.mkdir()
    elsewhere = {**processes.myself(), "host": "node9", "boot": "b", "machine": "m", "pid": 1}
    Post(str(there), "0000").send("waits", elsewhere)
    assert meeting.open_ones(str(tmp_path)) == ["0000"]


def test_who_is_greeted_goes_along_and_tells_the_others(tmp_path: Path) -> None:
    hosts = {each: Post(meeting.folder_for(str(tmp_path), each), each) for each in ("0000", "0001")}
    elsewhere = {**processes.myself(), "host": "node9", "boot": "b", "machine": "m", "pid": 1}
    for host in hosts.values():
        os.mkdir(host.folder)
        host.send("waits", elsewhere)
    guest = meeting._Guest(str(tmp_path), "0002", lambda _: None)
    assert guest.met() is None
    assert [post.ids(host.folder) for host in hosts.values()] == [{"0000", "0002"}, {"0001", "0002"}]
    hosts["0000"].send("hello", {"to": "0002"})
    hosts["0000"].send(post.BYE, {"why": "it took too long"})
    hosts["0001"].send("hello", {"to": "somebody else"})
    assert guest.met() is None, "one greeting was taken back, and the other one is for somebody else"
    hosts["0001"].send("hello", {"to": "0002"})
    side = guest.met()
    assert side is not None
    assert side.folder == hosts["0001"].folder
    guest.leave(all_but=side.folder)
    answers = [post.word(host.folder, "0002", 1) for host in hosts.values()]
    assert [each[0] for each in answers if each is not None] == [post.BYE, "here"]


def test_a_folder_that_goes_while_a_lock_is_taken_shows_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The other side was interrupted, and cleared away between our making a file and our child's opening it."""
    begin, path = subprocess.Popen, tmp_path / "held"

    def late(*words: Any, **how: Any) -> Any:
        path.unlink()
        return begin(*words, **how)

    def swap(_word: str) -> None:
        raise Parted("the other side is gone")

    side: Any = SimpleNamespace(mine=lambda name: str(tmp_path / name), swap=swap)
    monkeypatch.setattr(subprocess, "Popen", late)
    with pytest.raises(Parted):
        locks._of_a_dead_one(side, held=True)
    assert capfd.readouterr().err == ""


def test_one_that_joined_and_has_gone_is_not_waited_for(tmp_path: Path) -> None:
    host = meeting._Host(str(tmp_path / "own"), "0000")
    for name in ("0001", "0002", "0003"):
        Post(str(tmp_path / "own"), name).send("joins", {"host": name})
    Post(str(tmp_path / "own"), "0001", sent=1).send(post.BYE, {"why": "it has met somebody else"})
    assert host.met(0.0) is None, "of the other two, which say nothing, each was waited for"
    Post(str(tmp_path / "own"), "0004").send("joins", {"host": "0004"})
    with ThreadPoolExecutor(1) as pool:
        greeted = pool.submit(host.met, time.monotonic() + 60)
        wait_for(lambda: post.word(str(tmp_path / "own"), "0000", 5))
        Post(str(tmp_path / "own"), "0004", sent=1).send("here", {})
        side = greeted.result(60)
    assert side is not None
    assert side.other["host"] == "0004"


# ── what is said ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_conclusion_names_what_is_needed_and_does_not_hold() -> None:
    findings = [Finding("a", HOLDS, "", needed=True), Finding("b", FAILS, ""), Finding("c", ABSENT, "x", "so", True)]
    assert conclusion(findings[:2]) == "all that Dreamlake needs holds here"
    assert conclusion(findings) == "Dreamlake needs what does not hold here: c"
    assert list(lines_of(findings[2:])) == ["not to be had  c: x", "               → so"]


@pytest.mark.parametrize(
    ("path", "kind", "options", "caches"),
    [
        ("/shared/a", "nfs4", "local_lock=none", 60.0),
        ("/quick", "nfs", "actimeo=3,nolock", 3.0),
        ("/never", "nfs4", "noac", 0.0),
        ("/with space", "lustre", "localflock", None),
        ("/sharedother", "ext4", "", None),
    ],
)
def test_a_mount_is_told_with_what_matters(path: str, kind: str, options: str, caches: float | None) -> None:
    table = """\
21 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 21 0:40 / /shared rw - nfs4 server:/x rw,vers=4.2,rsize=1048576,local_lock=none,addr=10.0.0.1
41 21 0:41 / /quick rw - nfs server:/x rw,actimeo=3,nolock
42 21 0:42 / /never rw - nfs4 server:/x rw,noac
43 21 0:43 / /with\\040space rw - lustre server:/x rw,localflock,lazystatfs
half a line
"""
    assert mounts.found_in(table, path) == {"kind": kind, "options": options, "caches": caches}
