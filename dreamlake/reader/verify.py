"""Verify: whether a session directory is whole, and in words what is wrong with it.

Pure reading. Under a live agent only what cannot move is judged: the logs up to its commits, views against their
histories, files against the records that still stand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from dreamlake.reader.checks.files import check_files
from dreamlake.reader.checks.finding import Finding, Look, Report, times
from dreamlake.reader.checks.journals import check_journals
from dreamlake.reader.checks.layout import check_layout, check_unrecorded, walk
from dreamlake.reader.checks.logs import check_logs, check_tails
from dreamlake.reader.checks.spools import check_spools
from dreamlake.reader.checks.standing import read_standing
from dreamlake.reader.checks.views import check_views
from dreamlake.reader.owners import OWNER, owner_of
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.spools import SPOOL, Spooled, is_spool
from dreamlake.wire.names import DREAMLAKE, PULLING
from dreamlake.world import processes
from dreamlake.world.disk import REAL_DISK, Disk, read_file

__all__ = ["Finding", "NotASession", "Report", "is_session", "sessions_below", "summary", "verify", "weigh"]

_DEPTH_MAX = 6  # how deep below a folder a session is looked for
_TRIES = 3
_OWN = {"owner", "origin", "checkpoint", "commits.log", "journals", "session.jsonl"}


class NotASession(ValueError):
    """There is no session directory at that path; the message says why."""


def is_session(path: str, disk: Disk = REAL_DISK) -> bool:
    """Whether a folder is a session's, also one that lost its ``session.json``."""
    try:
        at = disk.root(path)
    except OSError:
        return False
    try:
        return _is_session(disk, at)
    finally:
        disk.close(at)


def _is_session(disk: Disk, at: int) -> bool:
    entries = set(disk.listdir(".", at))
    if is_spool(disk, at):
        return False
    if entries & {"session.json", "parameters.json"}:
        return True
    return bool(_OWN & set(disk.listdir(DREAMLAKE, at))) or "logs.jsonl" in disk.listdir("logs", at)


def sessions_below(root: str) -> list[str]:
    """The session directories at or below a folder, sorted. No link is followed, and nothing is looked for within a
    session."""
    return sorted(_below(root, 0))


def _below(folder: str, depth: int) -> Iterator[str]:
    entries: list[os.DirEntry[str]] = []
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        entries = list(found)
    if any(each.name == "session.json" for each in entries) or os.path.isdir(os.path.join(folder, JOURNALS)):
        if not os.path.lexists(os.path.join(folder, SPOOL)):
            yield folder
    elif depth < _DEPTH_MAX and not any(each.name == PULLING for each in entries):
        for each in entries:
            if each.is_dir(follow_symlinks=False):
                yield from _below(each.path, depth + 1)


def verify(path: str, disk: Disk = REAL_DISK, advance: Callable[[int], None] = lambda _bytes: None) -> Report:
    """Look at everything in a session directory. ``advance`` is told of bytes as they are checked.

    Raises :class:`NotASession`.
    """
    try:
        at = disk.root(path)
    except FileNotFoundError:
        raise NotASession(f"{path} is not there") from None
    except NotADirectoryError:
        raise NotASession(f"{path} is not a folder") from None
    except OSError as error:
        raise NotASession(f"{path} cannot be opened ({error.strerror})") from None
    spooled = Spooled(disk, at, os.path.realpath(path))
    try:
        seen: list[Finding] = []
        if not _is_session(disk, at):
            raise NotASession(f"{path} is not a session directory: it has no session.json and no .dreamlake")
        for _try in range(_TRIES):
            before = _owner_record(disk, at)
            report = _verify(path, disk, at, advance, spooled)
            # What looked wrong may have been the work of an agent that came, went, or is there: look again.
            still = before and _owner_record(disk, at) == before and report.owner is None
            if not report.problems or still or report.problems == seen:
                break
            seen = report.problems
        return report
    except OSError as error:
        raise NotASession(f"{path} cannot be read ({error.strerror})") from None
    finally:
        spooled.let_go()
        disk.close(at)


def _owner_record(disk: Disk, at: int) -> bytes:
    try:
        return read_file(disk, OWNER, at, 64 << 10)
    except OSError:
        return b"none"


def _verify(path: str, disk: Disk, at: int, advance: Callable[[int], None], spooled: Spooled) -> Report:
    owner = owner_of(disk, at)
    report = Report(path, owner)
    look = Look(spooled, at, report, owner is not None, advance)
    far = owner is not None and processes.verdict(owner) == processes.UNKNOWN
    if owner is not None:
        report.findings.append(
            Finding(
                "owner",
                f"{DREAMLAKE}/owner",
                "it is being written by a live agent "
                f"(pid {owner.get('pid')} on {owner.get('host')}): checked up to its "
                + ("last checkpoint" if far else "commits"),
                problem=False,
            )
        )
    check_layout(look)
    standing = read_standing(look, far=far)
    check_logs(look, standing)
    check_views(look, standing)
    check_journals(look, standing)
    check_spools(look, spooled)
    check_tails(look, standing)  # and on through the journals
    check_files(look, standing)
    check_unrecorded(look, standing)
    return report


def weigh(path: str, disk: Disk = REAL_DISK) -> int:
    """About how many bytes :func:`verify` will look at."""
    try:
        at = disk.root(path)
    except OSError:
        return 0
    try:
        look = Look(disk, at, Report(path), True, lambda _bytes: None)
        return sum(found.size for place in ("logs", "tracks", "files") for _path, found in walk(look, place))
    finally:
        disk.close(at)


def summary(report: Report) -> str:
    """What was checked, in one line."""
    parts = [
        f"{times(report.logs, 'log')} with {times(report.rows, 'row')}",
        times(report.views, "view"),
        times(report.files, "file"),
        times(report.journals, "journal"),
    ]
    return ", ".join(parts)
