"""Programs of a node's that look at a session, or visit it: each says what it found, one JSON line on stdout."""

from __future__ import annotations

import json
import os
from typing import Any

from dreamlake import Session
from dreamlake.reader.session import SessionReader


def _say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def visit(root: str, name: str) -> None:
    """Open and close the session: when that is done, what stood in journals of the dead is in the logs and views."""
    Session(name, "project", local_path=root).open().close()


def own(root: str, name: str, track: str, count: int) -> None:
    """Write some points, and say after each how many of one's own can be read; then flush and close."""
    session = Session(name, "project", local_path=root).open()
    read = []
    for number in range(count):
        session.track(track).append(number=number)
        read.append([row["data"]["number"] for row in session.track(track).read()["data"]])
    session.flush()
    _say(read=read, flushed=[row["data"]["number"] for row in session.track(track).read()["data"]])
    session.close()


def look(root: str, name: str) -> None:
    """What is there, as read from here: of each writer the numbers of its points, in order of their indexes."""
    with SessionReader(os.path.join(root, "project", name)) as reader:
        points: dict[str, list[int]] = {}
        for track in reader.tracks():
            rows, more = reader.points(track, 0, 10**9)
            assert not more
            assert [row["index"] for row in rows] == list(range(len(rows)))
            for row in rows:
                points.setdefault(row["data"].get("writer", track), []).append(row["data"]["number"])
        _say(points=points, logs=reader.log_count(), state=reader.session().get("state"))
