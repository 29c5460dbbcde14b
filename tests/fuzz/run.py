"""``make fuzz``: every target for DREAMLAKE_FUZZ_SECONDS (60) under atheris; where atheris is not, hypothesis with many
examples. What fails is put into ``corpus/``, where ``make test`` finds it until it is mended.

    python -m tests.fuzz.run [TARGET ...]
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
KEPT = ROOT / ".fuzz"  # inputs that did something new, for the next run
SECONDS = int(os.environ.get("DREAMLAKE_FUZZ_SECONDS", "60"))
EXAMPLES = os.environ.get("DREAMLAKE_FUZZ_EXAMPLES", "20000")
INPUT_BYTES_MAX = 8192
MEMORY_MB = 2048


def fuzz(name: str) -> bool:
    """One target for its time; whether nothing failed."""
    with tempfile.TemporaryDirectory() as scratch:
        sound, failed = Path(scratch) / "sound", Path(scratch) / "failed"
        kept = KEPT / name
        for folder in (sound, failed, kept):
            folder.mkdir(parents=True, exist_ok=True)
        for data in seeds(name):
            (sound / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
        places = [str(place) for place in (kept, sound, CORPUS / name) if place.is_dir()]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.guided", name, *places),
                *(f"-max_total_time={SECONDS}", f"-max_len={INPUT_BYTES_MAX}", f"-rss_limit_mb={MEMORY_MB}"),
                *("-timeout=60", "-print_final_stats=1", f"-artifact_prefix={failed}/"),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        runs = re.search(r"number_of_executed_units: (\d+)", done.stdout)
        print(f"{name}: {runs[1] if runs else 'no'} runs, {'nothing failed' if done.returncode == 0 else 'FAILED'}")
        if done.returncode == 0:
            return True
        print(done.stdout[-6000:])
        for found in failed.iterdir():
            place = CORPUS / name / hashlib.sha256(found.read_bytes()).hexdigest()[:16]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(found.read_bytes())
            print(f"kept: {place.relative_to(ROOT)}")
        return False


def main() -> int:
    names = sys.argv[1:] or list(TARGETS)
    if importlib.util.find_spec("atheris") is not None:
        sound = [fuzz(name) for name in names]
        return 0 if all(sound) else 1
    print(
        f"atheris has no wheel for this Python and machine: {EXAMPLES} examples of hypothesis for each target instead"
    )
    environment = {**os.environ, "DREAMLAKE_FUZZ_EXAMPLES": EXAMPLES}
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/fuzz"], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
