"""A rank that needs no PyTorch: ends.py ROOT WAY... Its rank says which WAY it ends, once all of them are there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from dreamlake import Session
from tests.waiting import wait_for

POINTS = 50


def main() -> None:
    root, *ways = sys.argv[1:]
    session = Session("run", "project", local_path=root).open()
    session.parameters().set(lr=0.1, layers=[64, 64])
    track = session.track("loss", description="on the training set", tags=["train"])
    for value in range(POINTS):
        track.append(value=value)
    session.log("there")
    folder = Path(root, "there")
    folder.mkdir(exist_ok=True)
    (folder / str(session.rank)).touch()
    wait_for(lambda: len(list(folder.iterdir())) == session.world_size, timeout=60)
    end(session, ways[session.rank])


def end(session: Session, way: str) -> None:
    if way == "close":
        session.close()
    elif way == "with":
        with session:
            session.log("inside")
    elif way == "exit":
        sys.exit()
    elif way == "exit in with":
        with session:
            sys.exit(0)
    elif way == "raise":
        raise ArithmeticError("the loss is not finite")
    elif way == "raise in with":
        with session:
            raise ArithmeticError("the loss is not finite")
    elif way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif way == "wait":
        while True:
            signal.pause()
    else:
        assert way == "leave open"


if __name__ == "__main__":
    main()
