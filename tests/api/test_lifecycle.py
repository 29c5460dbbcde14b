"""How a session ends, and what is left when it does not end well."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamlake import AgentUnavailable, Session, dreamlake_session
from tests import leftovers, reading, scripts
from tests.conftest import Cli, StartScript, agent_pid
from tests.waiting import wait_for

OPEN = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
from dreamlake import Session
session = Session("run", "project", local_path=sys.argv[1])
"""


def state(folder: Path) -> str:
    return str(reading.view(folder / "session.json")["state"])


def wait_for_state(folder: Path, *expected: str) -> str:
    def there() -> str:
        found = state(folder)
        assert found in expected, f"the state is {found}, not one of {expected}"
        return found

    return wait_for(there)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("style", ["with", "decorator"])
def test_an_exception_is_stored_with_its_type_and_message(style: str, home: Path, root: Path, folder: Path) -> None:
    class DivergedError(Exception):
        pass

    @dreamlake_session("run", "project", local_path=str(root))
    def decorated(session: Session) -> None:
        raise DivergedError("loss is 1e30")

    def with_block() -> None:
        with Session("run", "project", local_path=str(root)):
            raise DivergedError("loss is 1e30")

    train = decorated if style == "decorator" else with_block
    with pytest.raises(DivergedError):
        train()
    stored = reading.view(folder / "session.json")
    assert stored["state"] == "failed"
    said = " ".join(map(str, reading.leaves(stored)))
    assert "DivergedError" in said
    assert "loss is 1e30" in said


def test_a_session_that_failed_is_running_and_then_finished_when_it_is_resumed(
    home: Path, root: Path, folder: Path
) -> None:
    with pytest.raises(ZeroDivisionError), Session("run", "project", local_path=str(root)):
        raise ZeroDivisionError("once")
    with Session("run", "project", local_path=str(root)) as session:
        session.flush()
        assert state(folder) == "running"
    assert state(folder) == "finished"


@pytest.mark.parametrize(
    ("ending", "status", "states"),
    [
        ("", 0, ["finished"]),
        ("sys.exit(0)", 0, ["finished"]),
        ("sys.exit(3)", 3, ["failed", "finished"]),
        ("raise ValueError('diverged')", 1, ["failed", "finished"]),
        ("os._exit(0)", 0, ["killed"]),
    ],
)
def test_a_script_that_never_closes_leaves_everything(
    ending: str, status: int, states: list[str], home: Path, root: Path, folder: Path
) -> None:
    script = OPEN + (
        "session.open()\n"
        "for value in range(2000):\n"
        "    session.track('loss').append(value=value)\n"
        "session.log('last')\n" + ending
    )
    scripts.run(script, root, expect=status)
    wait_for_state(folder, *states)
    wait_for(lambda: reading.values(folder) == list(range(2000)))
    wait_for(lambda: reading.messages(folder) == ["last"])


@pytest.mark.parametrize(
    ("code", "expected"),
    [("sys.exit()", "finished"), ("sys.exit(0)", "finished"), ("sys.exit('no GPU')", "failed")],
)
def test_leaving_a_with_by_sys_exit(code: str, expected: str, home: Path, root: Path, folder: Path) -> None:
    scripts.run(f"{OPEN}\nwith session:\n    session.log('x')\n    {code}", root, expect=None)
    assert state(folder) == expected
    assert reading.messages(folder) == ["x"]


def test_an_exit_from_a_thread_or_a_late_hook_loses_nothing(home: Path, root: Path, folder: Path) -> None:
    scripts.run(
        OPEN
        + """
import atexit, threading
session.open()
atexit.register(lambda: session.log("from an exit hook set after open"))
def work():
    for value in range(1000):
        session.track("loss").append(value=value)
threading.Thread(target=work).start()
""",
        root,
    )
    wait_for(lambda: reading.values(folder) == list(range(1000)))
    wait_for(lambda: reading.messages(folder) == ["from an exit hook set after open"])


WAITS = (
    OPEN
    + """
with session:
    for value in range(1000):
        session.track("loss").append(value=value)
    print("ready", flush=True)
    while True:
        signal.pause()
"""
)


@pytest.mark.parametrize(
    ("number", "codes"),
    [(signal.SIGTERM, {-signal.SIGTERM, 143, 1}), (signal.SIGINT, {-signal.SIGINT, 130, 1})],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_signal_ends_the_script_and_loses_nothing(
    number: signal.Signals, codes: set[int], root: Path, folder: Path, start_script: StartScript
) -> None:
    script = start_script(WAITS, root)
    assert next_line(script) == "ready"
    script.send_signal(number)
    assert script.wait(timeout=40) in codes
    wait_for_state(folder, "failed", "killed")
    wait_for(lambda: reading.values(folder) == list(range(1000)))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_handler_of_the_users_own_is_still_called(
    when: str, root: Path, folder: Path, start_script: StartScript
) -> None:
    handler = """
def mine(number, frame):
    print("mine", flush=True)
    sys.exit(7)
"""
    install = "signal.signal(signal.SIGTERM, mine)\n"
    script = start_script(
        OPEN
        + handler
        + (install if when == "before" else "")
        + "session.open()\n"
        + (install if when == "after" else "")
        + "session.log('x')\nprint('ready', flush=True)\nwhile True:\n    signal.pause()\n",
        root,
    )
    assert next_line(script) == "ready"
    script.terminate()
    assert script.wait(timeout=10) == 7
    assert next_line(script) == "mine"
    wait_for(lambda: reading.messages(folder) == ["x"])
    wait_for_state(folder, "failed", "finished")


COUNTS = (
    OPEN
    + """
session.open()
value = 0
while True:
    session.track("loss").append(value=value)
    session.log(str(value))
    session.parameters().set(value=value)
    print(value, flush=True)
    value += 1
"""
)


def kill_after(script: subprocess.Popen[str], steps: int, meanwhile: Callable[[], None] | None = None) -> int:
    """Kill the script once it has said `steps`; return the last value that it said before it died."""
    assert script.stdout
    said = int(script.stdout.readline())
    while said < steps:
        said = int(script.stdout.readline())
    if meanwhile:
        meanwhile()
    script.kill()
    script.wait()
    whole_lines = script.stdout.read().split("\n")[:-1]
    return int(whole_lines[-1]) if whole_lines else said


def everything_returned_is_there(folder: Path, returned: int) -> bool:
    found = reading.values(folder)
    logged = [int(message) for message in reading.messages(folder)]
    parameter = reading.view(folder / "parameters.json")["data"]["value"]
    assert found == list(range(len(found)))
    assert logged == list(range(len(logged)))
    reading.assert_consecutive(reading.points(folder))
    return len(found) > returned and len(logged) > returned and parameter >= returned


@pytest.mark.parametrize("alive_for", [1, 300, 3000])
def test_a_script_that_is_killed_loses_no_call_that_returned(
    alive_for: int, root: Path, folder: Path, start_script: StartScript
) -> None:
    script = start_script(COUNTS, root)
    returned = kill_after(script, alive_for)
    wait_for(lambda: everything_returned_is_there(folder, returned))
    wait_for_state(folder, "killed")


def test_a_script_and_its_agent_killed_together_lose_no_call_that_returned(
    agent: Path, root: Path, folder: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    script = start_script(COUNTS, root)
    pid = agent_pid()
    returned = kill_after(script, 500, meanwhile=lambda: os.kill(pid, signal.SIGKILL))
    wait_for(lambda: not leftovers.processes_of(agent))
    assert dreamlake("agent", "start").returncode == 0
    wait_for(lambda: everything_returned_is_there(folder, returned))
    wait_for_state(folder, "killed")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_killed_run_is_resumed(at_once: bool, root: Path, folder: Path, start_script: StartScript) -> None:
    script = start_script(COUNTS, root)
    returned = kill_after(script, 100)
    if not at_once:
        wait_for_state(folder, "killed")
    with Session("run", "project", local_path=str(root)) as session:
        receipt = session.track("loss").append(value=-1)
        assert int(receipt["index"]) > returned
    found = reading.values(folder)
    reading.assert_consecutive(reading.points(folder))
    assert found.index(-1) > returned
    if at_once:  # the agent may hear of the end of the second before it sees the death of the first
        wait_for_state(folder, "finished", "killed")
    else:
        assert state(folder) == "finished"


def remove(folder: Path) -> None:
    """As a user does it: `rm -rf`, again while somebody still writes there."""

    def gone() -> bool:
        shutil.rmtree(folder)
        return True

    wait_for(gone)


def test_a_directory_may_be_removed_and_the_session_started_again_daily(agent: Path, root: Path, folder: Path) -> None:
    for day in range(4):
        with Session("run", "project", local_path=str(root), description=f"day {day}") as session:
            assert session.parameters().get() == {}
            for value in range(10):
                session.track("loss").append(value=day * 100 + value)
            session.log(f"day {day}")
            session.parameters().set({f"day{day}": 1})
        assert reading.values(folder) == [day * 100 + value for value in range(10)]
        reading.assert_consecutive(reading.points(folder))
        assert reading.messages(folder) == [f"day {day}"]
        assert reading.view(folder / "parameters.json")["data"] == {f"day{day}": 1}
        assert reading.view(folder / "session.json")["description"] == f"day {day}"
        remove(root if day % 2 else folder)


def test_a_directory_removed_under_a_live_session_begins_anew(session: Session, folder: Path) -> None:
    track = session.track("loss")
    for value in range(10):
        track.append(value=value)
    session.flush()
    remove(folder)

    def anew() -> bool:
        track.append(value=-1)
        session.flush()
        return -1 in reading.values(folder)

    wait_for(anew)
    reading.assert_consecutive(reading.points(folder))
    assert reading.view(folder / "session.json")["name"] == "run"
    session.log("still here")
    session.close()
    assert reading.messages(folder)[-1] == "still here"


def test_a_directory_removed_under_a_live_session_may_be_opened_by_another_script(
    session: Session, root: Path, folder: Path
) -> None:
    session.track("loss").append(value=1)
    session.flush()
    remove(folder)
    scripts.run(f"{OPEN}\nwith session:\n    session.track('other').append(value=2)", root)
    assert reading.values(folder, "other") == [2]
    session.track("loss").append(value=3)
    session.close()
    wait_for(lambda: 3 in reading.values(folder))
    assert reading.values(folder, "other") == [2]


EVERYTHING = """
import asyncio, sys
import dreamlake
from dreamlake import Session, dreamlake_session

def use(session):
    session.log("x", level="warn", epoch=1)
    session.log().error("y", code=1)
    session.parameters().set(model={"lr": 0.1})
    assert session.parameters().get() == {}
    assert session.parameters().get(flatten=False) == {}
    receipt = session.track("train/loss", tags=["a"]).append(value=1)
    repr(receipt)
    session.track("loss").append_batch([{"value": 1}])
    page = session.track("loss").read()
    assert list(page["data"]) == [] and not page["hasMore"]
    assert list(session.track("loss").list_all()) == []
    session.files().upload(__file__, path="/models")
    session.file(file_path=__file__, prefix="/models").save()
    assert list(session.files().list()) == []
    session.flush()
    session.flush(durable=True)
    return session.name

@dreamlake_session("decorated", "project")
def train(session):
    return use(session)

@dreamlake_session("asynchronous", "project")
async def train_async(session):
    return use(session)

with Session("run", "project", local_path=sys.argv[1], tags=["a"], write_protected=False) as session:
    assert use(session) == "run" and session._is_open
assert not session._is_open
assert train() == "decorated"
assert asyncio.run(train_async()) == "asynchronous"
direct = Session("direct", "project").open()
use(direct)
direct.close()
direct.close()
try:
    with Session("failing", "project"):
        raise KeyError("mine")
except KeyError:
    print("done")
"""


def test_disabled_is_a_no_op_everywhere_and_creates_nothing(home: Path, root: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.mkdir()
    (program / "train.py").write_text(EVERYTHING)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = scripts.run(program / "train.py", root, cwd=empty, env={"DREAMLAKE_MODE": "disabled"})
    assert done.stdout == "done\n"
    assert done.stderr == ""
    assert not root.exists()
    assert reading.snapshot(empty) == {}
    assert reading.snapshot(home) == {}
    assert leftovers.processes_of(home) == []


def test_a_disabled_session_leaves_an_existing_directory_as_it_is(
    home: Path, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session("run", "project", local_path=str(root)) as session:
        session.track("loss").append(value=1)
    before = reading.recorded(folder)
    monkeypatch.setenv("DREAMLAKE_MODE", "disabled")
    with Session("run", "project", local_path=str(root), description="new") as session:
        session.track("loss").append(value=2)
        session.log("x")
    assert reading.recorded(folder) == before


WITHOUT_AGENT = """
import sys, warnings
from dreamlake import Session
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for part in range(2):
        with Session("run", "project", local_path=sys.argv[1]) as session:
            assert session._is_open
            session.track("loss").append(value=part)
            session.log(f"part {part}")
            session.parameters().set({f"part{part}": 1})
            session.flush(durable=True)
print(sum("agent" in str(warning.message).lower() for warning in caught))
"""


def unusable_home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "file").write_text("a file, no folder")
    return {"DREAMLAKE_HOME": str(tmp_path / "file" / "home")}


def never(tmp_path: Path) -> dict[str, str]:
    return {"DREAMLAKE_AGENT": "never"}


@pytest.mark.parametrize("reason", [never, unusable_home])
def test_without_any_agent_a_session_opens_warns_and_journals(
    reason: Any, home: Path, root: Path, folder: Path, tmp_path: Path, dreamlake: Cli
) -> None:
    done = scripts.run(WITHOUT_AGENT, root, env=reason(tmp_path), flags=())
    warned = int(done.stdout)
    assert warned <= 2  # one for each open
    assert warned or "agent" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert leftovers.processes_of(home) == []
    shown = dreamlake("show", folder, "--json")
    assert shown.returncode == 0, shown.stderr
    said = reading.leaves(reading.strict(shown.stdout))
    assert {"run", "project"} <= {leaf for leaf in said if isinstance(leaf, str)}
    with Session("run", "project", local_path=str(root)) as session:
        assert session.track("loss").append(value=2)["index"] == "2"
    assert reading.values(folder) == [0, 1, 2]
    assert reading.messages(folder) == ["part 0", "part 1"]
    assert reading.view(folder / "parameters.json")["data"] == {"part0": 1, "part1": 1}


def test_the_next_agent_finds_the_directory_unaided(home: Path, root: Path, folder: Path, dreamlake: Cli) -> None:
    scripts.run(WITHOUT_AGENT, root, env={"DREAMLAKE_AGENT": "never"}, flags=())
    assert dreamlake("agent", "start").returncode == 0
    wait_for(lambda: reading.values(folder) == [0, 1])
    wait_for(lambda: reading.messages(folder) == ["part 0", "part 1"])
    wait_for_state(folder, "finished")


FLUSHES = """
import os, subprocess, sys
from dreamlake import AgentUnavailable, Session
if sys.argv[2] == "after":
    with Session("earlier", "project", local_path=sys.argv[1]) as session:
        session.log("this one had an agent")
    subprocess.run([sys.executable, "-m", "dreamlake.cli", "agent", "stop"], check=True, stdout=sys.stderr)
os.environ["DREAMLAKE_AGENT"] = "never"
with Session("run", "project", local_path=sys.argv[1]) as session:
    session.track("loss").append(value=1)
    session.flush(durable=True)
    try:
        session.flush(timeout=0.5)
    except AgentUnavailable:
        print("unavailable")
    print([point["data"] for point in session.track("loss").read()["data"]])
"""


@pytest.mark.parametrize("when", ["at first", "after"], ids=["at first", "after a session that had an agent"])
def test_a_flush_without_an_agent_says_so_in_time_and_a_durable_one_works(when: str, home: Path, root: Path) -> None:
    done = scripts.run(FLUSHES, root, when, flags=())
    assert done.stdout.splitlines() == ["unavailable", "[{'value': 1}]"]
    assert leftovers.processes_of(home) == []


def test_agent_unavailable_is_an_error_of_the_package() -> None:
    from dreamlake import errors

    assert errors.AgentUnavailable is AgentUnavailable
    assert issubclass(AgentUnavailable, Exception)


FULL_DISK = """
import resource, signal, sys, warnings
from dreamlake import Session
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
session = Session("run", "project", local_path=sys.argv[1]).open()
track = session.track("loss")
for value in range(10):
    track.append(value=value)
session.flush()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
raised = 0
for value in range(10, 2010):
    try:
        track.append(value=value, padding="x" * 100)
    except Exception:
        raised += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
for value in range(2010, 2020):
    track.append(value=value)
session.close()
print(raised)
"""


@pytest.mark.parametrize("strict", [False, True])
def test_a_disk_that_is_full_for_a_while_costs_what_it_could_not_take_and_nothing_else(
    strict: bool, agent: Path, root: Path, folder: Path
) -> None:
    done = scripts.run(FULL_DISK, root, env={"DREAMLAKE_STRICT": "1"} if strict else {}, flags=())
    raised = int(done.stdout)
    assert raised > 0 if strict else raised == 0
    found = reading.values(folder)
    assert found[:10] == list(range(10))
    assert found[-10:] == list(range(2010, 2020))
    assert found == sorted(set(found))
    reading.assert_consecutive(reading.points(folder))
    lost = 2020 - len(found)
    assert lost == raised if strict else lost > 0
    assert strict or "lost" in done.stderr.lower() or "Warning" in done.stderr
