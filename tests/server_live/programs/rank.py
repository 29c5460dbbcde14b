"""One rank of a training on several nodes: `rank.py ROOT URL NODE`; then it does what it is told, a word a line."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from dreamlake import Session

POINTS = 30
PAGE = 37
PATIENCE_SECONDS = 60


def write(session: Session, node: str, run: int) -> None:
    rank = session.rank
    session.parameters().set(batch=16, optimizer={"name": "adam", "betas": [0.9, 0.999]})
    session.parameters().set(last=f"rank {rank}, run {run}", **{f"rank_{rank}": run, f"from_{node}": rank})
    loss = session.track("loss", description=f"said by {node}", tags=[node])
    for step in range(POINTS):
        loss.append(value=math.inf if step == 3 else rank + step / 100, step=step, run=run)
    session.track(f"only/{node}").append_batch([{"step": step, "rank": rank} for step in range(5)])
    for step in range(5):
        session.log(f"rank {rank} of {node}, run {run}, step {step}", level="warn" if step == 4 else "info", step=step)
    if rank % 4 == 0:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in (("model.pt", f"weights of {node}, run {run}"), (f"{node}.txt", node * 1000)):
                file = Path(folder) / name
                file.write_text(text)
                session.files().upload(
                    file, path="/models", description=f"of {node}", tags=[node], metadata={"run": run}
                )


def pages(session: Session, track: str, **of: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = session.track(track).read(start_index=len(found), limit=PAGE, **of)
        assert page["total"] == len(page["data"]) <= PAGE
        found += page["data"]
        if not page["hasMore"]:
            return found


def read(session: Session, ranks: int) -> dict[str, Any]:
    """All that can be read from Python."""
    names = [each["name"] for each in session.track("loss").list_all()]
    return {
        "parameters": session.parameters().get(),
        "tracks": {name: pages(session, name) for name in names},
        "stats": {each["name"]: each for each in session.track("loss").list_all()},
        "of rank": {rank: pages(session, "loss", rank=rank) for rank in range(ranks)},
        "stats of rank": {rank: session.track("loss").stats(rank=rank) for rank in range(ranks)},
        "files": session.files().list(),
    }


def main(root: str, url: str, node: str) -> None:
    run, said = 0, "ready"
    with Session("run", "work", local_path=root, remote=url, user_name="alice") as session:
        while True:
            print(json.dumps(said), flush=True)
            word, _, rest = sys.stdin.readline().strip().partition(" ")
            if word == "write":
                write(session, node, int(rest or run))
                session.flush(timeout=PATIENCE_SECONDS)
            elif word == "sync":
                session.sync(timeout=PATIENCE_SECONDS)
            elif word == "read":
                said = read(session, int(os.environ["WORLD_SIZE"]))
                continue
            elif word == "fail":
                raise ValueError(f"rank {session.rank} of {node}: loss is NaN")
            elif word in ("close", ""):
                break
            said = word


if __name__ == "__main__":
    main(*sys.argv[1:])
