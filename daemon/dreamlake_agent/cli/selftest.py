"""``dreamlake agent selftest``: does a shared file system keep what Dreamlake asks of it?"""

from __future__ import annotations

import os
import sys

import click

from dreamlake import config
from dreamlake.wire import jsons
from dreamlake.world import processes
from dreamlake.world.terminal import shown
from dreamlake_agent.selftest import meeting, run, sight
from dreamlake_agent.selftest.finding import Finding, conclusion, lines_of
from dreamlake_agent.selftest.meeting import NobodyCame, Side
from dreamlake_agent.selftest.post import Parted

NEEDED_FAILS = 1
_INTERRUPTED = 130


@click.command()
@click.argument("place", metavar="DIR")
@click.option("--alone", is_flag=True, help="Two processes of this node; says nothing about two nodes.")
@click.option("--wait", type=click.FloatRange(min=1), default=meeting.WAIT_SECONDS, help="Seconds for the other node.")
@click.option(
    "--settle",
    type=click.FloatRange(min=0, max=600),
    default=sight.SETTLE_SECONDS,
    help="Seconds that files are left alone before it is timed how soon a change is seen.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def selftest(place: str, alone: bool, wait: float, settle: float, as_json: bool) -> None:
    """Try on a shared file system what Dreamlake asks of one, between two nodes.

    DIR is a folder on it that both nodes have. Run the same command on both; they find each other in DIR. It takes
    about a minute, and removes what it made. Caches grow older the longer a file is left alone: --settle 100 finds the
    oldest.

    Exits with 0 when all that Dreamlake needs holds, 1 when something does not or the other node did not come, 2 when
    DIR is no folder that can be written to.

    \b
    Examples:
      dreamlake agent selftest /shared/experiments          (on two nodes)
      dreamlake agent selftest /shared/experiments --alone
    """
    place = os.path.abspath(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{place} is no folder that can be written to", param_hint="DIR")
    try:
        config.gone_seconds()
    except ValueError as error:
        raise click.UsageError(f"DREAMLAKE_GONE: {error}") from None
    run.ends_as_asked()
    made: list[str] = []
    show = _Show(as_json)
    why = "it was interrupted"
    side: Side | None = None
    try:
        if alone:
            with run.alone(place, settle, made) as side:
                show.begin(side, alone)
                findings = run.run(side, settle, show.told, show.found)
        else:
            side = meeting.meet(place, wait, show.say, made)
            show.begin(side, alone)
            findings = run.run(side, settle, show.told, show.found)
        side = None
    except KeyboardInterrupt:
        show.say("interrupted")
        raise SystemExit(_INTERRUPTED) from None
    except (Parted, NobodyCame, OSError) as error:
        why = str(error)
        raise click.ClickException(f"could not go on: {shown(why)}") from None
    finally:
        if side is not None:
            meeting.say_goodbye(side, why)
        for folder in made:
            if not meeting.remove(folder):
                show.say(f"{folder} could not be removed: do so when the other side has ended")
    show.end(findings)
    if any(each.is_bad for each in findings):
        raise SystemExit(NEEDED_FAILS)


class _Show:
    """Findings as they come; with JSON, all at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._nodes: list[str] = []
        self._alone = False

    def say(self, text: str) -> None:
        click.echo(shown(text), err=True)

    def told(self, name: str) -> None:
        if sys.stderr.isatty() and not self._as_json:
            click.echo(f"\r{name} … ", nl=False, err=True)

    def begin(self, side: Side, alone: bool) -> None:
        nodes = [processes.host(), str(side.other.get("host"))]
        self._nodes = nodes if side.is_first else nodes[::-1]
        self._alone = side.alone
        if side.alone:
            self.say(
                "two processes of one node: they share its caches, so this tells nothing about two nodes"
                + ("" if alone else " (run it on another one)")
            )
        else:
            self.say(f"between {self._nodes[0]} (first) and {self._nodes[1]} (second)")

    def found(self, finding: Finding) -> None:
        if self._as_json:
            return
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
        for line in lines_of([finding]):
            click.echo(shown(line))

    def end(self, findings: list[Finding]) -> None:
        if not self._as_json:
            click.echo(conclusion(findings))
            return
        told = {
            "nodes": self._nodes,
            "two_nodes": not self._alone,
            "ok": not any(each.is_bad for each in findings),
            "findings": [each.plain() for each in findings],
        }
        click.echo(jsons.pretty(told), nl=False)
