"""Healthy session directories of every kind, to be damaged: made by the shipped code, or golden."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from unittest import mock

from dreamlake import journal as journal_module
from dreamlake.journal import Journal
from dreamlake.wire import ops
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.repair import repair
from tests.golden import make, world
from tests.golden.world import OPERATIONS

WRITER = bytes.fromhex("3e6" + "0" * 28 + "9")
BY = world.RANKS[world.ALICE]


def recovered(into: Path) -> Path:
    """Everything applied, covered and let go by an agent."""
    return make.directory("recovered", into)


def left_behind(folder: Path) -> None:
    """Those who wrote it, on another node, have shown nothing for a week: nobody waits for them any more."""
    then = time.time() - 7 * 86_400
    for journal in folder.glob(".dreamlake/journals/*"):
        os.utime(journal, (then, then))


def kept(into: Path) -> Path:
    """What the next agent makes of it."""
    folder = killed(into)
    left_behind(folder)
    repair(str(folder), lambda sentence: None)
    return folder


def killed(into: Path, version: str = "v1") -> Path:
    """What a SIGKILL of everybody leaves: a checkpoint, a commit after it, operations in journals only, a capture."""
    folder = make.directory("killed", into, version)
    (folder / ".dreamlake" / "owner").unlink()  # of a machine that cannot be seen: it would count as live
    return folder


def journaled(into: Path) -> Path:
    """No agent was ever here: one journal in three segments."""
    folder = into / "journaled"
    for inner in ("journals", "incoming"):
        (folder / ".dreamlake" / inner).mkdir(parents=True)
    root = REAL_DISK.root(str(folder))
    try:
        with mock.patch.object(journal_module, "SEGMENT_BYTES", 200):
            journal = Journal(REAL_DISK, root, WRITER, world.EPOCH, BY)
            journal.append(OPERATIONS["OPEN"])
            for number in range(6):
                journal.append((ops.LOG, world.at(number), "info", f"message {number}", None, None))
            journal.close()
    finally:
        REAL_DISK.close(root)
    return folder


def old(into: Path) -> Path:
    """As 0.2.x left it: no .dreamlake."""
    folder = into / "old"
    then = "2025-01-01T00:00:0{}.000000Z"
    weights = folder / "files" / "models" / "7" / "model.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"old weights")
    for name in ("logs", "tracks/loss"):
        (folder / name).mkdir(parents=True)
    views = {
        "session.json": {"name": "run", "workspace": "project", "created_at": then.format(0), "tags": ["old"]},
        "parameters.json": {"version": 1, "data": {"lr": 0.1}, "updatedAt": then.format(1)},
        "tracks/loss/metadata.json": {
            "trackId": "t1",
            "name": "loss",
            "description": None,
            "tags": ["old"],
            "metadata": None,
            "totalDataPoints": 3,
            "nextIndex": 3,
            "createdAt": then.format(0),
            "updatedAt": then.format(2),
        },
        "files/.files_metadata.json": {
            "files": [{"id": "7", "path": "/models", "filename": "model.pth", "sizeBytes": 11, "deletedAt": None}]
        },
    }
    for path, shown in views.items():
        (folder / path).write_text(json.dumps(shown))
    points = [{"index": index, "data": {"value": index}, "createdAt": then.format(index)} for index in range(3)]
    lines = [{"sequenceNumber": number, "timestamp": then.format(number), "message": "old"} for number in range(3)]
    (folder / "tracks/loss/data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in points))
    (folder / "logs/logs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return folder
