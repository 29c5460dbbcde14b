"""One node of a pretend cluster: the first process of a host name, mounts and processes apart.

`unshare --mount --uts --pid --fork --mount-proc python node.py JSON`, as :mod:`tests.live.nodes` does. Reads requests
on standard input, a JSON list a line, and answers each with a line. When it ends everything on the node is dead.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq  # noqa: F401  so that the children have it

sys.path.insert(0, str(Path(__file__).parents[3]))

from dreamlake.link import LinkThread  # noqa: F401
from dreamlake.writer import Writer  # noqa: F401
from dreamlake_agent.main import main as be_agent
from tests.live.programs import onlooker, scribe
from tests.services.stale import Mount

PROGRAMS: dict[str, Callable[..., None]] = {
    "scribe": scribe.main,
    "visit": onlooker.visit,
    "own": onlooker.own,
    "look": onlooker.look,
}


def another(path: str, text: str, folder: Path) -> None:
    """This node's own file at a path of the system's, where there is one."""
    if os.path.exists(path):
        own = folder / path.strip("/").replace("/", "_")
        own.write_text(text + "\n")
        subprocess.run(["mount", "--bind", str(own), path], check=True)


class Node:
    def __init__(self, name: str, folder: str, backing: str, shared: str, options: list[str] | None) -> None:
        socket.sethostname(name)
        number = sum(name.encode())
        another("/proc/sys/kernel/random/boot_id", f"{number:08x}-0000-4000-8000-000000000000", Path(folder))
        another("/etc/machine-id", f"{number:032x}", Path(folder))
        self.disk: Mount | None = None
        if options is None:
            subprocess.run(["mount", "--bind", backing, shared], check=True)
        else:
            self.disk = Mount(Path(backing), Path(shared), *options)
        self.folder = folder
        self.ended: dict[int, int] = {}

    def start(self, what: str, env: dict[str, str], words: str, complaints: str, *arguments: Any) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            os.environ.update(env)
            os.chdir(self.folder)
            for fd, path, flags in (
                (0, os.devnull, os.O_RDONLY),
                (1, words, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
                (2, complaints, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            ):
                opened = os.open(path, flags, 0o666)
                os.dup2(opened, fd)
                os.close(opened)
            if what == "agent":
                code = be_agent([])
            else:
                PROGRAMS[what](*arguments)
                code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)

    def status(self, pid: int) -> int | None:
        """How that process ended; None while it goes on."""
        while True:
            try:
                found, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not found:
                break
            self.ended[found] = os.waitstatus_to_exitcode(status)
        return self.ended.get(pid)

    def disk_is(self, word: str) -> None:
        assert self.disk is not None
        self.disk.tell(word)

    def end(self) -> None:
        os._exit(0)


def main() -> None:
    node = Node(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(node, what)(*arguments)), flush=True)


main()
