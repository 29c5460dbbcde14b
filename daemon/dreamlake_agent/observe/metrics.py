"""Metrics: what this agent is and has done, as Prometheus reads it.

No name of a session, path or user is in them: their number has no bound, and a monitoring system is read by more people
than a session is. ``dreamlake agent status`` has them, for the user alone. Servers are told apart, by scheme, host and
port: the ``METRICS_REMOTES`` with most to be sent, and ``other``.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import dreamlake
from dreamlake import config
from dreamlake.world import processes
from dreamlake_agent.core.agent import Agent
from dreamlake_agent.core.limits import KINDS
from dreamlake_agent.core.session import LIVE, OPENING, RECOVERING, STALLED
from dreamlake_agent.observe.exposition import COUNTER, GAUGE, Family, one

OTHER = "other"
_P = "dreamlake_agent_"


def families(core: Agent, status: dict[str, Any], state_device: int | None) -> list[Family]:
    """All of them; ``status`` is what :meth:`dreamlake_agent.observe.status.Status.describe` says now."""
    return [
        *_process(core, status),
        *_ingest(core, status),
        *_watched(core, status, state_device),
        *_uploads(core, status),
    ]


def _process(core: Agent, status: dict[str, Any]) -> list[Family]:
    times = os.times()
    found = [
        Family(
            f"{_P}info",
            GAUGE,
            "The agent that answers: always 1.",
            ("version", "incarnation"),
            {(dreamlake.__version__, core.incarnation.hex()): 1.0},
        ),
        one(f"{_P}uptime_seconds", GAUGE, "Since this agent started.", status["uptime"]),
        one("process_start_time_seconds", GAUGE, "When it did, in seconds since 1970.", status["started_at"]),
        one("process_cpu_seconds_total", COUNTER, "Processor time that it used.", times.user + times.system),
        one("process_resident_memory_bytes", GAUGE, "Memory that it has.", status["memory"]),
    ]
    limits = processes.descriptors()
    if limits is not None:
        found.append(one("process_open_fds", GAUGE, "Descriptors that it has open.", limits[0]))
        found.append(one("process_max_fds", GAUGE, "Descriptors that it may have open.", limits[1]))
    return found


def _ingest(core: Agent, status: dict[str, Any]) -> list[Family]:
    counts = core.counts
    states = Counter(session.phase for session in core.sessions.values())
    connected = sum(each.peer is not None for session in core.sessions.values() for each in session.clients.values())
    return [
        Family(
            f"{_P}sessions",
            GAUGE,
            "Session directories that it keeps, by state; stalled: in trouble, and tried again.",
            ("state",),
            {(phase,): states[phase] for phase in (OPENING, RECOVERING, LIVE, STALLED)},
        ),
        one(f"{_P}clients", GAUGE, "Processes that are connected.", connected),
        one(f"{_P}points_total", COUNTER, "Points applied.", core.points),
        one(f"{_P}operations_total", COUNTER, "Operations applied, points among them.", core.operations),
        one(f"{_P}refused_operations_total", COUNTER, "Operations that cannot be applied.", counts.refused),
        one(f"{_P}lost_calls_total", COUNTER, "Calls that a journal could not take.", counts.lost),
        one(f"{_P}applied_bytes_total", COUNTER, "Bytes of journals applied.", counts.applied_bytes),
        one(f"{_P}queue_bytes", GAUGE, "Bytes in journals, not yet applied.", status["queue"]),
        one(f"{_P}lag_seconds", GAUGE, "How long the oldest of them have waited.", core.watch.last.lag_seconds),
        one(f"{_P}commits_total", COUNTER, "Commits.", counts.commits),
        one(f"{_P}syncs_total", COUNTER, "Times that commits were made durable, without a checkpoint.", counts.syncs),
        one(f"{_P}checkpoints_total", COUNTER, "Checkpoints.", counts.checkpoints),
        one(f"{_P}sync_failures_total", COUNTER, "Of both, those that a disk did not take.", counts.failed_syncs),
        one(f"{_P}directory_failures_total", COUNTER, "Times a directory was in trouble.", counts.failures),
        one(f"{_P}killed_clients_total", COUNTER, "Processes that vanished without a word.", counts.killed),
    ]


def _watched(core: Agent, status: dict[str, Any], state_device: int | None) -> list[Family]:
    kinds = Counter(each["kind"] for each in status["warnings"])
    free: dict[tuple[str, ...], float] = {}
    inodes: dict[tuple[str, ...], float] = {}
    used = {key[0] for key in core.sessions}
    for disk in core.watch.last.disks:
        whose = [
            *([("state",)] if disk.device == state_device else []),
            *([("sessions",)] if disk.device in used else []),
        ]
        for each in whose:  # of several disks with sessions, the fullest
            free[each] = min(free.get(each, float("inf")), disk.bytes_free)
            if disk.inodes_total:
                inodes[each] = min(inodes.get(each, float("inf")), disk.inodes_free)
    text = "on the disk of the agent's state, and on the fullest with a session that it keeps."
    return [
        Family(
            f"{_P}warnings",
            GAUGE,
            "Warnings that stand, by what they are about.",
            ("kind",),
            {(kind,): kinds[kind] for kind in (*KINDS, "setting")},
        ),
        Family(f"{_P}disk_free_bytes", GAUGE, f"Bytes free {text}", ("disk",), free),
        Family(f"{_P}disk_free_inodes", GAUGE, f"Files that can still be made {text}", ("disk",), inodes),
    ]


def _uploads(core: Agent, status: dict[str, Any]) -> list[Family]:
    waiting: Counter[str] = Counter()
    operations: Counter[str] = Counter()
    files: Counter[str] = Counter()
    lag: dict[str, float] = {}
    for entry in [*status["sessions"], *status["uploads"]]:
        for each in entry["uploads"]:
            place = place_of(each["url"])
            waiting[place] += each["pending_bytes"]
            operations[place] += each["pending_operations"]
            files[place] += each["pending_files"]
            lag[place] = max(lag.get(place, 0.0), each["lag"])
    ended: Counter[tuple[str, str]] = Counter()
    for (url, how), count in core.counts.uploads.items():
        ended[place_of(url), how] += count
    known = {*waiting, *(place for place, _ in ended)}
    named = set(sorted(known, key=lambda each: (-waiting[each], each))[: config.METRICS_REMOTES])
    label = {place: place if place in named else OTHER for place in known}

    def by_remote(name: str, text: str, found: dict[str, float], *, longest: bool = False) -> Family:
        samples: dict[tuple[str, ...], float] = {}
        for place, value in found.items():
            before = samples.get((label[place],), 0.0)
            samples[label[place],] = max(before, value) if longest else before + value
        return Family(f"{_P}upload_{name}", GAUGE, text, ("remote",), samples)

    jobs: dict[tuple[str, ...], float] = {}
    for (place, how), count in ended.items():
        jobs[label[place], how] = jobs.get((label[place], how), 0.0) + count
    return [
        by_remote("backlog_bytes", "Bytes of logs and files that wait to be sent, as measured.", dict(waiting)),
        by_remote("backlog_operations", "Records of logs that wait to be sent, as measured.", dict(operations)),
        by_remote("backlog_files", "Files that wait to be sent, as measured.", dict(files)),
        by_remote("lag_seconds", "How long the oldest of what waits has waited.", lag, longest=True),
        Family(f"{_P}uploads_total", COUNTER, "Jobs of the uploader, by how they ended.", ("remote", "ended"), jobs),
    ]


def place_of(url: str) -> str:
    """A server as a label: without a user, a password, a path or a query.

    >>> place_of("https://ann:hunter2@lake.example.org:8443/team?x=1")
    'https://lake.example.org:8443'
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return OTHER
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{port}" if host else OTHER


def health(core: Agent, status: dict[str, Any]) -> dict[str, Any]:
    """How the agent is. What is wrong is counted and not named, as in metrics."""
    stalled = sum(session.trouble is not None for session in core.sessions.values())
    reasons = []
    if core.is_stopping:
        reasons.append("the agent is stopping")
    if stalled:
        reasons.append(f"{stalled} {'session is' if stalled == 1 else 'sessions are'} in trouble, and tried again")
    return {
        "status": "unavailable" if reasons else "ok",
        "reasons": reasons,
        "version": dreamlake.__version__,
        "pid": os.getpid(),
        "warnings": sorted({each["kind"] for each in status["warnings"]}),
    }


def aged(found: dict[str, Any], age: float) -> dict[str, Any]:
    """That, so many seconds later: an agent that hangs says nothing new."""
    if age < config.HEALTH_SECONDS:
        return found
    reasons = [*found["reasons"], f"the agent has done nothing for {age:.0f} s"]
    return {**found, "status": "unavailable", "reasons": reasons}
