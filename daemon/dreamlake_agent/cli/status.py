"""Status, for people: an agent's report as lines. Also of an agent of another version, which may say less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dreamlake_agent.sizes import in_words

SESSIONS_WHOLE = 10  # so many sessions are told in whole; of more, each is a line unless there is something to say

Lines = Iterator[str]


def lines_of(found: dict[str, Any], difference: str | None = None) -> Lines:
    """``difference``: a sentence about its version."""
    yield f"agent {found['version']}, pid {found['pid']} on {found['host']}, up {_seconds(found['uptime'])}"
    if difference is not None:
        yield f"  {difference}"
    for warning in found.get("warnings", ()):
        since = "" if warning["seconds"] is None else f" (for {_seconds(warning['seconds'])})"
        yield f"  warning: {warning['text']}{since}"
    yield f"  memory   {in_words(found['memory'])}"
    behind = f", {_seconds(found['lag'])} behind" if found.get("lag", 0) >= 1 else ""
    yield f"  queue    {in_words(found['queue'])} in journals, not yet applied{behind}"
    yield f"  points   {found['points']:,} ({found['points_per_second']:,} per second)"
    yield f"  socket   {found['endpoint']}"
    yield f"  log      {found['log']}"
    if found.get("metrics"):
        yield f"  metrics  {found['metrics']}"
    if found["last_error"]:
        yield f"  last error  {found['last_error']}"
    yield from _sessions(found)
    for left in found["uploads"]:
        yield f"{left['path']}  not open, to be sent"
        yield from _uploads(left["uploads"])


def _sessions(found: dict[str, Any]) -> Lines:
    sessions = found["sessions"]
    if not sessions:
        yield "no session is open"
    elif len(sessions) > SESSIONS_WHOLE:
        states = Counter("in trouble" if each["trouble"] else each["state"] or each["phase"] for each in sessions)
        yield f"{len(sessions)} sessions: {', '.join(f'{count} {state}' for state, count in states.most_common())}"
    for session in sessions:
        yield from _session(session, found["version"], in_whole=len(sessions) <= SESSIONS_WHOLE)


def _session(session: dict[str, Any], version: str, *, in_whole: bool) -> Lines:
    name = f"{session['workspace']}/{session['name']}" if session["name"] else session["path"]
    ranks = f", ranks {_ranks(session['ranks'])}" if session["ranks"] else ""
    head = f"{name}  {session['state'] or session['phase']}, {session['clients']} open{ranks}"
    counts = f"{session['points']:,} points, {in_words(session['queue_bytes'])} queued"
    matters = [*_matters(session, version), *_uploads(session["uploads"], all_of_them=in_whole)]
    if not in_whole:
        yield f"{head}, {counts}"
        if matters:
            yield f"  {session['path']}"
    else:
        yield head
        yield f"  {session['path']}"
        yield f"  {counts}"
    yield from matters


def _matters(session: dict[str, Any], version: str) -> Lines:
    for each in session.get("versions", ()):
        if each["version"] != version:
            yield f"  {each['clients']} of version {each['version'] or 'before 0.4.0'}"
    if session["refused"]:
        yield f"  {session['refused']} operations refused"
    if session["lost"]:
        yield f"  {session['lost']} calls lost: a journal could not take them"
    if session["trouble"]:
        yield f"  trouble: {session['trouble']}"


def _uploads(uploads: list[dict[str, Any]], *, all_of_them: bool = True) -> Lines:
    for each in uploads:
        problems = [*([each["last_error"]] if each["last_error"] else []), *each["problems"]]
        if each["state"] == "sent" and not problems and not all_of_them:
            continue
        remote = each["url"] if each["user"] is None else f"{each['url']} as {each['user']}"
        said = [f"  to {remote}: {each['state']}"]
        if each["state"] != "sent":
            files = f", {each['pending_files']} files" if each["pending_files"] else ""
            said.append(f"{each['pending_operations']} operations{files}, {in_words(each['pending_bytes'])} to go")
            said.append(f"{_seconds(each['lag'])} behind")
        if each["next_attempt"] is not None:
            said.append(f"next attempt in {_seconds(each['next_attempt'])}")
        yield ", ".join(said)
        for problem in problems:
            yield f"    {problem}"


def _ranks(ranks: list[int]) -> str:
    """
    >>> _ranks([0, 1, 2, 3, 5, 7, 8])
    '0-3,5,7-8'
    """
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _seconds(seconds: float) -> str:
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    return f"{days}d {hours}h" if days else f"{hours}h {minutes}m" if hours else f"{minutes}m {whole % 60}s"
