"""Forks at every moment: whoever was forked, however it ends, what returned is there and nothing hangs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from dreamlake import Session
from tests import reading, scripts
from tests.conftest import StartScript, agent_pid
from tests.waiting import wait_for

# No program here may take longer than this, whoever was killed in it: a hang is a failure.
PROGRAM_SECONDS = 45
LEAVES_SECONDS = 10  # config.EXIT_SECONDS, and a slow machine

BEGIN = """
import os, signal, sys, threading, time
from dreamlake import AgentUnavailable, Session
root = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
signal.alarm(40)  # a hang ends here, also in the children that have an alarm of their own

def child(work, end=lambda: os._exit(0)):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        work()
        end()
    return pid

def join(pid, status=0):
    found = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert found == status, (pid, found)
"""


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "project" / "run"


def run(program: str, root: Path, *args: object, expect: int | None = 0) -> str:
    # Python 3.12 and later warn of any fork beside threads; that is the user's to decide.
    done = scripts.run(BEGIN + program, root, *args, flags=("-W", "ignore"), expect=expect, timeout=PROGRAM_SECONDS)
    assert "Traceback" not in done.stderr
    return done.stdout


def state(folder: Path) -> str:
    return str(reading.view(folder / "session.json")["state"])


def wait_for_points(folder: Path, count: int) -> None:
    wait_for(lambda: len(reading.points(folder)) == count)


def assert_each_writer_is_whole(folder: Path, points: dict[str, int]) -> None:
    """Every writer's points once, and in its order."""
    stored = reading.points(folder)
    reading.assert_consecutive(stored)
    following: Counter[str] = Counter()
    for point in stored:
        who, value = point["data"]["who"], point["data"]["value"]
        assert value == following[who], f"{who}: out of order, twice, or missing"
        following[who] += 1
    assert following == points


LOADER = """
session = Session("run", "project", local_path=root).open()
track = session.track("loss")  # from before the fork, as in a class that keeps it

def work(who, points):
    for value in range(points):
        track.append(value=value, who=who)

stop = threading.Event()
persistent = [child(lambda number=number: work(f"persistent{number}", 2000)) for number in range(4)]
for number in range(20):
    join(child(lambda: work(f"short{number}", 5)))
    work_of_parent = range(number * 50, number * 50 + 50)
    for value in work_of_parent:
        track.append(value=value, who="parent")
for worker in persistent:
    join(worker)
session.close()
"""


def test_the_workers_of_a_data_loader_and_their_parent_all_write(home: Path, root: Path, folder: Path) -> None:
    run(LOADER, root)
    points = {"parent": 1000, **{f"persistent{n}": 2000 for n in range(4)}, **{f"short{n}": 5 for n in range(20)}}
    wait_for_points(folder, sum(points.values()))
    assert_each_writer_is_whole(folder, points)
    wait_for(lambda: state(folder) == "finished")


GENERATIONS = """
session = Session("run", "project", local_path=root).open()
session.track("loss").append(value=0, who="generation0")

def descend(depth):
    for value in range(100):
        session.track("loss").append(value=value, who=f"generation{depth}")
    if depth < 4:
        join(child(lambda: descend(depth + 1)))
    session.track("loss").append(value=100, who=f"generation{depth}")

join(child(lambda: descend(1)))
session.close()
"""


def test_each_generation_writes_into_the_session_of_the_first(home: Path, root: Path, folder: Path) -> None:
    run(GENERATIONS, root)
    points = {"generation0": 1, **{f"generation{depth}": 101 for depth in range(1, 5)}}
    wait_for_points(folder, sum(points.values()))
    assert_each_writer_is_whole(folder, points)
    wait_for(lambda: state(folder) == "finished")


LINGERS = """
session = Session("run", "project", local_path=root).open()
session.track("loss").append(value=0)
session.flush()
child(signal.pause)
session.track("loss").append(value=1)
print("forked", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("agent_too", [False, True], ids=["the parent dies", "the parent and the agent die"])
def test_a_child_that_lives_on_holds_no_lock_of_the_dead(
    agent_too: bool, home: Path, root: Path, folder: Path, start_script: StartScript
) -> None:
    """Nor a journal's, nor the agent's, nor the directory's: all of them are let go while it lives."""
    parent = start_script(BEGIN + LINGERS, root, flags=("-W", "ignore"))
    assert parent.stdout
    assert parent.stdout.readline() == "forked\n"
    (lingering,) = psutil.Process(parent.pid).children()
    try:
        parent.kill()
        parent.wait()
        if agent_too:
            os.kill(agent_pid(), signal.SIGKILL)
            with Session("run", "project", local_path=str(root)) as session:
                session.track("loss").append(value=2)
        wait_for(lambda: not list((folder / ".dreamlake" / "journals").iterdir()))
        wait_for(lambda: reading.view(folder / ".dreamlake" / "owner").get("released"))
        assert lingering.is_running()
    finally:
        lingering.kill()
    assert reading.values(folder) == ([0, 1, 2] if agent_too else [0, 1])


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
session = Session("run", "project", local_path=root).open()

def work(value):
    session.track("loss").append(value=value)
    return value

context = multiprocessing.get_context("fork")
with ProcessPoolExecutor(3, mp_context=context) as pool:  # its workers end by os._exit
    assert sorted(pool.map(work, range(100))) == list(range(100))
with context.Pool(3) as pool:  # its workers are ended by SIGTERM
    pool.map(work, range(100, 200))
one = context.Process(target=lambda: (work(200), time.sleep(60)))
one.start()
while not session.track("loss").read(start_index=200)["data"]:
    pass
one.terminate()
one.join()
print(one.exitcode)
session.close()
"""


def test_pools_that_inherit_an_open_session_lose_nothing_when_they_are_ended(
    home: Path, root: Path, folder: Path
) -> None:
    assert run(POOLS, root) == "-15\n"
    assert sorted(reading.values(folder)) == list(range(201))
    reading.assert_consecutive(reading.points(folder))


ATEXIT = """
import atexit

def fail():
    session.log("in the hook")
    raise OSError("in the hook")

if sys.argv[2] == "before":
    atexit.register(fail)
session = Session("run", "project", local_path=root).open()
if sys.argv[2] == "after":
    atexit.register(fail)
for value in range(500):
    session.track("loss").append(value=value)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exception_in_an_exit_hook_loses_nothing(when: str, home: Path, root: Path, folder: Path) -> None:
    """Hooks run last in, first out: one from before the session finds it closed."""
    done = scripts.run(BEGIN + ATEXIT, root, when, flags=())
    assert ("in the hook" if when == "after" else "is not open") in done.stderr
    wait_for(lambda: reading.values(folder) == list(range(500)))
    assert reading.messages(folder) == (["in the hook"] if when == "after" else [])
    wait_for(lambda: state(folder) in ("finished", "failed"))


DAEMONS = """
session = Session("run", "project", local_path=root).open()
counts = [os.open(os.path.join(sys.argv[2], str(writer)), os.O_WRONLY | os.O_CREAT) for writer in range(3)]

def write(writer):
    track = session.track("loss")
    for value in range(10**9):
        track.append(value=value, who=f"thread{writer}")
        os.pwrite(counts[writer], b"%d" % (value + 1), 0)
        if value % 20 == 0:
            time.sleep(0.005)

for writer in range(3):
    threading.Thread(target=write, args=(writer,), daemon=True).start()
time.sleep(0.5)
if sys.argv[3] == "no":
    os.kill(int(sys.argv[4]), signal.SIGSTOP)
"""


@pytest.mark.parametrize("answers", ["yes", "no"], ids=["an agent", "an agent that does not answer"])
def test_the_interpreter_ends_in_time_while_daemon_threads_go_on_logging(
    answers: str, agent: Path, root: Path, folder: Path, tmp_path: Path
) -> None:
    pid = agent_pid()
    began = time.monotonic()
    try:
        scripts.run(BEGIN + DAEMONS, root, tmp_path, answers, pid, flags=("-W", "ignore"))
        took = time.monotonic() - began
    finally:
        os.kill(pid, signal.SIGCONT)
    assert took < LEAVES_SECONDS
    returned = {f"thread{writer}": int((tmp_path / str(writer)).read_text()) for writer in range(3)}

    def all_there() -> bool:
        found = Counter(point["data"]["who"] for point in reading.points(folder))
        return all(found[who] >= count for who, count in returned.items())

    wait_for(all_there)
    found = Counter(point["data"]["who"] for point in reading.points(folder))
    assert_each_writer_is_whole(folder, dict(found))


KERNEL = """
cells = iter(sys.stdin.readline, "")
space = {"Session": Session, "root": root}
for cell in cells:
    try:
        exec(cell, space)
    except Exception as error:
        print(type(error).__name__, flush=True)
    else:
        print("ok", flush=True)
"""

CELLS = [
    "session = Session('run', 'project', local_path=root).open()",
    "[session.track('loss').append(value=value) for value in range(100)]",
    "1 / 0",
    "session = Session('run', 'project', local_path=root).open()",  # the cell is run again: the first is not closed
    "[session.track('loss').append(value=value) for value in range(100, 200)]",
]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_notebook_is_run_again_and_again_and_its_kernel_restarted(
    number: signal.Signals, home: Path, root: Path, folder: Path, start_script: StartScript
) -> None:
    for round_ in range(3):
        kernel = start_script(BEGIN + KERNEL, root, flags=("-W", "ignore"))
        assert kernel.stdin
        assert kernel.stdout
        for cell in CELLS:
            kernel.stdin.write(cell + "\n")
            kernel.stdin.flush()
            assert kernel.stdout.readline() == ("ZeroDivisionError\n" if cell == "1 / 0" else "ok\n")
        kernel.send_signal(number)
        kernel.wait(timeout=20)
        wait_for_points(folder, 200 * (round_ + 1))
    assert sorted(reading.values(folder)) == sorted(list(range(200)) * 3)
    reading.assert_consecutive(reading.points(folder))
    wait_for(lambda: state(folder) in ("killed", "failed"))


STARTS = """
opened = []
opening = threading.Thread(target=lambda: opened.append(Session("run", "project", local_path=root).open()))
opening.start()
while opening.is_alive():  # so one of them at least is forked while the parent is starting the agent
    child(signal.pause)
    time.sleep(0.01)
print("open", flush=True)
signal.pause()
"""


def test_a_child_forked_while_an_agent_is_started_keeps_nobody_from_starting_the_next(
    home: Path, root: Path, start_script: StartScript
) -> None:
    """It inherited the lock under which agents are started, and held it for as long as it lived."""
    parent = start_script(BEGIN + STARTS, root, flags=("-W", "ignore"))
    assert parent.stdout
    assert parent.stdout.readline() == "open\n"
    family = psutil.Process(parent.pid).children()
    assert len(family) > 3
    parent.kill()
    parent.wait()
    os.kill(agent_pid(), signal.SIGKILL)
    try:
        with Session("other", "project", local_path=str(root)) as session:
            session.flush(timeout=8)
    finally:
        for each in family:
            each.kill()


RACE = """
counts, refused = [0] * 4, []
for number in range(8):
    session = Session(f"run{number}", "project", local_path=root).open()
    track = session.track("loss")

    def write(writer):
        try:
            while True:
                track.append(value=counts[writer], who=f"thread{writer}")
                counts[writer] += 1
        except RuntimeError as error:  # used after its end: the caller's mistake
            refused.append(str(error))

    counts[:] = [0] * 4
    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    while min(counts) < 50:
        pass
    session.close()
    for thread in threads:
        thread.join()
    print(*counts)
assert len(refused) == 32
"""


def test_a_call_that_races_a_close_is_kept_or_raises(home: Path, root: Path) -> None:
    """It used to be written through a descriptor that was closed, or another session's by then, and returned."""
    said = run(RACE, root).splitlines()
    assert len(said) == 8
    for number, line in enumerate(said):
        counts = {f"thread{writer}": int(count) for writer, count in enumerate(line.split())}
        folder = root / "project" / f"run{number}"
        wait_for_points(folder, sum(counts.values()))
        assert_each_writer_is_whole(folder, counts)


def test_a_call_that_had_begun_when_the_session_was_closed_raises(home: Path, root: Path, folder: Path) -> None:
    """The same with nothing left to chance: a thread that has the writer in hand, and then waits."""
    session = Session("run", "project", local_path=str(root)).open()
    writer = session._writer
    assert writer is not None
    session.close()
    with (
        Session("other", "project", local_path=str(root)),  # which may get the descriptors that were closed
        pytest.raises(RuntimeError, match="closed meanwhile"),
    ):
        writer.point("loss", b'{"value":1}', None)
    assert writer.lost == 0


BUSY = """
session = Session("run", "project", local_path=root).open()
track = session.track("loss")
stop = threading.Event()
counts = {}

def busy(who, act):
    counts[who] = 0
    while not stop.is_set():
        receipt = track.append(value=counts[who], who=who)
        counts[who] += 1
        act(receipt)

acts = {"appends": lambda _: None, "flushes": lambda _: session.flush(), "waits": lambda receipt: receipt["index"]}
threads = [threading.Thread(target=busy, args=each) for each in acts.items()]
for thread in threads:
    thread.start()

def work():
    "Everything that takes a lock which a thread of the parent may have held at the fork."
    inherited = last
    try:
        inherited["index"]
        raise SystemExit("an index of another process's point")
    except AgentUnavailable as error:
        assert "before the fork" in str(error)
    track.append(value=0, who=f"child{number}")
    if number % 4 == 0:
        session.flush()
        list(session.track("loss").read(limit=1)["data"])

for number in range(int(sys.argv[2])):
    last = track.append(value=number, who="main")
    join(child(work))
stop.set()
for thread in threads:
    thread.join()
session.close()
print(sorted(counts.items()))
"""


def test_a_fork_beside_threads_that_append_flush_and_wait_never_hangs(home: Path, root: Path, folder: Path) -> None:
    """The child has one thread, and every lock as it stood: a receipt of the parent's used to hang it."""
    forks = 30
    said = run(BUSY, root, forks)
    points = {**dict(eval(said)), "main": forks, **{f"child{n}": 1 for n in range(forks)}}
    wait_for_points(folder, sum(points.values()))
    assert_each_writer_is_whole(folder, points)


def test_a_place_that_no_message_can_name_is_refused_and_harms_no_other_session(home: Path, root: Path) -> None:
    """Its greeting could not be encoded, and the link of the whole process failed over it, again and again."""
    with Session("run", "project", local_path=str(root)) as session:
        with pytest.raises(OSError, match="not UTF-8"):
            Session("other", "project", local_path=os.fsdecode(os.fsencode(root) + b"\xff")).open()
        session.track("loss").append(value=1)
        session.flush(timeout=8)


ENDS = """
session = Session("run", "project", local_path=root).open()

def write(who):
    for value in range(500):
        session.track("loss").append(value=value, who=who)

def end(how):
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    exec(how)

pid = os.fork()
write("parent" if pid else "child")
if pid:
    if sys.argv[2] == "first":
        end(sys.argv[3])
    os.waitpid(pid, 0)
    end(sys.argv[3])
else:
    if sys.argv[2] == "first":
        while os.getppid() != 1:
            time.sleep(0.01)
        session.track("loss").append(value=500, who="child")
    end(sys.argv[4])
"""


@pytest.mark.parametrize("order", ["first", "last"], ids=["the parent first", "the child first"])
@pytest.mark.parametrize(
    ("parents", "childs", "ending"),
    [
        ("session.close(); os._exit(0)", "os._exit(0)", "finished"),
        ("sys.exit()", "kill", "finished"),  # a worker that is put an end to is no death of a rank
        ("sys.exit()", "raise ValueError('in the child')", "failed"),
        ("os._exit(0)", "os._exit(0)", "killed"),
        ("kill", "session.close(); os._exit(0)", "killed"),
    ],
)
def test_what_returned_is_there_however_parent_and_child_end(
    order: str, parents: str, childs: str, ending: str, home: Path, root: Path, folder: Path
) -> None:
    scripts.run(BEGIN + ENDS, root, order, parents, childs, flags=("-W", "ignore"), expect=None)
    points = {"parent": 500, "child": 501 if order == "first" else 500}
    wait_for_points(folder, sum(points.values()))
    assert_each_writer_is_whole(folder, points)
    wait_for(lambda: state(folder) == ending)


NO_ROOM = """
session = Session("run", "project", local_path=root).open()
track = session.track("loss")

def work():
    os.rename(root, root + ".away")
    open(root, "w").close()  # nothing can be made there
    track.append(value="lost", who="child")
    session.log("lost")
    os.unlink(root)
    os.rename(root + ".away", root)
    track.append(value=0, who="child")
    session.flush()
    assert session._writer.lost == 2

join(child(work))
session.close()
"""


@pytest.mark.usefixtures("agent")
def test_a_child_that_cannot_begin_a_journal_loses_its_calls_and_goes_on(root: Path, folder: Path) -> None:
    """A logging call of a forked worker does not raise for the disk's sake either; the loss is counted."""
    run(NO_ROOM, root)
    assert_each_writer_is_whole(folder, {"child": 1})
    assert not (folder / "logs" / "logs.jsonl").exists()
