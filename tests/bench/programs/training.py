"""Leave a session as a training does: points of several tracks, step by step, and checkpoints of a model. Prints JSON.

training.py FOLDER NAME POINTS MIB...   a file of random bytes for each MIB
"""

from __future__ import annotations

import json
import os
import sys
from time import monotonic

from dreamlake import Session

MIB = 1 << 20
TRACKS = ("loss", "accuracy", "learning_rate", "gradient_norm", "validation/loss")
STEPS = 10_000  # in a call
FLUSH_STEPS = 100_000  # so that the agent keeps up


def main(folder: str, name: str, points: int, sizes: list[int]) -> None:
    began = monotonic()
    session = Session(name, "bench", local_path=folder).open()
    tracks = [session.track(each) for each in TRACKS]
    for start in range(0, points // len(TRACKS), STEPS):
        steps = range(start, min(points // len(TRACKS), start + STEPS))
        for number, track in enumerate(tracks, 1):
            track.append_batch([{"value": number / (step + 7), "step": step, "epoch": step // 1000} for step in steps])
        if start % FLUSH_STEPS == 0:
            session.flush()
    for number, size in enumerate(sizes):
        model = os.path.join(folder, f"model-{number}.pt")
        with open(model, "wb") as file:
            for _ in range(size):
                file.write(os.urandom(MIB))
        session.files().upload(model, path="/models")
        os.unlink(model)
    session.flush()
    session.close()
    print(json.dumps({"path": session.path, "seconds": monotonic() - began}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), [int(each) for each in sys.argv[4:]])
