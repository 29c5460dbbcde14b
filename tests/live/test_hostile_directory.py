"""Session directories that somebody else may write to, or has made: where they could lead an agent, a client, a reader.
docs/security.md names each test."""

from __future__ import annotations

import contextlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dreamlake import Session, config
from tests import reading, scripts
from tests.conftest import Cli, StartScript
from tests.live.another import AS_ANOTHER, needs_root, opened_to_all, removed
from tests.waiting import wait_for

pytestmark = [needs_root, pytest.mark.home("shared")]

TOKEN = "dlk_0123456789ab_" + "s3cret" * 7
NOWHERE = "http://127.0.0.1:9"


OWNS = """
folder, endpoint = sys.argv[1:3]
owner = open(folder + "/.dreamlake/owner", "r+")
fcntl.flock(owner, fcntl.LOCK_EX)
tcp = socket.create_server(("127.0.0.1", 0))
unix = socket.socket(socket.AF_UNIX)
unix.bind(folder + "/agent.sock")
os.chmod(folder + "/agent.sock", 0o666)
unix.listen()
said = json.load(owner)
said.pop("released", None)
said.update(pid=os.getpid(), endpoint=endpoint.format(folder=folder, port=tcp.getsockname()[1]))
owner.seek(0)
owner.truncate()
json.dump(said, owner)
owner.flush()
print("owns", flush=True)
sys.stdin.readline()
print(len(select.select([unix, tcp], [], [], 0)[0]), flush=True)
"""


@pytest.mark.parametrize("endpoint", ["ipc://{folder}/agent.sock", "tcp://127.0.0.1:{port}"])
def test_no_client_goes_where_a_false_owner_sends_it(
    endpoint: str, agent: Path, commons: Path, start_script: StartScript, caplog: pytest.LogCaptureFixture
) -> None:
    """He would hear the session's data and its key. Meanwhile the journal has everything, and after him the agent."""

    def trains(value: int, **options: Any) -> None:
        with Session("run", "project", local_path=str(commons), **options) as session:
            session.track("loss").append(value=value)

    trains(0)
    folder = commons / "project" / "run"
    wait_for(lambda: reading.view(folder / ".dreamlake" / "owner").get("released"))
    opened_to_all(commons / "project")
    other = start_script(AS_ANOTHER + OWNS, folder, endpoint)
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == "owns\n"
    trains(1, remote=NOWHERE, user_name="alice", api_key=TOKEN)
    assert "that is no place of yours alone" in caplog.text
    print("leave", file=other.stdin, flush=True)
    assert other.stdout.readline() == "0\n"
    assert other.wait(20) == 0
    trains(2)
    wait_for(lambda: reading.values(folder) == [0, 1, 2])


LOCKS = """
owner = open(sys.argv[1])
fcntl.flock(owner, fcntl.LOCK_EX)
print("holds", flush=True)
sys.stdin.readline()
"""


def test_who_may_read_a_directory_can_hold_up_its_agent_and_nothing_else(
    agent: Path, commons: Path, start_script: StartScript, monkeypatch: pytest.MonkeyPatch, dreamlake: Cli
) -> None:
    """A lock needs no more than a file that is open. What is kept meanwhile is applied when he has gone."""
    monkeypatch.setattr(config, "OPEN_SECONDS", 1.0)
    monkeypatch.setattr(config, "CLOSE_SECONDS", 0.5)
    folder = commons / "project" / "run"
    for value in range(3):
        with Session("run", "project", local_path=str(commons)) as session:
            session.track("loss").append(value=value)
        if value == 0:
            wait_for(lambda: reading.view(folder / ".dreamlake" / "owner").get("released"))
            other = start_script(AS_ANOTHER + LOCKS, folder / ".dreamlake" / "owner")
            assert other.stdout is not None
            assert other.stdout.readline() == "holds\n"
        if value == 1:
            assert reading.values(folder) == [0]
            assert "2 points" in dreamlake("show", folder).stdout
            other.kill()
            other.wait()
    wait_for(lambda: reading.values(folder) == [0, 1, 2])


PLANTS = """
precious, folders, kinds = sys.argv[1], sys.argv[2::2], sys.argv[3::2]
for folder, kind in zip(folders, kinds):
    client = "ab" * 16
    inner = folder + "/.dreamlake/"
    def instead(path, target=None):
        os.rename(path, folder + "/was") if os.path.lexists(path) else os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkfifo(path) if target is None else os.symlink(target, path)
    if kind == "journals":
        os.symlink(precious + "/secret", f"{inner}journals/{client}.0")
        os.symlink(precious + "/secret", f"{inner}journals/{client}.sync")
        os.mkfifo(f"{inner}journals/{client[::-1]}.0")
        os.mkfifo(f"{inner}journals/{client[::-1]}.1.new")
        os.symlink(precious, f"{inner}journals/{'cd' * 16}.0")
        open(f"{inner}journals/{'x' * 255}", "w").close()
        os.symlink(precious + "/secret", f"{inner}incoming/{client}-evil")
    elif kind == "views":
        for name in ("session.json", "parameters.json"):
            os.rename(f"{folder}/{name}", f"{folder}/was-{name}")
            os.symlink(precious + "/thesis.tex", f"{folder}/{name}")
            os.symlink(precious + "/thesis.tex", f"{folder}/{name}.tmp")
    elif kind == "deep":
        for top in ("tracks", "files", ".dreamlake/journals"):
            path = f"{folder}/{top}"
            for _ in range(300):
                path += "/" + "d" * 9
                os.mkdir(path)
    elif kind == "fifos":
        os.makedirs(inner + "epochs/7")
        os.mkfifo(inner + "epochs/7/desk")
        os.symlink(precious, inner + "epochs/9")
    elif kind == "log":
        instead(folder + "/tracks/loss/data.jsonl", precious + "/thesis.tex")
    elif kind == "fifo":
        instead(folder + "/logs/logs.jsonl")
    elif kind != "device":
        instead(f"{folder}/{kind}", precious)
refused = []
for number, call in enumerate((
    lambda: os.link(precious + "/thesis.tex", folder + "/logs/link"),
    lambda: os.mknod(folder + "/logs/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5)),
)):
    try:
        call()
    except PermissionError:
        refused.append(number)
print(refused)
"""
KINDS = ["journals", "views", "deep", "fifos", "device", "log", "fifo"]
KINDS += ["files", "tracks", "logs", ".dreamlake/incoming"]


def test_a_hostile_directory_leads_nowhere_else_and_harms_no_other_session(
    agent: Path, commons: Path, tmp_path: Path, dreamlake: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, pipes and names of any depth, in each place that the agent, a client or a reader looks into."""
    monkeypatch.setattr(config, "OPEN_SECONDS", 1.0)  # some cannot be had, and that is not waited for
    monkeypatch.setattr(config, "CLOSE_SECONDS", 0.5)
    precious = commons / "precious"
    precious.mkdir(mode=0o755)
    (precious / "thesis.tex").write_text("precious")
    (precious / "secret").write_text("secret")
    (precious / "secret").chmod(0o600)
    before = reading.snapshot(precious)
    source = tmp_path / "model.pth"
    source.write_text("model")

    def trains(kind: str, value: int) -> None:
        with contextlib.suppress(OSError), Session(kind, "project", local_path=str(commons)) as session:
            session.log("hello")
            session.track("loss").append(value=value)
            session.files().upload(source, path="/models")
            session.parameters().set(value=value)

    with ThreadPoolExecutor(len(KINDS)) as pool:
        list(pool.map(lambda kind: trains(kind, 0), KINDS))
        names = {kind: commons / "project" / kind.replace("/", "%2F") for kind in KINDS}
        wait_for(lambda: all(reading.view(at / ".dreamlake" / "owner").get("released") for at in names.values()))
        opened_to_all(commons / "project")
        planted = [word for kind in KINDS for word in (names[kind], kind)]
        done = scripts.run(AS_ANOTHER + PLANTS, precious, *planted)
        with contextlib.suppress(PermissionError):  # only root can, who unpacks what somebody sent him
            for name in (f".dreamlake/journals/{'ef' * 16}.0", "tracks/loss/data.jsonl.tmp"):
                os.mknod(names["device"] / name, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        is_guarded = Path("/proc/sys/fs/protected_hardlinks").read_text() == "1\n"
        assert done.stdout == ("[0, 1]\n" if is_guarded else "[1]\n")
        list(pool.map(lambda kind: trains(kind, 1), KINDS))
        said = list(pool.map(lambda kind: dreamlake("show", names[kind]), ["journals", "device", "fifo", "tracks"]))
    said += [dreamlake("verify", commons), dreamlake("list", commons), dreamlake("sync", commons, "--dry-run")]
    assert not any("Traceback" in each.stderr or "secret" in each.stdout for each in said)
    with Session("neighbour", "project", local_path=str(commons)) as session:
        session.log("hello")
        session.flush()
    assert reading.snapshot(precious) == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in precious.iterdir()} == {0o644, 0o600}
    wait_for(lambda: reading.values(names["deep"]) == [0, 1])
    for kind in sorted({*KINDS} - {"deep", ".dreamlake/incoming"}):  # that one is refused when it is opened
        assert list((names[kind] / ".dreamlake" / "journals").glob("*.0")), kind
    wait_for(lambda: removed(commons / "project"))  # an agent that stops would wait for them


def test_a_terminal_is_shown_what_a_directory_says_and_does_not_obey_it(
    agent: Path, root: Path, dreamlake: Cli
) -> None:
    """Escape sequences in names and messages could hide lines, or type some."""
    evil = "\x1b]0;title\x07\x9b31m"
    with Session(f"run{evil}", "project", local_path=str(root), description=evil) as session:
        session.log(f"first\n{evil}")
        session.track(f"loss{evil}").append(value=1)
    where = root / "project" / f"run{evil}"
    for said in (dreamlake("show", where), dreamlake("list", root), dreamlake("verify", root)):
        assert said.returncode == 0
        assert not set(said.stdout) & {"\x1b", "\x07", "\x9b"}
        assert "\\x1b]0;title\\x07\\x9b31m" in said.stdout
