"""Session directories with something wrong in them, and what must hold of them whatever it is."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from dreamlake.reader.commits import CHECKPOINT, COMMITS, commits_seed
from dreamlake.reader.lines import unnumbered
from dreamlake.reader.segments import HEADER_BYTES_MAX, JOURNALS, parse_name
from dreamlake.wire import codec
from dreamlake.wire.state import HISTORIES, LOGS_LOG
from dreamlake.world.disk import RealDisk
from tests.fuzz.choices import Choices, change_leaf, spoil
from tests.golden import make, world

Tree = dict[str, bytes]


class QuickDisk(RealDisk):
    """The real disk without waiting for the platter: what is fuzzed here is not power loss."""

    fsync = staticmethod(lambda fd: None)  # type: ignore[assignment]


DISK = QuickDisk()

_OLD: Tree = {
    "session.json": b'{"name":"old","workspace":"w","tags":["a"],"created_at":"2025-06-01T12:00:00Z","metadata":null}',
    "parameters.json": b'{"version":3,"data":{"lr":0.1,"clip":NaN,"layers":[1,2]},"updatedAt":"2025-06-01T12:00:00Z"}',
    "logs/logs.jsonl": b'{"sequenceNumber":0,"timestamp":"2025-06-01T12:00:01Z","level":"info","message":"a"}\n'
    b'{"sequenceNumber":1,"timestamp":"2025-06-01T12:00:02Z","level":"warn","message":"b","metadata":{"x":NaN}}\n',
    "tracks/train/loss/data.jsonl": b'{"index":0,"data":{"v":1},"createdAt":"2025-06-01T12:00:03Z"}\n'
    b'{"index":1,"data":{"v":NaN},"createdAt":"2025-06-01T12:00:04Z"}\n{"index":2,"data":{"v":3}',
    "tracks/train/loss/metadata.json": b'{"trackId":"7","name":"train/loss","description":"d","tags":["t"],'
    b'"metadata":{"k":1},"totalDataPoints":2,"createdAt":"2025-06-01T12:00:03Z","updatedAt":"2025-06-01T12:00:04Z"}',
    "tracks/val/data.jsonl": b'{"index":0,"data":{"v":1},"createdAt":"2025-06-01T12:00:03Z"}',
    "files/.files_metadata.json": b'{"files":[{"id":"7","path":"/models","filename":"m.pth","sizeBytes":3,'
    b'"checksum":null,"uploadedAt":"2025-06-01T12:00:05Z","deletedAt":null}]}',
    "files/models/7/m.pth": b"abc",
    "logs/.log_sequence": b"2",
}


@lru_cache(maxsize=1)
def trees() -> tuple[Tree, ...]:
    """Sound directories: killed in the middle, recovered, of 0.2.x, journals alone, and with nothing applied yet."""
    with tempfile.TemporaryDirectory() as scratch:
        killed = world.tree(make.directory("killed", Path(scratch)))
        recovered = world.tree(make.directory("recovered", Path(scratch)))
    alone = {path: data for path, data in killed.items() if path.startswith((JOURNALS, ".dreamlake/incoming"))}
    old_begun = {**_OLD, **alone}
    return killed, recovered, _OLD, alone, old_begun


class Folder:
    """A session directory and, beside it, what nobody may touch."""

    def __init__(self, top: Path) -> None:
        self.path = top / "root" / "w" / "s"
        self.outside = top / "outside"
        self.path.mkdir(parents=True)
        (self.outside / "folder").mkdir(parents=True)
        (self.outside / "data.jsonl").write_bytes(b'{"index":0,"data":{},"createdAt":"2025-01-01T00:00:00Z"}\n')
        (self.outside / "folder" / "kept").write_bytes(b"kept")
        self.look()

    def look(self) -> None:
        """Remember what stands beside the directory now."""
        self._sound = self._beside()

    def _beside(self) -> list[tuple[str, int, bytes]]:
        found = []
        for base, folders, names in os.walk(self.path.parents[2]):
            folders[:] = [name for name in folders if Path(base) / name != self.path]
            for name in (*folders, *names):
                path = Path(base) / name
                data = path.read_bytes() if name in names else b""
                found.append((str(path), path.stat().st_mtime_ns, data))
        return sorted(found)

    def check_nothing_was_written_outside(self) -> None:
        assert self._beside() == self._sound, "something outside of the session directory was written"

    def fill(self, tree: Tree) -> None:
        for path, data in tree.items():
            place = self.path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        for inner in (JOURNALS, ".dreamlake/incoming"):
            (self.path / inner).mkdir(parents=True, exist_ok=True)

    def read(self, path: str) -> bytes:
        """A regular file's bytes; nothing for whatever else stands there."""
        place = self.path / path
        return place.read_bytes() if place.is_file() and not place.is_symlink() else b""

    def logs(self) -> Tree:
        """Every log that stands there as a file, reached through no link."""
        found = {}
        for base, _folders, names in os.walk(self.path):
            for name in names:
                path = (Path(base) / name).relative_to(self.path).as_posix()
                if path in (*HISTORIES, LOGS_LOG) or (path.startswith("tracks/") and name == "data.jsonl"):
                    found[path] = self.read(path)
        return found


@contextmanager
def folder() -> Iterator[Folder]:
    # In memory where there is such a place: a thousand directories are made and removed.
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    top = tempfile.mkdtemp(prefix="fuzz", dir=shm)
    try:
        yield Folder(Path(top))
    finally:
        shutil.rmtree(top)


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def damaged(into: Folder, choices: Choices) -> None:
    """Fill ``into`` with a sound directory, and damage a few things in it."""
    tree = dict(choices.one_of(trees()))
    into.fill(tree)
    for _ in range(1 + choices.below(3)):
        path = choices.one_of(sorted(tree))
        place = into.path / path
        kind = choices.below(12)
        if kind <= 5:
            _rewrite(place, _changed(path, into.read(path), tree, choices))
        elif kind <= 7:
            _rewrite(place, spoil(into.read(path), choices))
        elif kind == 8:
            _rewrite(place, into.read(choices.one_of(sorted(tree))))
        elif kind == 9:
            _ODDITIES[choices.below(len(_ODDITIES))](into, place)
        elif kind == 10:
            _rewrite(into.path / choices.one_of(_NEW_PLACES), choices.one_of((b"", b"\0" * 99, tree[path])))
        else:
            # The last thing that a machine does before its power goes: the size is there, the bytes are not.
            _rewrite(place, into.read(path) + b"\0" * choices.below(5000))
    into.look()  # a damage may itself have gone through a link


_CLIENT = world.ALICE.hex()
_NEW_PLACES = (
    f"{JOURNALS}/{_CLIENT}.00",
    f"{JOURNALS}/{_CLIENT}.\uff11",
    f"{JOURNALS}/{_CLIENT.upper()}.0",
    f"{JOURNALS}/{_CLIENT[:-2]}  .0",
    f"{JOURNALS}/{_CLIENT}.7",
    f"{JOURNALS}/{_CLIENT}.9.new",
    f"{JOURNALS}/{'f' * 32}.0",
    ".dreamlake/checkpoint.tmp",
    ".dreamlake/cut/logs__logs.jsonl.0",
    "tracks/data.jsonl/data.jsonl",
    "tracks/train/data.jsonl",
    "tracks/..x/data.jsonl",
    "tracks/" + "d/" * 80 + "data.jsonl",
    "files/models",
    "logs",
    "tracks",
)


def _rewrite(place: Path, data: bytes) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            place.unlink()
        if place.exists() and not place.is_file():
            return
        place.write_bytes(data)
    except OSError:
        pass  # an earlier damage stands in the way


def _remove(place: Path) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    elif place.exists():
        place.unlink()


def _oddity(make_it: Callable[[Folder, Path], None], *, of_parent: bool = False) -> Callable[[Folder, Path], None]:
    def act(into: Folder, place: Path) -> None:
        target = place.parent if of_parent and place.parent != into.path else place
        try:
            _remove(target)
            make_it(into, target)
        except OSError:
            pass  # an earlier damage stands in the way

    return act


_ODDITIES = (
    _oddity(lambda into, place: None),
    _oddity(lambda into, place: place.mkdir()),
    _oddity(lambda into, place: os.mkfifo(place)),
    _oddity(lambda into, place: place.symlink_to(into.outside / "data.jsonl")),
    _oddity(lambda into, place: place.symlink_to(into.outside / "new")),
    _oddity(lambda into, place: place.symlink_to(into.outside / "folder")),
    _oddity(lambda into, place: place.symlink_to("/dev/zero")),
    _oddity(lambda into, place: None, of_parent=True),
    _oddity(lambda into, place: place.symlink_to(into.outside / "folder"), of_parent=True),
    _oddity(lambda into, place: place.write_bytes(b"x"), of_parent=True),
)


def _changed(path: str, data: bytes, tree: Tree, choices: Choices) -> bytes:
    """A file with one value in it made odd, and sound otherwise: its checksums are right."""
    if path.endswith((".json", "owner")):
        return json_line(change_leaf(_parsed(data), choices, raw=False), choices)
    if path.endswith(".jsonl"):
        lines = data.splitlines()
        if lines:
            at = choices.below(len(lines))
            lines[at] = json_line(change_leaf(_parsed(lines[at]), choices, raw=False), choices)
        return b"".join(line + b"\n" for line in lines)
    if path == CHECKPOINT:
        return rebuilt(data, codec.seed(b"dreamlake checkpoint"), choices)
    if path == COMMITS:
        return rebuilt(data, commits_seed(tree.get(".dreamlake/origin", b"").decode().strip()), choices)
    parsed = parse_name(path.rpartition("/")[2])
    if parsed is not None:
        return _rebuilt_segment(data, codec.seed(parsed[0]), choices)
    return spoil(data, choices)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {}


def json_line(value: Any, choices: Choices) -> bytes:
    """One line of what Python takes for JSON, so with bare NaN, lone surrogates and numbers of any length."""
    try:
        return json.dumps(value, ensure_ascii=bool(choices.below(2))).encode("utf-8", "surrogatepass")
    except RecursionError:
        return b'{"op":' * 1000 + b"1" + b"}" * 1000


def packed(value: Any) -> bytes:
    """msgpack of an odd value; of nil when msgpack cannot hold it."""
    try:
        return bytes(codec.packer().pack(value))
    except (ValueError, TypeError, OverflowError):
        return b"\xc0"


def framed(payloads: list[bytes], running: int) -> bytes:
    data = b""
    for payload in payloads:
        record, running = codec.frame(payload, running)
        data += record
    return data


def rebuilt(data: bytes, running: int, choices: Choices) -> bytes:
    """A stream of records of which one says something odd, every checksum right."""
    try:
        payloads = [payload for _, _, payload in codec.records(data, running, codec.CHECKPOINT_BYTES_MAX)]
    except codec.Damaged:
        return data
    if payloads:
        at = choices.below(len(payloads))
        payloads[at] = _other_payload(payloads[at], choices)
    return framed(payloads, running)


def _other_payload(payload: bytes, choices: Choices) -> bytes:
    if choices.below(4) == 0:
        return spoil(payload, choices)
    try:
        return packed(change_leaf(codec.unpack(payload), choices, raw=True))
    except codec.Damaged:
        return payload


def _rebuilt_segment(data: bytes, seed: int, choices: Choices) -> bytes:
    """As :func:`rebuilt`: the header is seeded with the client, its operations with what the header says."""
    try:
        size, _running, payload = next(codec.records(data[:HEADER_BYTES_MAX], seed, HEADER_BYTES_MAX))
        running = int(codec.unpack(payload)["running"])
    except (codec.Damaged, StopIteration, KeyError, TypeError, ValueError, OverflowError):
        return spoil(data, choices)  # damaged already
    if choices.below(3) == 0:
        return framed([_other_payload(payload, choices)], seed) + data[size:]
    return data[:size] + rebuilt(data[size:], running & 0xFFFFFFFF, choices)


# ── what must hold ──────────────────────────────────────────────────────────────────────────────────────────────────


def _lines(data: bytes) -> set[bytes]:
    return {unnumbered(line.strip(b"\0 \t\r")) for line in data.split(b"\n")}


def check_no_row_is_lost(before: Tree, into: Folder) -> None:
    """Every line that stood in a log stands there still, or in ``cut/``; its number may be another, and it may
    have come again with its rank."""
    kept = set[bytes]()
    cut = into.path / ".dreamlake" / "cut"
    for path in sorted(cut.iterdir()) if cut.is_dir() and not cut.is_symlink() else ():
        if path.is_file() and not path.is_symlink():
            kept |= _lines(path.read_bytes())
    for log, data in before.items():
        now = _lines(into.read(log))
        for line in _lines(data) - now - kept - {b""}:
            # Half a line is no row: it is one of those that came again, or it was cut off its own first half.
            assert any(other.startswith(line) or line in other for other in (*now, *kept)), f"{log} lost {line[:200]!r}"
