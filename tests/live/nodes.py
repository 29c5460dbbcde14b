"""A pretend cluster: nodes with host names, boots, homes and mounts of their own, and one folder that all of them see.

Only root can have one. Each node's first process is ``programs/node.py``, in namespaces of its own; it forks agents and
writers that are on that node. The shared folder is at the same path on every node: the server's own disk, or each
node's bad view of it (:mod:`tests.services.stale`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests import leftovers, reading
from tests.live.ledger import (
    Ledger,
    assert_all_there_once,
    assert_files_are_whole,
    assert_indexes_as_told,
    assert_views_agree,
)
from tests.live.volume import CannotMount
from tests.waiting import wait_for

PLAIN: tuple[object, ...] = ()
STALE = ("--stale", 0.6, "--late", 0.4, "--zeros")
GONE_SECONDS = 4.0  # longer than what is stale and late together

_PROGRAM = Path(__file__).parent / "programs" / "node.py"
_APART = ("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
DONE_SECONDS = 60


NewCluster = Callable[..., "Cluster"]


class Task:
    """A process on a node."""

    def __init__(self, node: Node, pid: int) -> None:
        self.node, self.pid = node, pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.node.ask("signal", self.pid, number)

    def status(self) -> int | None:
        found: int | None = self.node.ask("status", self.pid)
        return found

    def done(self, timeout: float = DONE_SECONDS) -> int:
        """Wait for its end; any but a good one fails the test, which then shows what it complained of."""
        wait_for(lambda: self.status() is not None, timeout)
        status = self.status()
        assert status == 0, f"{status}: {self.node.complaints.read_text()}"
        return status


class Node:
    """One node. What runs there is told by name; see ``programs/node.py``."""

    def __init__(self, cluster: Cluster, name: str, options: tuple[object, ...] | None) -> None:
        self.cluster, self.name = cluster, name
        self.folder = cluster.folder / name
        self.home, self.complaints = self.folder / "h", self.folder / "complaints"
        for folder in (self.folder, self.home, self.folder / "tmp"):
            folder.mkdir(mode=0o700)
        self.complaints.touch()
        self.agent: Task | None = None
        what = {
            "name": name,
            "folder": str(self.folder),
            "backing": str(cluster.backing),
            "shared": str(cluster.shared),
            "options": None if options is None else [str(option) for option in options],
        }
        with (self.folder / "first").open("wb") as stderr:
            self._process = subprocess.Popen(
                [*_APART, sys.executable, "-W", "error", str(_PROGRAM), json.dumps(what)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=self.folder,
                env=self._environment(),
            )

    def ready(self) -> None:
        """Wait until it is a node. `CannotMount` where it cannot be one."""
        self._heard("ready")

    def _environment(self) -> dict[str, str]:
        outside = {name: text for name, text in os.environ.items() if "DREAMLAKE_" not in name or "_TEST_" in name}
        folders = {"DREAMLAKE_HOME": str(self.home), "HOME": str(self.folder), "TMPDIR": str(self.folder / "tmp")}
        paces = {"DREAMLAKE_GONE": self.cluster.gone_seconds, "DREAMLAKE_TEST_PACE": self.cluster.pace}
        return {**outside, **folders, **{name: str(seconds) for name, seconds in paces.items()}}

    def _heard(self, what: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            self._process.wait()
            said = (self.folder / "first").read_text()
            last = said.strip().rpartition("\n")[2]
            if last.startswith(("unshare:", "mount:")) or "CannotMount" in last:
                raise CannotMount(last)
            raise AssertionError(f"{self.name} is gone: {what}: {said}")
        return line

    def ask(self, what: str, *arguments: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._heard(what))

    def start(self, what: str, *arguments: object, words: Path | None = None, **env: str) -> Task:
        says = str(words or self.folder / "words")
        return Task(self, self.ask("start", what, env, says, str(self.complaints), *arguments))

    def start_agent(self) -> Task:
        """An agent of this node; returns when it answers."""
        self.agent = self.start("agent")
        socket = self.home / "run" / "agent.sock"
        wait_for(socket.is_socket)
        return self.agent

    def scribe(self, rank: int, *, mode: str = "committed", **env: str) -> Task:
        """A rank that writes until the cluster's `enough` is there."""
        arguments = (self.cluster.shared, "run", f"w{rank}", self.cluster.enough, self.folder / "tmp", mode)
        ranks = {"RANK": str(rank), "WORLD_SIZE": str(self.cluster.world)}
        return self.start("scribe", *map(str, arguments), words=self.cluster.words, **ranks, **env)

    def told(self, what: str, *arguments: object, **env: str) -> dict[str, Any]:
        """What a program said that ran to its end here."""
        words = self.folder / f"told-{len(list(self.folder.iterdir()))}"
        self.start(what, str(self.cluster.shared), "run", *arguments, words=words, **env).done()
        found: dict[str, Any] = reading.strict(words.read_text() or "{}")
        return found

    def dreamlake(self, *arguments: str, timeout: float = DONE_SECONDS) -> subprocess.CompletedProcess[str]:
        """The command line, on this node."""
        [first] = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return subprocess.run(
            ["nsenter", "-t", first, "--mount", "--uts", "--pid", sys.executable, "-m", "dreamlake.cli", *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def disk(self, word: str) -> None:
        self.ask("disk_is", word)

    def die(self) -> None:
        """Everything on it at one instant, and with it what it had not written to the server yet."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it may be dead already
            self._process.stdin.write('["end"]\n')
            self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Cluster:
    def __init__(self, folder: Path, *, world: int, gone_seconds: float, pace: float) -> None:
        self.folder, self.world, self.gone_seconds, self.pace = folder, world, gone_seconds, pace
        self.backing, self.shared = folder / "server", folder / "shared"
        self.words, self.enough = folder / "words", folder / "enough"
        self.session = self.backing / "project" / "run"  # as it is at the server
        for made in (self.backing, self.shared):
            made.mkdir()
        self.words.touch()
        self.nodes: list[Node] = []

    def node(self, *options: object, plain: bool = False) -> Node:
        """A node more; it is one when it is :meth:`Node.ready`."""
        node = Node(self, f"n{len(self.nodes)}", None if plain else options)
        self.nodes.append(node)
        return node

    def ledger(self) -> Ledger:
        return Ledger(self.words)

    def journals(self) -> list[str]:
        return sorted(os.listdir(self.session / ".dreamlake" / "journals"))

    def owner(self) -> str | None:
        """The host of the last owner that said something, unless it let go."""
        epochs = self.session / ".dreamlake" / "epochs"
        numbers = sorted(int(name) for name in os.listdir(epochs) if name.isdecimal())
        if not numbers:
            return None
        beats = list((epochs / str(numbers[-1])).glob("*/beat"))
        return None if not beats else str(reading.strict(beats[-1].read_text())["host"])

    def complaints(self) -> str:
        return "".join(f"{node.name}: {node.complaints.read_text()}" for node in self.nodes)

    def tell(self) -> None:
        """What a person would want to know of a test that has failed."""
        print(self.complaints())
        for node in self.nodes:
            for log in node.home.rglob("agent.log*"):
                print(f"{node.name}: {log.read_text()[-4000:]}")
        for path in sorted((self.session / ".dreamlake").rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # somebody may still be writing
                print(path.relative_to(self.session), path.stat().st_size)
                if path.name in ("owner", "beat"):
                    print(path.read_text())


@contextlib.contextmanager
def cluster(*, world: int, gone_seconds: float, pace: float = 0.05) -> Iterator[Cluster]:
    """Nodes are made with :meth:`Cluster.node`; nothing is left of them afterwards. `pace`: seconds between eight calls
    of a writer and the next. `CannotMount` where there can be none."""
    if os.geteuid() != 0:
        raise CannotMount("only root may have host names and mounts apart")
    folder = Path(tempfile.mkdtemp(prefix="dln", dir="/tmp"))
    made = Cluster(folder, world=world, gone_seconds=gone_seconds, pace=pace)
    try:
        yield made
    finally:
        with contextlib.ExitStack() as last:  # each of them, whatever another raises; the last one first
            for node in made.nodes:
                last.callback(node.die)
            if made.session.exists():
                last.callback(made.tell)
        left = leftovers.end(leftovers.processes_of(folder))
        shutil.rmtree(folder, ignore_errors=True)
        assert not left, f"left behind: {left}"


def write(made: Cluster, calls: int = 50) -> None:
    """Until every writer that still writes has so many more calls."""
    before = {writer: len(each) for writer, each in made.ledger().calls.items()}

    def have() -> bool:
        now = made.ledger().calls
        return len(now) == made.world and all(len(each) >= before.get(w, 0) + calls for w, each in now.items())

    wait_for(have, 40)


def start(made: Cluster, each: int, **env: str) -> list[Task]:
    """Ranks on every node; the first node's agent has the session first."""
    tasks = [made.nodes[0].scribe(0, **env)]
    wait_for(lambda: made.owner() == made.nodes[0].name)
    for rank in range(1, made.world):
        tasks.append(made.nodes[rank // each].scribe(rank, **env))
    write(made)
    return tasks


def finish(made: Cluster, tasks: list[Task], but: tuple[str, ...] = ()) -> None:
    """Whoever still writes ends as a script does; then all is there, except of writers whose node took it along."""
    made.enough.touch()
    for task in tasks:
        task.done()
    ledger = made.ledger()
    promised = {writer: len(calls) for writer, calls in ledger.calls.items() if writer not in but}
    wait_for(lambda: holds(made, ledger, promised), 30)
    assert "Traceback" not in made.complaints()


def holds(made: Cluster, ledger: Ledger, promised: dict[str, int]) -> bool:
    assert_all_there_once(made.session, ledger, promised=promised)
    assert_indexes_as_told(made.session, ledger, promised=promised)
    assert_views_agree(made.session)
    assert_files_are_whole(made.session, promised=promised)
    return True


def ends(made: Cluster) -> dict[str, Any]:
    """By rank, how the runs of the session ended."""
    rows = reading.lines(made.session / ".dreamlake" / "session.jsonl")
    ranks = {row["client"]: row.get("rank") for row in rows if row["op"] == "open"}
    return {f"{ranks[row['client']]}": row["state"] for row in rows if row["op"] == "end"}
