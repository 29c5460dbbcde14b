"""A real agent, as somebody sees it who has to look after it: metrics, health, warnings, its log."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dreamlake import Session
from tests import reading, scripts
from tests.conftest import Cli
from tests.waiting import wait_for

WARNED = """
import sys
from dreamlake import Session
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.track("loss").append(value=1)
    session.flush()
    print("open", flush=True)
    sys.stdin.readline()
"""


def asked(place: Path, path: str) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(place))
        line.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        heard = b""
        while chunk := line.recv(1 << 16):
            heard += chunk
    head, _, body = heard.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def samples(place: Path) -> dict[str, float]:
    """Every sample, by name and the values of its labels."""
    status, body = asked(place, "/metrics")
    assert status == 200
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def status(dreamlake: Cli) -> dict[str, Any]:
    found = reading.strict(dreamlake("agent", "status", "--json").stdout)
    assert isinstance(found, dict)
    return found


def test_metrics_and_health_tell_what_a_session_does(home: Path, root: Path, dreamlake: Cli) -> None:
    place = home / "run" / "metrics.sock"
    began = dreamlake("agent", "start", "--metrics", place)
    assert began.returncode == 0
    assert f"metrics at {place}" in began.stdout
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    with Session("run", "project", local_path=str(root)) as session:
        for number in range(25):
            session.track("loss").append(value=number)
        session.flush()

        def counted() -> dict[str, float] | None:
            found = samples(place)
            return found if found["dreamlake_agent_points_total"] == 25 else None

        found = wait_for(counted)
        assert found is not None
        assert found["dreamlake_agent_clients"] == 1
        assert found["dreamlake_agent_sessions live"] == 1
        assert found["dreamlake_agent_operations_total"] >= 26
        assert found["dreamlake_agent_commits_total"] >= 1
        assert found["dreamlake_agent_applied_bytes_total"] > 100
        assert found["dreamlake_agent_disk_free_bytes sessions"] > 0
        assert str(root) not in asked(place, "/metrics")[1].decode()
        code, body = asked(place, "/health")
        assert (code, json.loads(body)["status"]) == (200, "ok")
    place.unlink()  # somebody cleans up
    wait_for(lambda: asked(place, "/health")[0] == 200)
    assert dreamlake("agent", "stop").returncode == 0
    assert not place.exists()


def test_a_disk_that_is_nearly_full_is_told_everywhere_and_to_those_who_write_there(
    home: Path, root: Path, dreamlake: Cli, tmp_path: Path
) -> None:
    place = home / "run" / "metrics.sock"
    dreamlake("agent", "start", "--metrics", place, env={"DREAMLAKE_DISK_FREE": "900000G", "DREAMLAKE_LAG": "never"})
    complaints = tmp_path / "complaints"
    with complaints.open("w") as stderr:
        script = tmp_path / "warned.py"
        script.write_text(WARNED)
        process = subprocess.Popen(
            scripts.command(script, root, flags=()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=scripts.environment(None),
        )
        try:
            wait_for(lambda: "left, below the limit of" in complaints.read_text())
        finally:
            process.communicate("\n")
    assert complaints.read_text().count("below the limit of") == 1
    warnings = status(dreamlake)["warnings"]
    assert {each["kind"] for each in warnings} == {"disk_space", "setting"}
    assert any("DREAMLAKE_LAG is left out: 'never' is no number of seconds" in each["text"] for each in warnings)
    assert "  warning: the disk of " in dreamlake("agent", "status").stdout
    assert samples(place)["dreamlake_agent_warnings disk_space"] >= 1
    logged = dreamlake("agent", "logs", "--level", "warning", "--json").stdout.splitlines()
    assert [json.loads(line).get("limit") for line in logged].count("disk_space") == len(warnings) - 1


def test_metrics_that_cannot_be_had_keep_no_agent_from_its_work(home: Path, dreamlake: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        began = dreamlake("agent", "start", "--metrics", port)
        assert began.returncode == 0
        assert "it shows no metrics" in began.stderr
        (warning,) = status(dreamlake)["warnings"]
        assert f"port {port} of 127.0.0.1 cannot be had for metrics" in warning["text"]
        assert "cannot be had for metrics" in dreamlake("agent", "logs", "--level", "warning").stdout
    refused = dreamlake("agent", "restart", "--metrics", "0.0.0.0:9464")
    assert refused.returncode == 2
    assert "not on loopback" in refused.stderr


@pytest.fixture
def following(home: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """``dreamlake agent logs -f`` of a log that is not there yet."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamlake.cli", "agent", "logs", "-f"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=scripts.environment(None),
    )
    try:
        assert process.stderr is not None
        assert "waiting for an agent" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def write(home: Path, text: str) -> Path:
    path = home / socket.gethostname() / "agent.log"
    path.parent.mkdir(exist_ok=True)
    entry = {"time": "2026-01-01T00:00:00.000Z", "level": "info", "pid": 1, "text": text}
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
    return path


def test_a_log_is_followed_over_rotation_until_ctrl_c(home: Path, following: subprocess.Popen[str]) -> None:
    assert following.stdout is not None
    path = write(home, "one")
    assert following.stdout.readline().endswith("INFO    one\n")
    path.rename(f"{path}.1")
    write(home, "two")
    assert following.stdout.readline().endswith("INFO    two\n")
    following.send_signal(signal.SIGINT)
    said, complained = following.communicate(timeout=20)
    assert (following.returncode, said, complained) == (0, "", "")


def test_a_log_is_followed_until_nobody_reads_it(home: Path, following: subprocess.Popen[str]) -> None:
    assert following.stdout is not None
    assert following.stderr is not None
    write(home, "one")
    following.stdout.readline()
    following.stdout.close()
    assert following.wait(timeout=20) == 0
    assert following.stderr.read() == ""
