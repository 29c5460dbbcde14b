"""`make bench`: what Dreamlake costs, as ratios and figures of one run on this machine, beside what they should be.

Asserts nothing: the exit status is 0 unless the bench itself breaks. A second run on a quiet machine is worth more than
a long look at a noisy one.

Examples:
  make bench
  .venv/bin/python tests/bench/run.py --quick
  .venv/bin/python tests/bench/run.py --only calls,flood --json figures.json
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).parents[2]
if str(TOP) not in sys.path:
    sys.path.insert(0, str(TOP))  # run as a script, from anywhere

from tests.bench import calls, flood, growth, memory, opening, reading, server, stalled, sync, uploads  # noqa: E402
from tests.bench.place import IN_MEMORY, fresh_place  # noqa: E402
from tests.bench.report import Report, describe, file_system, machine  # noqa: E402

MEASURES = {
    "calls": calls.full_speed,
    "paced": calls.paced,
    "flood": flood.measure,
    "growth": growth.measure,
    "import": opening.imports,
    "open": opening.opens,
    "memory": memory.measure,
    "recovery": flood.recovery,
    "reading": reading.measure,
    "files": uploads.measure,
    "push": server.pushes,
    "blobs": server.blobs,
    "sync": sync.measure,
    "stalled": stalled.measure,
}


def a_real_disk() -> str:
    """The first usual place for temporary files that is not memory."""
    places = [tempfile.gettempdir(), "/var/tmp", str(TOP)]
    return next((each for each in places if file_system(each) not in IN_MEMORY), places[0])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter, and less sure")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--dir", default=a_real_disk(), help="the disk to measure on (default: %(default)s)")
    parser.add_argument("--only", default=",".join(MEASURES), help="some of %(default)s")
    given = parser.parse_args(arguments)
    wanted = [each.strip() for each in given.only.split(",")]
    if unknown := [each for each in wanted if each not in MEASURES]:
        parser.error(f"no such measure: {', '.join(unknown)}")

    report = Report()
    here = machine(given.dir)
    print(describe(here))
    began = time.monotonic()
    for name in wanted:
        with fresh_place(given.dir) as place:
            MEASURES[name](place, report, given.quick)
    met = [figure.is_met for figure in report.figures if figure.is_met is not None]
    print(f"\n{met.count(True)} of {len(met)} targets met, in {time.monotonic() - began:.0f} s")
    if given.json:
        Path(given.json).write_text(json.dumps(report.as_json(here), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
