"""`dreamlake agent install`, `uninstall` and `dreamlake server unit`: what they write, as systemd reads it."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from dreamlake import systemd
from dreamlake_agent.cli.install import NO_SYSTEMD
from dreamlake_agent.main import IS_RUNNING, WRONG_SOCKET
from tests.conftest import Cli
from tests.live.test_systemd import needed

EXPOSURE_MAX = 30  # tenths: "rates below 3"


@pytest.fixture
def units(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's units are; no systemd of anybody's is asked."""
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".config" / "systemd" / "user"


def analyze(*words: object) -> str:
    with tempfile.TemporaryDirectory() as runtime:  # a user's systemd has one, and wants to know it
        done = subprocess.run(
            [needed("systemd-analyze"), *map(str, words)],
            env={**os.environ, "XDG_RUNTIME_DIR": runtime},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done
    assert done.stderr == ""
    return done.stdout


def test_what_is_installed_is_what_systemd_takes(units: Path, dreamlake: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    done = dreamlake("agent", "install")
    assert done.returncode == 0, done
    for said in ("daemon-reload", "enable --now dreamlake-agent.socket", "loginctl enable-linger"):
        assert said in done.stdout
    written = sorted(units.iterdir())
    assert [path.name for path in written] == [systemd.AGENT_SERVICE, systemd.AGENT_SOCKET]
    assert [stat.S_IMODE(path.stat().st_mode) for path in written] == [0o644, 0o644]
    assert f'ExecStart="{systemd.program()}" agent run\n' in written[0].read_text()
    assert f"ListenStream={os.environ['DREAMLAKE_HOME']}/run/agent.sock\n" in written[1].read_text()
    analyze("--user", "verify", "--man=no", *written)

    before = [(path.stat().st_ino, path.read_text()) for path in written]
    again = dreamlake("agent", "install")
    assert again.stdout.count("is in place") == 2
    assert [(path.stat().st_ino, path.read_text()) for path in written] == before

    shown = dreamlake("agent", "install", "--print").stdout
    assert all(text in shown for _, text in before)

    monkeypatch.delenv("DREAMLAKE_HOME")  # as most have it
    assert dreamlake("agent", "install").stdout.count("is written") == 2
    assert "ListenStream=%t/dreamlake/agent.sock\n" in written[1].read_text()
    assert "DirectoryMode=0700\nSocketMode=0600\n" in written[1].read_text()
    analyze("--user", "verify", "--man=no", *written)

    gone = dreamlake("agent", "uninstall")
    assert gone.returncode == 0, gone
    assert gone.stdout.count("is removed") == 2
    assert list(units.iterdir()) == []
    assert dreamlake("agent", "uninstall").stdout == "no unit is installed\n"


def test_a_unit_of_somebody_elses_stays(units: Path, dreamlake: Cli, tmp_path: Path) -> None:
    units.mkdir(parents=True)
    mine = units / systemd.AGENT_SERVICE
    mine.write_text("[Service]\nExecStart=/bin/true\n")
    done = dreamlake("agent", "install")
    assert done.returncode == 1
    assert str(mine) in done.stderr
    assert "--force" in done.stderr
    assert list(units.iterdir()) == [mine]  # nothing was changed
    assert "left alone" in dreamlake("agent", "uninstall").stdout
    assert mine.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert dreamlake("agent", "install", "--force").returncode == 0
    assert "agent run" in mine.read_text()
    mine.unlink()
    mine.symlink_to("/dev/null")  # masked: it is not to start
    assert dreamlake("agent", "install").returncode == 1
    assert mine.is_symlink()


def test_uninstall_takes_away_what_enable_has_made(units: Path, dreamlake: Cli) -> None:
    dreamlake("agent", "install")
    (units / "sockets.target.wants").mkdir()
    wanted = units / "sockets.target.wants" / systemd.AGENT_SOCKET
    wanted.symlink_to(units / systemd.AGENT_SOCKET)
    done = dreamlake("agent", "uninstall")
    assert "systemd was not told" in done.stdout
    assert not wanted.is_symlink()


def test_where_there_is_no_systemd_that_is_said(units: Path, dreamlake: Cli, tmp_path: Path) -> None:
    done = dreamlake("agent", "install", env={"PATH": str(tmp_path)})
    assert done.returncode == NO_SYSTEMD
    assert "no systemd" in done.stderr
    assert "dreamlake agent start" in done.stderr
    assert not units.exists()


def test_where_no_systemd_runs_for_this_user_now_says_so(units: Path, dreamlake: Cli) -> None:
    done = dreamlake("agent", "install", "--now", env={"XDG_RUNTIME_DIR": "/nonexistent"})
    assert done.returncode == 1
    assert "the units are in place" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_may_stand_in_a_folder_with_any_sensible_name(tmp_path: Path) -> None:
    folder = tmp_path / "100% of a $HOME %h; (é)"
    folder.mkdir()
    program = folder / "dreamlake"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in (systemd.AGENT_SERVICE, systemd.SERVER_SERVICE):
        (tmp_path / name).write_text(systemd.unit_for(name, str(program)))
    (tmp_path / systemd.AGENT_SOCKET).write_text(systemd.unit(systemd.AGENT_SOCKET))
    analyze("--user", "verify", "--man=no", tmp_path / systemd.AGENT_SERVICE)
    analyze("verify", "--man=no", tmp_path / systemd.SERVER_SERVICE)
    for name in ('a"b', "a'b", "a\\b", "a\nb"):
        with pytest.raises(systemd.NotForSystemd):
            systemd.quoted(f"/{name}/dreamlake")


def test_the_units_name_what_the_agent_means() -> None:
    service = systemd.unit(systemd.AGENT_SERVICE)
    assert f"RestartPreventExitStatus=0 {IS_RUNNING} {WRONG_SOCKET}\n" in service
    assert "Restart=always\n" in service


def test_the_servers_unit_exposes_little(home: Path, tmp_path: Path, dreamlake: Cli) -> None:
    done = dreamlake("server", "unit")
    assert done.returncode == 0, done
    unit = tmp_path / systemd.SERVER_SERVICE
    unit.write_text(done.stdout)
    analyze("verify", "--man=no", unit)
    told = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", unit)
    assert "Overall exposure level" in told
