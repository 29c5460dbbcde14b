"""``dreamlake verify``: whether session directories are whole, and what is wrong where they are not."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

import click

from dreamlake.cli.terminal import say
from dreamlake.errors import DreamlakeError
from dreamlake.reader.verify import Finding, NotASession, Report, is_session, sessions_below, summary, weigh
from dreamlake.reader.verify import verify as look_at
from dreamlake.wire import jsons

PROBLEMS = 1
NO_SESSION = 2
_BAR_ABOVE_BYTES = 64 << 20  # about what is read in a second
_CUT = ".dreamlake/cut"


@click.command("verify")
@click.argument("paths", metavar="DIR...", nargs=-1, required=True)
@click.option("--repair", is_flag=True, help="Do what the next agent would: recover, apply journals, rebuild views.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, an object for each session.")
def verify(paths: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check session directories and say what is wrong with them.

    DIR is a session directory, or a folder whose sessions are all checked. Checking only reads, whether an agent runs
    or not. Exits with 0 when all is well, 1 when there are problems, 2 when DIR is no session.

    With --repair the directory is recovered as the next agent would do it. Nothing is deleted: what is taken out of a
    file is kept in .dreamlake/cut. A directory that a live agent keeps is left to it.

    \b
    Examples:
      dreamlake verify ./experiments/project/my-experiment
      dreamlake verify ./experiments --json
      dreamlake verify --repair ./experiments/project/my-experiment
    """
    found: list[dict[str, Any]] = []
    worst = 0
    for path in paths:
        sessions = [path] if is_session(path) else sessions_below(path)
        for session in sessions or [path]:
            code, told = _verify(session, repair, quiet=as_json)
            worst = max(worst, code)
            found.append(told)
    if as_json:
        click.echo(jsons.pretty(jsons.plain_value(found, "sessions", [])), nl=False)
    raise SystemExit(worst)


def _verify(path: str, repair: bool, *, quiet: bool) -> tuple[int, dict[str, Any]]:
    try:
        report = _look(path)
    except NotASession as reason:
        say(f"cannot verify: {reason}. `dreamlake list` prints what is there", err=True)
        return NO_SESSION, {"path": path, "error": str(reason)}
    done: list[str] = []
    refused: str | None = None
    if repair and _has_work(report):
        if not quiet:
            _print(report)
        before = _cut(path)
        try:
            _repair(path, done.append)
            report, first = _look(path), report
            done = _what_was_done(path, done, first, report, before)
        except (DreamlakeError, OSError) as reason:
            refused = str(reason)
            say(f"cannot repair: {refused}", err=True)
        if not quiet:
            for sentence in done:
                say(f"  repaired: {sentence}")
    if not quiet and (refused is None or not repair):
        _print(report)
    told = {
        "path": os.path.abspath(path),
        "ok": not report.problems,
        "owner": report.owner,
        "checked": report.counts(),
        "problems": [_plain(each) for each in report.problems],
        "notes": [_plain(each) for each in report.notes],
        **({"repaired": done, "refused": refused} if repair else {}),
    }
    return PROBLEMS if report.problems or refused else 0, told


def _has_work(report: Report) -> bool:
    if report.owner is not None:
        return bool(report.problems)
    return bool(report.problems) or any(each.path.partition("/cut/")[1] == "" for each in report.notes)


def _plain(finding: Finding) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(finding).items() if key != "problem"}


def _print(report: Report) -> None:
    count = len(report.problems)
    head = click.style("ok", fg="green") if not count else click.style(f"{count} problem{'s'[: count > 1]}", fg="red")
    say(f"{report.path}: {head} ({summary(report)})")
    for each in report.problems:
        say(f"  {each.sentence}")
    for each in report.notes:
        say(f"  note: {each.sentence}")


# ── repairing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _repair(path: str, say: Callable[[str], None]) -> None:
    for entry in entry_points(group="dreamlake.repair"):
        entry.load()(path, say)
        return
    raise DreamlakeError("this installation has no agent to do it; install dreamlake again")


def _cut(path: str) -> dict[str, int]:
    """What stands in cut/, and its sizes."""
    try:
        return {entry.name: entry.stat().st_size for entry in os.scandir(os.path.join(path, _CUT))}
    except OSError:
        return {}


def _what_was_done(path: str, said: list[str], first: Report, now: Report, before: dict[str, int]) -> list[str]:
    done: list[str] = []
    if first.waiting > now.waiting:
        done.append(f"{first.waiting - now.waiting} operations that waited in journals were applied")
    left = {(each.kind, each.path) for each in now.problems}
    gone = sum(1 for each in first.problems if (each.kind, each.path) not in left)
    if gone:
        done.append(f"{gone} of {len(first.problems)} problems")
    done += [
        f"{size:,} bytes were set aside in {_CUT}/{name}" for name, size in _cut(path).items() if name not in before
    ]
    return done + said


# ── progress ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _look(path: str) -> Report:
    with _progress(path) as advance:
        return look_at(path, advance=advance)


@contextlib.contextmanager
def _progress(path: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, for a directory of some size."""
    if not sys.stderr.isatty() or (size := weigh(path)) < _BAR_ABOVE_BYTES:
        yield lambda _bytes: None
        return
    done = 0

    with click.progressbar(length=size, label=os.path.basename(os.path.abspath(path)), file=sys.stderr) as bar:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if done >= 1 << 20:
                bar.update(done)
                done = 0

        yield advance
        bar.update(size)
