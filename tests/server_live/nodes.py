"""Nodes: each with its own host name, clock, agent and directory, and the ranks of a training on it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import scripts
from tests.conftest import fresh_home, run_cli

HERE = Path(__file__).parent
RANK = HERE / "programs" / "rank.py"
WORLD = 16
RANKS = 4  # a node


@dataclass
class Rank:
    number: int
    process: subprocess.Popen[str]
    complaints: Path

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"rank {self.number} is gone: {self.complaints.read_text()}"
        return json.loads(line)

    def end(self) -> int:
        """Wait for its exit code."""
        code = self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        return code


@dataclass
class Node:
    """``skew``: seconds that its clock is ahead. Offline, it has no network at all."""

    name: str
    number: int
    tmp: Path
    home: Path
    url: str
    skew: float = 0
    offline: bool = False
    ranks: list[Rank] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.tmp / self.name

    @property
    def folder(self) -> Path:
        return self.root / "work" / "run"

    @property
    def origin(self) -> str:
        return str(json.loads((self.folder / "session.json").read_bytes())["id"])

    @property
    def env(self) -> dict[str, str]:
        path = os.pathsep.join([str(HERE / "skewed"), *filter(None, [os.environ.get("PYTHONPATH")])])
        skewed = {"PYTHONPATH": path, "DREAMLAKE_TEST_SKEW": str(self.skew)}
        return {"DREAMLAKE_HOME": str(self.home), "WORLD_SIZE": str(WORLD), **skewed}

    def start(self) -> None:
        """Its ranks, until they have the session open."""
        namespaces = ["--uts", *(["--net"] if self.offline else [])]
        apart = ["unshare", *namespaces, "sh", "-c", 'hostname "$0"; exec "$@"', self.name]
        for number in range(RANKS * self.number, RANKS * (self.number + 1)):
            complaints = self.tmp / f"complaints-{number}-{len(self.ranks)}"
            with complaints.open("wb") as stderr:
                process = subprocess.Popen(
                    [*apart, *scripts.command(RANK, self.root, self.url, self.name)],
                    env=scripts.environment({**self.env, "RANK": str(number)}),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            self.ranks.append(Rank(number, process, complaints))
        for rank in self.ranks:
            assert rank.hear() == "ready"

    def all(self, word: str) -> None:
        """Every rank does that, and has done it."""
        for rank in self.ranks:
            rank.tell(word)
        for rank in self.ranks:
            assert rank.hear() == word.partition(" ")[0]

    def close(self) -> None:
        for rank in self.ranks:
            rank.tell("close")
        assert {rank.end() for rank in self.ranks} == {0}
        self.ranks = []

    def kill(self) -> None:
        for rank in self.ranks:
            rank.process.kill()
        for rank in self.ranks:
            rank.end()
        self.ranks = []

    def dreamlake(self, *args: object) -> str:
        done = run_cli(*args, env=self.env)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout


@contextlib.contextmanager
def node(name: str, number: int, tmp: Path, url: str, **more: Any) -> Iterator[Node]:
    with fresh_home() as home:
        made = Node(name, number, tmp, home, url, **more)
        try:
            yield made
        finally:
            made.kill()
