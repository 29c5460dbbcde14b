"""The uploader may be of another release than the agent that starts it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dreamlake_agent import uploader as uploader_module
from dreamlake_agent.core import effects as do
from dreamlake_agent.core import events as on
from dreamlake_agent.remote.protocol import OTHER, PROTOCOL
from dreamlake_agent.uploader import Uploader
from tests.waiting import wait_for

JOB = {"job": 7, "path": "/nowhere", "url": "http://127.0.0.1:9", "user": None, "lane": "logs", "unless": None}


def told(*arguments: str) -> dict[str, object]:
    """What an uploader answers to a job of an agent that starts it so."""
    program = "import sys; from dreamlake_agent.remote.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(JOB).encode() + b"\n")
        process.stdin.flush()
        return dict(json.loads(process.stdout.readline()))


@pytest.mark.parametrize("arguments", [(), (str(PROTOCOL),)], ids=["the agent of 0.3", "today's agent"])
def test_a_job_of_an_agent_that_speaks_alike_is_done(arguments: tuple[str, ...]) -> None:
    assert told(*arguments)["ended"] == "gone"


def test_a_job_of_an_agent_that_does_not_is_answered_with_what_to_do() -> None:
    assert told(str(PROTOCOL + 1)) == {"job": 7, "ended": "busy", "text": OTHER, "chance": 1.0}
    assert "dreamlake agent restart" in OTHER


@pytest.mark.parametrize("said", ['{"a later release": 1}', "[]", "not JSON", '{"job": 7, "ended": "sent"}'])
def test_an_uploader_that_says_what_no_agent_knows_costs_its_jobs_and_not_the_agent(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"import sys, time; sys.stdin.readline(); print({said!r}, flush=True); sys.stdin.read()"
    monkeypatch.setattr(uploader_module, "_PROGRAM", program)
    logged: list[str] = []
    uploader = Uploader(lambda: None, lambda level, text: logged.append(f"{level} {text}"))
    uploader.start(do.Upload(7, "/nowhere", "http://127.0.0.1:9", None, "logs"))
    (event,) = wait_for(uploader.done)
    assert isinstance(event, on.Uploaded)
    assert (event.number, event.ended) == (7, "died")
    assert any(OTHER in line for line in logged)
    uploader.rest()
