"""Run `dreamlake WORD...` as a user does, and say what it cost beside what it said. Prints JSON.

timed.py WORD...   of a command that prints JSON
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from time import monotonic


def main(words: list[str]) -> None:
    began = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dreamlake.cli", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    took = monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss << 10
    found = {"seconds": took, "cpu": used.ru_utime + used.ru_stime, "peak": peak, "said": json.loads(done.stdout)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
