"""``dreamlake sync``: send session directories to a server, now, in the foreground."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from dreamlake.errors import DreamlakeError
from dreamlake.reader.commits import CHECKPOINT
from dreamlake.reader.segments import JOURNALS
from dreamlake.reader.session import owner_of
from dreamlake.reader.verify import is_session
from dreamlake.wire import jsons
from dreamlake.wire.names import DREAMLAKE
from dreamlake.world.disk import REAL_DISK
from dreamlake_agent.remote.lake import Lake, NotLetIn, Unreachable
from dreamlake_agent.remote.source import Source
from dreamlake_agent.remote.upload import Outcome, Upload
from dreamlake_agent.repair import Refused, repair
from dreamlake_agent.sizes import in_words

NOT_ALL = 1
NO_SESSION = 2
_DEPTH_MAX = 6
_BAR_ABOVE_BYTES = 8 << 20


@click.command("sync")
@click.argument("paths", metavar="DIR...", nargs=-1, required=True)
@click.option("--remote", metavar="URL", required=True, help="The server.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, an object for each session.")
def sync(paths: tuple[str, ...], remote: str, dry_run: bool, as_json: bool) -> None:
    """Send session directories to a server.

    DIR is a session directory, or a folder whose sessions are all sent. The server is asked what it has, and only what
    it lacks is sent: again and again, from any machine that sees the directory, also while a training writes into it,
    everything arrives once. What an agent has not yet made durable is sent the next time.

    The token comes from DREAMLAKE_API_KEY. Exits with 0 when all of it is on the server, 1 when something is not, 2
    when DIR is no session.

    \b
    Examples:
      dreamlake sync ./experiments --remote https://lake.example.org
      dreamlake sync ./experiments/project/my-experiment --remote http://127.0.0.1:3000 --dry-run
    """
    found: list[dict[str, Any]] = []
    worst = 0
    try:
        with Lake(remote, os.environ.get("DREAMLAKE_API_KEY"), lambda text: click.echo(text, err=True)) as lake:
            for session in _sessions(paths):
                code, told = _sync(session, lake, dry_run=dry_run, quiet=as_json)
                worst = max(worst, code)
                found.append(told)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--remote") from None
    except (Unreachable, NotLetIn) as error:
        hint = "; set DREAMLAKE_API_KEY to a token that `dreamlake server token create` has made"
        raise click.ClickException(f"{error}{hint if isinstance(error, NotLetIn) else ''}") from None
    if as_json:
        click.echo(jsons.pretty(found), nl=False)
    raise SystemExit(worst)


def _sessions(paths: tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        if is_session(path):
            yield path
            continue
        below = _below(path)
        if not below:
            raise click.exceptions.Exit(_none(path))
        yield from below


def _none(path: str) -> int:
    click.echo(f"cannot sync: {path} is no session directory, and has none below it", err=True)
    return NO_SESSION


def _below(path: str, depth: int = 0) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(path), key=lambda each: each.name):
            if entry.is_dir(follow_symlinks=False) and entry.name != DREAMLAKE:
                if is_session(entry.path):
                    found.append(entry.path)
                elif depth < _DEPTH_MAX:
                    found += _below(entry.path, depth + 1)
    return found


def _sync(path: str, lake: Lake, *, dry_run: bool, quiet: bool) -> tuple[int, dict[str, Any]]:
    told: dict[str, Any] = {"path": os.path.abspath(path)}
    outcome = Outcome()
    try:
        if not dry_run:
            _settle(path, outcome)
        source = Source(REAL_DISK, path)
    except (DreamlakeError, OSError) as error:
        click.echo(f"cannot sync: {error}", err=True)
        return NOT_ALL, {**told, "error": str(error)}
    name = f"{source.workspace}/{source.name}"
    told["session"] = name
    try:
        upload = Upload(source, lake)
        behind, forks = upload.status()
        if dry_run:
            told |= {"behind": behind, "forks": forks}
            if not quiet:
                click.echo(
                    f"{name}: {in_words(behind)} of logs would be sent" if behind else f"{name}: logs are up to date"
                )
            return (NOT_ALL if forks else 0), told
        with _progress(name, behind) as upload.advance:
            sent = upload.run()
    except (Unreachable, NotLetIn):
        raise
    except (DreamlakeError, OSError) as error:
        click.echo(f"{name}: {error}", err=True)
        return NOT_ALL, {**told, "error": str(error)}
    finally:
        source.close()
    sent.problems = outcome.problems + sent.problems
    if not quiet:
        click.echo(f"{name}: {_summary(sent)}")
    for problem in sent.problems:
        click.echo(f"  {problem}", err=True)
    return (NOT_ALL if sent.problems else 0), told | dataclasses.asdict(sent)


def _settle(path: str, outcome: Outcome) -> None:
    """Where nobody owns the directory: apply what waits in its journals, so that it is sent, too."""
    at = REAL_DISK.root(path)
    try:
        waiting = bool(REAL_DISK.listdir(JOURNALS, at)) or CHECKPOINT.rpartition("/")[2] not in REAL_DISK.listdir(
            DREAMLAKE, at
        )
        owned = owner_of(REAL_DISK, at) is not None
    finally:
        REAL_DISK.close(at)
    if waiting and not owned:
        try:
            repair(path, lambda _text: None)
        except (Refused, OSError) as error:  # what a checkpoint covers can be sent all the same
            outcome.problems.append(f"what waits in journals could not be applied, and is not sent: {error}")


def _summary(sent: Outcome) -> str:
    if not sent.records and not sent.files:
        return "up to date" if not sent.problems else "nothing sent"
    parts = [f"{sent.records:,} records ({in_words(sent.bytes)})"] if sent.records else []
    parts += [f"{sent.files:,} file{'s'[: sent.files != 1]} ({in_words(sent.file_bytes)})"] if sent.files else []
    return "sent " + ", ".join(parts)


@contextlib.contextmanager
def _progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, for logs of some size."""
    if not sys.stderr.isatty() or size < _BAR_ABOVE_BYTES:
        yield lambda _bytes: None
        return
    with click.progressbar(length=size, label=name, file=sys.stderr) as bar:
        yield bar.update
