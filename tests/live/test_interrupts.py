"""Signals land anywhere, also between a write and the count of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dreamlake.reader.session import SessionReader
from tests import reading, scripts
from tests.waiting import wait_for

STORM = """
import signal, sys, time
from dreamlake import Session

session = Session("run", "project", local_path=sys.argv[1]).open()
track = session.track("loss")
blows = [0]
armed = [False]  # only where the script catches it

def strike(*_):
    blows[0] += 1
    if blows[0] % 2 and armed[0]:
        armed[0] = False
        raise KeyboardInterrupt
    session.track("from-the-handler").append(value=blows[0])

signal.signal(signal.SIGALRM, strike)
returned = 0
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    try:
        armed[0] = True
        while time.monotonic() < end:
            track.append(value=returned)
            returned += 1
        armed[0] = False
    except KeyboardInterrupt:
        pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
index = int(track.append(value=-1)["index"])
session.close()
print(returned, index, blows[0])
"""


def test_a_call_cut_off_by_an_exception_leaves_a_journal_that_goes_on(home: Path, root: Path) -> None:
    done = scripts.run(STORM, root)
    returned, index, blows = map(int, done.stdout.split())
    assert blows > 100
    values = reading.values(root / "project" / "run")
    assert set(range(returned)) <= set(values)  # one that was cut off may be there twice: it had not returned
    assert values[index] == -1
    reading.assert_consecutive(reading.points(root / "project" / "run"))


TERMINATED = """
import os, sys
from dreamlake import Session

session = Session("run", "project", local_path=sys.argv[1]).open()
track = session.track("loss")
returned = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for value in range(10**9):
    track.append(value=value)
    os.write(returned, b"%d\\n" % value)
    if value == 1000:
        print("going", flush=True)
"""


def test_sigterm_in_the_middle_of_calls_ends_the_script_and_says_so(home: Path, root: Path, tmp_path: Path) -> None:
    note = tmp_path / "returned"
    script = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(root), str(note)],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert script.stdout is not None
    assert script.stdout.readline() == "going\n"
    script.terminate()
    assert script.wait(timeout=20) == -15
    script.stdout.close()
    folder = root / "project" / "run"
    calls = len(note.read_text().splitlines())
    wait_for(lambda: len(reading.values(folder)) >= calls)
    assert reading.values(folder)[:calls] == list(range(calls))
    with SessionReader(str(folder)) as reader:
        session = reader.session()
    assert session["state"] == "killed"
    assert session["error"]["type"] == "SIGTERM"
