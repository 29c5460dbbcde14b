"""Scenes in mounts and processes of their own: `unshare -m -p -f --mount-proc python apart.py SCENE FOLDER`.

Whatever a scene mounts or starts is gone with it, and of places such as /run/user/UID it has its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[0] = str(HERE.parents[3])
from tests import reading  # noqa: E402
from tests.waiting import wait_for  # noqa: E402

CHECKOUT = str(HERE.parents[3])
UID = os.getuid()
TMP, RUN = f"/tmp/dreamlake-{UID}", f"/run/user/{UID}"
BATCH = {"PATH": "/usr/bin:/bin"}
# Root without its powers is a user like any other: it may not make a folder where only root may.
AS_A_USER = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
TRAIN = """
import sys
from dreamlake import Session
root, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Session("run", "project", local_path=root) as session:
    for value in range(first, last):
        session.track("loss").append(value=value)
    print("wrote", flush=True)
    sys.stdin.readline()
"""


class Training:
    """A script that has written values and stays open until it is told to end."""

    def __init__(self, root: Path, first: int, last: int, env: dict[str, str], *before: str) -> None:
        self.folder = root / "project" / "run"
        self.process = subprocess.Popen(
            [*before, sys.executable, "-W", "error", "-c", TRAIN, str(root), str(first), str(last)],
            env=env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wrote(self) -> Training:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "wrote\n", self.process.communicate()
        return self

    def ends(self) -> str:
        """What it complained of."""
        _, said = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0, said
        assert "Traceback" not in said
        return said


def mount_own(path: str, mode: str = "700") -> None:
    os.makedirs(path, mode=0o700, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", path], check=True)


def cover_tmp(options: str) -> None:
    """An empty /tmp over the one that is there; with the checkout in it, where that is what was covered."""
    kept = "/run/user/checkout"
    os.makedirs(kept, exist_ok=True)
    subprocess.run(["mount", "--bind", CHECKOUT, kept], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{options},mode=1777", "tmpfs", "/tmp"], check=True)
    if not os.path.isdir(CHECKOUT):
        os.makedirs(CHECKOUT)
        subprocess.run(["mount", "--bind", kept, CHECKOUT], check=True)


def in_a_job(*commands: str) -> tuple[str, ...]:
    """What goes before a command to run it in mounts of its own, after these shell commands."""
    return ("unshare", "-m", "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh")


def agents() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and b"dreamlake_agent.main" in (entry / "cmdline").read_bytes():
            with open(entry / "stat", "rb") as stat:
                if b") Z" not in stat.read():
                    found.append(int(entry.name))
    return found


def status(env: dict[str, str]) -> dict[str, object] | None:
    done = subprocess.run(
        [sys.executable, "-m", "dreamlake.cli", "agent", "status", "--json"],
        env=env, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    found: dict[str, object] | None = reading.strict(done.stdout)
    return found


def has(folder: Path, *values: int) -> bool:
    return sorted(reading.values(folder)) == sorted(values)


# ── the scenes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def private_tmp(folder: Path) -> None:
    """Two agents of one user, each blind to the other's socket: the one that has the directory follows both."""
    home = {**BATCH, "HOME": str(folder / "home")}
    first = Training(folder, 0, 3, home).wrote()
    second = Training(folder, 10, 13, home, *in_a_job(f"mount -t tmpfs -o mode=700 tmpfs {TMP}")).wrote()
    wait_for(lambda: has(first.folder, 0, 1, 2, 10, 11, 12))
    said = second.ends()
    assert said.count("cannot be reached from here and reads the journal itself") == 1, said
    assert len(agents()) == 2
    assert first.ends() == ""
    wait_for(lambda: reading.view(first.folder / "session.json")["state"] == "finished")
    reading.assert_consecutive(reading.points(first.folder))


def private_tmp_of_the_owner(folder: Path) -> None:
    """The agent in the job has the directory and is killed with the job: the other one takes it over by itself."""
    home = {**BATCH, "HOME": str(folder / "home")}
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "start"], env=home, cwd="/", check=True)
    [outside] = agents()
    job = Training(folder, 0, 3, home, *in_a_job(f"mount -t tmpfs -o mode=700 tmpfs {TMP}")).wrote()
    wait_for(lambda: has(job.folder, 0, 1, 2))
    for pid in {*agents(), job.process.pid} - {outside}:
        os.kill(pid, 9)
    wait_for(lambda: reading.view(job.folder / "session.json")["state"] == "killed", timeout=60)
    assert agents() == [outside]


def logout(folder: Path) -> None:
    """/run/user/UID goes while an agent in it and a session run: the agent moves to where everybody looks."""
    mount_own("/run/user", "755")
    os.mkdir(RUN, 0o700)
    os.chown("/run/user", 1, 1)
    login = {**BATCH, "HOME": str(folder / "home"), "XDG_RUNTIME_DIR": RUN}
    first = Training(folder, 0, 3, login, *AS_A_USER).wrote()
    wait_for(lambda: os.path.exists(f"{RUN}/dreamlake/agent.sock"))
    [pid] = agents()
    shutil.rmtree(RUN)
    wait_for(lambda: os.path.exists(f"{TMP}/agent.sock"))
    os.mkdir(RUN, 0o700)  # logged in again
    second = Training(folder, 3, 6, login, *AS_A_USER).wrote()
    assert second.ends() == ""
    assert first.ends() == ""
    assert agents() == [pid]
    for env in (BATCH, login):
        found = status(env)
        assert found is not None
        assert (found["pid"], found["endpoint"]) == (pid, f"ipc://{TMP}/agent.sock")
    assert has(first.folder, *range(6))


def login_and_batch(folder: Path) -> None:
    """Whatever the environments say, there is one agent, and all see it; also when both start it at one instant."""
    mount_own("/run/user", "755")
    login = {
        **BATCH, "HOME": str(folder / "home"), "XDG_RUNTIME_DIR": RUN, "TMPDIR": str(folder / "tmp"), "TERM": "xterm",
    }  # fmt: skip
    others = [BATCH, {}, {**BATCH, "HOME": "/nowhere", "TMPDIR": "/nowhere/either"}, {"XDG_RUNTIME_DIR": "/nowhere"}]
    batch = Training(folder / "0", 0, 3, BATCH).wrote()
    [pid] = agents()
    os.mkdir(RUN, 0o700)  # the login comes later than the job
    for env in (login, *others):
        found = status(env)
        assert found is not None
        assert found["pid"] == pid
    assert Training(folder / "1", 0, 3, login).wrote().ends() == ""
    assert batch.ends() == ""
    assert agents() == [pid]
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "stop"], env=login, cwd="/", check=True)
    at_once = [Training(folder / f"once{n}", 0, 1, env) for n, env in enumerate((login, BATCH, login, BATCH))]
    for each in at_once:
        assert each.wrote().ends() == ""
    assert len(agents()) == 1


def no_socket(folder: Path) -> None:
    """A container that sees the directory and not the socket writes its journal; the agent outside follows it, and sees
    its end, though pids mean nothing."""
    home = {**BATCH, "HOME": str(folder / "home"), "DREAMLAKE_AGENT": "never"}
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "start"], env=home, cwd="/", check=True)
    hidden = f"mount -t tmpfs -o mode=700 tmpfs {TMP}"
    container = Training(folder, 0, 3, home, "unshare", "-p", "-f", "--kill-child", "--mount-proc", *in_a_job(hidden))
    container.wrote()
    wait_for(lambda: has(container.folder, 0, 1, 2))
    wait_for(lambda: reading.view(container.folder / "session.json")["state"] == "running")
    [inside] = Path(f"/proc/{container.process.pid}/task/{container.process.pid}/children").read_text().split()
    os.kill(int(inside), 9)  # the container's first process, and with it all that is in there
    said = container.process.communicate()[1]
    assert said.count("no agent keeps") == 1, said
    wait_for(lambda: reading.view(container.folder / "session.json")["state"] == "killed")
    assert len(agents()) == 1


def no_socket_and_nobody_outside(folder: Path) -> None:
    """Without a registry that both see, whoever is asked about the directory next picks up what waits there."""
    inside = {**BATCH, "HOME": str(folder / "inside"), "DREAMLAKE_AGENT": "never"}
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "start"], env=BATCH, cwd="/", check=True)
    hidden = f"mount -t tmpfs -o mode=700 tmpfs {TMP}"
    container = Training(folder, 0, 3, inside, *in_a_job(hidden)).wrote()
    show = [sys.executable, "-m", "dreamlake.cli", "show", str(container.folder), "--json"]
    shown = subprocess.run(show, env=BATCH, cwd="/", capture_output=True, text=True, check=True).stdout
    assert re.search(r'"loss".{0,200}\b3\b', shown, re.DOTALL), shown
    assert reading.values(container.folder) == []
    # The next open outside has the agent follow both.
    assert Training(folder, 3, 6, BATCH).wrote().ends() == ""
    wait_for(lambda: has(container.folder, *range(6)))
    container.ends()


def another_directory(folder: Path) -> None:
    """A container that sees the socket, and another directory at the same path: nothing is written outside."""
    home = {**BATCH, "HOME": str(folder / "home")}
    root = folder / "root"
    outside = Training(root, 0, 3, home).wrote()
    assert outside.ends() == ""
    wait_for(lambda: not list((outside.folder / ".dreamlake" / "journals").iterdir()))
    before = reading.recorded(outside.folder)
    own = f"mount -t tmpfs tmpfs {root}"
    container = Training(root, 10, 13, home, *in_a_job(own)).wrote()
    inside = Path(f"/proc/{container.process.pid}/root{outside.folder}")
    assert len(list((inside / ".dreamlake" / "journals").iterdir())) == 1
    said = container.ends()
    assert said.count("is another directory here than it is for the client") == 1, said
    # And a path that is nowhere outside.
    said = Training(Path("/mnt/nowhere"), 0, 3, home, *in_a_job("mount -t tmpfs tmpfs /mnt")).wrote().ends()
    assert said.count("every call is kept in its journal until an agent that can see it comes") == 1, said
    assert reading.recorded(outside.folder) == before
    assert not os.path.exists("/mnt/nowhere")
    assert len(agents()) == 1


def bad_tmp(folder: Path) -> None:
    """/tmp noexec: nothing changes. /tmp full: the socket is in the next place, where there is one."""
    mount_own("/run/user", "755")
    os.mkdir(RUN, 0o700)
    root = Path("/run/user/root")  # what is below /tmp is hidden now
    home = {**BATCH, "HOME": "/run/user/home"}
    cover_tmp("noexec")
    assert Training(root, 0, 3, {**home, "TMPDIR": "/tmp"}).wrote().ends() == ""
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "stop"], env=home, cwd="/", check=True)
    cover_tmp("nr_inodes=20")
    with suppress(OSError):
        for number in range(20):
            Path(f"/tmp/{number}").touch()
    assert not os.path.exists("/tmp/19")
    assert Training(root, 3, 6, home).wrote().ends() == ""
    found = status(home)
    assert found is not None
    assert found["endpoint"] == f"ipc://{RUN}/dreamlake/agent.sock"
    assert has(root / "project" / "run", *range(6))


def main() -> None:
    scene, folder = sys.argv[1], Path(sys.argv[2])
    mount_own(TMP)
    for name in ("home", "tmp"):
        (folder / name).mkdir()
    globals()[scene](folder)


if __name__ == "__main__":
    main()
