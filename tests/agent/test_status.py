"""Status: what is asked of any agent at any time, so it must not die of an odd session."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from dreamlake.wire.state import SESSION_LOG, State, fold
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.session import Session
from dreamlake_agent.observe.status import Status

KEY = (1, 2)


def described(state: State | None) -> dict[str, Any]:
    core = Agent(b"incarnat")
    core.sessions[KEY] = Session(KEY, "/data/project/run")
    directories = {} if state is None else {KEY: SimpleNamespace(state=state)}
    world = SimpleNamespace(monotonic=lambda: 0.0)
    loop: Any = SimpleNamespace(
        core=core, directories=directories, who={"pid": 1, "host": "node1", "endpoint": "ipc:///x"}, world=world
    )
    (found,) = Status(loop, "ipc:///x", "/log").describe()["sessions"]
    return dict(found)


def test_a_session_that_is_not_open_yet_is_described_by_its_path() -> None:
    found = described(None)
    assert (found["path"], found["name"], found["ranks"]) == ("/data/project/run", None, [])


def test_the_ranks_that_run_are_listed() -> None:
    state = State("0" * 32)
    for client, rank in (("a", 1), ("b", 0), ("c", None)):
        row = {"op": "open", "time": "t", "client": client, "name": "run", "workspace": "project", "set": {}}
        fold(state, SESSION_LOG, {**row, "rank": rank})
    found = described(state)
    assert (found["name"], found["workspace"], found["state"], found["ranks"]) == ("run", "project", "running", [0, 1])


def test_a_session_whose_imported_view_says_no_name_is_described() -> None:
    state = State("0" * 32)
    fold(state, SESSION_LOG, {"op": "import", "time": None, "set": {"description": "by hand"}})
    assert described(state)["name"] is None
