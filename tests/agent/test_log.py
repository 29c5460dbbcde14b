"""The agent's log: an object a line, rotated, told again what could not be written, and read over every rotation."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamlake import config
from dreamlake_agent.observe.log import JsonLines, RotatedFile
from dreamlake_agent.observe.logbook import Logbook, told
from dreamlake_agent.observe.sieve import Sieve


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class Writing:
    """A logger of a test's own."""

    def __init__(self, path: Path, **of_the_file: int) -> None:
        self.path = path
        self.handler = JsonLines(RotatedFile(str(path), **of_the_file))
        self.logger = logging.Logger("test", logging.INFO)
        self.logger.addHandler(self.handler)

    def say(self, level: str, text: str, **about: str) -> None:
        self.logger.log(getattr(logging, level.upper()), "%s", text, extra={"about": about})


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    found = Writing(tmp_path / "agent.log")
    yield found
    found.handler.close()


def test_a_line_is_an_object_with_its_time_in_utc(writing: Writing) -> None:
    writing.say("warning", "100% of it\nfails", path="/data/run", client="a11ce", remote="http://lake", pid="not mine")
    (line,) = entries(writing.path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "pid": os.getpid(),
        "text": "100% of it\nfails",
        "path": "/data/run",
        "client": "a11ce",
        "remote": "http://lake",
    }


def test_it_is_of_its_user_alone_whatever_the_umask_and_so_are_older_ones(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        writing = Writing(tmp_path / "agent.log", size=300, files=3)
        for number in range(40):
            writing.say("info", f"line {number:03}")
        writing.handler.close()
    finally:
        os.umask(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.log", "agent.log.1", "agent.log.2"]
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_size <= 300
    said = [line["text"] for name in (".2", ".1", "") for line in entries(tmp_path / f"agent.log{name}")]
    assert said == [f"line {number:03}" for number in range(40 - len(said), 40)]


def test_what_a_path_or_a_library_says_cannot_break_a_line_or_tell_a_secret(writing: Writing) -> None:
    writing.say("error", os.fsdecode(b"/data/\xff\n\x1b[31m"))
    writing.say("info", "GET https://ann:hunter2@lake/x: Authorization: Bearer abcdefghijkl, dlk_0123456789ab_s3cret-x")
    writing.say("info", "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyTmFtZSI6ImFubiJ9.c2ln " + "x" * 10**6)
    first, second, third = entries(writing.path)
    assert first["text"] == "/data/\udcff\n\x1b[31m"
    assert second["text"] == "GET https://…@lake/x: Authorization: Bearer …, dlk_0123456789ab_…"
    assert third["text"].startswith("… xxx")
    assert "characters left out" in third["text"]
    assert max(map(len, writing.path.read_bytes().splitlines())) <= config.LOG_LINE_BYTES


def test_a_failure_of_ours_has_its_traceback(writing: Writing) -> None:
    try:
        raise RuntimeError("ours")
    except RuntimeError:
        writing.logger.exception("the agent fails")
    (line,) = entries(writing.path)
    assert line["text"] == "the agent fails"
    assert line["traceback"].startswith("Traceback (most recent call last)")
    assert "RuntimeError: ours" in line["traceback"]


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """What a full disk does, for this process: a write past that is short, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_log_that_cannot_be_written_stops_nobody_and_says_later_what_it_lacks(
    writing: Writing, capsys: pytest.CaptureFixture[str]
) -> None:
    writing.say("info", "before")
    with files_no_larger_than(writing.path.stat().st_size + 40):
        for number in range(5):
            writing.say("info", f"lost {number}")
    writing.say("info", "after")
    said = [line["text"] for line in entries(writing.path)]
    assert said[0] == "before"
    assert said[1].startswith("5 lines could not be written here: ")
    assert said[2:] == ["after"]
    assert capsys.readouterr().err.count("no log at") == 1


def test_a_log_whose_folder_is_away_heals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "state"
    writing = Writing(folder / "agent.log")
    writing.say("info", "nowhere")
    assert "No such file or directory" in capsys.readouterr().err
    folder.mkdir()
    writing.say("info", "here")
    (folder / "agent.log").unlink()
    writing.say("info", "and anew")
    writing.handler.close()
    assert [line["text"] for line in entries(folder / "agent.log")] == ["and anew"]


def test_half_a_line_that_somebody_left_spoils_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "agent.log").write_bytes(b'{"time": "2026-')
    writing = Writing(tmp_path / "agent.log")
    writing.say("info", "whole")
    writing.handler.close()
    half, whole = (tmp_path / "agent.log").read_bytes().splitlines()
    assert half == b'{"time": "2026-'
    assert json.loads(whole)["text"] == "whole"


def test_a_link_that_somebody_put_there_is_not_written_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "agent.log").symlink_to(tmp_path / "mine")
    writing = Writing(tmp_path / "agent.log")
    writing.say("info", "x")
    writing.handler.close()
    assert (tmp_path / "mine").read_text() == "mine"
    assert "no log at" in capsys.readouterr().err


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "agent.log", size=2000, files=3)
    threads = [
        threading.Thread(target=lambda n=n: [writing.say("info", f"{n} {m}") for m in range(100)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writing.handler.close()
    assert all(entries(path) for path in tmp_path.iterdir())


# ── what comes again and again ──────────────────────────────────────────────────────────────────────────────────────


def warning(text: str) -> dict[str, Any]:
    return {"level": "warning", "text": text}


def test_the_same_warning_is_written_once_in_a_while_with_how_often_it_came() -> None:
    sieve = Sieve()
    written = [entry for now in range(100) for entry in sieve.take(warning("the disk is full"), float(now))]
    assert written == [
        warning("the disk is full"),
        {**warning("the disk is full"), "left_out": 59},
        warning("the disk is full"),
    ]
    assert sieve.over(1e9) == [{**warning("the disk is full"), "left_out": 39}]
    assert sieve.over(1e9) == []


def test_warnings_that_differ_in_numbers_are_written_a_few_times() -> None:
    sieve = Sieve()
    written = [entry for n in range(1000) for entry in sieve.take(warning(f"refused: {n} of cafe0123{n:08x}"), 0.0)]
    assert len(written) == config.LOG_ALIKE_MAX
    (rest,) = sieve.over(1e9)
    assert rest["left_out"] == 1000 - config.LOG_ALIKE_MAX


def test_what_is_known_of_warnings_is_bounded_and_none_that_is_new_is_kept_back() -> None:
    sieve = Sieve()
    texts = [chr(0x4E00 + n) for n in range(5000)]
    assert [entry["text"] for text in texts for entry in sieve.take(warning(text), 0.0)] == texts
    assert len(sieve._same) <= config.LOG_KNOWN_MAX
    assert len(sieve._alike) <= config.LOG_KNOWN_MAX


def test_a_clock_that_is_set_back_keeps_nothing_back_for_long() -> None:
    sieve = Sieve()
    sieve.take(warning("x"), 1e9)
    assert sieve.take(warning("x"), 1000.0) == [warning("x")]


def test_what_was_left_out_is_told_though_nothing_else_comes(writing: Writing, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):
        writing.say("warning", "again")
    writing.handler.flush()
    assert len(entries(writing.path)) == 1
    monkeypatch.setattr(config, "LOG_REPEAT_SECONDS", 0.0)
    writing.say("warning", "other")
    writing.handler.close()
    assert {line["text"]: line["left_out"] for line in entries(writing.path) if "left_out" in line} == {"again": 9}


# ── reading it ──────────────────────────────────────────────────────────────────────────────────────────────────────


def texts(lines: list[bytes]) -> list[str]:
    return [json.loads(line)["text"] for line in lines]


def test_the_last_lines_are_found_over_all_files_and_what_comes_over_every_rotation(tmp_path: Path) -> None:
    writing = Writing(tmp_path / "agent.log", size=500, files=5)
    for number in range(12):
        writing.say("info", str(number))
    book = Logbook(str(writing.path), files=5)
    assert texts(book.last(9)) == [str(number) for number in range(3, 12)]
    assert book.more() == []
    for number in range(12, 21):  # two rotations at least
        writing.say("info", str(number))
    assert texts(book.more()) == [str(number) for number in range(12, 21)]
    writing.path.unlink()
    assert book.more() == []
    writing.say("info", "anew")
    assert texts(book.more()) == ["anew"]
    os.truncate(writing.path, 0)
    assert book.more() == []
    writing.say("info", "cut")
    assert texts(book.more()) == ["cut"]
    assert book.more() == []
    book.close()
    writing.handler.close()


def test_a_line_that_is_not_whole_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    path.write_bytes(b"one\ntw")
    book = Logbook(str(path))
    assert book.last(5) == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\nthree")
    assert book.more() == [b"two"]
    path.rename(tmp_path / "elsewhere")
    path.write_bytes(b"four\n")
    assert book.more() == [b"three", b"four"]
    book.close()


def test_levels_also_of_lines_from_before(tmp_path: Path) -> None:
    path = tmp_path / "agent.log"
    old = [
        b"2026-01-01 10:00:00,123 INFO agent 0.3.0 started",
        b"2026-01-01 10:00:01,123 ERROR the agent fails",
        b"Traceback (most recent call last):",
        b"2026-01-01 10:00:02,123 INFO agent ended",
    ]
    new = [
        b'{"time": "2026-01-01T11:00:00.000Z", "level": "info", "text": "started"}',
        b'{"time": "2026-01-01T11:00:00.000Z", "level": "warning", "text": "w"}',
        b'{"half',
    ]
    path.write_bytes(b"\n".join([*old, *new]) + b"\n")
    book = Logbook(str(path))
    assert book.last(50) == [*old, *new]
    assert book.last(50, "warning") == [old[1], old[2], new[1], new[2]]
    assert book.last(50, "error") == [old[1], old[2]]
    assert book.last(0) == []
    book.close()


def test_lines_for_people_say_their_offset_and_reach_no_terminal_as_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"time": "2026-01-01T11:00:00.250Z", "level": "error", "text": "a\x1b[2Jb\nsecond", "traceback": "T\n  x"}
    (_, first), (_, second), *trace = told(json.dumps(entry).encode())
    assert first[:10] == "2026-01-01"
    assert first[19] in "+-"
    assert first.endswith(" ERROR   a\\x1b[2Jb")
    assert second == "    second"
    assert [text for _, text in trace] == ["    T", "      x"]
    assert list(told(b"\x1b]0;plain\xff")) == [(None, "\\x1b]0;plain\\xff")]
    assert list(told(b"[" * 5000)) == [(None, "[" * 5000)]
    ((_, again),) = told(json.dumps({"time": "never", "level": "warning", "text": "w", "left_out": 3}).encode())
    assert again == "never WARNING w (and 3 more like it)"
