"""Upload files and say how long that took beside `cp` and `sha256sum` of the same. Prints JSON.

uploads.py FOLDER NAME COUNT BYTES
"""

from __future__ import annotations

import json
import os
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
    began = monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return monotonic() - began


def main(folder: str, name: str, count: int, size: int) -> None:
    sources, copies = os.path.join(folder, f"{name}-sources"), os.path.join(folder, f"{name}-copies")
    os.mkdir(sources)
    paths = made(sources, count, size)
    session = Session(name, "bench", local_path=folder).open()
    session.log("begun")
    session.flush()
    copied = timed("cp", "-r", "--reflink=auto", sources, copies)
    os.sync()
    hashed_by_others = timed("sha256sum", *paths) if count == 1 else 0.0
    began = monotonic()
    files = session.files()
    for number, path in enumerate(paths):
        files.upload(path, path=f"/{number // 1000}")
    returned = monotonic()
    session.flush()
    committed = monotonic()
    while not all(each["checksum"] for each in files.list()):
        time.sleep(0.05)
    hashed = monotonic()
    session.close()
    found = {"copied": copied, "sha256sum": hashed_by_others, "returned": returned - began}
    print(json.dumps({**found, "committed": committed - began, "hashed": hashed - returned}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
