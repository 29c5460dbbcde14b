"""Journals: every stream whole from where it was applied to; how much of it waits, and whose it is."""

from __future__ import annotations

from dreamlake.reader.checks.finding import Look, times
from dreamlake.reader.checks.standing import Standing
from dreamlake.reader.replay import RUN_BYTES
from dreamlake.reader.segments import (
    HEADER_BYTES_MAX,
    JOURNALS,
    SYNCING,
    Segment,
    begun_of,
    parse_name,
    read_segment,
    read_stream,
    whole_run,
)
from dreamlake.reader.spools import is_marker
from dreamlake.wire import codec
from dreamlake.world import processes
from dreamlake.world.disk import READ

_LIFE = {
    processes.ALIVE: "is alive",
    processes.GONE: "is gone",
    processes.UNKNOWN: "is of another machine or container",
}
_CUT = "repair applies what comes before it and keeps the rest in .dreamlake/cut"


def check_journals(look: Look, standing: Standing | None) -> None:
    with look.reading(JOURNALS):
        names = look.disk.listdir(JOURNALS, look.at)
        for name in names:
            with look.reading(f"{JOURNALS}/{name}"):
                _check_name(look, name)
        if standing is None or standing.partial:
            return
        for client, segments in standing.loaded.segments.items():
            if not standing.loaded.is_finished(client):
                with look.reading(segments[0].path):
                    _check_stream(look, segments, *standing.loaded.position(client))
            elif not look.live:
                look.problem(
                    "finished",
                    segments[0].path,
                    f"{segments[0].path} is of a client that was applied wholly, as far as is known: it comes from a "
                    "backup, or the record of what was applied is lost; repair keeps it in .dreamlake/cut",
                    repairable=True,
                    lost=standing.loaded.commit_log is None,
                )


def _check_name(look: Look, name: str) -> None:
    path = f"{JOURNALS}/{name}"
    if name.startswith(".nfs"):
        return  # what NFS makes of a file that is unlinked while open
    begun = begun_of(name)
    if begun is not None and parse_name(begun[0]):
        if not look.live:
            look.note(
                "journal", path, f"{path} is a journal that was never begun: its process died before its first call"
            )
        return
    if is_marker(name):
        return  # checks/spools.py
    if name.endswith(SYNCING) and parse_name(name.removesuffix(SYNCING) + ".0"):
        return  # of an fsync that is under way, or failed: the next owner knows what to make of it
    parsed = parse_name(name)
    if parsed is None or not look.disk.stat(path, look.at).is_file:
        look.problem("foreign", path, f"{path} is no journal and is ignored; move it away")
        return
    look.report.journals += 1
    if read_segment(look.disk, look.at, name) is not None:
        return
    try:
        fd = look.disk.open(path, READ, look.at)
    except FileNotFoundError:
        return
    try:
        head, size = look.disk.pread(fd, HEADER_BYTES_MAX, 0), look.disk.fstat(fd).size
    finally:
        look.disk.close(fd)
    what, mended = _header(head, *parsed)
    look.problem("journal", path, f"{path} ({times(size, 'byte')}) {what}", repairable=mended, lost=size > 0)


def _header(head: bytes, client: bytes, number: int) -> tuple[str, bool]:
    """Why a segment is not read, and whether the next owner does something about it."""
    try:
        for _end, _running, payload in codec.records(head, codec.seed(client), HEADER_BYTES_MAX):
            fields = codec.unpack(payload)
            if fields["v"] != 1:
                return f"is of version {fields['v']}, which this Dreamlake does not read; use a newer one", False
            name = f"{client.hex()}.{fields['n']}"
            return f"is {name} by its header: it was renamed, and its calls are not read; rename it back", False
    except (codec.Damaged, KeyError, TypeError):
        pass
    what = "has no whole header of the client that its name says: it was renamed or damaged, and its calls are not read"
    advice = "give it its name again, or repair keeps it in .dreamlake/cut once it has lain still for a day"
    return f"{what}; {advice}", True


def _check_stream(look: Look, segments: list[Segment], position: int, running: int) -> None:
    disk, at = look.disk, look.at
    waiting = 0
    while True:
        data, after, damaged = whole_run(disk, at, segments, position, running, RUN_BYTES)
        if not data:
            break
        waiting += sum(1 for _ in codec.records(data, running))
        position, running = position + len(data), after
        look.advance(len(data))
    last = segments[-1]
    whose = f"its writer, pid {last.by.get('pid')} on {last.by.get('host')}, {_LIFE[processes.verdict(last.by)]}"
    if not look.live:
        look.report.waiting += waiting
        if waiting:
            name = f"{JOURNALS}/{last.client.hex()}.*"
            wait = "waits" if waiting == 1 else "wait"
            look.note("waiting", last.path, f"{name}: {times(waiting, 'operation')} {wait} for an agent; {whose}")
    if position < segments[0].base:
        first = segments[0]
        look.problem(
            "journal",
            first.path,
            f"{first.path} begins at byte {first.base} of its stream, which was applied to byte {position}: a segment "
            "before it is missing, with the calls in it; restore that from a backup, or repair keeps this one in "
            ".dreamlake/cut",
            repairable=True,
            lost=True,
        )
        return
    index = max(number for number, each in enumerate(segments) if each.base <= position)
    segment = segments[index]
    byte = segment.start + position - segment.base
    following = segments[index + 1] if index + 1 < len(segments) else None
    rest = (following.end if following else segment.end) - position
    if damaged:
        zeros = not read_stream(disk, at, segments, position, rest).strip(b"\0")
        look.problem(
            "journal",
            segment.path,
            f"{segment.path}: {times(rest, 'zero byte')} from byte {byte} on, where a call would be; no call that "
            "returned is known to be lost; repair goes on without them"
            if zeros
            else f"{segment.path} is damaged at byte {byte}: the calls from there on "
            f"({times(last.end - position, 'byte')}) cannot be read; restore it from a backup, or {_CUT}",
            repairable=True,
            lost=not zeros,
        )
    elif following is not None:
        look.problem(
            "journal",
            segment.path,
            f"{segment.path} ends at byte {position} of its stream and {following.path.rpartition('/')[2]} begins at "
            f"byte {following.base}: the calls between are missing; restore them from a backup, or {_CUT}",
            repairable=True,
            lost=True,
        )
    elif rest > 0 and not look.live and processes.verdict(last.by) == processes.GONE:
        look.note(
            "half",
            segment.path,
            f"{segment.path} ends in half a call of {times(rest, 'byte')} (from byte {byte}): its process died in the "
            "middle of it, and it never returned",
        )
