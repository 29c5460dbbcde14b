"""The one small world whose bytes are kept in ``v1/``: fixed clients, fixed times, the shipped code.

Two directories come of it. ``killed`` is what a SIGKILL of everybody leaves: rows covered by a checkpoint, a commit
after it, operations that are in journals only, half a record, and captured files on their way. ``recovered`` is the
same directory after the next agent.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from dreamlake import journal as journal_module
from dreamlake.journal import Journal
from dreamlake.reader.commits import (
    Checkpoint,
    Commit,
    LogMark,
    Run,
    encode_checkpoint,
    encode_commit,
    encode_commits_header,
)
from dreamlake.reader.segments import encode_header
from dreamlake.wire import codec, messages, ops
from dreamlake.wire.state import Tail
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.store.directory import Directory

ALICE = bytes.fromhex("a11ce000000000000000000000000001")
BOB = bytes.fromhex("b0b00000000000000000000000000002")
CAROL = bytes.fromhex("ca401000000000000000000000000003")
AGENT = bytes.fromhex("a6e27000000000000000000000000004")
NEXT_AGENT = bytes.fromhex("a6e27000000000000000000000000005")
ORIGIN = "0123456789abcdef0123456789abcdef"
INCARNATION = bytes.fromhex("0011223344556677")
EPOCH = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z

_PROCESS = {"host": "node1", "boot": "b5f2c3a0-0000-4000-8000-000000000001", "ns": "pid:[4026531836]"}
RANKS: dict[bytes, dict[str, Any]] = {
    ALICE: {**_PROCESS, "pid": 4242, "start": 81500.0},
    BOB: {**_PROCESS, "pid": 4243, "start": 81501.0},
    CAROL: {**_PROCESS, "pid": 4244, "start": 81502.0},
}
OWNER = {
    **_PROCESS,
    "pid": 4000,
    "start": 81000.0,
    "endpoint": "ipc:///run/user/1000/dreamlake/agent.sock",
    "version": "0.3.0",
}
NEXT_OWNER = {**OWNER, "pid": 5000, "start": 99000.0}

# What the captured files hold, by the end of their names in incoming/.
WEIGHTS = {"f0": b"weights of epoch 0\n", "f1": b"weights of epoch 1\n", "f2": b"the last plot\n"}


def at(seconds: float) -> int:
    return EPOCH + int(seconds * 10**9)


def _opening(client: bytes, rank: int, given: bytes = b"{}") -> ops.Op:
    by = RANKS[client]
    who = {"name": "run", "workspace": "project", "rank": rank, "world_size": 3, "pid": by["pid"], "host": by["host"]}
    return (ops.OPEN, at(0) + rank, who, given)


def _record(file_id: str, filename: str) -> bytes:
    # Written out, so that the golden bytes hang on no encoder but the one that is tested.
    return (
        b'{"id":"%b","sessionId":null,"path":"/models","filename":"%b","description":null,"tags":["best"],'
        b'"contentType":"application/octet-stream","sizeBytes":%d,"checksum":null,"metadata":null}'
    ) % (file_id.encode(), filename.encode(), len(WEIGHTS[file_id]))


def _incoming(client: bytes, file_id: str) -> str:
    return f"{client.hex()}-{file_id}"


# One of every kind; the names are those of docs/wire.md.
OPERATIONS: dict[str, ops.Op] = {
    "OPEN": _opening(
        ALICE, 0, '{"description":"a naïve run","tags":["baseline"],"folder":"/2026","metadata":{"seed":7}}'.encode()
    ),
    "OPEN forked": (
        ops.OPEN,
        at(0.5),
        {"name": "run", "workspace": "project", "pid": 4300, "host": "node1", "forked": True},
        b"{}",
    ),
    "CLOSE finished": (ops.CLOSE, at(9), ops.FINISHED, None),
    "CLOSE failed": (ops.CLOSE, at(9), ops.FAILED, {"type": "ValueError", "message": "loss is NaN"}),
    "LOG": (ops.LOG, at(1), "info", 'started\non "node1"', None, None),
    "LOG with fields": (ops.LOG, at(1.25), "warn", "slow", b'{"step":3,"seconds":"Infinity"}', ["seconds"]),
    "PARAMETERS": (ops.PARAMETERS, at(1.5), b'{"model.lr":0.001,"layers":[64,64],"clip":"NaN"}', ["clip"]),
    "TRACK": (ops.TRACK, at(2), "train/loss", b'{"description":"cross entropy","tags":["train"]}'),
    "POINT": (ops.POINT, at(2.000001), "train/loss", 0, b'{"value":0.5,"epoch":1}'),
    "POINT with NaN": (ops.POINT, at(2.25), "train/loss", 1, b'{"value":"NaN","epoch":2}', ["value"]),
    "POINTS": (ops.POINTS, at(3), "train/loss", 2, [b'{"value":0.25}', b'{"value":0.125}']),
    "POINTS with NaN": (ops.POINTS, at(3.5), "val", 0, [b'{"a":1}', b'{"a":"-Infinity"}'], [None, ["a"]]),
    "FILE": (ops.FILE, at(4), _record("f0", "model.pth"), _incoming(ALICE, "f0")),
    "FILE_CHANGE": (ops.FILE_CHANGE, at(5), "f1", b'{"description":"epoch 1","tags":["best","released"]}'),
    "FILE_DELETE": (ops.FILE_DELETE, at(6), "f1"),
    "KILLED": (ops.KILLED, at(7), CAROL),
    "HASHED": (ops.HASHED, at(7.5), "f0", hashlib.sha256(WEIGHTS["f0"]).hexdigest()),
}

_STREAM = codec.frame(codec.packer().pack(OPERATIONS["POINT"]), codec.seed(ALICE))[0]

# One of every kind, in the order of docs/wire.md; a second value is the body.
MESSAGES: dict[str, tuple[messages.Message, bytes | None]] = {
    "hello": (
        (messages.HELLO, ALICE, {"path": "/data/project/run", "dev": 2049, "ino": 131072, "by": RANKS[ALICE]}),
        None,
    ),
    "data": ((messages.DATA, ALICE, 0, codec.seed(ALICE), codec.run_on(_STREAM, codec.seed(ALICE))), _STREAM),
    "have": ((messages.HAVE, ALICE, 4096, 2), None),
    "flush": ((messages.FLUSH, ALICE, 3, 4096, 1, 0), None),
    "sync": ((messages.SYNC, ALICE, 4, 4096), None),
    "leave": ((messages.LEAVE, ALICE), None),
    "status": ((messages.STATUS, 1), None),
    "stop": ((messages.STOP, 2), None),
    "welcome": ((messages.WELCOME, ALICE, 4096, 305419896, 1024, 1 << 20, ORIGIN, INCARNATION), None),
    "ack": (
        (
            messages.ACK,
            ALICE,
            4096,
            1024,
            1 << 20,
            {"train/loss": [[0, 0, 3], [3, 5, 1]]},
            [(2, "the session is write-protected")],
        ),
        None,
    ),
    "flushed": ((messages.FLUSHED, ALICE, 3, None), None),
    "behind": ((messages.BEHIND, ALICE, "https://your-server.com cannot be reached"), None),
    "notice": ((messages.NOTICE, ALICE, "record 7 of logs/logs.jsonl was set aside by the server"), None),
    "elsewhere": ((messages.ELSEWHERE, ALICE, OWNER["endpoint"], "owned by pid 4000 on node1"), None),
    "elsewhere unseen": ((messages.ELSEWHERE, ALICE, None, "/data/project/run: No such file or directory"), None),
    "damaged": ((messages.DAMAGED, ALICE, "/data/project/run/session.json is not JSON"), None),
    "gone": ((messages.GONE, ALICE), None),
    "who": ((messages.WHO, ALICE), None),
    "stopping": ((messages.STOPPING, ALICE), None),
    "trouble": ((messages.TROUBLE, ALICE, "No space left on device"), None),
    "report": ((messages.REPORT, 1, b'{"pid":4000}'), None),
    "version": ((messages.OTHER_VERSION, [1]), None),
    # Since 0.4: what each side can.
    "hello can": (
        (
            messages.HELLO,
            ALICE,
            {
                "path": "/data/project/run",
                "dev": 2049,
                "ino": 131072,
                "by": RANKS[ALICE],
                "can": ["ranks", "spool"],
                "version": "0.4.0",
            },
        ),
        None,
    ),
    "can": ((messages.CAN, ALICE, ["ranks", "spool"], "0.4.0"), None),
}


# ── files of records ────────────────────────────────────────────────────────────────────────────────────────────────


def segment() -> bytes:
    """A second segment of Alice's journal: its header says where the first one ended; then every operation."""
    running = 0x12345678
    found = encode_header(ALICE, 1, 1 << 24, running, EPOCH, RANKS[ALICE])
    for op in OPERATIONS.values():
        record, running = codec.frame(codec.packer().pack(op), running)
        found += record
    return found


COMMITS = (
    Commit(41, (Run(ALICE, 100, 250, 0x01020304), Run(BOB, 0, 90, 0x05060708, (1, 3)))),
    Commit(42, (Run(AGENT, 0, 60, 0xFFFFFFFF),)),
)
POSITIONS = {ALICE: (100, 0xDEADBEEF), CAROL: (0, codec.seed(CAROL))}


def commits() -> bytes:
    found, running = encode_commits_header(41, POSITIONS, ORIGIN)
    for commit in COMMITS:
        record, running = encode_commit(commit, running)
        found += record
    return found


CHECKPOINT = Checkpoint(
    41,
    ORIGIN,
    {
        ".dreamlake/session.jsonl": LogMark(300, 0x0A0B0C0D, Tail()),
        "logs/logs.jsonl": LogMark(120, 0x11111111, Tail(2, 2, "2026-01-01T00:00:01.250000Z")),
        "tracks/train/loss/data.jsonl": LogMark(4096, 0x22222222, Tail(40, 43, "2026-01-01T00:00:03.000000Z")),
    },
    POSITIONS,
    {"session.json": 0x33333333},
)


def checkpoint() -> bytes:
    return encode_checkpoint(CHECKPOINT)


# ── directories ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Rank:
    """A client: its journal in the directory, and what it captures."""

    def __init__(self, folder: Path, root: int, client: bytes) -> None:
        self.folder = folder
        self.journal = Journal(REAL_DISK, root, client, EPOCH + client[-1], RANKS[client])

    def does(self, *done: ops.Op) -> None:
        for op in done:
            self.journal.append(op)

    def captures(self, file_id: str, filename: str, time: int) -> None:
        name = _incoming(self.journal.client, file_id)
        (self.folder / ".dreamlake" / "incoming" / name).write_bytes(WEIGHTS[file_id])
        self.does((ops.FILE, time, _record(file_id, filename), name))


def _open(folder: Path, who: dict[str, Any]) -> Directory:
    found = folder.stat()
    return Directory.open(REAL_DISK, str(folder), (found.st_dev, found.st_ino), who, ORIGIN)


def _follow(directory: Directory, client: bytes) -> None:
    directory.seen()
    data, running = directory.journals.follow(client, 1 << 20)
    directory.apply(client, data, running)


def _cover(directory: Directory) -> None:
    found, _sizes, job = directory.checkpoint_job()
    job()
    directory.checkpointed(found)


def make(folder: Path) -> None:
    """Make ``folder/killed`` and ``folder/recovered``."""
    live = folder / "live"
    for inner in ("journals", "incoming"):
        (live / ".dreamlake" / inner).mkdir(parents=True)
    root = REAL_DISK.root(str(live))
    try:
        with mock.patch.object(journal_module, "SEGMENT_BYTES", 1024):
            _live_and_die(live, root, folder / "killed")
    finally:
        REAL_DISK.close(root)
    shutil.rmtree(live)
    shutil.copytree(folder / "killed", folder / "recovered")
    recover(folder / "recovered")


def _live_and_die(live: Path, root: int, killed: Path) -> None:
    alice, bob, carol = (_Rank(live, root, client) for client in RANKS)
    directory = _open(live, OWNER)
    try:
        # What a checkpoint will cover. Bob's second operation is of a kind that nobody knows: refused.
        for name in ("OPEN", "LOG", "LOG with fields", "PARAMETERS", "TRACK", "POINT", "POINT with NaN", "POINTS"):
            alice.does(OPERATIONS[name])
        alice.captures("f0", "model.pth", at(4))
        bob.does(
            _opening(BOB, 1),
            (99, at(1), "from the future"),
            (ops.POINT, at(2.5), "train/loss", 0, b'{"value":8,"rank":1}'),
        )
        carol.does(_opening(CAROL, 2))
        for client in (ALICE, BOB, CAROL):
            _follow(directory, client)
        directory.commit()
        directory.settle()
        directory.say(OPERATIONS["HASHED"], AGENT, at(4.5), OWNER)
        directory.commit()
        directory.views.write(directory.state)
        _cover(directory)
        # What is committed and not covered: two ranks in one commit, and what the agent found out.
        alice.captures("f1", "model.pth", at(4.75))
        alice.does(OPERATIONS["FILE_CHANGE"], (ops.PARAMETERS, at(5), b'{"model.lr":0.0005,"clip":1.0}', None))
        bob.does(OPERATIONS["POINTS with NaN"], (ops.POINT, at(5.5), "train/loss", 1, b'{"value":4,"rank":1}'))
        _follow(directory, BOB)
        _follow(directory, ALICE)
        directory.say(OPERATIONS["KILLED"], AGENT, at(7), OWNER)
        directory.commit()
        # What is in journals only; Bob dies in the middle of a write.
        alice.captures("f2", "plot.png", at(8))
        alice.does((ops.POINT, at(8.5), "train/loss", 4, b'{"value":0.0625}'), OPERATIONS["CLOSE finished"])
        bob.does((ops.LOG, at(8.75), "error", "out of memory", None, None))
        half = codec.frame(codec.packer().pack(OPERATIONS["CLOSE failed"]), bob.journal.running)[0][:30]
        with open(live / ".dreamlake" / "journals" / f"{BOB.hex()}.0", "ab") as file:
            file.write(half)
        shutil.copytree(live, killed)
    finally:
        directory.close()
        for rank in (alice, bob, carol):
            rank.journal.close()


def recover(folder: Path, who: dict[str, Any] = NEXT_OWNER) -> None:
    """What the next agent does with a directory: replay, the journals, the rank that vanished, a checkpoint."""
    directory = _open(folder, who)
    try:
        for journal in directory.seen():
            while True:
                data, running = directory.journals.follow(journal.client, 1 << 20)
                if not data:
                    break
                directory.apply(journal.client, data, running)
                directory.commit()
        directory.settle()
        if directory.state.clients[BOB.hex()].state == ops.RUNNING:
            directory.say((ops.KILLED, at(10), BOB), NEXT_AGENT, at(10), who)
            directory.commit()
        directory.views.write(directory.state)
        _cover(directory)
        for journal in directory.seen():
            directory.drop_journal(journal.client)
        _cover(directory)
    finally:
        directory.close()


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
