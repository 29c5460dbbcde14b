"""A training with a remote that makes every kind of call, and says of each that returned what it was: a JSON line in
``words``, which outlives it.

Its numbers go up by one with each call, whatever the call, so that one that is lost, doubled or moved shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path

from dreamlake import Session

BLOCK_BYTES = 1 << 20
TRACKS = ("loss", "train/loss", "train/accuracy")
SYNC_SECONDS = 120


class Trainer:
    def __init__(self, session: Session, who: str, words: Path, scratch: Path, large_mib: tuple[int, int]) -> None:
        self.session, self.who, self.scratch, self.large_mib = session, who, scratch, large_mib
        self.words = os.open(words, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.chance = random.Random(who)
        self.number = 0

    def call(self) -> None:
        kinds = (self.point, self.batch, self.log, self.parameter, self.small_file, self.large_file)
        [kind] = self.chance.choices(kinds, (60, 10, 20, 5, 2, 0.05))
        said = kind()
        said = {"writer": self.who, "number": self.number, **said}
        os.write(self.words, json.dumps(said).encode() + b"\n")  # one write: what is said is said whole
        self.number += 1

    def mine(self) -> dict[str, object]:
        return {"writer": self.who, "number": self.number}

    def point(self) -> dict[str, object]:
        track = self.chance.choice(TRACKS)
        value = float("nan") if self.chance.random() < 0.05 else self.chance.random()
        self.session.track(track).append(**self.mine(), value=value)
        return {"place": f"tracks/{track}/data.jsonl", "count": 1}

    def batch(self) -> dict[str, object]:
        track, count = self.chance.choice(TRACKS), self.chance.randrange(1, 20)
        self.session.track(track).append_batch([self.mine()] * count)
        return {"place": f"tracks/{track}/data.jsonl", "count": count}

    def log(self) -> dict[str, object]:
        self.session.log("at work " * self.chance.choice((1, 1, 200)), metadata=self.mine())
        return {"place": "logs/logs.jsonl", "count": 1}

    def parameter(self) -> dict[str, object]:
        self.session.parameters().set(**{self.who: self.number})
        return {"place": ".dreamlake/parameters.jsonl", "count": 1}

    def small_file(self) -> dict[str, object]:
        """Some replace each other, the others stay."""
        name = self.chance.choice(("state.json", "notes.txt", f"{self.who}-{self.number}.bin"))
        return self.file(name, self.chance.choice((0, 10, 5_000, 300_000)))

    def large_file(self) -> dict[str, object]:
        name = self.chance.choice(("model.pth", "optimizer.pth"))
        return self.file(name, int(self.chance.uniform(*self.large_mib) * BLOCK_BYTES))

    def file(self, name: str, size: int) -> dict[str, object]:
        """No two of its blocks are the same, nor two files."""
        block, digest, path = os.urandom(min(size, BLOCK_BYTES)), hashlib.sha256(), self.scratch / name
        with path.open("wb") as file:
            for number in range(0, size, BLOCK_BYTES):
                data = (number.to_bytes(8, "big") + block[8:])[: size - number]
                digest.update(data)
                file.write(data)
        self.session.files().upload(path, path="/models", metadata=self.mine())
        path.unlink()
        return {"place": ".dreamlake/files.jsonl", "count": 1, "file": name, "sha256": digest.hexdigest()}


def main(url: str, root: str, name: str, who: str, words: str, enough: str, least_mib: str, most_mib: str) -> None:
    """Write until the file ``enough`` is there, and then until the server has it."""
    scratch = Path(f"{words}.{who}")
    scratch.mkdir()
    with Session(name, "project", remote=url, user_name="alice", local_path=root) as session:
        trainer = Trainer(session, who, Path(words), scratch, (int(least_mib), int(most_mib)))
        while not os.path.exists(enough):
            for _ in range(8):
                trainer.call()
            time.sleep(0.05)
        session.sync(timeout=SYNC_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
