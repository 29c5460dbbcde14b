"""What may happen in a world, and how often. A seed belongs to one profile, and draws the rest from its own chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import dreamlake.journal
import dreamlake.reader.replay
import dreamlake_agent.store.commits
import dreamlake_agent.store.rows
from dreamlake import config
from tests.sim.disk import Faults
from tests.sim.network import NetworkFaults

EVERYDAY = {
    "call": 30.0,
    "link": 25.0,
    "agent": 25.0,
    "work": 8.0,
    "network": 25.0,
    "wait": 10.0,
    "flush": 2.0,
    "sync": 1.0,
    "push": 1.0,
}


@dataclass(frozen=True)
class Profile:
    """Weights of steps, and rates of faults while the storm lasts."""

    name: str
    weights: dict[str, float]
    steps: int = 250
    scene: tuple[str, ...] = ()  # these steps, in this order, in place of a storm
    homes: int = 1  # runtime folders: as many agents may live at once
    clients: int = 4  # at once
    sessions: int = 1  # directories in which they work
    preempt: float = 0.02  # per disk call: somebody else has a turn in the middle
    blind: float = 0.0  # of worlds in which no agent can see a pid, so that locks must say who lives
    lies: float = 0.0  # per verdict: it is the wrong one
    no_cto: float = 0.0  # of worlds with nodes: no close-to-open consistency
    spool: float = 0.0  # of clients: their journals are in a spool
    disk: Faults = field(default_factory=Faults)
    network: NetworkFaults = field(default_factory=NetworkFaults)

    def drawn(self, random: Random) -> Profile:
        """This profile for one seed: some steps never happen in this world, some often."""
        weights = {
            step: weight * random.choice((0.3, 1.0, 1.0, 3.0))
            if step in EVERYDAY
            else weight * random.choice((0.0, 1.0, 3.0))
            for step, weight in self.weights.items()
        }
        return replace(self, weights=weights, preempt=self.preempt * random.choice((0.0, 1.0, 5.0)))


def _with(**more: float) -> dict[str, float]:
    return {**EVERYDAY, **more}


_ARRIVALS = {"arrive": 2.0, "leave": 1.0}
_DEATHS = {
    **_ARRIVALS,
    "kill_client": 1.0,
    "doom_client": 1.0,
    "kill_agent": 1.0,
    "doom_agent": 2.0,
    "start_agent": 1.0,
}
_USERS = {"remove": 0.4, "copy": 0.4, "move": 0.3, "edit": 1.0}

PROFILES = (
    Profile("quiet", _with(**_ARRIVALS, start_agent=1.0, stop_agent=0.3)),
    Profile("crashy", _with(**_DEATHS, stop_agent=0.3, wipe=0.2), homes=2, blind=0.3, spool=0.5),
    Profile(
        "lossy",
        _with(**_ARRIVALS, kill_agent=0.5, doom_agent=0.5, start_agent=1.0),
        homes=2,
        network=NetworkFaults(drop=0.05, duplicate=0.05, delay=0.2, reset=0.02, connect_late=0.1, chaos=True),
    ),
    Profile(
        "full",
        _with(**_DEATHS, fill=1.5, heal=3.0),
        spool=0.3,
        disk=Faults(short_write=0.03, short_read=0.03, eio=0.003),
    ),
    Profile("power", _with(**_DEATHS, power=0.4, doom_power=0.6, sync=3.0, flush=4.0), spool=0.4),
    Profile(
        "unsound",
        _with(**_ARRIVALS, kill_agent=0.5, start_agent=1.0, power=0.5, doom_power=0.5, sync=4.0, flush=6.0),
        spool=0.3,
        disk=Faults(fsync_error=0.1, forget_names=False),
    ),
    Profile("users", _with(**_DEATHS, **_USERS, fill=0.3, heal=2.0), homes=2, sessions=2, spool=0.4),
    Profile(
        "ranks",
        _with(**_DEATHS, fork=2.0, open_another=1.0, pause_client=0.5, pause_agent=0.5, stop_agent=0.3, jump=0.5),
        homes=2,
        sessions=2,
        blind=0.3,
        lies=0.05,
        spool=0.3,
    ),
    Profile(
        "everything",
        _with(
            **_DEATHS,
            **{step: rate / 2 for step, rate in _USERS.items()},
            fill=0.5,
            heal=3.0,
            power=0.2,
            doom_power=0.3,
            stop_agent=0.3,
            jump=0.5,
            fork=0.5,
            open_another=0.5,
            pause_client=0.3,
            pause_agent=0.3,
            sync=2.0,
            flush=3.0,
            wipe=0.2,
        ),
        homes=2,
        sessions=2,
        blind=0.3,
        lies=0.02,
        spool=0.3,
        disk=Faults(short_write=0.02, short_read=0.02, eio=0.001, fsync_error=0.02, forget_names=False),
        network=NetworkFaults(drop=0.02, duplicate=0.02, delay=0.1, reset=0.01, connect_late=0.05),
    ),
)

# Scenes, for what a few hundred storms hardly come to; chance still says who dies when, and what power loss takes.
REPLACED = Profile(
    "replaced",
    {},
    clients=1,
    scene=("start_agent", "rest", "upload", "flush_durable", "rest", "rest", "upload", "turns", "power"),
)
PLACED = Profile(
    "placed", {}, clients=1, scene=("start_agent", "rest", "upload", "rest", "upload", "doom_agent", "turns")
)


# Worlds with a server (tests/sim/uploads.py).
_SENDING = {
    "call": 12.0,
    "flush": 3.0,
    "rest": 1.0,
    "agent_sends": 8.0,
    "dreamlake_sync": 3.0,
    "late": 3.0,
    "kill_uploader": 0.5,
}
_SERVERS = {"kill_server": 1.0, "back_up": 1.0, "restore": 0.5}
UPLOADS = (
    Profile("sent", _with(**_ARRIVALS, start_agent=1.0, stop_agent=0.3, **_SENDING), steps=110),
    Profile("sent anew", _with(**_ARRIVALS, start_agent=1.0, jump=0.5, **_SENDING, **_SERVERS), steps=110, sessions=2),
    Profile(
        "sent from copies",
        _with(**_DEATHS, remove=0.2, copy=1.5, move=0.5, **_SENDING, back_up=0.5, restore=0.3),
        steps=110,
        homes=2,
        sessions=2,
    ),
    Profile(
        "sent without power",
        _with(**_DEATHS, power=1.0, doom_power=0.6, **_SENDING, kill_server=0.5, jump=0.5),
        steps=110,
    ),
    Profile(
        "sent in any case",
        _with(
            **_DEATHS,
            **_SENDING,
            **_SERVERS,
            power=0.3,
            doom_power=0.3,
            remove=0.1,
            copy=0.5,
            move=0.2,
            fork=0.5,
            open_another=0.5,
            jump=0.5,
            fill=0.3,
            heal=3.0,
        ),
        steps=110,
        homes=2,
        sessions=2,
        blind=0.3,
        disk=Faults(short_write=0.02, short_read=0.02, eio=0.001),
        network=NetworkFaults(drop=0.02, duplicate=0.02, delay=0.1, reset=0.01, connect_late=0.05),
    ),
)

# In which agents decide by themselves what is sent when (tests/sim/remotes.py).
_TO_SERVERS = {"wait_for_servers": 1.5, "expire": 0.4, "log_in": 0.8, **_SENDING, "agent_sends": 14.0}
REMOTES = (
    Profile("remote", _with(**_ARRIVALS, start_agent=1.0, stop_agent=0.3, **_TO_SERVERS), steps=110),
    Profile(
        "remote, and they die",
        _with(**_DEATHS, stop_agent=0.3, **_TO_SERVERS, power=0.3, doom_power=0.3, kill_server=1.0, jump=0.5),
        steps=110,
        homes=2,
        sessions=2,
    ),
    Profile(
        "remote, and restored",
        _with(**_ARRIVALS, kill_agent=0.5, start_agent=1.0, **_TO_SERVERS, **_SERVERS),
        steps=110,
        sessions=2,
    ),
    Profile(
        "remote, and copied",
        _with(**_DEATHS, **_TO_SERVERS, remove=0.2, copy=1.0),
        steps=110,
        homes=2,
        sessions=2,
    ),
)

KILLED = Profile("killed", {}, clients=1, scene=("start_agent", "rest", "kill_uploader", "rest"))
NEWER = Profile(
    "newer",
    {},
    clients=1,
    scene=("start_agent", "rest", *("agent_sends",) * 3, "call", "wait_for_servers", "rest", "rest"),
)
SUPERSEDED = Profile(
    "superseded",
    {},
    clients=1,
    scene=(
        "start_agent",
        "rest",
        *("upload", "rest") * 4,
        *("agent_sends", "agent") * 4,
        "upload",
        "rest",
        *("agent_sends", "agent") * 2,
        "rest",
    ),
)
FILES_RESTORED = Profile(
    "files restored",
    {},
    clients=1,
    scene=(
        "start_agent",
        "back_up",
        "rest",
        "upload",
        "rest",
        *("agent_sends", "agent") * 6,
        "restore",
    ),
)

SENT_AT_ONCE = Profile(
    "sent at once",
    {},
    clients=1,
    scene=("start_agent", "rest", "rest", "call", "turns", "dreamlake_sync", "power"),
)
RESTORED = Profile(
    "restored",
    {},
    clients=1,
    scene=("start_agent", "back_up", "rest", "rest", "agent_sends", "restore", "call", "rest", "rest", "agent_sends"),
)


# Worlds of several nodes (tests/sim/nodes.py).
_NODES = {**EVERYDAY, "push": 0.0, "while": 0.6, **_ARRIVALS, "start_agent": 2.0, "flush_durable": 1.0}
NODES = (
    Profile("many nodes", {**_NODES, "stop_agent": 0.3}, clients=5),
    Profile(
        "paused", {**_NODES, "pause_agent": 1.0, "doze_agent": 2.0, "kill_agent": 0.3, "doze_client": 0.5}, clients=4
    ),
    Profile("cut off", {**_NODES, "cut_off": 1.0, "doze_agent": 0.5, "kill_client": 0.5}, clients=4),
    Profile(
        "nodes die",
        {**_NODES, "node_dies": 0.5, "kill_client": 1.0, "kill_agent": 1.0, "doom_agent": 1.0, "sync": 3.0},
        clients=4,
    ),
    Profile("taken over by hand", {**_NODES, "take_over": 0.7, "doze_agent": 1.0, "kill_agent": 0.3}, clients=4),
    Profile(
        "nodes without power",
        {
            **_NODES,
            "power": 0.4,
            "doom_power": 0.6,
            "node_dies": 0.2,
            "doom_agent": 0.5,
            "pause_client": 2.0,
            "flush_durable": 5.0,
            "call": 40.0,
        },
        clients=4,
    ),
    Profile(
        "nodes and everything",
        {
            **_NODES,
            "pause_agent": 0.5,
            "doze_agent": 1.0,
            "doze_client": 0.5,
            "pause_client": 0.3,
            "cut_off": 0.5,
            "node_dies": 0.3,
            "take_over": 0.3,
            "kill_client": 0.5,
            "doom_client": 0.5,
            "kill_agent": 0.5,
            "doom_agent": 0.5,
            "stop_agent": 0.3,
            "jump": 0.3,
            "sync": 2.0,
            "upload": 1.0,
            "open_another": 0.5,
            "fork": 0.3,
        },
        clients=5,
        sessions=2,
        blind=0.2,
    ),
)

# A client of another node is paused before it has synced what its owner has read of it; then the site loses its power.
UNSYNCED = Profile(
    "unsynced",
    {},
    clients=2,
    scene=(
        *("start_agent", "start_agent", "rest", "rest"),
        *("call",) * 6,
        *("pause_client", "wait", "wait", "turns", "turns", "call", "flush_durable"),
        *("turns", "work", "turns", "work", "turns", "power"),
    ),
)


def profile_of(seed: int) -> Profile:
    return PROFILES[seed % len(PROFILES)]


@contextmanager
def changed(values: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Within it these names of these modules stand for these values."""
    before = [(place, name, getattr(place, name)) for place, name, _ in values]
    for place, name, value in values:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


_LIMITS: list[tuple[Any, str, tuple[Any, ...]]] = [
    (dreamlake.journal, "SEGMENT_BYTES", (600, 3000, 16 << 20)),
    (dreamlake.journal, "MARK_BYTES", (100, 400)),
    (dreamlake.reader.replay, "RUN_BYTES", (300, 256 << 10)),
    (dreamlake_agent.store.commits, "ROTATE_BYTES", (300, 2000, 1 << 20)),
    (config, "LOGS_OPEN_MAX", (1, 2, 128)),
    (config, "VIEWS_MAX", (1, 2, 256)),
    (config, "BATCH_BYTES", (200, 1000, 256 << 10)),
    (config, "CREDIT_BYTES", ((200, 500), (300, 2000), (32 << 10, 1 << 20))),
    (config, "CREDIT_BUDGET_BYTES", (1000, 32 << 20)),
    (config, "FOLLOW_BYTES", (200, 1000, 256 << 10)),
    (config, "CHECKPOINT_BYTES", (500, 32 << 20)),
    (config, "TURN_BYTES", (500, 4 << 20)),
]


def limits(random: Random) -> AbstractContextManager[None]:
    """Every limit so small, in most worlds, that a few calls reach it. Each is drawn by its name, so that another one
    leaves these as they are."""
    drawn = random.random()
    return changed([(place, name, Random(f"{drawn} {name}").choice(sizes)) for place, name, sizes in _LIMITS])
