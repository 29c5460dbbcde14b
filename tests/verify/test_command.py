"""``dreamlake verify``, as a user types it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.store.directory import Directory
from tests import reading
from tests.conftest import Cli
from tests.golden.world import ALICE, ORIGIN
from tests.verify.damages import LOSS, replace
from tests.verify.directories import journaled, killed, left_behind, recovered

CHANGED = "line 4 (byte 270) has index 9 where 3 should be"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A root with two sessions: one healthy, one damaged and with work for an agent."""
    project = tmp_path / "root" / "project"
    project.mkdir(parents=True)
    recovered(project)
    damaged = killed(project)
    replace(LOSS, b'{"index":3', b'{"index":9')(damaged)
    (damaged / "session.json").write_text("mine")
    return project


def test_a_healthy_session_is_one_line_and_exits_with_0(tmp_path: Path, dreamlake: Cli) -> None:
    folder = recovered(tmp_path)
    done = dreamlake("verify", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{folder}: ok (7 logs with 27 rows, 5 views, 2 files, 0 journals)\n"


def test_notes_are_told_and_are_no_problem(tmp_path: Path, dreamlake: Cli) -> None:
    done = dreamlake("verify", journaled(tmp_path))
    assert done.returncode == 0
    assert [line.startswith("  note: ") for line in done.stdout.splitlines()] == [False, True]


def test_a_root_is_all_its_sessions_and_problems_exit_with_1(workspace: Path, dreamlake: Cli) -> None:
    for target in (workspace, workspace.parent):
        done = dreamlake("verify", target)
        assert (done.returncode, done.stderr) == (1, "")
        assert f"{workspace}/recovered: ok" in done.stdout
        assert f"{workspace}/killed: 2 problems" in done.stdout
        assert f"  {LOSS}, {CHANGED};" in done.stdout


def test_json_says_the_same_for_scripts(workspace: Path, dreamlake: Cli) -> None:
    done = dreamlake("verify", "--json", workspace / "recovered", workspace / "killed")
    assert (done.returncode, done.stderr) == (1, "")
    whole, damaged = reading.strict(done.stdout)
    assert whole["ok"] is True
    assert whole["problems"] == whole["notes"] == []
    assert whole["checked"] == {"logs": 7, "rows": 27, "views": 5, "files": 2, "journals": 0, "waiting": 0}
    assert damaged["ok"] is False
    assert damaged["checked"]["waiting"] == 4
    first = damaged["problems"][0]
    assert (first["kind"], first["path"], first["repairable"], first["lost"]) == ("order", LOSS, False, True)
    assert CHANGED in first["sentence"]


def test_what_is_no_session_exits_with_2_and_the_others_are_checked(workspace: Path, dreamlake: Cli) -> None:
    done = dreamlake("verify", workspace / "nowhere", workspace / "recovered")
    assert done.returncode == 2
    assert done.stderr == (f"cannot verify: {workspace}/nowhere is not there. `dreamlake list` prints what is there\n")
    assert "recovered: ok" in done.stdout
    done = dreamlake("verify", "--json", workspace / "nowhere")
    assert (done.returncode, reading.strict(done.stdout)) == (
        2,
        [{"path": f"{workspace}/nowhere", "error": f"{workspace}/nowhere is not there"}],
    )
    assert dreamlake("verify").returncode == 2


def test_repair_says_what_it_did_and_verifies_again(workspace: Path, dreamlake: Cli) -> None:
    damaged, aside = workspace / "killed", ".dreamlake/cut/session.json.0"
    left_behind(damaged)
    done = dreamlake("verify", "--repair", damaged)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("  repaired: ")] == [
        "  repaired: 4 operations that waited in journals were applied",
        "  repaired: 1 of 2 problems",
        f"  repaired: 4 bytes were set aside in {aside}",
        f"  repaired: session.json was edited or damaged by somebody else; what it said is kept in {aside}",
        "  repaired: a client vanished without a word (b0b00000000000000000000000000002)",
    ]
    assert f"{damaged}: 1 problem (7 logs with 29 rows, 5 views, 2 files, 0 journals)" in done.stdout
    assert (damaged / ".dreamlake/cut/session.json.0").read_text() == "mine"
    assert reading.view(damaged / "session.json")["state"] == "killed"


def test_repair_of_what_is_whole_changes_nothing(tmp_path: Path, dreamlake: Cli) -> None:
    folder = recovered(tmp_path)
    before = reading.snapshot(folder)
    done = dreamlake("verify", "--repair", folder)
    assert (done.returncode, "repaired" in done.stdout) == (0, False)
    assert reading.snapshot(folder) == before


def test_repair_is_refused_while_a_live_agent_owns_the_directory(tmp_path: Path, dreamlake: Cli) -> None:
    folder = recovered(tmp_path)
    replace(LOSS, b'{"index":3', b'{"index":9')(folder)
    found, me = folder.stat(), processes.myself()
    owner = Directory.open(REAL_DISK, str(folder), (found.st_dev, found.st_ino), me, ORIGIN)
    try:
        done = dreamlake("verify", "--repair", folder)
        assert done.returncode == 1
        assert done.stderr == (
            f"cannot repair: {folder} belongs to a live agent (pid {me['pid']} on {me['host']}), which applies "
            "journals and rebuilds views by itself; to repair it from here, end that agent first: dreamlake agent "
            "stop\n"
        )
        assert CHANGED in done.stdout
    finally:
        owner.close()


def test_help_has_an_example(dreamlake: Cli) -> None:
    done = dreamlake("verify", "--help")
    assert done.returncode == 0
    assert "dreamlake verify ./experiments/project/my-experiment" in done.stdout
    assert "verify" in dreamlake("--help").stdout


def test_an_installation_without_an_agent_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("dreamlake.cli.verify")

    monkeypatch.setattr(module, "entry_points", lambda group: [])
    with pytest.raises(SystemExit) as ended:
        module.verify.main(["--repair", str(killed(tmp_path))])
    assert ended.value.code == 1
    assert "cannot repair: this installation has no agent to do it" in capsys.readouterr().err
    assert (tmp_path / "killed/.dreamlake/journals" / f"{ALICE.hex()}.0").exists()
