"""What `append()` costs where a session's server never answers, and where it works, beside a session without one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from tests.bench.place import Place, fresh_place, result_of, wait_until
from tests.bench.report import Report, median, quantile
from tests.bench.server import running
from tests.services.gateway import listening
from tests.services.ports import LOOPBACK

HOW = ("alone", "stalled", "working")
QUANTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("longest", 1.0))
MODES = (("paced", "1,000 calls a second"), ("full", "full speed"))
CONNECT_SECONDS = 60


@contextlib.contextmanager
def never_answering() -> Iterator[tuple[str, list[object]]]:
    """The URL of a server that takes connections and says nothing; and those that it has taken."""
    taken: list[object] = []

    async def never(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)
        with contextlib.suppress(asyncio.CancelledError):  # the end
            await asyncio.Event().wait()

    with listening(never) as port:
        yield f"http://{LOOPBACK}:{port}", taken


def run(place: Place, how: str, seconds: float) -> dict[str, Any]:
    """One process with an agent of its own, so that what one could not send is not sent in the turn of another."""
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(fresh_place(str(place.folder)))
        url: list[str] = []
        taken: list[object] = [own]  # nobody has to be waited for
        if how == "stalled":
            here, taken = stack.enter_context(never_answering())
            url = [here]
        elif how == "working":
            here, _pid = stack.enter_context(running(own, "--data", str(own.folder / "server")))
            url = [here]
        own.start_agent()
        process = own.start("appends.py", own.folder, seconds, how, *url)
        assert process.stdout is not None
        assert process.stdin is not None
        if (word := process.stdout.readline()) != "ready\n":
            raise RuntimeError(f"appends.py said {word!r}")
        wait_until(lambda: taken, CONNECT_SECONDS)  # an uploader waits for an answer from now on
        process.stdin.write("go\n")
        process.stdin.flush()
        found = result_of(process)
        own.stop_agent()
    return found


def measure(place: Place, report: Report, quick: bool) -> None:
    seconds, rounds = (2.0, 2) if quick else (6.0, 5)
    turns = [{how: run(place, how, seconds) for how in HOW} for _ in range(rounds)]
    for mode, title in MODES:
        what = f"track.append(…) in {rounds} turns of {seconds:.0f} s each; medians of the turns"
        report.section(f"a server that stalls, {title}", what)
        for name, part in QUANTILES:
            found = [{how: quantile(turn[how][mode], part) for how in HOW} for turn in turns]
            times = {how: median([each[how] for each in found]) / 1e3 for how in HOW}
            for how in HOW[1:]:
                ratio = median([each[how] / each["alone"] for each in found])
                target = 1.2 if (how, name) == ("stalled", "p99") else None
                note = f"{times[how]:.2f} µs; no remote {times['alone']:.2f} µs"
                report.add(f"a {how} server / no remote, {name}", ratio, "x", target, note=note)
    calls = median([len(turn["working"]["full"]) for turn in turns])
    note = f"{calls:,.0f} points at full speed"
    sent = median([turn["working"]["sent"] for turn in turns])
    report.add("a working server: after the last call, until all is there", sent, "s", note=note)
