"""``dreamlake agent takeover``: a session directory is taken from its owner, because a person says so."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from dreamlake import config
from dreamlake.reader.verify import is_session
from dreamlake.wire import jsons
from dreamlake.world import processes
from dreamlake.world.terminal import shown
from dreamlake_agent import byhand
from dreamlake_agent.byhand import Case
from dreamlake_agent.sizes import in_words
from dreamlake_agent.store.owner import OwnedElsewhere
from dreamlake_agent.store.takeover import NotYet


@click.command()
@click.argument("path", metavar="DIR")
@click.option("--yes", is_flag=True, help="Do it without asking, and without watching the owner first.")
@click.option("--whatever", is_flag=True, help="Also when logs are not what the checkpoint says.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def takeover(path: str, yes: bool, whatever: bool, as_json: bool) -> None:
    """Take a session directory from its owner, on whatever node that is, and let another agent have it.

    For when the node that had it does not come back, and locks do not say so. Everything that the shared disk has
    stays; an owner that lives after all finds that it is none any more, and its scripts go on through their journals.
    Says what is known of the owner, watches it for a few beats, and asks.

    Exits with 0 also when no takeover is needed, 1 when it could not be done or you said no, 2 when DIR is no session,
    or there is no terminal to ask at and no --yes.

    \b
    Examples:
      dreamlake agent takeover ./experiments/project/my-experiment
      dreamlake agent takeover ./experiments/project/my-experiment --yes
    """
    if not is_session(path):
        raise click.BadParameter(f"{path} is no session directory", param_hint="DIR")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask at: say --yes if it is to be done")
    try:
        case = byhand.look(path)
        if case.is_needed and not yes:
            case = _watched(case)
        _say(sentences(case), quiet=as_json)
        done: tuple[int, bool] | None = None
        if case.is_needed and (yes or click.confirm("Take it over?", err=True)):
            done = byhand.take(path, whatever=whatever)
    except (OwnedElsewhere, OSError, ValueError) as why:
        raise click.ClickException(shown(_reason(path, why))) from None
    if done is not None:
        _say([_outcome(*done)], quiet=as_json)
    if as_json:
        click.echo(jsons.pretty(_plain(case, done)), nl=False)
    if case.is_needed and done is None:
        raise SystemExit(1)


def _watched(case: Case) -> Case:
    if not sys.stderr.isatty():
        return byhand.watch(case)

    def told(left: float) -> None:
        click.echo(f"\rwatching {shown(case.owner)} for a sign of life: {left:3.0f} s ", nl=False, err=True)

    try:
        return byhand.watch(case, told=told)
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def _say(lines: list[str], *, quiet: bool) -> None:
    for line in lines:
        click.echo(shown(line), err=quiet)


def sentences(case: Case) -> list[str]:
    """What is known, and what would happen."""
    if not case.record or case.record.get("released"):
        return [f"{case.path} has no owner: the next agent that is needed takes it", "No takeover is needed"]
    if not case.is_needed:
        return [
            f"{case.path} was owned by {case.owner}, which is gone: the next agent on this node takes it",
            "No takeover is needed",
        ]
    begun = ", which has begun to take it over from another one" if case.is_begun else ""
    return [
        f"{case.path} is owned by {case.owner} (epoch {case.epoch}){begun}",
        f"  its lock is {_LOCKS[case.lock]}",
        f"  {_beats(case)}",
        *([f"  {_life(case)}"] if case.is_here else []),
        f"A takeover begins epoch {case.epoch + 1} and copies {in_words(case.copies)} of logs:",
        "  nothing of what that owner still does comes to the directory, and its scripts go on through their journals",
        "  rows that no checkpoint covers may get other indexes than scripts were told",
    ]


_LOCKS = {
    byhand.HELD: "held: it lives, or its file system does not know better",
    byhand.FREE: "free as seen from here, which says something only where locks reach other nodes",
    byhand.NO_LOCKS: "not to be had: this file system has none",
}


def _beats(case: Case) -> str:
    if case.has_beaten:
        return "a sign of life has come while you waited: IT LIVES. End it there: dreamlake agent stop"
    if case.silent is None:
        return "nobody has watched for signs of life"
    gone = f"after {config.gone_seconds():g} s, and with its lock free, another agent takes it by itself"
    return f"no sign of life within {case.silent:.0f} s (one comes every {config.beat_seconds():g} s); {gone}"


def _life(case: Case) -> str:
    if case.verdict == processes.ALIVE:
        pid = case.record.get("pid")
        state = processes.state(pid) if type(pid) is int else None
        stopped = f"; it is stopped: `kill -CONT {pid}` lets it go on" if state == "T" else ""
        return f"it is of this node, and its process is there{stopped}"
    if case.verdict == processes.GONE:
        return "it is of this node, and its process is gone"
    return "it is of this node, in a container that cannot be looked into"


def _outcome(epoch: int, is_asked: bool) -> str:
    if is_asked:
        return f"taken over in epoch {epoch}; the agent of this node has been asked to look at it"
    return f"taken over in epoch {epoch}; no agent runs here: the next that is needed takes it (dreamlake agent start)"


def _reason(path: str, why: Exception) -> str:
    if isinstance(why, OwnedElsewhere):
        return f"{path} was taken by another one meanwhile: {why}"
    if isinstance(why, NotYet):
        return (
            f"{path} was not taken over: {why.filename} is not what the checkpoint says. Where this node's caches are "
            "old, that passes: try again in a minute. Where somebody has changed the file: --whatever"
        )
    if isinstance(why, OSError):
        return f"cannot take over {path}: {why.strerror or why}; try again"
    return str(why)


def _plain(case: Case, done: tuple[int, bool] | None) -> dict[str, Any]:
    return {
        "path": os.path.abspath(case.path),
        "owner": case.record or None,
        "lock": case.lock,
        "seen": case.verdict,
        "beaten": case.has_beaten,
        "silent_seconds": case.silent,
        "log_bytes": case.copies,
        "needed": case.is_needed,
        "done": done is not None,
        "epoch": done[0] if done else None,
        "agent_asked": done[1] if done else None,
    }
