"""Logs: each line JSON, each number the next one, the bytes those of the checkpoint, the end that of the commits."""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

from dreamlake.reader.baseline import track_names
from dreamlake.reader.checks.finding import Look, times
from dreamlake.reader.checks.standing import Standing
from dreamlake.reader.commits import LogMark
from dreamlake.reader.lines import Lines, unnumbered
from dreamlake.reader.replay import leftovers
from dreamlake.reader.segments import JOURNALS
from dreamlake.wire import jsons
from dreamlake.wire.state import HISTORIES, LOGS_LOG, data_log
from dreamlake.world.disk import READ

_CHUNK_BYTES = 1 << 20
_NUMBERS_MAX = 1 << 27  # rows of which it is counted which numbers are missing: one byte each
_BLANK = b"\0 \t\r"


def check_logs(look: Look, standing: Standing | None) -> None:
    marks = standing.loaded.marks if standing else {}
    for log in _names(look, standing):
        with look.reading(log):
            _check_log(look, standing, log, marks.get(log))


def _names(look: Look, standing: Standing | None) -> list[str]:
    known = standing.ends.keys() if standing else set()
    return sorted({*HISTORIES, LOGS_LOG, *map(data_log, track_names(look.disk, look.at)), *known})


def damaged_histories(look: Look) -> bool:
    """Whether a history is not what it was: then what follows from it cannot be judged."""
    return any(each.path in HISTORIES and each.problem for each in look.report.findings)


@dataclass
class _Scan:
    """One log, line by line. ``order``: the first number out of order, as (line, byte, found, wanted)."""

    lines: int = 0
    bad: int = 0
    first_bad: tuple[int, int, str] | None = None
    order: tuple[int, int, object, int] | None = None
    out_of_order: int = 0
    highest: int = -1


def _key(log: str) -> str | None:
    return None if log in HISTORIES else "sequenceNumber" if log == LOGS_LOG else "index"


def _scan(look: Look, log: str, end: int | None) -> _Scan:
    found, key, wanted = _Scan(), _key(log), 0
    row: object
    for offset, line in Lines(look.disk, look.at, log, end).raw():
        look.advance(len(line) + 1)
        found.lines += 1
        row = jsons.object_of(line)
        if row is None:
            found.bad += 1
            if found.first_bad is None:
                what = "is no JSON object" if line.strip(_BLANK) else "is zero bytes" if b"\0" in line else "is empty"
                found.first_bad = (found.lines, offset, what)
            continue
        if key is not None:
            number = row.get(key)
            if number != wanted or type(number) is not int:
                found.out_of_order += 1
                found.order = found.order or (found.lines, offset, number, wanted)
            wanted = number + 1 if type(number) is int else wanted + 1
            found.highest = max(found.highest, wanted - 1)
    return found


def _check_log(look: Look, standing: Standing | None, log: str, mark: LogMark | None) -> None:
    try:
        size = look.disk.stat(log, look.at).size
    except FileNotFoundError:
        size = -1
    covered = standing is not None and standing.loaded.checkpoint is not None
    if size < 0 and not (mark and mark.size):
        return
    look.report.logs += 1
    if covered and mark is None:
        return  # all of it was compared with the commits, or is a tail
    end = mark.size if covered and mark else None
    if mark and covered and size < mark.size:
        _say_short(look, log, mark, size)
    scan = _scan(look, log, end)
    look.report.rows += scan.lines - scan.bad
    before = len(look.report.findings)
    _check_scan(look, log, scan)
    if not covered:
        _check_last_line(look, log)
    elif mark and size >= mark.size and len(look.report.findings) == before:
        if _crc(look, log, mark.size) != mark.crc:
            _say_changed(look, log, mark)
        elif log not in HISTORIES and mark.tail.rows > scan.lines:
            look.problem(
                "missing",
                log,
                f"{log} has {times(scan.lines, 'row')} where {mark.tail.rows:,} were written: those at its end were "
                "cut off before the last checkpoint and are lost; restore the log from a backup, or go on without them",
                lost=True,
            )


def _follows(log: str) -> str:
    if log in HISTORIES:
        return "the next owner forgets what it said, and what follows from it; restore it from a backup before that"
    return "readers pass over it, and what it said is lost; restore the line from a backup, or go on without it"


def _say_short(look: Look, log: str, mark: LogMark, size: int) -> None:
    what = (
        f"is missing, and with it the {times(mark.size, 'byte')} that the checkpoint has of it"
        if size < 0
        else f"ends at byte {size}, and the checkpoint has {times(mark.size, 'byte')}"
    )
    follows = (
        "what they said is forgotten; restore it from a backup before an agent opens the directory"
        if log in HISTORIES
        else "the rows there are lost; restore it from a backup, or repair lets it go on after its last whole line, "
        "with the numbers that follow"
    )
    look.problem(
        "short",
        log,
        f"{log} {what}: {follows}",
        repairable=True,
        lost=True,
    )


def _say_changed(look: Look, log: str, mark: LogMark) -> None:
    look.problem(
        "changed",
        log,
        f"{log}: its first {times(mark.size, 'byte')} are not those of the checkpoint, though every line is whole: "
        "somebody edited it, or the disk did; nothing says what stood there; restore it from a backup, or go on with "
        "it as it is",
        lost=True,
    )


def _check_scan(look: Look, log: str, scan: _Scan) -> None:
    if scan.first_bad is not None:
        line, offset, what = scan.first_bad
        more = f" (and {times(scan.bad - 1, 'line')} more)" if scan.bad > 1 else ""
        look.problem("line", log, f"{log}, line {line} (byte {offset}) {what}{more}: {_follows(log)}", lost=True)
    if scan.order is None:
        return
    line, offset, number, wanted = scan.order
    missing, twice = _count(look, log, scan)
    where = f"{log}, line {line} (byte {offset}) has {_key(log)} {number!r} where {wanted} should be"
    if missing is None:
        result = f"{times(scan.out_of_order, 'line')} are out of order"
    elif missing or twice:
        parts = [f"{times(missing, 'number')} missing"] * bool(missing) + [
            f"{times(twice, 'number')} there twice"
        ] * bool(twice)
        result = " and ".join(parts)
    else:
        result = "no number is missing, the lines are in another order"
    look.problem(
        "order",
        log,
        f"{where}; in the whole log: {result}; restore it from a backup, or go on with it as it is",
        lost=bool(missing),
    )


def _count(look: Look, log: str, scan: _Scan) -> tuple[int | None, int]:
    """(numbers missing below the highest, numbers that come more than once); None where they are too many to count."""
    if scan.highest >= _NUMBERS_MAX:
        return None, 0
    seen = bytearray(scan.highest + 1)
    twice = 0
    key = _key(log) or ""
    for row in Lines(look.disk, look.at, log).rows():
        number = row.get(key)
        if type(number) is int and 0 <= number <= scan.highest:
            twice += seen[number] == 1
            seen[number] = min(2, seen[number] + 1)
    return seen.count(0), twice


def _crc(look: Look, log: str, size: int) -> int:
    crc = offset = 0
    fd = look.disk.open(log, READ, look.at)
    try:
        while offset < size and (chunk := look.disk.pread(fd, min(_CHUNK_BYTES, size - offset), offset)):
            crc = zlib.crc32(chunk, crc)
            offset += len(chunk)
    finally:
        look.disk.close(fd)
    return crc


def _check_last_line(look: Look, log: str) -> None:
    """A log without a checkpoint: all that follows its last newline."""
    if look.live:
        return
    for offset, line in Lines(look.disk, look.at, log).raw(_last_newline(look, log), unended=True):
        try:
            whole = isinstance(jsons.loads(line), dict)
        except ValueError:
            whole = False
        what = (
            "lacks its newline: nothing is lost; repair adds it"
            if whole
            else f"is cut off after {times(len(line), 'byte')}: what it said is lost; repair moves it to .dreamlake/cut"
        )
        look.problem("torn", log, f"{log}, its last line (byte {offset}) {what}", repairable=True, lost=not whole)


def _last_newline(look: Look, log: str) -> int:
    """Where the last, unended line begins: the file's end when there is none."""
    fd = look.disk.open(log, READ, look.at)
    try:
        end = look.disk.fstat(fd).size
        start = end
        while start > 0:
            step = min(_CHUNK_BYTES, start)
            found = look.disk.pread(fd, step, start - step).rfind(b"\n")
            if found >= 0:
                return start - step + found + 1
            start -= step
        return 0
    finally:
        look.disk.close(fd)


# ── what stands beyond the checkpoint ───────────────────────────────────────────────────────────────────────────────


def check_tails(look: Look, standing: Standing | None) -> None:
    """Beyond the last commit a log may hold rows that an owner wrote and did not commit before it died: the journals
    bring them again. Anything else was never a row."""
    if standing is None or standing.partial:
        return
    beyond = _beyond(look, standing)
    if look.live:
        return  # its owner is about to say more
    brought: dict[str, Counter[bytes]] = {log: Counter() for log in beyond}
    with look.reading(JOURNALS):
        for out in leftovers(look.disk, look.at, standing.loaded):
            for log in beyond:
                brought[log].update(map(unnumbered, out.lines(log)))
    for log, start in beyond.items():
        with look.reading(log):
            _check_tail(look, log, start, brought[log], standing.stuck)


def _beyond(look: Look, standing: Standing) -> dict[str, int]:
    """The logs that hold more than the commits say, and from which byte on."""
    if standing.loaded.checkpoint is None or damaged_histories(look):
        return {}  # what the commits bring cannot be known
    short = {each.path for each in look.report.findings if each.kind == "short"}
    beyond: dict[str, int] = {}
    for log in _names(look, standing):
        start = standing.differs.get(log)
        if start is not None and log not in short:
            look.problem(
                "differs",
                log,
                f"{log} is not what the commits say from byte {start} on; the journals still hold those rows: repair "
                "moves what stands there to .dreamlake/cut and writes them again",
                repairable=True,
            )
        elif log not in short:
            end = standing.ends.get(log, 0)
            with look.reading(log):
                if look.disk.stat(log, look.at).size > end:
                    beyond[log] = end
    return beyond


def _check_tail(look: Look, log: str, start: int, brought: Counter[bytes], stuck: bool) -> None:
    size = look.disk.stat(log, look.at).size
    known, end = True, start
    for offset, line in Lines(look.disk, look.at, log).raw(start, unended=True):
        key = unnumbered(line)
        end = offset + len(line) + 1
        if end > size:  # half a line: the beginning of a row that is to come
            known = any(left > 0 and row.startswith(key) for row, left in brought.items())
        elif brought[key] > 0:
            brought[key] -= 1
        else:
            known = False
            break
    what = f"{log} holds {times(size - start, 'byte')}"
    edited = any(each.problem and each.path == log for each in look.report.findings)
    if known and end >= size:
        look.note(
            "uncommitted",
            log,
            f"{what} beyond its last commit (its agent was killed): the journals hold those rows, and the next agent "
            "goes on from there",
        )
        return
    if start and _first_bytes(look, log, start - 1)[:1] != b"\n":
        look.problem(
            "edited",
            log,
            f"{log} has a row across byte {start}, where its last committed row should end: it was edited; repair "
            "keeps every line of it, and what the journals bring comes after them, perhaps again",
            repairable=True,
        )
        return
    zeros = "" if _first_bytes(look, log, start).strip(b"\0") else " of zeros"
    if edited:
        whose = "rows may be among them, because the log was changed before that"
    elif stuck:
        whose = "rows are among them, because a commit cannot be replayed"
    else:
        whose = "they are of no call that returned"
    look.problem(
        "tail",
        log,
        f"{what}{zeros} after its last committed row (from byte {start}) that no journal brings: {whose}; repair moves "
        "them to .dreamlake/cut",
        repairable=True,
    )


def _first_bytes(look: Look, log: str, start: int) -> bytes:
    fd = look.disk.open(log, READ, look.at)
    try:
        return look.disk.pread(fd, _CHUNK_BYTES, start)
    finally:
        look.disk.close(fd)
