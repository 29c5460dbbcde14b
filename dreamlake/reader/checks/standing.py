"""Standing: what a directory must hold, by its checkpoint and the commits after it, held against its logs.

This is the replay of :mod:`dreamlake.reader.replay`, with every row compared instead of written.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dreamlake.reader.baseline import DamagedView
from dreamlake.reader.checks.finding import Look, times
from dreamlake.reader.commits import CHECKPOINT, COMMITS, ORIGIN, read_checkpoint
from dreamlake.reader.replay import Loaded, committed, load
from dreamlake.wire import codec
from dreamlake.wire.state import HISTORIES
from dreamlake.world.disk import READ, read_file

# Under a live agent the checkpoint may be replaced while it is read with the commits: then both are read again.
_TRIES = 5
_COMPARE_BYTES = 1 << 20
_NO_ORIGIN = "0" * 32


@dataclass
class Standing:
    """``loaded`` moved on through every commit. ``ends``: where each log ends by then."""

    loaded: Loaded
    ends: dict[str, int] = field(default_factory=dict)
    # log → the first byte after the checkpoint that is not what the commits say
    differs: dict[str, int] = field(default_factory=dict)
    # views that a commit after the checkpoint has moved: they may still show what was before
    lagging: set[str] = field(default_factory=set)
    replayed: int = 0
    # nothing after the checkpoint could be held against it, because it moved too fast or its owner is far away
    partial: bool = False
    # a commit could not be replayed: rows that it made stand in the logs, and nothing brings them
    stuck: bool = False


def read_standing(look: Look, *, far: bool) -> Standing | None:
    """None when there is nothing to stand on: what says so is in the report. ``far``: the owner is on another machine,
    and what it has written may be seen here in any order."""
    with look.reading(CHECKPOINT):
        origin = _origin(look)
        for last in (False,) * (_TRIES - 1) + (True,):
            before = _checkpoint_bytes(look)
            try:
                loaded = load(look.disk, look.at, origin or _NO_ORIGIN)
            except DamagedView as damage:
                look.problem(
                    "view",
                    str(damage).split(" ")[0],
                    f"{damage}, and there is no history to rebuild it from: no agent opens this directory and nothing "
                    "is touched; mend the file by hand, or move it away",
                )
                return None
            standing = Standing(loaded, {log: mark.size for log, mark in loaded.marks.items()})
            if not far:
                _replay(look, standing)
            if not look.live or (not far and _checkpoint_bytes(look) == before):
                break
            if last or far:
                standing = Standing(loaded, {log: mark.size for log, mark in loaded.marks.items()}, partial=True)
        _check_records(look, standing, origin)
        return standing
    return None


def _checkpoint_bytes(look: Look) -> bytes:
    try:
        return read_file(look.disk, CHECKPOINT, look.at, codec.CHECKPOINT_BYTES_MAX)
    except FileNotFoundError:
        return b""


def _origin(look: Look) -> str | None:
    try:
        found = read_file(look.disk, ORIGIN, look.at, 4096).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    return found if len(found) == 32 and all(each in "0123456789abcdef" for each in found) else ""


def _replay(look: Look, standing: Standing) -> None:
    waiting: dict[str, list[bytes]] = {}
    size = 0
    for _commit, out in committed(look.disk, look.at, standing.loaded):
        standing.replayed += 1
        standing.lagging |= out.stale
        for log, blocks in out.rows.items():
            waiting.setdefault(log, []).extend(blocks)
            size += sum(map(len, blocks))
            look.report.rows += sum(block.count(b"\n") for block in blocks)
        if size > _COMPARE_BYTES:
            _compare(look, standing, waiting)
            size = 0
    _compare(look, standing, waiting)


def _compare(look: Look, standing: Standing, rows: dict[str, list[bytes]]) -> None:
    for log, lines in rows.items():
        data = b"".join(lines)
        start = standing.ends.get(log, 0)
        standing.ends[log] = start + len(data)
        if log in standing.differs:
            continue
        found = b""
        try:
            fd = look.disk.open(log, READ, look.at)
        except (FileNotFoundError, NotADirectoryError):
            pass
        else:
            try:
                while chunk := look.disk.pread(fd, len(data) - len(found), start + len(found)):
                    found += chunk
            finally:
                look.disk.close(fd)
        if found != data:
            pairs = zip(found, data, strict=False)
            same = next((at for at, (one, other) in enumerate(pairs) if one != other), len(found))
            standing.differs[log] = start + same
    rows.clear()


# ── origin, checkpoint, commits.log ─────────────────────────────────────────────────────────────────────────────────


def _check_records(look: Look, standing: Standing, origin: str | None) -> None:
    loaded = standing.loaded
    _check_checkpoint(look, loaded)
    if loaded.checkpoint is not None or loaded.commit_log is not None:
        _check_origin(look, standing, origin)
    if loaded.checkpoint is not None:
        _check_commits(look, standing)


def _check_checkpoint(look: Look, loaded: Loaded) -> None:
    known = loaded.commit_log is not None
    so = (
        "the next owner takes the logs as they stand, and commits.log says where each journal stood"
        if known
        else "the next owner takes the logs as they stand, and cannot know which operations of the journals are in them"
    )
    try:
        checkpoint = read_checkpoint(look.disk, look.at)
    except codec.Damaged as damage:
        look.problem(
            "checkpoint",
            CHECKPOINT,
            f"{CHECKPOINT} is damaged ({damage}): {so}; repair makes a new one",
            repairable=True,
        )
        return
    histories = any(look.disk.listdir(".dreamlake", look.at).count(each.rpartition("/")[2]) for each in HISTORIES)
    if checkpoint is None and (known or _size(look, COMMITS) or (histories and loaded.state.clients)):
        look.problem(
            "checkpoint", CHECKPOINT, f"{CHECKPOINT} is missing: {so}; repair makes a new one", repairable=True
        )


def _check_origin(look: Look, standing: Standing, origin: str | None) -> None:
    loaded = standing.loaded
    if origin == loaded.state.origin:
        return
    whose = loaded.checkpoint.origin if loaded.checkpoint else None
    if not origin:
        what = "is missing" if origin is None else "does not hold 32 hex digits"
        look.problem(
            "origin",
            ORIGIN,
            f"{ORIGIN}, the identity of the session, {what}; "
            + (f"the checkpoint knows it ({whose}), and repair writes it again" if whose else "a new one is made"),
            repairable=True,
        )
    else:
        look.problem(
            "origin",
            ORIGIN,
            f"{ORIGIN} says {origin} and the checkpoint {whose}: one of them is of another directory; the next owner "
            "believes the checkpoint; restore the right one from a backup",
        )


def _size(look: Look, path: str) -> int:
    try:
        return look.disk.stat(path, look.at).size
    except FileNotFoundError:
        return 0


def _check_commits(look: Look, standing: Standing) -> None:
    loaded = standing.loaded
    assert loaded.checkpoint is not None
    again = "what came after the checkpoint is applied again from the journals, and may get other numbers"
    log = loaded.commit_log
    if log is None:
        size = _size(look, COMMITS)
        if size == 0 and loaded.checkpoint.seq == 0 and not loaded.checkpoint.clients:
            return  # its first owner died between the checkpoint and the commits
        what = (
            "does not begin with a record of this directory: it is damaged, or of another origin"
            if size
            else "is missing or empty"
        )
        look.problem("commits", COMMITS, f"{COMMITS} {what}; {again}; repair begins a new one", repairable=True)
        return
    if standing.partial:
        return
    if log.next_seq >= loaded.checkpoint.seq:
        _check_commits_end(look, standing, again)
    if log.next_seq < loaded.checkpoint.seq:
        look.problem(
            "commits",
            COMMITS,
            f"{COMMITS} ends before commit {log.next_seq} and the checkpoint stands at {loaded.checkpoint.seq}: it is "
            f"older than the checkpoint, or was cut; {again}; repair begins a new one",
            repairable=True,
        )
    elif loaded.checkpoint.seq < log.seq:
        look.problem(
            "commits",
            CHECKPOINT,
            f"{CHECKPOINT} stands at commit {loaded.checkpoint.seq} and commits.log begins with {log.seq}: the "
            f"checkpoint is older; {again}, as far as the journals are still there; restore the newer checkpoint",
            lost=True,
        )
    elif loaded.seq < log.next_seq:
        standing.stuck = True
        look.problem(
            "commits",
            COMMITS,
            f"{COMMITS}: {times(log.next_seq - loaded.seq, 'commit')} from number {loaded.seq} on cannot be replayed: "
            "a journal that it names is missing or changed; repair moves rows that no journal brings again to "
            ".dreamlake/cut",
            repairable=True,
            lost=True,
        )


def _check_commits_end(look: Look, standing: Standing, again: str) -> None:
    """What follows the last whole commit: half a record is an ordinary death, anything else is damage."""
    log = standing.loaded.commit_log
    if look.live or log is None:
        return
    end, running = log.ends[-1]
    fd = look.disk.open(COMMITS, READ, look.at)
    try:
        rest = look.disk.pread(fd, codec.OP_BYTES_MAX, end)
    finally:
        look.disk.close(fd)
    if not rest:
        return
    good, _running, damaged = codec.whole_records(rest, running)
    if damaged or good:
        what = f"{times(len(rest), 'zero byte')} at its end" if not rest.strip(b"\0") else "damaged"
        look.problem(
            "commits",
            COMMITS,
            f"{COMMITS}: {what} from byte {end + good}, after commit {log.next_seq - 1}; {again}; repair cuts it there",
            repairable=True,
        )
    else:
        look.note(
            "commits",
            COMMITS,
            f"{COMMITS} ends in half a commit of {times(len(rest), 'byte')} (its agent was killed): the next agent "
            "makes it again",
        )
