"""``python -m tests.golden.make VERSION``: write the golden bytes of a new version. Never over those of an old one."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from dreamlake.reader.session import SessionReader
from dreamlake.wire import codec, messages
from tests.golden import world

HERE = Path(__file__).parent
# Stands for ".dreamlake", which .gitignore and people who clean up would take away.
DOT_DREAMLAKE = "dot-dreamlake"
_WIDTH = 64


def hex_text(data: bytes) -> str:
    text = data.hex()
    return "".join(text[at : at + _WIDTH] + "\n" for at in range(0, len(text), _WIDTH))


def unhex(text: str) -> bytes:
    return bytes.fromhex("".join(text.split()))


def operations_text() -> str:
    return "".join(f"{name}: {codec.packer().pack(op).hex()}\n" for name, op in world.OPERATIONS.items())


def messages_text() -> str:
    return "".join(
        f"{name}: {' '.join(frame.hex() for frame in messages.encode(message, body))}\n"
        for name, (message, body) in world.MESSAGES.items()
    )


def read_table(path: Path) -> dict[str, list[bytes]]:
    """``name: hex hex …`` on each line."""
    rows = (line.split(": ", 1) for line in path.read_text("ascii").splitlines())
    return {name: [bytes.fromhex(each) for each in rest.split()] for name, rest in rows}


def directory(name: str, into: Path, version: str = "v1") -> Path:
    """A copy of a golden session directory, under the names it has in the world."""
    folder = into / name
    shutil.copytree(HERE / version / name, folder)
    (folder / DOT_DREAMLAKE).rename(folder / ".dreamlake")
    for inner in (".dreamlake/journals", ".dreamlake/incoming"):
        (folder / inner).mkdir(exist_ok=True)  # git keeps no empty folder
    return folder


def values(folder: Path) -> str:
    """Everything that a reader says of a session directory, as text; floats that are not finite are bare."""
    with SessionReader(str(folder)) as reader:
        tracks = {
            name: {"track": reader.track(name), "stats": reader.stats(name), "points": reader.points(name)[0]}
            for name in reader.tracks()
        }
        found = {
            "session": reader.session(),
            "parameters": reader.parameters(),
            "tracks": tracks,
            "logs": reader.logs(),
            "files": reader.files(),
        }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    folder.mkdir()
    write_records(folder)
    write_directories(folder)


def write_records(folder: Path) -> None:
    (folder / "operations.txt").write_text(operations_text(), "ascii")
    (folder / "messages.txt").write_text(messages_text(), "ascii")
    (folder / "segment.hex").write_text(hex_text(world.segment()), "ascii")
    (folder / "commits.hex").write_text(hex_text(world.commits()), "ascii")
    (folder / "checkpoint.hex").write_text(hex_text(world.checkpoint()), "ascii")


def write_directories(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        world.make(Path(scratch))
        for name in ("killed", "recovered"):
            for path, data in world.tree(Path(scratch) / name).items():
                place = folder / name / path.replace(".dreamlake/", f"{DOT_DREAMLAKE}/", 1)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
        (folder / "recovered.values.json").write_text(values(Path(scratch) / "recovered"), "utf-8")


if __name__ == "__main__":
    version = HERE / sys.argv[1]
    if version.exists():
        sys.exit(f"{version} is there: golden bytes are never made again")
    write(version)
