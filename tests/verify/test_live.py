"""A directory that is being written: looking at it raises no false alarm, however often, and does not disturb it."""

from __future__ import annotations

from pathlib import Path

from dreamlake.reader.verify import verify
from tests import reading
from tests.conftest import Cli, StartScript
from tests.waiting import wait_for

LOOKS = 100

# Everything that a session can do, as fast as a training of many metrics would; the file is replaced again and again.
WRITER = """
import pathlib, sys, time
from dreamlake import Session
root, stop, weights = map(pathlib.Path, sys.argv[1:])
step = 0
with Session("run", "project", local_path=str(root)) as session:
    while not stop.exists():
        for _ in range(10):
            session.track("loss").append(value=step)
            step += 1
        session.track(f"many/{step % 7}").append(value=step)
        session.log(f"step {step}")
        if step % 100 == 0:
            session.parameters().set(step=step, seen={"last": step})
            weights.write_bytes(b"w" * step)
            session.files().upload(str(weights), path="/models", metadata={"step": step})
        time.sleep(0.005)
print(step)
"""


def test_a_flood_raises_no_false_alarm(
    agent: Path, root: Path, tmp_path: Path, start_script: StartScript, dreamlake: Cli
) -> None:
    folder, stop = root / "project" / "run", tmp_path / "stop"
    scripts = [start_script(WRITER, root, stop, tmp_path / f"weights-{number}.pth") for number in range(2)]
    wait_for(lambda: reading.points(folder) and (folder / "files/models").is_dir())
    rows = []
    for look in range(LOOKS):
        report = verify(str(folder))
        assert [each.sentence for each in report.problems] == [], f"look {look}"
        rows.append(report.rows)
        if look == LOOKS // 2:  # the agent goes, and another one comes
            assert dreamlake("agent", "restart").returncode == 0
    done = dreamlake("verify", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is being written by a live agent" in done.stdout
    refused = dreamlake("verify", "--repair", folder)
    assert (refused.returncode, refused.stderr) == (0, "")  # nothing to repair: its agent does it
    assert rows[-1] > rows[0] > 0
    stop.touch()
    steps = [int(script.communicate(timeout=60)[0]) for script in scripts]
    assert dreamlake("agent", "stop").returncode == 0
    report = verify(str(folder))
    assert (report.problems, report.owner, report.waiting) == ([], None, 0)
    assert len(reading.points(folder)) == sum(steps)
