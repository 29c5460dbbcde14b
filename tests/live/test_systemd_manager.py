"""The agent under a real `systemd --user`, which runs in namespaces of its own: installed, started by a script, killed,
stuck, stopped, removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import reading

SYSTEMD = "/lib/systemd/systemd"
CANNOT = 77
SECONDS = 100

# Whatever this starts ends with its first process. The control group is a file system's, and is removed by hand.
IN_NAMESPACES = """
cannot() { echo "$1" >&2; exit 77; }
mkdir "$TOP" && mount -t cgroup2 none "$TOP" 2>/dev/null || cannot "no cgroup2 file system can be mounted"
mkdir "$TOP/$GROUP" && echo $$ > "$TOP/$GROUP/cgroup.procs" || cannot "no control group can be made"
exec unshare -C -p -f --mount-proc --kill-child sh -c "$1" sh "$2" "$3"
"""
# It is one of the places where systemd looks whether it runs at all.
IN_A_GROUP = """
cannot() { echo "$1" >&2; exit 77; }
mkdir -p /sys/fs/cgroup && umount -R /sys/fs/cgroup 2>/dev/null
mount -t cgroup2 none /sys/fs/cgroup || cannot "no cgroup2 file system can be mounted"
mount -t tmpfs none /run && mkdir -p /run/systemd/system && mkdir -p -m 700 "$XDG_RUNTIME_DIR"
/lib/systemd/systemd --user --log-target=console >&2 &
manager=$!
until test -S "$XDG_RUNTIME_DIR/systemd/private"; do
    kill -0 $manager 2>/dev/null || cannot "systemd --user does not start here"
    sleep 0.1
done
"$1" -c "$2"
status=$?
systemctl --user exit; wait $manager
exit $status
"""

STORY = '''
import os, signal, subprocess, sys
from pathlib import Path
from tests.conftest import run_cli
from tests.waiting import wait_for

SERVICE, SOCKET = "dreamlake-agent.service", "dreamlake-agent.socket"

def systemctl(*words):
    return subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True).stdout.strip()

def shown(name):
    return systemctl("show", "-P", name, SERVICE)

# In processes of their own: one that lives on connects again by itself, and so wakes an agent that was stopped.
TRAINS = """
import os, signal, sys
from dreamlake import Session
with Session(sys.argv[1], "project", local_path=os.environ["ROOT"]) as session:
    for value in range(10):
        session.track("loss").append(value=value)
        if value == 5:
            session.flush()
            if len(sys.argv) > 2:
                os.kill(int(sys.argv[2]), signal.SIGKILL)
    session.flush()
"""

def trains(name, *victim):
    subprocess.run([sys.executable, "-c", TRAINS, name, *map(str, victim)], check=True)

def the_next_after(pid):
    return wait_for(lambda: (found := int(shown("MainPID"))) not in (0, pid) and found)

done = run_cli("agent", "install", "--now")
assert done.returncode == 0, done
assert systemctl("is-active", SOCKET, SERVICE).split() == ["active", "inactive"]

trains("first")
first = int(shown("MainPID"))
assert shown("ActiveState") == "active"
assert shown("StatusText") in ("keeps 1 session", "keeps 0 sessions"), shown("StatusText")

trains("under", first)
second = the_next_after(first)
assert shown("NRestarts") == "1"

stopped = run_cli("agent", "stop")
assert "systemctl --user stop dreamlake-agent.socket" in stopped.stdout, stopped
wait_for(lambda: shown("ActiveState") == "inactive")  # Restart=always, and it is not
assert (shown("NRestarts"), shown("Result")) == ("1", "success")

drop_in = Path(os.environ["HOME"], ".config/systemd/user", SERVICE + ".d", "watchdog.conf")
drop_in.parent.mkdir()
drop_in.write_text("[Service]\\nWatchdogSec=3\\n")
systemctl("daemon-reload")
trains("after")
third = the_next_after(second)
os.kill(third, signal.SIGSTOP)
the_next_after(third)

gone = run_cli("agent", "uninstall")
assert gone.stdout.count("is removed") == 2, gone
assert "not told" not in gone.stdout, gone
assert systemctl("is-active", SOCKET, SERVICE).split() == ["inactive", "inactive"]
assert not Path(os.environ["DREAMLAKE_HOME"], "run", "agent.sock").exists()
'''


def test_under_a_real_systemd(home: Path, root: Path, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("a systemd --user of its own takes namespaces and a control group, which only root can make")
    assert shutil.which("systemctl"), "systemctl is missing: apt-get install systemd"
    if not os.path.exists(SYSTEMD) or shutil.which("unshare") is None:
        pytest.skip(f"{SYSTEMD} or unshare (util-linux) is missing")
    group = f"dreamlake-test-{os.getpid()}"
    (tmp_path / "home").mkdir()
    env = {
        **{name: text for name, text in os.environ.items() if not name.startswith(("XDG_", "DBUS_", "NOTIFY_"))},
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": "/run/user/0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "ROOT": str(root),
        "TOP": str(tmp_path / "cgroup"),
        "GROUP": group,
    }
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", IN_NAMESPACES, "sh", IN_A_GROUP, sys.executable, STORY],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    finally:
        remove_group(tmp_path / "left", group)
    if done.returncode == CANNOT:
        pytest.skip(f"no systemd --user of its own: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("first", "under", "after"):
        assert reading.values(root / "project" / name) == list(range(10))


def remove_group(top: Path, group: str) -> None:
    """With its last process gone a group is empty; it is seen where the file system is mounted once more."""
    top.mkdir()
    script = 'mount -t cgroup2 none "$1" && find "$1/$2" -depth -type d -exec rmdir {} +'
    with contextlib.suppress(OSError):
        subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", top, group], capture_output=True, check=False)
