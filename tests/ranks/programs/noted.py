"""Run a script as it stands and write down each of its calls that has returned; kill one of its ranks where told.

noted.py NOTES SCRIPT [ARGUMENT...]. Each process has a file in the folder NOTES, with a line of JSON for a call. Every
point gets one more field, the `pid` of its process. `KILL` in the environment, such as `2 loss 20`: rank 2 of the first
attempt is killed once its 20th point of that track has returned.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from typing import Any

from dreamlake.session import Session
from dreamlake.tracks import Track

RANK = int(os.environ["RANK"])
ATTEMPT = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
VICTIM, TRACK, COUNT = os.environ.get("KILL", "-1 - 0").split()

really_append, really_log = Track.append, Session.log
points: dict[str, int] = {}
files: dict[int, int] = {}


def note(**said: Any) -> None:
    pid = os.getpid()
    if pid not in files:
        files[pid] = os.open(os.path.join(notes, f"{RANK}-{ATTEMPT}-{pid}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(files[pid], json.dumps({"rank": RANK, "attempt": ATTEMPT, **said}).encode() + b"\n")


def append(self: Track, **fields: Any) -> Any:
    fields = {key: value.item() if hasattr(value, "item") else value for key, value in fields.items()}
    fields["pid"] = os.getpid()
    receipt = really_append(self, **fields)
    note(track=self._name, data=fields)
    points[self._name] = points.get(self._name, 0) + 1
    if (ATTEMPT, int(VICTIM), TRACK, int(COUNT)) == (0, RANK, self._name, points[self._name]):
        os.kill(os.getpid(), signal.SIGKILL)
    return receipt


def log(self: Session, message: str | None = None, *args: Any, **extra: Any) -> Any:
    found = really_log(self, message, *args, **extra)
    note(log=message)
    return found


if __name__ == "__main__":
    notes, *sys.argv = sys.argv[1:]
    Track.append, Session.log = append, log  # type: ignore[method-assign]
    runpy.run_path(sys.argv[0], run_name="__main__")
