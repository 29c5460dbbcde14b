"""A training, as a user writes one, that does what it reads on standard input: ``write N``, ``flush S``, ``close``.

What it is through with it says on standard output, a JSON object a line.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import dreamlake

TRACK = "calls"
NAME, WORKSPACE = "run", "selftest"


def main(root: str, who: str) -> int:
    number = 0
    with dreamlake.Session(name=NAME, workspace=WORKSPACE, local_path=root) as session:
        _say({"open": True})
        for line in sys.stdin:
            word, *more = line.split()
            begin = time.monotonic()
            try:
                if word == "write":
                    for _ in range(int(more[0])):
                        session.track(TRACK).append(value=number, who=who)
                        number += 1
                elif word == "flush":
                    session.flush(timeout=float(more[0]))
                else:
                    break
            except (dreamlake.DreamlakeError, OSError) as error:
                _say({"error": str(error), "written": number})
                continue
            _say({"seconds": round(time.monotonic() - begin, 3), "written": number})
    _say({"closed": True, "written": number})
    return 0


def _say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)
