"""Upload files and say how long that took beside `cp` and `sha256sum` of the same, in turn; each begins when the disk
has what came before. Prints JSON, a list of rounds.

uploads.py FOLDER NAME COUNT BYTES ROUNDS
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from time import monotonic

from dreamlake import Session

PIECE = 1 << 20


def made(folder: str, count: int, size: int) -> list[str]:
    paths = [os.path.join(folder, f"file{number}") for number in range(count)]
    for path in paths:
        with open(path, "wb") as file:
            for start in range(0, size, PIECE):
                file.write(os.urandom(min(PIECE, size - start)))
    os.sync()
    return paths


def timed(*words: str) -> float:
    os.sync()
    began = monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return monotonic() - began


def main(folder: str, name: str, count: int, size: int, rounds: int) -> None:
    sources, copies = os.path.join(folder, f"{name}-sources"), os.path.join(folder, f"{name}-copies")
    os.mkdir(sources)
    paths = made(sources, count, size)
    session = Session(name, "bench", local_path=folder).open()
    session.log("begun")
    session.flush()
    found = []
    for number in range(rounds):
        copied = timed("cp", "-r", "--reflink=auto", sources, copies)
        shutil.rmtree(copies)
        hashed_by_others = timed("sha256sum", *paths) if count == 1 else 0.0
        found.append({"copied": copied, "sha256sum": hashed_by_others, **uploaded(session, paths, number)})
    session.close()
    print(json.dumps(found))


def uploaded(session: Session, paths: list[str], number: int) -> dict[str, float]:
    files = session.files()
    os.sync()
    began = monotonic()
    for place, path in enumerate(paths):
        files.upload(path, path=f"/{number}/{place // 1000}")
    returned = monotonic()
    session.flush()
    committed = monotonic()
    while not all(each["checksum"] for each in files.list()):
        time.sleep(0.05)
    return {"returned": returned - began, "committed": committed - began, "hashed": monotonic() - returned}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
