"""Status, as a person reads it: with no session, with one, and with fifty."""

from __future__ import annotations

from typing import Any

import pytest

from dreamlake_agent.cli.status import SESSIONS_WHOLE, lines_of


def session(number: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "path": f"/data/project/run{number}",
        "phase": "live",
        "clients": 8,
        "queue_bytes": 2048,
        "operations": 10,
        "points": 12345,
        "refused": 0,
        "lost": 0,
        "uncovered_commits": 0,
        "trouble": None,
        "versions": [{"version": "0.4.0", "can": [], "clients": 8}],
        "state": "running",
        "name": f"run{number}",
        "workspace": "project",
        "uploads": [],
        "ranks": list(range(8)),
        **other,
    }


def report(*sessions: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "pid": 4242,
        "host": "node1",
        "version": "0.4.0",
        "endpoint": "ipc:///run/user/1000/dreamlake/agent.sock",
        "log": "/home/ann/.local/state/dreamlake/node1/agent.log",
        "started_at": 0.0,
        "uptime": 3700.0,
        "memory": 50 << 20,
        "queue": 0,
        "points": 1234567,
        "points_per_second": 1500.0,
        "last_error": None,
        "warnings": [],
        "metrics": None,
        "lag": 0.0,
        "sessions": list(sessions),
        "uploads": [],
        **other,
    }


def upload(**other: Any) -> dict[str, Any]:
    return {
        "url": "https://lake",
        "user": None,
        "state": "sent",
        "pending_operations": 0,
        "pending_files": 0,
        "pending_bytes": 0,
        "lag": 0.0,
        "last_error": None,
        "next_attempt": None,
        "problems": [],
        **other,
    }


def test_with_no_session() -> None:
    assert list(lines_of(report())) == [
        "agent 0.4.0, pid 4242 on node1, up 1h 1m",
        "  memory   50.0 MiB",
        "  queue    0 B in journals, not yet applied",
        "  points   1,234,567 (1,500.0 per second)",
        "  socket   ipc:///run/user/1000/dreamlake/agent.sock",
        "  log      /home/ann/.local/state/dreamlake/node1/agent.log",
        "no session is open",
    ]


def test_with_one_and_all_that_may_be_said_of_it() -> None:
    found = report(
        session(refused=1, lost=2, trouble="disk full", versions=[{"version": None, "can": None, "clients": 3}]),
        warnings=[
            {"kind": "disk_space", "path": "/data", "text": "the disk fills up", "seconds": 65.0},
            {"kind": "setting", "path": None, "text": "the port is taken", "seconds": None},
        ],
        metrics="http://127.0.0.1:9464",
        lag=61.0,
        last_error="something",
    )
    lines = list(lines_of(found, "another version runs"))
    assert lines[1:4] == [
        "  another version runs",
        "  warning: the disk fills up (for 1m 5s)",
        "  warning: the port is taken",
    ]
    assert "  queue    0 B in journals, not yet applied, 1m 1s behind" in lines
    assert "  metrics  http://127.0.0.1:9464" in lines
    assert lines[lines.index("project/run0  running, 8 open, ranks 0-7") :] == [
        "project/run0  running, 8 open, ranks 0-7",
        "  /data/project/run0",
        "  12,345 points, 2.0 KiB queued",
        "  3 of version before 0.4.0",
        "  1 operations refused",
        "  2 calls lost: a journal could not take them",
        "  trouble: disk full",
    ]


def test_with_fifty_each_is_a_line_unless_there_is_something_to_say() -> None:
    many = [session(number, uploads=[upload()]) for number in range(50)]
    many[7]["trouble"] = "disk full"
    many[8]["uploads"] = [upload(state="waiting", last_error="it is away", pending_bytes=1 << 20)]
    lines = list(lines_of(report(*many)))
    of_sessions = lines[lines.index("50 sessions: 49 running, 1 in trouble") + 1 :]
    assert len(of_sessions) == 50 + 2 + 3
    assert of_sessions[0] == "project/run0  running, 8 open, ranks 0-7, 12,345 points, 2.0 KiB queued"
    at = of_sessions.index("  /data/project/run7")
    assert of_sessions[at : at + 2] == ["  /data/project/run7", "  trouble: disk full"]
    assert "    it is away" in of_sessions
    assert len(list(lines_of(report(*many[:SESSIONS_WHOLE])))) > 3 * SESSIONS_WHOLE


@pytest.mark.parametrize("lacking", ["warnings", "metrics", "lag"])
def test_of_an_agent_that_says_less(lacking: str) -> None:
    found = report(session())
    del found[lacking], found["sessions"][0]["versions"]
    assert list(lines_of(found))
