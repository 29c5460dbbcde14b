"""``dreamlake show`` and ``dreamlake list``: sessions as they stand on disk, whether an agent runs or not."""

from __future__ import annotations

import os
from typing import Any

import click

from dreamlake import config
from dreamlake.cli.terminal import say
from dreamlake.reader.baseline import DamagedView
from dreamlake.reader.session import SessionReader
from dreamlake.reader.verify import sessions_below
from dreamlake.wire import codec, jsons, names

_COLOURS = {"running": "cyan", "finished": "green", "failed": "red", "killed": "yellow"}


def summary(path: str) -> dict[str, Any]:
    """One session as plain values: what ``show --json`` prints."""
    with SessionReader(path) as reader:
        session = reader.session()
        tracks = {}
        for name in reader.tracks():
            last = reader.last_point(name)
            try:
                total = int(reader.track(name).get("totalDataPoints") or 0)
            except (FileNotFoundError, TypeError, ValueError, OverflowError):
                total = 0
            tracks[name] = {"points": total, "last": last}
        owner = reader.owner()
        return {
            "path": os.path.abspath(path),
            "name": session.get("name"),
            "workspace": session.get("workspace"),
            "state": session.get("state"),
            "session": session,
            "parameters": reader.parameters(),
            "tracks": tracks,
            "logs": {"lines": reader.log_count(), "last": reader.last_logs(1)},
            "files": reader.files(),
            "only_in_journals": reader.pending,
            "away": [each.sentence for each in reader.away()],
            "owner": owner,
        }


def _read(path: str) -> dict[str, Any]:
    try:
        return summary(path)
    except FileNotFoundError as error:
        raise click.ClickException(f"cannot show {path}: {error}. `dreamlake list` prints what is there") from None
    except NotADirectoryError:
        raise click.ClickException(f"cannot show {path}: it is not a folder; give a session directory") from None
    except DamagedView as damage:
        raise click.ClickException(
            f"cannot show {path}: {damage}, and there is no history to rebuild it from. Repair the file or move it away"
        ) from None
    except (OSError, codec.Damaged) as error:
        raise click.ClickException(f"cannot show {path}: {error}") from None


def _find(target: str) -> str:
    if os.path.exists(target) or "/" not in target:
        return target
    try:
        workspace, name = target.split("/", 1)
        folders = names.folder_of("workspace", workspace), names.folder_of("name", name)
    except ValueError:
        return target
    path = os.path.join(config.local_root(), *folders)
    return path if os.path.isdir(path) else target


def _value(value: Any) -> str:
    return jsons.encode(jsons.plain_value(value, "value", [])).decode()


def _point(point: dict[str, Any] | None) -> str:
    if point is None:
        return "no points"
    data = point.get("data")
    if not isinstance(data, dict):
        return _value(data)
    return " ".join(f"{key}={_value(value)}" for key, value in data.items())


def _state(state: str | None) -> str:
    return click.style(state or "unknown", fg=_COLOURS.get(state or ""))


@click.command("show")
@click.argument("target")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def show(target: str, as_json: bool) -> None:
    """Show one session: parameters, last values, state.

    TARGET is a session directory, or workspace/name below the default root. Works without an agent: what is still in
    journals is shown too, and nothing is changed.

    \b
    Examples:
      dreamlake show ./experiments/project/my-experiment
      dreamlake show project/my-experiment --json
    """
    found = _read(_find(target))
    if as_json:
        click.echo(jsons.pretty(jsons.plain_value(found, "session", [])), nl=False)
        return
    session = found["session"]
    say(f"{found['workspace']}/{found['name']}  {_state(found['state'])}")
    for key in (
        "description",
        "tags",
        "folder",
        "metadata",
        "created_at",
        "started_at",
        "ended_at",
        "error",
        "killed_ranks",
    ):
        if session.get(key) is not None:
            value = session[key]
            say(f"  {key:<12} {value if isinstance(value, str) else _value(value)}")
    say(f"  {'directory':<12} {found['path']}")
    if found["only_in_journals"]:
        say(f"  {'journals':<12} {found['only_in_journals']} rows are in journals only: no agent has applied them yet")
    for each in found["away"]:
        say(f"  {'journals':<12} {each}")
    if found["parameters"]:
        say("parameters")
        for key, value in sorted(found["parameters"].items()):
            say(f"  {key} = {_value(value)}")
    if found["tracks"]:
        say("tracks")
        for name, track in found["tracks"].items():
            say(f"  {name}  {track['points']} points, last: {_point(track['last'])}")
    logs = found["logs"]
    if logs["lines"]:
        say(f"logs  {logs['lines']} lines")
        for line in logs["last"]:
            say(f"  {line.get('timestamp')} {line.get('level')} {line.get('message')}")
    if found["files"]:
        say("files")
        for record in found["files"]:
            place = f"{str(record.get('path', '')).rstrip('/')}/{record.get('filename')}"
            say(f"  {place}  {record.get('sizeBytes')} bytes")


@click.command("list")
@click.argument("root", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, an object for each session.")
def list_sessions(root: str | None, as_json: bool) -> None:
    """List the sessions below ROOT with their parameters, last values and state.

    ROOT is DREAMLAKE_LOCAL_PATH, else .dreamlake, when not given.

    \b
    Examples:
      dreamlake list
      dreamlake list ./experiments --json
    """
    top = root if root is not None else config.local_root()
    if root is not None and not os.path.isdir(top):
        raise click.ClickException(f"cannot list {top}: there is no such folder")
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    for path in sessions_below(top):
        try:
            found.append(summary(path))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    if as_json:
        click.echo(jsons.pretty(jsons.plain_value(found, "sessions", [])), nl=False)
    else:
        _print_list(found, top)
    for problem in problems:
        say(f"not readable: {problem}", err=True)
    if problems:
        raise SystemExit(1)


def _print_list(found: list[dict[str, Any]], top: str) -> None:
    if not found:
        say(f"no sessions below {top}", err=True)
    for each in found:
        say(f"{each['workspace']}/{each['name']}  {_state(each['state'])}  {each['path']}")
        if each["parameters"]:
            say("  " + " ".join(f"{key}={_value(value)}" for key, value in sorted(each["parameters"].items())))
        for name, track in each["tracks"].items():
            say(f"  {name}  {track['points']} points, last: {_point(track['last'])}")
