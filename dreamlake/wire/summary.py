"""Summary: what the histories of a session's origins say of it as a whole. PURE.

Each origin has a summary of its own, folded from its ``session.jsonl`` and kept with the session, so that sessions can
be listed without reading their logs. Joined, a field has the value that was given last, by the time of its row; the
session runs while it runs anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dreamlake.wire.state import SESSION_LOG, State, fold_read

FIELDS = ("description", "tags", "folder", "metadata")
# The worst first: what a session was, over all its origins.
_STATES = ("running", "failed", "killed", "finished")


def summarised(origin: str, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of one origin's ``session.jsonl``, from the first on, say.

    ``given`` maps each field to [time, value]; ``session`` is the session as that origin alone would show it.
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
    return {"session": state.session or {}, "given": given}


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
    states = [each.get("state") for each in sessions]
    found["state"] = next((state for state in _STATES if state in states), None)
    found["write_protected"] = any(bool(each.get("write_protected")) for each in sessions)
    for key, choose in (("created_at", min), ("started_at", min), ("updated_at", max), ("ended_at", max)):
        times = [str(each[key]) for each in sessions if each.get(key)]
        found[key] = choose(times) if times else None
    if found["state"] == "running":
        found["ended_at"] = None
    for key in ("error", "killed_ranks"):
        said = [each[key] for each in sessions if each.get(key) and each.get("state") == found["state"]]
        if said:
            found[key] = said[0]
    return found
