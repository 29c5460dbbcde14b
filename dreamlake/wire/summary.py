"""Summary: what the histories of a session's origins say of it as a whole. PURE.

Each origin has a summary of its own, folded from its ``session.jsonl`` and kept with the session, so that sessions can
be listed without reading their logs. Joined, a field has the value that was given last, by the time of its row; the
session runs while it runs anywhere, and ends as the worst of its runs. A training of several ranks that was over and
began again elsewhere, as a job does that its scheduler gives other nodes, counts as it ends there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dreamlake.wire.state import SESSION_LOG, State, fold_read

FIELDS = ("description", "tags", "folder", "metadata")
# The worst first: what a session was, over all its origins.
_STATES = ("running", "failed", "killed", "finished")


def summarised(origin: str, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of one origin's ``session.jsonl``, from the first on, say.

    ``given`` maps each field to [time, value]; ``session`` is the session as that origin alone would show it; ``run``
    has the ranks of its present run, as [first, last] of those in a row, and the ``size`` of their world.
    """
    state = State(origin)
    given: dict[str, list[Any]] = {}
    for row in rows:
        if not fold_read(state, SESSION_LOG, row):
            continue
        said = row.get("set")
        if isinstance(said, dict):
            time = str(row.get("time") or said.get("updated_at") or "")
            listed = row.get("given")  # of what an import repeats, that which was new
            fields = listed if isinstance(listed, list) else FIELDS
            given.update(
                {field: [time, said[field]] for field in FIELDS if field in fields and said.get(field) is not None}
            )
    return {"session": state.session or {}, "given": given, "run": _run_of(list(state.run.values()))}


def _run_of(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Empty unless all of them are ranks of one world: whoever has no rank may be anybody, also one who only reads."""
    size = clients[0]["size"] if clients else None
    if not _is_count(size) or not all(_is_count(each["rank"]) and each["size"] == size for each in clients):
        return {}
    return {"ranks": _ranges({each["rank"] for each in clients}), "size": size}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _ranges(ranks: Iterable[int]) -> list[list[int]]:
    """
    >>> _ranges({3, 1, 2, 7})
    [[1, 3], [7, 7]]
    """
    found: list[list[int]] = []
    for rank in sorted(ranks):
        if found and found[-1][1] == rank - 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    return found


def joined(summaries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The session over all origins: fields, times, ``write_protected``, and ``state`` (None when nobody said one).

    >>> a = {"session": {"state": "finished"}, "given": {"folder": ["2026-01-01", "/a"]}}
    >>> b = {"session": {"state": "running"}, "given": {"folder": ["2026-01-02", "/b"]}}
    >>> found = joined({"a": a, "b": b})
    >>> found["state"], found["folder"]
    ('running', '/b')
    """
    found: dict[str, Any] = dict.fromkeys(FIELDS)
    for field in FIELDS:
        values = [
            (summary["given"][field][0], origin, summary["given"][field][1])
            for origin, summary in summaries.items()
            if field in summary.get("given", {})
        ]
        if values:
            found[field] = max(values, key=lambda each: each[:2])[2]
    sessions = [summary.get("session") or {} for summary in summaries.values()]
    found["write_protected"] = any(bool(each.get("write_protected")) for each in sessions)
    for key, choose in (("created_at", min), ("started_at", min), ("updated_at", max), ("ended_at", max)):
        times = [str(each[key]) for each in sessions if each.get(key)]
        found[key] = choose(times) if times else None
    found.update(_ended(_counting([summaries[origin] for origin in sorted(summaries)])))
    if found["state"] == "running":
        found["ended_at"] = None
    return found


def _counting(summaries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The sessions of origins, without those whose run was over and was begun anew elsewhere: as in one directory
    (``wire/state.py``), but that here "later" is what the clocks say."""
    begun = [(_time(each, "started_at"), each["run"]) for each in summaries if each.get("run")]
    begun.sort(key=lambda each: each[0], reverse=True)
    return [each.get("session") or {} for each in summaries if not _is_over(each, begun)]


def _is_over(summary: Mapping[str, Any], begun: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    run, began, ended = summary.get("run"), _time(summary, "started_at"), _time(summary, "ended_at")
    if not run or not began or not ended:
        return False
    # Who vanished had ended before somebody noticed, maybe long before: its ranks are nobody else's meanwhile.
    since = began if _has_vanished(summary["session"]) else max(began, ended)
    for later, other in itertools.takewhile(lambda each: each[0] > since, begun):
        if _is_same(run, other) or (later > ended and run["size"] != other["size"]):
            return True
    return False


def _is_same(run: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a rank has begun again, and not another one of its training: those are started one after the other."""
    pairs = ((one, two) for one in run["ranks"] for two in other["ranks"])
    return bool(run["size"] == other["size"]) and any(one[0] <= two[1] and two[0] <= one[1] for one, two in pairs)


def _has_vanished(session: Mapping[str, Any]) -> bool:
    """Of those who were asked to end there is an error."""
    return session.get("state") == "killed" and not session.get("error")


def _time(summary: Mapping[str, Any], key: str) -> str:
    found = (summary.get("session") or {}).get(key)
    return found if isinstance(found, str) else ""


def _ended(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """State, ``error`` and ``killed_ranks`` out of those of origins: as out of those of clients, when they have one
    directory."""
    states = [each.get("state") for each in sessions]
    state = next((state for state in _STATES if state in states), None)
    found: dict[str, Any] = {"state": state}
    if state not in ("failed", "killed"):
        return found
    killed = [each for each in sessions if each.get("killed_ranks")]
    vanished = [each for each in sessions if _has_vanished(each)]
    vanished += [each for each in killed if each.get("state") == "failed"]
    ranks = {rank for each in (vanished if state == "failed" or vanished else killed) for rank in _listed(each)}
    if ranks:
        found["killed_ranks"] = sorted(ranks)
    errors = [each for each in sessions if each.get("state") == state and each.get("error")]
    if errors and (state == "failed" or not vanished):
        # What failed first is why the others did.
        found["error"] = min(errors, key=lambda each: str(each.get("ended_at") or ""))["error"]
    return found


def _listed(session: Mapping[str, Any]) -> list[int]:
    found = session.get("killed_ranks")
    return [rank for rank in found if _is_count(rank)] if isinstance(found, list) else []
