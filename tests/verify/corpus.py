"""The corpus: what is done to which healthy directory. What ``verify`` says of it stands in ``corpus.txt``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.golden.world import ALICE
from tests.verify.damages import (
    ALICE_1,
    BOB_0,
    JOURNALS,
    LOG,
    LOSS,
    OLD,
    WRITER_0,
    WRITER_1,
    Damage,
    add,
    ahead,
    behind,
    checkpoint,
    checkpoint_of_version_2,
    commits_of_another_origin,
    cut,
    earlier_parameters,
    edit,
    flip,
    lines,
    link,
    put,
    remove,
    rename,
    replace,
)
from tests.verify.directories import WRITER, journaled, kept, killed, old, recovered


@dataclass(frozen=True)
class Case:
    name: str
    healthy: Callable[[Path], Path]
    damage: Damage
    refused: bool = False  # --repair cannot help


@dataclass
class Told:
    """The sentences, to the letter: problems, notes that must be among the notes, and problems after ``--repair``."""

    problems: list[str]
    notes: list[str]
    rest: list[str]


def told() -> dict[str, Told]:
    found: dict[str, Told] = {}
    for line in (Path(__file__).parent / "corpus.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            now = found[line[1:-1]] = Told([], [], [])
        elif line == "rest: the same":
            now.rest = now.problems
        elif line:
            kind, _, sentence = line.partition(": ")
            {"problem": now.problems, "note": now.notes, "rest": now.rest}[kind].append(sentence)
    return found


CASES = [
    # logs
    Case("a log is torn", recovered, cut(LOG, 20)),
    Case(
        "garbage in the middle", recovered, replace(LOSS, b'{"index":2,"data":{"value"', b"garbage garbage garbage ga")
    ),
    Case("lines swapped", recovered, lines(LOSS, lambda rows: [rows[0], rows[2], rows[1], *rows[3:]])),
    Case("a line twice", recovered, lines(LOSS, lambda rows: [*rows[:3], *rows[2:]])),
    Case("a line removed", recovered, lines(LOSS, lambda rows: [*rows[:3], *rows[4:]])),
    Case("an index changed", recovered, replace(LOSS, b'{"index":3', b'{"index":9')),
    Case("a value changed", recovered, replace(LOSS, b"0.125", b"0.999")),
    Case("a tail of zeros", recovered, add(LOSS, bytes(4096))),
    Case("half a row too much", recovered, add(LOSS, b'{"index":7,"da')),
    Case(
        "a row too much",
        recovered,
        add(LOSS, b'{"index":7,"data":{"value":1},"createdAt":"2026-01-01T00:00:09.000000Z"}\n'),
    ),
    Case("a log is shorter", recovered, lines(LOSS, lambda rows: rows[:5])),
    Case("a log is gone", recovered, remove(LOG)),
    Case("a committed row changed", killed, lines(LOSS, lambda rows: [*rows[:-1], rows[-1].replace(b"4", b"5", 1)])),
    Case(
        "a row not yet committed",
        killed,
        add(LOSS, b'{"index":6,"data":{"value":0.0625},"createdAt":"2026-01-01T00:00:08.500000Z"}\n'),
    ),
    Case("half a row not yet committed", killed, add(LOSS, b'{"index":6,"data":{"val')),
    # records
    Case("commits.log is cut", killed, cut(".dreamlake/commits.log", 9)),
    Case("commits.log flipped", killed, flip(".dreamlake/commits.log", -9)),
    Case("commits.log flipped early", recovered, flip(".dreamlake/commits.log", 50)),
    Case("commits.log gone", killed, remove(".dreamlake/commits.log")),
    Case("commits.log gone after a clean end", recovered, remove(".dreamlake/commits.log")),
    Case("commits.log of another origin", killed, commits_of_another_origin),
    Case("commits.log ends in zeros", recovered, add(".dreamlake/commits.log", bytes(100))),
    Case("the checkpoint is gone", recovered, remove(".dreamlake/checkpoint")),
    Case("the checkpoint is gone after a kill", killed, remove(".dreamlake/checkpoint")),
    Case("the checkpoint and commits.log are gone", killed, remove(".dreamlake/checkpoint", ".dreamlake/commits.log")),
    Case("the checkpoint flipped", recovered, flip(".dreamlake/checkpoint", 100)),
    Case("a checkpoint of version 2", recovered, checkpoint_of_version_2),
    Case("a checkpoint from the future", recovered, checkpoint(ahead)),
    Case("a checkpoint from the past", killed, checkpoint(behind)),
    Case("the origin is gone", recovered, remove(".dreamlake/origin")),
    Case("the origin is garbage", recovered, put(".dreamlake/origin", b"garbage\n")),
    Case("the origin of another", recovered, put(".dreamlake/origin", b"f" * 32 + b"\n")),
    Case("the base is garbage", recovered, put(".dreamlake/base", b"garbage\n")),
    # histories and views
    Case("garbage in a history", recovered, replace(".dreamlake/session.jsonl", b'{"op":"open"', b"garbage garb")),
    Case(
        "garbage in a history after a kill",
        killed,
        replace(".dreamlake/session.jsonl", b'{"op":"open"', b"garbage garb"),
    ),
    Case("a history is gone", recovered, remove(".dreamlake/tracks.jsonl")),
    Case("a history is gone after a kill", killed, remove(".dreamlake/tracks.jsonl")),
    Case("a view is gone", recovered, remove("parameters.json")),
    Case("a view edited", recovered, edit("session.json", lambda d: d.replace(b"killed", b"finished"))),
    Case("a view is not JSON", recovered, cut("parameters.json", 10)),
    Case("a track's view is gone", recovered, remove("tracks/val/metadata.json")),
    Case(
        "a track's view counts wrongly",
        recovered,
        edit("tracks/val/metadata.json", lambda d: d.replace(b'"totalDataPoints": 2', b'"totalDataPoints": 9')),
    ),
    Case(
        "a track's view edited",
        recovered,
        edit("tracks/val/metadata.json", lambda d: d.replace(b'"name": "val"', b'"name": "vax"')),
    ),
    Case("session.json is gone", recovered, remove("session.json")),
    Case("a view of yesterday", recovered, earlier_parameters),
    # files
    Case("a file is gone", recovered, remove("files/models/plot.png")),
    Case("a file is truncated", recovered, cut("files/models/model.pth", 1)),
    Case("a file changed", kept, replace("files/models/model.pth", b"weights", b"weighty")),
    Case("a capture of nobody", recovered, put(f".dreamlake/incoming/{WRITER.hex()}-f9", b"captured")),
    Case("a capture is gone", killed, remove(f".dreamlake/incoming/{ALICE.hex()}-f2")),
    Case("a file of no record", recovered, put("files/mine.txt", b"mine")),
    # journals
    Case("a journal flipped", killed, flip(ALICE_1, -120)),
    Case("a journal flipped where it was committed", killed, flip(BOB_0, -150)),
    Case("a journal is torn", killed, cut(ALICE_1, 5)),
    Case("a journal ends in zeros", killed, add(ALICE_1, bytes(512))),
    Case("the first segment is gone", journaled, remove(WRITER_0)),
    Case("a segment between is gone", journaled, remove(WRITER_1)),
    Case("a segment of another number", journaled, rename(WRITER_1, f"{JOURNALS}/{WRITER.hex()}.7")),
    Case("a segment of another client", journaled, rename(WRITER_0, f"{JOURNALS}/{'e' * 32}.0")),
    Case("a segment's header flipped", journaled, flip(WRITER_0, 20)),
    Case("a journal never begun", killed, put(f"{JOURNALS}/{WRITER.hex()}.0.new", b"")),
    # layout
    Case("a foreign file in journals", killed, put(f"{JOURNALS}/notes.txt", b"mine")),
    Case("a foreign file in incoming", recovered, put(".dreamlake/incoming/x", b"captured")),
    Case("a temp file", recovered, put("session.json.tmp", b"half")),
    Case("a temp file of the checkpoint", recovered, put(".dreamlake/checkpoint.tmp", b"half")),
    Case("a track is a symbolic link", recovered, link("tracks/train/loss"), refused=True),
    Case("the owner's record is garbage", recovered, put(".dreamlake/owner", b"garbage")),
    Case("the owner's record is empty", recovered, put(".dreamlake/owner", b"")),
    Case("a foreign file in .dreamlake", recovered, put(".dreamlake/notes.txt", b"mine")),
    # old
    Case("0.2.x: half a line", old, add(OLD, b'{"index": 3, "da')),
    Case("0.2.x: no newline", old, cut(OLD, 1)),
    Case("0.2.x: garbage", old, lines(OLD, lambda rows: [rows[0], b"garbage\n", *rows[1:]])),
    Case("0.2.x: an index twice", old, lines(OLD, lambda rows: [*rows, rows[1]])),
    Case("0.2.x: session.json is not JSON", old, put("session.json", b"not json"), refused=True),
    Case("0.2.x: session.json is gone", old, remove("session.json")),
    Case("0.2.x: a track's view is not JSON", old, put("tracks/loss/metadata.json", b"not json")),
    Case("0.2.x: the files' view is not JSON", old, put("files/.files_metadata.json", b"not json")),
    Case("0.2.x: a file is gone", old, remove("files/models/7/model.pth")),
]
